/*
 * The words for error codes, and the sentence that goes with one. Any thread, no state.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const char *pm_strerror(int code)
{
    switch (code < 0 ? -(long)code : code) {
    case 0:
        return "no error";
#define PM_ERROR_CASE(name, number, text)                                                          \
    case number:                                                                                   \
        return text;
        PM_ERRORS(PM_ERROR_CASE)
#undef PM_ERROR_CASE
    default:
        return "unknown error";
    }
}

int pm_error_from_errno(int errnum)
{
    switch (errnum) {
    case ENOMEM:
        return -PM_ENOMEM;
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
        return -PM_ENOTFOUND;
    case EEXIST:
    case ENOTEMPTY:
        return -PM_EEXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
        return -PM_EPERMISSION;
    case ENOSPC:
    case EDQUOT:
        return -PM_ENOSPACE;
    case EINVAL:
    case ENAMETOOLONG:
        return -PM_EINVALID;
    case EFBIG:
    case EMFILE:
    case ENFILE:
        return -PM_ELIMIT;
    case ENOSYS:
    case EOPNOTSUPP:
        return -PM_EUNSUPPORTED;
    default:
        return -PM_EIO;
    }
}

int pm_error_set(struct pm_error *err, int code, const char *format, ...)
{
    if (err != NULL) {
        int saved = errno;
        va_list args;
        va_start(args, format);
        if (vsnprintf(err->text, sizeof err->text, format, args) < 0)
            err->text[0] = '\0';
        va_end(args);
        errno = saved;
    }
    return code;
}
