/*
 * The program's side of the control pages (session/control.h): finds those of this host's processes
 * that the kernel lets us open, asks, and waits for answers. Used by `set`, `start` and `stop`; one
 * thread. A page is mapped as long as its struct is kept; the process is never stopped, signalled
 * or traced.
 */
#ifndef PM_LIVE_CONTROL_H
#define PM_LIVE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "session/control.h"

enum pm_control_state {
    PM_CONTROL_ASKED,  /* no answer yet */
    PM_CONTROL_DONE,   /* answer holds what the process said */
    PM_CONTROL_QUEUED, /* heard; the main thread sleeps and takes it up when it runs Python again */
    PM_CONTROL_SILENT, /* not within the time: why says what is known */
    PM_CONTROL_GONE,   /* the process ended meanwhile */
    PM_CONTROL_REFUSED /* could not be asked: why */
};

struct pm_control_process {
    uint32_t pid; /* as we see it */
    uint64_t start_ticks;
    char comm[16];
    int fd;
    struct pm_control_page *page;
    char status[PM_CONTROL_STATUS_MAX]; /* as of the last look */
    /* of the newest request */
    uint32_t number;
    enum pm_control_state state;
    char answer[PM_CONTROL_ANSWER_MAX];
    char why[160];
    /* of the wait: what its main thread had done when it was last seen to move */
    uint64_t moves, still_since_ns;
};

struct pm_controls {
    struct pm_control_process *rows;
    size_t count, capacity;
};

/* All pages that may be opened. 0 or -PM_ENOMEM, -PM_EIO. */
PM_MUST_USE int pm_controls_find(struct pm_controls *ret_controls);
void pm_controls_release(struct pm_controls *controls);

/* Keeps the processes of one server: those of the same group as this one. */
void pm_controls_keep_group(struct pm_controls *controls, const struct pm_control_process *like);

/* The page of a process, or of the nearest of its descendants that has one; NULL: none. */
struct pm_control_process *pm_controls_of_pid(const struct pm_controls *controls, uint32_t pid);

/* Why the page of a process cannot be had: a sentence without its full stop, "" where it can. */
void pm_control_explain(uint32_t pid, char *out, size_t size);

/* Reads the status again. The value of a key (`state`, `session`, `birth`, `detail`, `roles`) into
 * out; false where there is none. */
void pm_control_look(struct pm_control_process *process);
bool pm_control_value(const struct pm_control_process *process, const char *key, char *out,
                      size_t size);
bool pm_control_records(const struct pm_control_process *process);

/* The n-th line of a text whose first word is `key`: the rest of the line. */
bool pm_control_line(const char *text, const char *key, size_t n, char *out, size_t size);

/* Asks one process; the answer is waited for with pm_controls_wait. */
void pm_control_ask(struct pm_control_process *process, const char *request);

/* Waits until every process that was asked has answered, is found asleep, or the time is up. */
void pm_controls_wait(struct pm_controls *controls, uint64_t limit_ns);

#endif
