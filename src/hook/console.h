/*
 * The console: the few lines that outputs of a server begin with, on stderr, each in one write.
 * Lines are kept until the session is born and go out with its banner; where none is ever born
 * nothing is printed. GIL held.
 */
#ifndef PM_HOOK_CONSOLE_H
#define PM_HOOK_CONSOLE_H

#include "base/error.h"
#include "base/settings.h"

/* Writes to stderr now, whole, whatever becomes of it. */
void pm_console_write(const char *text, size_t bytes);

/* A line of this process (without the newline): now if the session has been born, else with its
 * birth. */
void pm_console_line(const char *format, ...) PM_PRINTF(1, 2);

/* A line that a session shows once, from whichever of its processes comes first; with VERBOSE every
 * process shows it. */
void pm_console_once(const char *format, ...) PM_PRINTF(1, 2);

/* The session has been born in dir: prints the banner (made: this process made it) and what has
 * been kept. */
void pm_console_born(const struct pm_settings *settings, const char *dir, bool made);

/* Whether every process shows its lines, as VERBOSE says. */
void pm_console_verbose(bool on);

/* Forgets what is kept. */
void pm_console_drop(void);

#endif
