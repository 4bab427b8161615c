/*
 * Request logs: `run --request-log DIR` writes one line of JSON per request that has ended, a file
 * per task. Written here, beside the server, from its session's records; a server that was killed
 * has left everything needed. One thread.
 */
#ifndef PM_CMD_REQUEST_LOG_H
#define PM_CMD_REQUEST_LOG_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "reader/requests.h"

struct pm_request_log;

struct pm_request_log_options {
    const char *dir;      /* made if it is not there */
    const char *task;     /* of every request; NULL: what their ids name (view/request_line.h) */
    uint64_t limit_bytes; /* of a file; then it becomes <task>.1.jsonl, .1 becomes .2 and so on */
    unsigned keep;        /* such older files of a task */
    mode_t mode;
};

/* 0, or -PM_E… with a sentence: the folder cannot be written, the task is no file's name. */
PM_MUST_USE int pm_request_log_open(struct pm_request_log **ret_log,
                                    const struct pm_request_log_options *options,
                                    struct pm_error *err);

/* A line more; pm_follow_fn, arg is the log. Lines wait in memory until pm_request_log_flush. A
 * failure is kept. */
void pm_request_log_add(const struct pm_session *session, unsigned engine,
                        const struct pm_request *request, void *log);

/* Writes what waits. The first failure since the last call, once: -PM_E… with a sentence; lines
 * that could not be written are kept for another try while they fit. */
PM_MUST_USE int pm_request_log_flush(struct pm_request_log *log, struct pm_error *err);

/* Flushes and frees. *ret_lines: written in all; *ret_lost: that could not be. */
PM_MUST_USE int pm_request_log_close(struct pm_request_log *log, uint64_t *ret_lines,
                                     uint64_t *ret_lost, struct pm_error *err);

#endif
