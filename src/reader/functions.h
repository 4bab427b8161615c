/*
 * The traced functions of a process, read from the table beside its record file
 * (session/function_facts.h), also while it is being counted in; total on any bytes. Pure C, one
 * thread; the texts live as long as the struct.
 */
#ifndef PM_READER_FUNCTIONS_H
#define PM_READER_FUNCTIONS_H

#include "reader/reader.h"
#include "session/function_facts.h"

/* A function, or (flags PM_FUNCTION_THREAD) a thread, whose `line` is its number. */
struct pm_function {
    const char *module, *name, *file; /* "" where not known; UTF-8, no control characters */
    uint32_t line;
    uint32_t flags; /* enum pm_function_flags */
};

/* A call path. Parents come before their children, but for paths of their own, whose parent is 0:
 * threads and what is counted by function only. */
struct pm_function_path {
    uint32_t parent, row;
    uint64_t calls, resumes, raised;
    uint64_t self_ns;
    uint64_t total_ns; /* itself and all below it */
    uint64_t max_ns;
    bool repeated; /* an outer path is of the same function: its total is within that one's */
};

struct pm_functions {
    uint32_t pid;
    uint32_t by; /* enum pm_function_by */
    uint64_t start_ns, last_ns;
    uint64_t flat_calls, lost_calls, records, short_ns, unended;
    uint64_t paused_ns; /* of pauses that are over */
    uint32_t pauses;
    char filter[PM_FUNCTION_FILTER];
    struct pm_function *rows; /* row 0 is nothing */
    uint32_t n_rows;
    struct pm_function_path *paths; /* path 0 is nothing */
    uint32_t n_paths;
    uint32_t n_tree;    /* paths below this are nodes of the same number */
    uint32_t nodes_max; /* the others are counted from here down */
    char *text;
};

/* 0; -PM_ENOTFOUND: the process traced no functions (nothing in err); or -PM_E… with a sentence. */
PM_MUST_USE int pm_functions_read(const struct pm_process *process,
                                  struct pm_functions *ret_functions, struct pm_error *err);
void pm_functions_release(struct pm_functions *functions);

/* The path of a node that a function_call record names; 0: none. */
uint32_t pm_functions_path(const struct pm_functions *functions, uint32_t node);

#endif
