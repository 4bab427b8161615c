/*
 * The setting VLLM_TRACE_FUNCTION: which functions are traced. Read by the extension; pure C, total
 * on any bytes, no state of its own.
 *
 * `all`, or names with commas between; blanks around them do not matter. A function is known by its
 * module and its qualified name, together "module.qualname". A name means
 *   vllm.v1.core                  this module, package, class or function and all within it
 *   vllm.v1.core.sched.scheduler:Scheduler.schedule   the same, the colon stands for a point
 *   Scheduler.schedule, schedule  a function, or class with all its methods, of that name anywhere
 *   *.forward, vllm.*.execute_*   with `*` (any text): the whole of "module.qualname"
 *   -torch                        with `-` before it: not these; they win over the others
 * Where only names with `-` are given, everything else is traced.
 */
#ifndef PM_BASE_FUNCTION_FILTER_H
#define PM_BASE_FUNCTION_FILTER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/settings.h"

#define PM_FUNCTION_NAMES 128 /* names in one setting */

struct pm_function_filter {
    bool on;         /* the setting asks for tracing at all */
    bool all;        /* what no name leaves out is traced */
    bool custom;     /* `custom` was among the names and VLLM_PROFILING_CUSTOM is empty */
    unsigned beyond; /* names left out: there are more than PM_FUNCTION_NAMES */
    size_t count;
    struct {
        const char *text; /* within `texts` */
        bool exclude, pattern;
    } names[PM_FUNCTION_NAMES];
    char texts[2 * PM_SETTING_TEXT_MAX + 64];
};

/* text is the setting; custom that of VLLM_PROFILING_CUSTOM, whose hooks `custom` stands for: all
 * of the package vllm where it names none. A number (vLLM's own 0 or 1) asks for nothing. */
void pm_function_filter_parse(const char *text, const char *custom,
                              struct pm_function_filter *ret_filter);

/* Whether a function is traced. */
bool pm_function_filter_wants(const struct pm_function_filter *filter, const char *module,
                              const char *qualname);

#endif
