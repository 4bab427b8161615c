/*
 * A command line made fit to be kept: what tells how vLLM was set up stays, what may be secret
 * goes. Used by the extension for the session's attributes, and by `profilemate run`. Pure,
 * allocates nothing, any thread.
 */
#ifndef PM_BASE_MASK_H
#define PM_BASE_MASK_H

#include <stddef.h>

/*
 * Writes argv (sys.orig_argv, or that of a process) as one line of text, NUL-terminated, and
 * returns its length. What does not fit is left out whole and ends as " ..."; size is at least 8.
 *
 *   kept    the program; the interpreter's options, a module after -m, a script; vLLM's subcommand;
 *           the model after `serve`; names of flags; values of the flags in mask.def
 *   masked  as `***`: every other value, whether it follows its flag or is joined to it by "=";
 * what follows -c; any value that holds a URL with a user, a password, a query or a fragment,
 *           control characters, or more than 256 bytes
 *
 * A value with blanks or quotes stands in single quotes, so that the line can be read back; nothing
 * is expanded or interpreted.
 */
size_t pm_mask_command(size_t argc, const char *const *argv, char *out, size_t size);

#endif
