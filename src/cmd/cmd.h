/*
 * The program's commands: their table, how they speak, and the exit codes.
 *
 * This is the only room that prints and exits. A command is one function in one file: it parses its
 * options (cmd/options.h), does its work through the other rooms and returns an exit code. stdout
 * carries what was asked for, stderr everything else.
 */
#ifndef PM_CMD_CMD_H
#define PM_CMD_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

/* Exit codes, the same for all commands; `run` gives back its command's. */
enum pm_exit {
    PM_EXIT_OK = 0,
    PM_EXIT_FAILED = 1,
    PM_EXIT_MISUSE = 2,
    PM_EXIT_SLOWER = 3,    /* diff --fail-over: something takes longer by more */
    PM_EXIT_UNDECIDED = 4, /* diff --fail-over: too little of the same work to tell */
};

#define X(name, function, group, help) int function(int argc, char **argv);
#include "cmd/cmds.def"
#undef X

/* One row of cmds.def. */
struct pm_command {
    const char *name;
    int (*function)(int argc, char **argv);
    int group;
    const char *help;
};
extern const struct pm_command pm_commands[];
extern const size_t pm_commands_count;

/* NULL when there is no such command. */
const struct pm_command *pm_command_find(const char *name);

/* "profilemate: <what>, <where>, <what to do>" on stderr; the sentence without a full stop or
 * newline. Control characters of the arguments are shown as `?`. Returns PM_EXIT_FAILED. */
int pm_complain(const char *format, ...) PM_PRINTF(1, 2);

/* The same for a misuse of the program, followed by where the help is: returns PM_EXIT_MISUSE.
 * command may be NULL. */
int pm_misuse(const char *command, const char *format, ...) PM_PRINTF(2, 3);

/* Flushes stdout: 0, or PM_EXIT_FAILED with a complaint when what was printed did not arrive (a
 * full disk; a closed pipe is no failure worth a word, but still gives PM_EXIT_FAILED). */
int pm_finish_stdout(void);

/* Whether colours are welcome on this stream: a terminal, NO_COLOR unset or empty, TERM not dumb.
 */
bool pm_colour(FILE *stream);

/* Escape sequences, or "" where colours are not welcome. */
enum pm_style { PM_PLAIN, PM_BOLD, PM_DIM, PM_RED, PM_GREEN, PM_YELLOW };
const char *pm_style(FILE *stream, enum pm_style style);

/* Prints text with every control character and every byte that is not UTF-8 as `?`: names in a
 * folder that others may write to must not drive the terminal. */
void pm_print_clean(FILE *stream, const char *text);

/* The nearest of the words to what was typed, or NULL when none is near (distance at most a third
 * of the length, 3 at most). words(i) gives the i-th word, NULL at the end. */
const char *pm_nearest(const char *typed, const char *(*words)(size_t i, void *arg), void *arg);

#endif
