/* What is said of sampling: the seed files, the text and the JSON report (see sampling.h). */
#include "view/sampling.h"

#include <stdlib.h>
#include <string.h>

#include "view/seed.h"

#define STRATEGIES_SHOWN 12u /* of the text */

static double pct(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0.0;
}

static int by_total(const void *left, const void *right)
{
    const struct pm_sampling_strategy *a = left, *b = right;
    if (a->total_ns != b->total_ns)
        return a->total_ns > b->total_ns ? -1 : 1;
    return a->bits < b->bits ? -1 : a->bits > b->bits;
}

/* The dearest first. */
static void sort(struct pm_sampling *sampling)
{
    if (sampling->n_strategies > 0)
        qsort(sampling->strategies, sampling->n_strategies, sizeof(*sampling->strategies),
              by_total);
}

void pm_sampling_companions(const struct pm_sampling_cost *cost, unsigned setting, char *out,
                            size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++) {
        if (i == setting || (cost->together >> i & 1) == 0 || used >= size)
            continue;
        const int n =
            snprintf(out + used, size - used, "%s%s", used > 0 ? ", " : "", pm_sampling_name(i));
        used += n > 0 ? (size_t)n : 0;
    }
}

static const char *const verdict_words[PM_SAMPLING_VERDICTS] = {
    [PM_SAMPLING_TOLD] = "told",          [PM_SAMPLING_SMALL] = "no difference seen",
    [PM_SAMPLING_NEVER] = "never used",   [PM_SAMPLING_ALWAYS] = "in every step",
    [PM_SAMPLING_UNLIKE] = "not matched", [PM_SAMPLING_TOO_FEW] = "too few steps",
};

static const char *const verdict_sentences[PM_SAMPLING_VERDICTS] = {
    [PM_SAMPLING_ALWAYS] = "no step without it",
    [PM_SAMPLING_UNLIKE] = "no batches alike in all the rest",
    [PM_SAMPLING_TOO_FEW] = "too few steps alike in all the rest",
};

static bool has_figure(const struct pm_sampling_cost *cost)
{
    return cost->verdict == PM_SAMPLING_TOLD || cost->verdict == PM_SAMPLING_SMALL;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value);
}

static void put_pct(struct pm_json *json, const char *key, uint64_t part, uint64_t whole)
{
    pm_json_key(json, key);
    whole > 0 ? pm_json_double(json, pct(part, whole), 2) : pm_json_null(json);
}

static void put_strategy(struct pm_json *json, struct pm_sampling_strategy *strategy,
                         uint64_t total_ns)
{
    char words[PM_SAMPLING_WORDS];
    struct pm_stats stats;

    pm_samples_stats(&strategy->samples, &stats);
    pm_sampling_words(strategy->bits, words, sizeof(words));
    pm_json_key(json, words);
    pm_json_object(json);
    put_u64(json, "steps", stats.count);
    pm_json_key(json, "mean_batch_size");
    pm_json_ratio(json, strategy->requests, 1, stats.count, 2);
    pm_json_ms_double(json, "total_ms", (double)strategy->total_ns, stats.count);
    put_pct(json, "share_pct", strategy->total_ns, total_ns);
    pm_json_ms_double(json, "mean_ms", stats.mean, stats.count);
    pm_json_ms_double(json, "p50_ms", stats.p50, stats.count);
    pm_json_ms_double(json, "p95_ms", stats.p95, stats.count);
    pm_json_ms_double(json, "p99_ms", stats.p99, stats.count);
    pm_json_end(json);
}

static void put_setting(struct pm_json *json, const struct pm_sampling *sampling, unsigned setting)
{
    const struct pm_sampling_cost *cost = &sampling->costs[setting];

    pm_json_key(json, pm_sampling_name(setting));
    pm_json_object(json);
    put_u64(json, "steps", sampling->with[setting]);
    put_pct(json, "steps_pct", sampling->with[setting], sampling->steps);
    put_u64(json, "request_steps", sampling->request_steps[setting]);
    put_pct(json, "request_steps_pct", sampling->request_steps[setting], sampling->requests);
    if (setting != PM_SAMPLING_GREEDY) {
        put_text(json, "cost", verdict_words[cost->verdict]);
        pm_json_key(json, "cost_ms_per_step");
        has_figure(cost) ? pm_json_double(json, cost->cost_ns / 1e6, 4) : pm_json_null(json);
        pm_json_key(json, "error_ms");
        has_figure(cost) ? pm_json_double(json, cost->error_ns / 1e6, 4) : pm_json_null(json);
        put_u64(json, "matched_with", cost->matched_with);
        put_u64(json, "matched_without", cost->matched_without);
        pm_json_key(json, "together_with");
        pm_json_array(json);
        for (unsigned i = 0; i < PM_SAMPLING_ALL; i++)
            if (i != setting && (cost->together >> i & 1) != 0)
                pm_json_text(json, pm_sampling_name(i));
        pm_json_end(json);
    }
    pm_json_end(json);
}

void pm_sampling_summary(struct pm_json *json, struct pm_sampling *sampling)
{
    const bool events = sampling->clocks[PM_SAMPLING_EVENTS] > 0;

    sort(sampling);
    pm_json_object(json);
    put_u64(json, "steps", sampling->steps);
    put_text(json, "clock", pm_sampling_clock(sampling));
    pm_json_ms_double(json, "total_ms", (double)sampling->total_ns, sampling->steps);
    pm_json_ms_double(json, "mean_ms",
                      sampling->steps > 0 ? (double)sampling->total_ns / (double)sampling->steps
                                          : 0.0,
                      sampling->steps);
    pm_json_key(json, "share_of_step_pct"); /* the device's time is no part of the host's */
    sampling->step_ns > 0 && !events
        ? pm_json_double(json, pct(sampling->total_ns, sampling->step_ns), 2)
        : pm_json_null(json);
    pm_json_key(json, "strategies");
    pm_json_object(json);
    for (size_t i = 0; i < sampling->n_strategies; i++)
        put_strategy(json, &sampling->strategies[i], sampling->total_ns);
    pm_json_end(json);
    pm_json_key(json, "settings");
    pm_json_object(json);
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++)
        put_setting(json, sampling, i);
    pm_json_end(json);
    pm_json_key(json, "grammar_bitmasks");
    pm_json_object(json);
    put_u64(json, "count", sampling->bitmasks);
    put_u64(json, "requests", sampling->bitmask_requests);
    pm_json_ms_double(json, "engine_total_ms", (double)sampling->bitmask_ns, sampling->bitmasks);
    pm_json_end(json);
    if (sampling->recycled)
        put_text(json, "detail", "held");
    pm_json_end(json);
}

int pm_sampling_report_json(const struct pm_session *session, size_t engine, unsigned n,
                            struct pm_json *json)
{
    struct pm_sampling sampling;
    const int rc = pm_sampling_walk(session, engine, n, NULL, &sampling);

    if (rc == 0 && sampling.steps > 0)
        pm_sampling_summary(json, &sampling);
    else
        pm_json_null(json);
    pm_sampling_release(&sampling);
    return rc;
}

/* ---- text ------------------------------------------------------------------------------------ */

static void put_heading(struct pm_buf *buf, bool colour, const char *text)
{
    (void)pm_buf_printf(buf, "\n%s%s%s\n", colour ? "\033[1m" : "", text, colour ? "\033[0m" : "");
}

static const char *clock_words(const struct pm_sampling *sampling)
{
    const char *clock = pm_sampling_clock(sampling);
    if (strcmp(clock, "events") == 0)
        return "device events";
    if (strcmp(clock, "launch") == 0)
        return "the host's launches: the device's own time is not known";
    return strcmp(clock, "mixed") == 0 ? "device events, where there are any" : "wall time";
}

/* In its column, or, longer, on lines of its own, broken behind a +. */
static void put_words(struct pm_buf *buf, const char *words)
{
    if (strlen(words) <= 32) {
        (void)pm_buf_printf(buf, "  %-33s", words);
        return;
    }
    while (strlen(words) > 78) {
        int n = 78;
        while (n > 1 && words[n - 1] != '+')
            n--;
        (void)pm_buf_printf(buf, "  %.*s\n", n, words);
        words += n;
    }
    (void)pm_buf_printf(buf, "  %s\n  %-33s", words, "");
}

static void put_strategies(struct pm_buf *buf, struct pm_sampling *sampling)
{
    sort(sampling);
    (void)pm_buf_printf(buf, "  %-33s%9s%9s%9s%9s%8s\n", "strategy of the batch", "steps",
                        "requests", "mean", "p95", "share");
    for (size_t i = 0; i < sampling->n_strategies && i < STRATEGIES_SHOWN; i++) {
        struct pm_sampling_strategy *strategy = &sampling->strategies[i];
        char words[PM_SAMPLING_WORDS];
        struct pm_stats stats;
        pm_samples_stats(&strategy->samples, &stats);
        pm_sampling_words(strategy->bits, words, sizeof(words));
        put_words(buf, words);
        (void)pm_buf_printf(
            buf, "%9llu%9.1f%9.3f%9.3f%6.1f %%\n", (unsigned long long)stats.count,
            stats.count > 0 ? (double)strategy->requests / (double)stats.count : 0.0,
            stats.mean / 1e6, stats.p95 / 1e6, pct(strategy->total_ns, sampling->total_ns));
    }
    if (sampling->n_strategies > STRATEGIES_SHOWN)
        (void)pm_buf_printf(buf, "  … and %zu more (report --json has them all)\n",
                            sampling->n_strategies - STRATEGIES_SHOWN);
}

static void put_cost(struct pm_buf *buf, const struct pm_sampling *sampling, unsigned setting)
{
    const struct pm_sampling_cost *cost = &sampling->costs[setting];
    char others[PM_SAMPLING_WORDS];

    (void)pm_buf_printf(buf, "  %-18s%6.1f %%%9.1f %%", pm_sampling_name(setting),
                        pct(sampling->with[setting], sampling->steps),
                        pct(sampling->request_steps[setting], sampling->requests));
    if (has_figure(cost))
        (void)pm_buf_printf(buf, "%+12.3f%9.3f%s%9llu%9llu\n", cost->cost_ns / 1e6,
                            cost->error_ns / 1e6, cost->verdict == PM_SAMPLING_SMALL ? " ?" : "  ",
                            (unsigned long long)cost->matched_with,
                            (unsigned long long)cost->matched_without);
    else
        (void)pm_buf_printf(buf, "  %s\n", verdict_sentences[cost->verdict]);
    pm_sampling_companions(cost, setting, others, sizeof(others));
    if (others[0] != '\0')
        (void)pm_buf_printf(buf, "  %18sas one with %s\n", "", others);
}

/* A group that came and went as one is told of once, under its first. */
bool pm_sampling_is_told(const struct pm_sampling *sampling, unsigned setting)
{
    const uint32_t together = sampling->costs[setting].together;
    return setting != PM_SAMPLING_GREEDY && sampling->with[setting] > 0 &&
           (together & ((1u << setting) - 1)) == 0;
}

static void put_costs(struct pm_buf *buf, const struct pm_sampling *sampling)
{
    bool any = false, unsure = false;

    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++) {
        if (!pm_sampling_is_told(sampling, i))
            continue;
        if (!any)
            (void)pm_buf_printf(
                buf,
                "  What a setting adds to a step, ms: beside steps without it of the same "
                "size\n  and alike in all the rest\n"
                "  %-18s%8s%11s%12s%9s  %9s%9s\n",
                "setting", "steps", "requests", "added", "+-", "with", "without");
        any = true;
        unsure = unsure || sampling->costs[i].verdict == PM_SAMPLING_SMALL;
        put_cost(buf, sampling, i);
    }
    if (unsure)
        (void)pm_buf_add_text(buf, "  ?: no difference that these steps could show.\n");
}

int pm_sampling_report_text(const struct pm_session *session, size_t engine, unsigned n,
                            bool colour, struct pm_buf *buf)
{
    struct pm_sampling sampling;
    char title[128];
    const int rc = pm_sampling_walk(session, engine, n, NULL, &sampling);

    if (rc == 0 && sampling.steps > 0) {
        snprintf(title, sizeof(title), "Sampling, ms (%s)", clock_words(&sampling));
        put_heading(buf, colour, title);
        put_strategies(buf, &sampling);
        put_costs(buf, &sampling);
        if (sampling.bitmasks > 0)
            (void)pm_buf_printf(buf,
                                "  bitmasks of grammars in the engine core: %llu, %.3f ms each\n",
                                (unsigned long long)sampling.bitmasks,
                                (double)sampling.bitmask_ns / 1e6 / (double)sampling.bitmasks);
        if (sampling.recycled)
            (void)pm_buf_add_text(buf, "  Older steps had to go: this is of those held.\n");
    }
    pm_sampling_release(&sampling);
    return rc != 0 ? rc : pm_buf_status(buf);
}

/* ---- the seed files -------------------------------------------------------------------------- */

int pm_seed_sampling(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_sampling sampling;
    struct pm_outfile file;
    struct pm_json json;
    int rc = pm_seed_begin(seed, dir_fd, "sampling_timing.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_sampling_walk(seed->session, engine, n, &file, &sampling);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "sampling_summary.json", &file);
    if (rc == 0) {
        seed->result.rows += sampling.rows;
        pm_json_init(&json, &file.buf, 2);
        pm_sampling_summary(&json, &sampling);
        rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    }
    pm_sampling_release(&sampling);
    return rc;
}
