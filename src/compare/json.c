/*
 * A comparison as one JSON object, for scripts; man profilemate-diff names the members. Times are
 * in ms with 6 decimals, changes in per cent.
 */
#include <math.h>

#include "compare/show.h"

static void put_double(struct pm_json *json, const char *key, double value, unsigned decimals)
{
    pm_json_key(json, key);
    pm_json_double(json, value, decimals); /* null where it is not finite */
}

static void put_text(struct pm_json *json, const char *key, const char *text)
{
    pm_json_key(json, key);
    pm_json_text(json, text[0] != '\0' ? text : NULL);
}

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

/* The members of a change: scale turns before and after into their unit. */
static void put_change(struct pm_json *json, const struct pm_change *change, double scale,
                       const char *unit)
{
    char key[32];
    const double percent = change->relative ? 100.0 : NAN;
    const bool told = change->verdict > PM_CHANGE_LITTLE;

    snprintf(key, sizeof(key), "before%s", unit);
    put_double(json, key, change->before * scale, 6);
    snprintf(key, sizeof(key), "after%s", unit);
    put_double(json, key, change->after * scale, 6);
    put_double(json, "change_pct", change->change * percent, 3);
    put_double(json, "low_pct", told ? change->low * percent : NAN, 3);
    put_double(json, "high_pct", told ? change->high * percent : NAN, 3);
    put_u64(json, "n_before", change->n[0]);
    put_u64(json, "n_after", change->n[1]);
}

static void put_time(struct pm_json *json, const struct pm_change *change)
{
    put_change(json, change, 1e-6, "_ms");
    put_double(json, "cost_s", change->cost_ns / 1e9, 6);
    put_double(json, "share_pct", 100 * change->share, 3);
    put_text(json, "verdict", pm_change_name(change->verdict));
}

static void put_sides(struct pm_json *json, const struct pm_comparison *all)
{
    static const char *const sides[2] = {"before", "after"};
    for (unsigned s = 0; s < 2; s++) {
        pm_json_key(json, sides[s]);
        pm_json_object(json);
        pm_json_key(json, "sessions");
        pm_json_array(json);
        for (unsigned i = 0; i < all->n_sessions[s]; i++) {
            const struct pm_compared_session *session = &all->sessions[s][i];
            pm_json_object(json);
            put_text(json, "name", session->name);
            put_text(json, "path", session->path);
            put_text(json, "model", session->model);
            put_text(json, "vllm", session->vllm);
            put_text(json, "device", session->device);
            put_u64(json, "engines", session->engines);
            put_u64(json, "steps", session->steps);
            put_u64(json, "requests", session->requests);
            put_u64(json, "left_out", session->left_out);
            put_double(json, "span_s", (double)session->span_ns / 1e9, 6);
            put_text(json, "model_clock", session->clock);
            pm_json_end(json);
        }
        pm_json_end(json);
        put_u64(json, "steps", all->n_steps[s]);
        put_u64(json, "matched_steps", all->matched_steps[s]);
        put_double(json, "matched_time_pct", 100 * all->matched_share[s], 2);
        put_u64(json, "requests", all->n_requests[s]);
        put_u64(json, "matched_requests", all->matched_requests[s]);
        pm_json_key(json, "unmatched");
        pm_json_array(json);
        for (unsigned i = 0; i < all->n_unmatched[s]; i++) {
            char words[96];
            pm_composition_words(all->unmatched[s][i].class_number, words, sizeof(words));
            pm_json_object(json);
            put_text(json, "what", words);
            put_u64(json, "steps", all->unmatched[s][i].n);
            put_double(json, "time_s", all->unmatched[s][i].value_ns / 1e9, 6);
            pm_json_end(json);
        }
        pm_json_end(json);
        pm_json_end(json);
    }
}

static void put_named(struct pm_json *json, const struct pm_comparison *all, const char *key,
                      enum pm_change_verdict verdict)
{
    struct pm_named_change named[PM_NAMED_MAX];
    const unsigned n = pm_compare_named(all, verdict, named);

    pm_json_key(json, key);
    pm_json_array(json);
    for (unsigned i = 0; i < n; i++) {
        pm_json_object(json);
        put_text(json, "of",
                 named[i].kind >= 0 ? pm_work_name((unsigned)named[i].kind) : "request");
        put_text(json, "what", named[i].key);
        put_time(json, named[i].change);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_steps(struct pm_json *json, const struct pm_comparison *all)
{
    pm_json_key(json, "steps");
    pm_json_object(json);
    for (unsigned kind = 0; kind < PM_WORK_KINDS; kind++) {
        if (!all->steps[kind][PM_STEP_STEP].known)
            continue;
        pm_json_key(json, pm_work_name(kind));
        pm_json_object(json);
        for (unsigned v = 0; v < PM_STEP_VALUES; v++) {
            const char *words;
            bool part;
            const char *key = pm_step_value_name(v, &words, &part);
            if (!all->steps[kind][v].known)
                continue;
            pm_json_key(json, key);
            pm_json_object(json);
            put_time(json, &all->steps[kind][v]);
            pm_json_end(json);
        }
        pm_json_end(json);
    }
    if (all->whole.known) {
        pm_json_key(json, "all");
        pm_json_object(json);
        pm_json_key(json, "step");
        pm_json_object(json);
        put_time(json, &all->whole);
        pm_json_end(json);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_tails(struct pm_json *json, const struct pm_change tails[PM_TAILS])
{
    for (unsigned t = 0; t < PM_TAILS; t++) {
        if (!tails[t].known)
            continue;
        pm_json_key(json, pm_tail_rows[t].key);
        pm_json_object(json);
        put_change(json, &tails[t], 1e-6, "_ms");
        pm_json_end(json);
    }
}

static void put_requests(struct pm_json *json, const struct pm_comparison *all)
{
    for (unsigned raw = 0; raw < 2; raw++) {
        pm_json_key(json, raw ? "requests_raw" : "requests");
        pm_json_object(json);
        for (unsigned v = 0; v < PM_REQUEST_VALUES; v++) {
            const char *words;
            const char *key = pm_request_value_name(v, &words);
            const struct pm_change *change = raw ? &all->requests_raw[v] : &all->requests[v];
            if (!change->known)
                continue;
            pm_json_key(json, key);
            pm_json_object(json);
            if (raw) {
                put_change(json, change, 1e-6, "_ms");
                put_tails(json, all->tails[v]);
            } else
                put_time(json, change);
            pm_json_end(json);
        }
        pm_json_end(json);
    }
}

static void put_ratios(struct pm_json *json, const struct pm_comparison *all)
{
    pm_json_key(json, "load");
    pm_json_object(json);
    for (unsigned r = 0; r < PM_RATIOS + PM_REQUEST_RATIOS; r++) {
        const bool of_steps = r < PM_RATIOS;
        const struct pm_change *change =
            of_steps ? &all->ratios[r] : &all->request_ratios[r - PM_RATIOS];
        if (!change->known)
            continue;
        pm_json_key(json,
                    of_steps ? pm_ratio_rows[r].key : pm_request_ratio_rows[r - PM_RATIOS].key);
        pm_json_object(json);
        put_change(json, change, 1.0, "");
        pm_json_end(json);
    }
    pm_json_end(json);
}

void pm_compare_json(struct pm_json *json, const struct pm_comparison *comparison,
                     const struct pm_compare_style *style)
{
    char line[512];
    const double worst = pm_compare_worst(comparison);

    pm_json_object(json);
    pm_compare_verdict(comparison, line, sizeof(line));
    put_text(json, "verdict", line);
    pm_json_key(json, "comparable");
    pm_json_bool(json, comparison->comparable);
    put_double(json, "worst_pct", 100 * worst, 3);
    put_double(json, "fail_over_pct", style->fail_over >= 0 ? 100 * style->fail_over : NAN, 3);
    pm_json_key(json, "failed");
    if (style->fail_over >= 0)
        pm_json_bool(json, worst > style->fail_over);
    else
        pm_json_null(json);
    put_sides(json, comparison);
    put_named(json, comparison, "slower", PM_CHANGE_SLOWER);
    put_named(json, comparison, "faster", PM_CHANGE_FASTER);
    put_steps(json, comparison);
    put_requests(json, comparison);
    put_ratios(json, comparison);
    pm_json_key(json, "notes");
    pm_json_array(json);
    for (unsigned i = 0; i < comparison->n_notes; i++)
        pm_json_text(json, comparison->notes[i]);
    pm_json_end(json);
    pm_json_key(json, "method");
    pm_json_object(json);
    put_text(json, "interval", "circular block bootstrap");
    put_u64(json, "resamples", comparison->options.resamples);
    put_u64(json, "seed", comparison->options.seed);
    put_double(json, "min_change_pct", 100 * comparison->options.min_change, 3);
    put_double(json, "stretches_before", comparison->blocks[0], 1);
    put_double(json, "stretches_after", comparison->blocks[1], 1);
    put_double(json, "degrees_of_freedom", comparison->degrees, 1);
    pm_json_end(json);
    pm_json_end(json);
}
