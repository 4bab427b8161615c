/*
 * Options of the commands: one table per command feeds the parser and `--help`; the manual pages
 * are checked against it by a test.
 *
 * Long options are `--name`, `--name VALUE` or `--name=VALUE`, short ones `-n`, `-n VALUE` or
 * `-nVALUE`; names are never abbreviated, so that a script keeps its meaning when an option is
 * added. `--` ends the options. `--help` and `-h` are understood everywhere.
 */
#ifndef PM_CMD_OPTIONS_H
#define PM_CMD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/settings.h"
#include "cmd/cmd.h"

enum pm_option_kind {
    PM_OPTION_FLAG,  /* sets *(bool *)dest */
    PM_OPTION_TEXT,  /* sets *(const char **)dest */
    PM_OPTION_WHOLE, /* sets *(long *)dest: a whole number, not below 0 */
    PM_OPTION_MORE,  /* adds to *(struct pm_option_words *)dest: may be given several times */
};

/* What an option that may be repeated was given. */
#define PM_OPTION_WORDS_MAX 32
struct pm_option_words {
    const char *at[PM_OPTION_WORDS_MAX];
    size_t n;
};

struct pm_option {
    char letter;      /* 0: none */
    const char *name; /* without the dashes */
    enum pm_option_kind kind;
    const char *metavar; /* "" for a flag */
    void *dest;
    const char *doc; /* one line for --help */
};

/* Values of the options that come from settings.def, one slot per row; NULL: not given. */
struct pm_setting_values {
    const char *value[64];
};

/* What --help shows and the parser follows. */
struct pm_usage {
    const char *command;             /* "run" */
    const char *const *synopsis;     /* "[options] -- COMMAND…", NULL at the end */
    const char *intro;               /* a paragraph or two */
    const struct pm_option *options; /* own options */
    size_t n_options;
    struct pm_setting_values *settings; /* where the settings' options go; NULL: takes none */
    const char *setting;                /* with settings NULL: the one setting option it takes */
    const char **setting_value;         /* … and where to */
    const char *const *examples;        /* pairs: a command line, what it does; NULL at the end */
    const char *outro;                  /* exit codes and the like; may be NULL */
    bool stop_at_operand;               /* the first operand ends the options (run) */
    size_t min_operands, max_operands;
};

/* The result of parsing: operands are moved behind the options, argv[first] is the first of them.
 */
enum pm_parsed {
    PM_PARSED_OK,
    PM_PARSED_HELP,   /* help was printed: exit with PM_EXIT_OK */
    PM_PARSED_MISUSE, /* told on stderr: exit with PM_EXIT_MISUSE */
};

/* Parses. *ret_first: index of the first operand. *ret_dashes (may be NULL): index of the first
 * word after `--`, argc when there was none. */
enum pm_parsed pm_options_parse(const struct pm_usage *usage, int argc, char **argv, int *ret_first,
                                int *ret_dashes);

/* Prints the command's help on stdout. */
void pm_usage_print(const struct pm_usage *usage);

#endif
