/*
 * A part of a session: the last so many seconds, some steps, or one request's life. What `--last
 * 30s`, `--steps A:B` and `--request ID` of the reports and of `explain` mean. Used by the program
 * and by whatever makes a report, one thread.
 *
 * A window is parsed against a session and then laid over it: from then on everything that is read
 * from this pm_session is of the window alone, totals included, so that no view has to know of it.
 * A span of time becomes a range of steps for each engine (those whose schedule() began in it), so
 * that the facts of a step are all in or all out.
 */
#ifndef PM_VIEW_WINDOW_H
#define PM_VIEW_WINDOW_H

#include "reader/reader.h"
#include "reader/requests.h"

/* The words on the command line; NULL: not given. At most one of them. */
struct pm_window_options {
    const char *last;    /* "30s", "500ms", "5m", "2h", "1d"; a bare number counts seconds */
    const char *steps;   /* "A:B", both included; "A:", ":B" and "A" as well */
    const char *request; /* an id, or the start of just one */
};

struct pm_window {
    bool whole;              /* no window: the whole session */
    uint64_t from_ns, to_ns; /* CLOCK_MONOTONIC, from <= t < to; 0, UINT64_MAX: open */
    bool by_steps;           /* the next two count: numbers of steps, both included */
    uint64_t from_step, to_step;
    char request[PM_REQUEST_ID_MAX];    /* "": no request was asked for */
    char words[PM_REQUEST_ID_MAX + 64]; /* "the last 30 s": for a heading; "" for the whole */
};

/* Parses the options against the session: the newest moment of it, the life of the request. 0 (also
 * with no option: *ret_window is the whole), -PM_EINVALID (a value that is none, two options at
 * once), -PM_ENOTFOUND (no such request, no such step), each with a sentence. */
PM_MUST_USE int pm_window_parse(const struct pm_session *session,
                                const struct pm_window_options *options,
                                struct pm_window *ret_window, struct pm_error *err);

/* Lays the window over the session, for good; NULL or the whole: nothing is done. Laying the same
 * one again is fine, another one is -PM_EINVALID. */
PM_MUST_USE int pm_window_apply(const struct pm_session *session, const struct pm_window *window,
                                struct pm_error *err);

#endif
