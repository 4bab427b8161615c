/*
 * Words: of the quantities, of verdicts, of what was not seen, and which changes are named.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "compare/judge.h"

const char *pm_step_value_name(unsigned value, const char **ret_words, bool *ret_part)
{
    static const struct {
        const char *key, *words;
        bool part;
    } rows[] = {
#define PM_COMPARE_STEP(name, key, words, part) {key, words, part},
#include "compare/metrics.def"
    };
    *ret_words = rows[value].words;
    *ret_part = rows[value].part;
    return rows[value].key;
}

const char *pm_request_value_name(unsigned value, const char **ret_words)
{
    static const struct {
        const char *key, *words;
    } rows[] = {
#define PM_COMPARE_REQUEST(name, key, words) {key, words},
#include "compare/metrics.def"
    };
    *ret_words = rows[value].words;
    return rows[value].key;
}

const struct pm_tail_row pm_tail_rows[PM_TAILS] = {
#define PM_COMPARE_TAIL(name, key, q) {key, q},
#include "compare/metrics.def"
};
const struct pm_ratio_row pm_ratio_rows[PM_RATIOS] = {
#define PM_COMPARE_RATIO(name, key, words, unit, decimals, factor, over, under)                    \
    {key, words, unit, decimals, factor, PM_SUM_##over, PM_SUM_##under},
#include "compare/metrics.def"
};
const struct pm_ratio_row pm_request_ratio_rows[PM_REQUEST_RATIOS] = {
#define PM_COMPARE_REQUEST_RATIO(name, key, words, unit, decimals, factor, over, under)            \
    {key, words, unit, decimals, factor, PM_REQUEST_SUM_##over, PM_REQUEST_SUM_##under},
#include "compare/metrics.def"
};

const char *pm_change_name(enum pm_change_verdict verdict)
{
    static const char *const names[] = {"unseen", "too few", "unsure",
                                        "slight", "faster",  "slower"};
    return (unsigned)verdict < sizeof(names) / sizeof(*names) ? names[verdict] : "";
}

/* ---- which changes are named ---- */

static int by_cost(const void *a, const void *b)
{
    const struct pm_named_change *x = a, *y = b;
    if ((x->kind < 0) != (y->kind < 0))
        return x->kind < 0 ? 1 : -1;
    const double left = x->change->cost_ns < 0 ? -x->change->cost_ns : x->change->cost_ns;
    const double right = y->change->cost_ns < 0 ? -y->change->cost_ns : y->change->cost_ns;
    return (left < right) - (left > right);
}

unsigned pm_compare_named(const struct pm_comparison *comparison, enum pm_change_verdict verdict,
                          struct pm_named_change named[PM_NAMED_MAX])
{
    unsigned n = 0;

    for (unsigned kind = 0; kind < PM_WORK_KINDS; kind++) {
        unsigned parts = 0;
        for (unsigned v = PM_STEP_VALUES; v-- > 0;) { /* the whole comes after its parts */
            struct pm_named_change row = {.change = &comparison->steps[kind][v], .kind = (int)kind};
            bool part;
            row.key = pm_step_value_name(v, &row.words, &part);
            if (row.change->verdict != verdict || (!part && parts > 0))
                continue;
            parts += part;
            named[n++] = row;
        }
    }
    for (unsigned v = 0; v < PM_REQUEST_VALUES; v++) {
        struct pm_named_change row = {.change = &comparison->requests[v], .kind = -1};
        row.key = pm_request_value_name(v, &row.words);
        if (row.change->verdict == verdict)
            named[n++] = row;
    }
    qsort(named, n, sizeof(*named), by_cost);
    return n;
}

double pm_compare_worst(const struct pm_comparison *comparison)
{
    double worst = 0;
    const struct pm_change *all = &comparison->steps[0][0];
    for (unsigned i = 0; i < PM_WORK_KINDS * PM_STEP_VALUES + PM_REQUEST_VALUES; i++) {
        const struct pm_change *change =
            i < PM_WORK_KINDS * PM_STEP_VALUES
                ? &all[i]
                : &comparison->requests[i - PM_WORK_KINDS * PM_STEP_VALUES];
        if (change->verdict != PM_CHANGE_SLOWER)
            continue;
        /* From nothing to something has no percentage: its share of the whole stands for it. */
        const double by = change->relative ? change->change : change->share;
        if (by > worst)
            worst = by;
    }
    return worst;
}

/* ---- what has no match ---- */

static int by_time(const void *a, const void *b)
{
    const struct pm_unmatched *x = a, *y = b;
    return (x->value_ns < y->value_ns) - (x->value_ns > y->value_ns);
}

static int by_class(const void *a, const void *b)
{
    const struct pm_unmatched *x = a, *y = b;
    return (x->class_number > y->class_number) - (x->class_number < y->class_number);
}

static void unmatched_side(struct pm_comparison *all, unsigned s, const struct pm_side *side,
                           const struct pm_strata *strata, const uint8_t *seen,
                           struct pm_unmatched *rows)
{
    unsigned n = 0;

    memset(rows, 0, (strata->n + 1) * sizeof(*rows));
    for (uint32_t k = 0; k < strata->n; k++)
        rows[k].class_number = pm_composition_class(strata->keys[k]);
    for (unsigned t = 0; t < side->n; t++)
        for (uint32_t b = 0; b < side->tallies[t]->n_blocks; b++)
            for (uint32_t c = 0; c < side->tallies[t]->blocks[b].n; c++) {
                const struct pm_cell *cell = &side->tallies[t]->blocks[b].cells[c];
                if (seen[cell->stratum] == 3)
                    continue;
                rows[cell->stratum].n += cell->n;
                rows[cell->stratum].value_ns += cell->values[PM_STEP_STEP];
            }
    qsort(rows, strata->n, sizeof(*rows), by_class);
    for (uint32_t k = 0; k < strata->n; k++) {
        if (rows[k].n == 0)
            continue;
        if (n > 0 && rows[n - 1].class_number == rows[k].class_number) {
            rows[n - 1].n += rows[k].n;
            rows[n - 1].value_ns += rows[k].value_ns;
        } else {
            rows[n++] = rows[k];
        }
    }
    qsort(rows, n, sizeof(*rows), by_time);
    all->n_unmatched[s] = n < PM_UNMATCHED_NAMED ? n : PM_UNMATCHED_NAMED;
    memcpy(all->unmatched[s], rows, all->n_unmatched[s] * sizeof(*rows));
}

int pm_judge_unmatched(struct pm_comparison *all, const struct pm_side sides[2],
                       const struct pm_strata *strata)
{
    uint8_t *seen = calloc(strata->n + 1, 1);
    struct pm_unmatched *rows = calloc(strata->n + 1, sizeof(*rows));
    int rc = seen == NULL || rows == NULL ? -PM_ENOMEM : 0;

    for (unsigned s = 0; s < 2 && rc == 0; s++)
        for (unsigned t = 0; t < sides[s].n; t++)
            for (uint32_t b = 0; b < sides[s].tallies[t]->n_blocks; b++)
                for (uint32_t c = 0; c < sides[s].tallies[t]->blocks[b].n; c++)
                    seen[sides[s].tallies[t]->blocks[b].cells[c].stratum] |= (uint8_t)(1u << s);
    for (unsigned s = 0; s < 2 && rc == 0; s++)
        unmatched_side(all, s, &sides[s], strata, seen, rows);
    free(seen);
    free(rows);
    return rc;
}

/* ---- what was not seen ---- */

static void note(struct pm_comparison *all, const char *format, ...) PM_PRINTF(2, 3);
static void note(struct pm_comparison *all, const char *format, ...)
{
    va_list args;
    if (all->n_notes == sizeof(all->notes) / sizeof(all->notes[0]))
        return;
    va_start(args, format);
    vsnprintf(all->notes[all->n_notes++], sizeof(all->notes[0]), format, args);
    va_end(args);
}

/* Both sides' word for something, where all sessions of each agree on one and the two differ. */
static void note_difference(struct pm_comparison *all, const char *what, size_t offset)
{
    const char *words[2] = {"", ""};
    for (unsigned s = 0; s < 2; s++)
        for (unsigned i = 0; i < all->n_sessions[s]; i++) {
            const char *word = (const char *)&all->sessions[s][i] + offset;
            if (word[0] == '\0')
                return;
            if (words[s][0] == '\0')
                words[s] = word;
        }
    if (strcmp(words[0], words[1]) != 0)
        note(all, "%s differs: %.80s before, %.80s after", what, words[0], words[1]);
}

const char *pm_judge_clock(const struct pm_comparison *all, unsigned side)
{
    for (unsigned i = 0; i < all->n_sessions[side]; i++)
        if (strcmp(all->sessions[side][i].clock, "none") != 0)
            return all->sessions[side][i].clock;
    return "none";
}

void pm_judge_notes(struct pm_comparison *all, const struct pm_known *known)
{
    static const char *const side_names[2] = {"before", "after"};
    const char *clocks[2] = {pm_judge_clock(all, 0), pm_judge_clock(all, 1)};

    for (unsigned s = 0; s < 2; s++)
        for (unsigned i = 0; i < all->n_sessions[s]; i++) {
            const struct pm_compared_session *session = &all->sessions[s][i];
            if (session->steps == 0)
                note(all, "%s, %s: no step with tokens in it", side_names[s], session->name);
            if (session->recycled)
                note(all, "%s, %s: older steps had to go, only those that are held are compared",
                     side_names[s], session->name);
            if (session->left_out > 0)
                note(all, "%s, %s: %llu steps left out, they failed or their two halves disagree",
                     side_names[s], session->name, (unsigned long long)session->left_out);
        }
    if (all->n_steps[0] > 0 && all->n_steps[1] > 0) {
        if (!known->sched)
            note(all, "no scheduler's account of the steps on one side: matched by phase, requests "
                      "and tokens of a step as its worker saw them");
        if (!known->detail)
            note(all, "one side is of CSV files: prefills beside decodes, sampling, idle time and "
                      "sizes of requests are not known there, steps are matched by phase, requests "
                      "and tokens");
        if (!known->kv)
            note(all,
                 "how much context steps had in the KV cache is not known on one side: they are "
                 "not matched by it");
        if (all->clocks_differ)
            note(all, "the model's time is of another kind (%s before, %s after): not compared",
                 clocks[0], clocks[1]);
    }
    note_difference(all, "the model", offsetof(struct pm_compared_session, model));
    note_difference(all, "vLLM", offsetof(struct pm_compared_session, vllm));
    note_difference(all, "the device", offsetof(struct pm_compared_session, device));
    for (unsigned kind = 0; kind < PM_WORK_KINDS && !all->comparable; kind++)
        all->comparable = all->steps[kind][PM_STEP_STEP].verdict > PM_CHANGE_LITTLE;
}

void pm_compare_verdict(const struct pm_comparison *comparison, char *out, size_t size)
{
    struct pm_named_change named[PM_NAMED_MAX];
    const unsigned slower = pm_compare_named(comparison, PM_CHANGE_SLOWER, named);

    if (comparison->n_steps[0] == 0 || comparison->n_steps[1] == 0) {
        snprintf(out, size, "Nothing to compare: there is no step on one side.");
        return;
    }
    if (!comparison->comparable) {
        snprintf(out, size,
                 "Nothing can be said: too few steps of the same composition on both "
                 "sides.");
        return;
    }
    if (slower > 0) {
        const struct pm_named_change *first = &named[0];
        const char *kind = first->kind >= 0 ? pm_work_name((unsigned)first->kind) : "requests";
        if (first->change->relative)
            snprintf(out, size, "Slower: %s, %s takes %.1f %% longer for the same work%s.", kind,
                     first->words, 100 * first->change->change, slower > 1 ? ", and more" : "");
        else
            snprintf(out, size, "Slower: %s, %s takes time that it did not take before%s.", kind,
                     first->words, slower > 1 ? ", and more" : "");
        return;
    }
    const unsigned faster = pm_compare_named(comparison, PM_CHANGE_FASTER, named);
    if (faster > 0) {
        snprintf(out, size, "Faster: %s, %s takes %.1f %% less for the same work%s.",
                 named[0].kind >= 0 ? pm_work_name((unsigned)named[0].kind) : "requests",
                 named[0].words, -100 * named[0].change->change, faster > 1 ? ", and more" : "");
        return;
    }
    snprintf(out, size, "No change that is certain and larger than %g %%.",
             100 * comparison->options.min_change);
}
