/*
 * Errors of the pure C rooms (base, recorder, session, reader, view, trace).
 *
 * A function returns 0 or a negative PM_E… code and leaves its outputs untouched when it fails.
 * Readers add where and what in a struct pm_error, so that a command can print one clear sentence.
 */
#ifndef PM_BASE_ERROR_H
#define PM_BASE_ERROR_H

#include <stddef.h>

/* clang-format off */
#define PM_ERRORS(X)                                                                                \
    X(NOMEM,       1, "out of memory")                                                              \
    X(IO,          2, "input or output failed")                                                     \
    X(NOTFOUND,    3, "not found")                                                                  \
    X(EXISTS,      4, "already exists")                                                             \
    X(PERMISSION,  5, "permission denied")                                                          \
    X(NOSPACE,     6, "no space left")                                                              \
    X(INVALID,     7, "invalid value")                                                              \
    X(FORMAT,      8, "not a ProfileMate file")                                                     \
    X(VERSION,     9, "made by a newer ProfileMate")                                                \
    X(TRUNCATED,  10, "cut off")                                                                    \
    X(CORRUPT,    11, "damaged")                                                                    \
    X(LIMIT,      12, "larger than allowed")                                                        \
    X(UNSUPPORTED,13, "not supported here")
/* clang-format on */

enum pm_errno {
#define PM_ERROR_ENUM(name, number, text) PM_E##name = (number),
    PM_ERRORS(PM_ERROR_ENUM)
#undef PM_ERROR_ENUM
};

#define PM_MUST_USE __attribute__((warn_unused_result))
#define PM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* One failure, told to a person: "/tmp/x/records/p12.pmrec: at byte 4096: expected a segment, found
 * zeros". */
struct pm_error {
    char text[512];
};

/* The words for a code, whatever its sign; never NULL. */
const char *pm_strerror(int code);

/* The code that stands for an errno value. */
int pm_error_from_errno(int errnum);

/* Writes the sentence (cut to fit) and returns code, so that callers can `return pm_error_set(err,
 * -PM_EIO, …)`. err may be NULL. */
int pm_error_set(struct pm_error *err, int code, const char *format, ...) PM_PRINTF(3, 4);

#endif
