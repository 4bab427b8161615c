/*
 * Asking a Python what it finds: runs doctor_probe.py in it and keeps the answers. Used by
 * `doctor`.
 */
#ifndef PM_CMD_ASK_H
#define PM_CMD_ASK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define PM_ASK_LIMIT_SEC 30

/* Lines `key value...`; all strings lie in text. */
struct pm_answers {
    char *text;
    struct pm_answer {
        const char *key;
        const char *value[3]; /* "" where absent */
    } * lines;
    size_t count;
};

/* Runs `exe flags… -c <script> targets…`. 0, or -PM_E… with a sentence: it could not be run, did
 * not answer within PM_ASK_LIMIT_SEC, or is no Python. */
PM_MUST_USE int pm_ask(const char *exe, const char *const *flags, size_t n_flags,
                       const char *const *targets, size_t n_targets, struct pm_answers *ret_answers,
                       struct pm_error *err);
void pm_answers_release(struct pm_answers *answers);

/* The first value of a key; "" when there is none. */
const char *pm_answer(const struct pm_answers *answers, const char *key);

#endif
