/*
 * Traced functions as tables, flame graphs and timelines. Called by the program (src/cmd) on its
 * main thread.
 *
 * A function's self time is that in which it ran and none that it called did (traced ones: time in
 * others, and in C, is the caller's); its total adds those, recursion counted once. A coroutine's
 * time between an await and its resumption is nobody's.
 */
#ifndef PM_VIEW_FUNCTIONS_H
#define PM_VIEW_FUNCTIONS_H

#include <stdio.h>

#include "base/buf.h"
#include "reader/functions.h"

enum pm_function_sort {
    PM_FUNCTION_BY_SELF,
    PM_FUNCTION_BY_TOTAL,
    PM_FUNCTION_BY_CALLS,
    PM_FUNCTION_BY_MAX,
    PM_FUNCTION_BY_NAME,
};

struct pm_function_how {
    enum pm_function_sort sort;
    size_t limit; /* rows; 0: all */
    long pid;     /* of one process; 0: all */
    bool colour;
};

/* One function, over all processes that are shown. */
struct pm_function_sum {
    const struct pm_function *function;
    uint64_t calls, resumes, raised;
    uint64_t self_ns, total_ns, max_ns;
};

struct pm_function_set {
    struct pm_functions *tables;
    const struct pm_process **processes; /* of each table */
    size_t n;
    struct pm_function_sum *sums; /* sorted */
    size_t n_sums;
    uint64_t calls, self_ns; /* over all sums */
};

/* Reads the tables of a session. -PM_ENOTFOUND with a sentence where no process traced functions,
 * which says why where that is known. */
PM_MUST_USE int pm_function_set_read(const struct pm_session *session,
                                     const struct pm_function_how *how,
                                     struct pm_function_set *ret_set, struct pm_error *err);
void pm_function_set_release(struct pm_function_set *set);

/* Each writes to out; a failure of the stream shows there. */
PM_MUST_USE int pm_view_functions_text(const struct pm_session *session,
                                       const struct pm_function_how *how, FILE *out,
                                       struct pm_error *err);
PM_MUST_USE int pm_view_functions_csv(const struct pm_session *session,
                                      const struct pm_function_how *how, FILE *out,
                                      struct pm_error *err);
PM_MUST_USE int pm_view_functions_json(const struct pm_session *session,
                                       const struct pm_function_how *how, FILE *out,
                                       struct pm_error *err);

/* "process;thread;outer;inner microseconds" a line, the time that the innermost ran itself: for
 * flamegraph.pl, speedscope, inferno. */
PM_MUST_USE int pm_view_functions_folded(const struct pm_session *session,
                                         const struct pm_function_how *how, FILE *out,
                                         struct pm_error *err);

/* The recorded calls as Chrome's trace events (complete events, "ph":"X"), for Perfetto and
 * chrome://tracing; times count from the session's start. */
PM_MUST_USE int pm_view_functions_chrome(const struct pm_session *session,
                                         const struct pm_function_how *how, FILE *out,
                                         struct pm_error *err);

/* ---- between these files ---- */

/* "engine", "engine+worker", … and the pid: "engine 4242". */
void pm_function_process_name(const struct pm_process *process, char separator, char *out,
                              size_t size);
/* "module.name", for a thread its name. Returns its length, less than size. */
size_t pm_function_full_name(const struct pm_function *function, char *out, size_t size);
#define PM_FUNCTION_FULL_NAME (2 * (PM_FUNCTION_TEXT_LONGEST + 1) + 32)
/* Hands what the buffer holds to out. 0, or the buffer's failure. */
PM_MUST_USE int pm_function_put(struct pm_buf *buf, FILE *out);

#endif
