/*
 * Commands, or formats of them, that the Python package does: the program becomes Python (execvp),
 * so that signals, output and the exit code are nobody's business in between.
 *
 * The module that is named has `main(words) -> int`; it prints and exits by the program's rules:
 * stdout for what was asked for, one sentence "profilemate: …" on stderr, 0, 1 or 2.
 */
#ifndef PM_CMD_PYTHON_PART_H
#define PM_CMD_PYTHON_PART_H

#include <stddef.h>

struct pm_python_part {
    const char *asked;  /* what needs it, begins the sentence: "--format=parquet" */
    const char *module; /* "profilemate.export" */
    const char
        *with;       /* what it needs beside the package, for the sentence: "pyarrow"; NULL: none */
    const char *pip; /* what to install where that is missing: "pyarrow", "profilemate[ship]" */
    const char *python; /* --python; NULL: the interpreter beside this program, else python3 */
};

/* At most so many words; more are a misuse of this function. */
#define PM_PYTHON_WORDS_MAX 4096

/* Becomes `python … module.main(words)`, with no module of the current folder taken. Returns only
 * when that fails: an exit code, after one sentence. Where the package, or what it needs, is not
 * there, the interpreter says so in one sentence and exits with 1. */
int pm_python_part(const struct pm_python_part *part, const char *const *words, size_t n_words);

#endif
