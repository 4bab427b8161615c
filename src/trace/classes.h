/*
 * Classes of kernels by their names, from rules in a text file (classes.rules is built in and
 * explains the format). Used by gpu.c and the command; one thread. Owns its rules.
 */
#ifndef PM_TRACE_CLASSES_H
#define PM_TRACE_CLASSES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_CLASSES_MAX 32
#define PM_CLASS_NAME_MAX 24

/* Classes that the report knows; rules may add others behind them. */
enum pm_class {
    PM_CLASS_ATTENTION,
    PM_CLASS_GEMM,
    PM_CLASS_MOE,
    PM_CLASS_NORM,
    PM_CLASS_SAMPLING,
    PM_CLASS_COLLECTIVE,
    PM_CLASS_COPY,
    PM_CLASS_OTHER,
    PM_CLASS_KNOWN,
};

struct pm_classes {
    char names[PM_CLASSES_MAX][PM_CLASS_NAME_MAX];
    unsigned n;
    char *text; /* the rules, cut into words */
    struct pm_class_rule {
        unsigned class;
        const char *pattern; /* lower case, in text */
    } * rules;
    size_t n_rules;
};

/* The rules of the file (NULL: none), then the built-in ones. -PM_EINVALID with file, line and
 * what was expected. */
PM_MUST_USE int pm_classes_init(struct pm_classes *classes, const char *path, struct pm_error *err);
void pm_classes_release(struct pm_classes *classes);

/* The class of a kernel of that name. */
unsigned pm_classes_find(const struct pm_classes *classes, const char *name);

/* The built-in rules as text. */
const char *pm_classes_builtin(size_t *ret_bytes);

#endif
