/*
 * Forward passes: forward_pass_timing.csv and its summaries. Called by seed_export.c and report.c.
 */
#include "view/common.h"

#include <string.h>

#include "base/number.h"
#include "base/settings.h"
#include "session/step_facts.h"
#include "session/attrs.h"
#include "session/hist.h"
#include "view/outfile.h"

static const char *const phase_names[PM_FORWARD_PHASES] = {
    [PM_PHASE_EMPTY] = "", [PM_PHASE_PREFILL] = "prefill", [PM_PHASE_DECODE] = "decode"};

void pm_forward_init(struct pm_forward *ret_forward)
{
    memset(ret_forward, 0, sizeof(*ret_forward));
    for (unsigned p = 0; p < PM_FORWARD_PHASES; p++)
        pm_samples_init(&ret_forward->samples[p]);
}

void pm_forward_release(struct pm_forward *forward)
{
    for (unsigned p = 0; p < PM_FORWARD_PHASES; p++)
        pm_samples_release(&forward->samples[p]);
}

bool pm_forward_count(struct pm_forward *forward, const struct pm_step *step, int *ret_error)
{
    if (!step->has_worker || step->tokens == 0 || step->phase == PM_PHASE_EMPTY ||
        (step->failed && step->forward_ns == 0))
        return false;
    forward->rows++;
    forward->guessed += step->phase_guessed;
    forward->matched += step->matched;
    forward->tokens[step->phase] += step->tokens;
    forward->requests[step->phase] += step->requests;
    forward->clocks[step->forward_clock & 3]++;
    if (step->forward_ns == 0)
        forward->untimed++;
    else
        *ret_error = pm_samples_add(&forward->samples[step->phase], step->forward_ns);
    return true;
}

static char *put_text(char *out, const char *text)
{
    const size_t bytes = strlen(text);
    memcpy(out, text, bytes);
    return out + bytes;
}

/* One row; a pass whose time is not known has empty fields for it. */
static int put_row(struct pm_outfile *file, const struct pm_step *step, uint64_t start_ns,
                   int preset)
{
    char *out = pm_buf_reserve(&file->buf, 6 * (PM_NUMBER_MAX + 1));
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    const int64_t at = (int64_t)(step->time_ns - start_ns);
    out = preset == PM_PRESET_SIMPLE ? pm_number_fixed_signed(out, at, 9, 3)
                                     : pm_number_sec6_signed(out, at);
    *out++ = ',';
    out = put_text(out, phase_names[step->phase]);
    *out++ = ',';
    out = pm_number_u64(out, step->requests);
    *out++ = ',';
    out = pm_number_u64(out, step->tokens);
    *out++ = ',';
    if (step->forward_ns != 0) {
        out = pm_number_ms3(out, step->forward_ns);
        *out++ = ',';
        out = pm_number_ratio(out, step->tokens, 1000000000u, step->forward_ns, 1);
    } else {
        *out++ = ',';
    }
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

int pm_forward_walk(const struct pm_session *session, size_t engine, unsigned n, int preset,
                    struct pm_outfile *file, struct pm_forward *ret_forward)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    const struct pm_process *process;
    struct pm_steps *steps;
    struct pm_step step;
    unsigned instance;
    int rank, rc = 0;

    if (file != NULL)
        rc = pm_buf_add_text(&file->buf,
                             preset == PM_PRESET_SIMPLE
                                 ? "timestamp_sec,phase,batch_size,num_tokens,duration_ms,"
                                   "throughput_tokens_per_sec\n"
                                 : "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,"
                                   "throughput_tokens_per_sec\n");
    if (rc != 0 || engine >= pm_session_engine_count(session))
        return rc;
    if (pm_engine_worker(session, engine, n, &process, &instance, &rank) == 0)
        ret_forward->recycled = pm_process_info(process)->first_fact[PM_STREAM_CORE] > 0;
    rc = pm_steps_open(&steps, session, engine, n);
    if (rc != 0)
        return rc;
    while ((rc = pm_steps_next(steps, &step)) == 1) {
        int error = 0;
        const bool passed = pm_forward_count(ret_forward, &step, &error);
        if (passed && file != NULL && error == 0)
            error = put_row(file, &step, start_ns, preset);
        if (error != 0) {
            rc = error;
            break;
        }
    }
    pm_steps_confess(steps, &ret_forward->mismatched, &ret_forward->sched_only,
                     &ret_forward->worker_only);
    pm_steps_close(steps);
    return rc;
}

const char *pm_forward_clock(const struct pm_forward *forward)
{
    static const char *const names[4] = {"none", "wall", "sync", "events"};
    unsigned most = 0;

    for (unsigned c = 1; c < 4; c++)
        if (forward->clocks[c] != 0 && (most == 0 || forward->clocks[c] > forward->clocks[most]))
            most = c;
    return names[most];
}

/* A table and its field that forward times came from. */
struct source {
    const char *table, *field;
};

/* In order of preference; the steps' own synchronisation where it was told later has no histogram.
 */
static size_t sources(const struct pm_session *session, const struct pm_forward *forward,
                      struct source out[2])
{
    const char *name = pm_forward_clock(forward);

    if (strcmp(name, "none") == 0)
        name = pm_session_attr(session, PM_ATTR_FORWARD_CLOCK);
    if (name != NULL && strcmp(name, "events") == 0) {
        out[0] = (struct source){"device_step", "gpu_ns"};
        out[1] = (struct source){"worker_step", "gpu_ns"}; /* known at once: files of old */
        return 2;
    }
    out[0] = (struct source){"worker_step",
                             name != NULL && strcmp(name, "sync") == 0 ? "sync_ns" : "model_ns"};
    return 1;
}

/* From the totals; false where they cannot stand for this worker. */
static bool stats_from_totals(const struct pm_process *process, const struct source *source,
                              const struct pm_totals *totals,
                              struct pm_stats stats[PM_FORWARD_PHASES])
{
    for (unsigned p = PM_PHASE_PREFILL; p < PM_FORWARD_PHASES; p++) {
        struct pm_series series, passes;
        if (!pm_series_find(process, totals, source->table, source->field, p, &series) ||
            !pm_series_find(process, totals, "worker_step", "model_ns", p, &passes) ||
            series.hist == NULL)
            return false;
        pm_stats_from_hist(series.hist, series.sum, &stats[p]);
        /* Mostly unmeasured here: these times came another way (worker_sync). */
        if (stats[p].count < passes.count / 2)
            return false;
    }
    return true;
}

/* Whether the totals of a process are those of one worker only. */
static bool alone(const struct pm_session *session, const struct pm_process *process)
{
    unsigned parts = 0;
    for (size_t e = 0; e < pm_session_engine_count(session); e++)
        for (unsigned n = 0; n < pm_session_engine(session, e)->n_ranks; n++) {
            const struct pm_process *other;
            unsigned instance;
            int rank;
            if (pm_engine_worker(session, e, n, &other, &instance, &rank) == 0)
                parts += other == process;
        }
    return parts == 1;
}

int pm_forward_stats(const struct pm_session *session, size_t engine, unsigned n,
                     struct pm_forward *forward, struct pm_stats stats[PM_FORWARD_PHASES],
                     const char **ret_source)
{
    const struct pm_process *process;
    struct pm_totals totals;
    unsigned instance;
    int rank;

    *ret_source = "exact";
    for (unsigned p = 0; p < PM_FORWARD_PHASES; p++) {
        pm_samples_stats(&forward->samples[p], &stats[p]);
        if (!stats[p].exact)
            *ret_source = "histogram";
    }
    if (!forward->recycled)
        return 0;
    *ret_source = "held";
    if (pm_engine_worker(session, engine, n, &process, &instance, &rank) != 0 ||
        !alone(session, process))
        return 0;
    int rc = pm_process_totals(process, &totals);
    if (rc == -PM_ENOMEM)
        return rc;
    if (rc != 0)
        return 0;
    struct source from[2];
    const size_t n_from = sources(session, forward, from);
    for (size_t i = 0; i < n_from; i++) {
        struct pm_stats by_buckets[PM_FORWARD_PHASES];
        memset(by_buckets, 0, sizeof(by_buckets));
        if (!stats_from_totals(process, &from[i], &totals, by_buckets))
            continue;
        memcpy(stats, by_buckets, sizeof(by_buckets));
        *ret_source = "histogram";
        break;
    }
    pm_totals_free(&totals);
    return 0;
}

void pm_json_ms_double(struct pm_json *json, const char *key, double ns, uint64_t count)
{
    pm_json_key(json, key);
    if (count == 0)
        pm_json_null(json);
    else
        pm_json_double(json, ns / 1e6, 3);
}

void pm_forward_summary(struct pm_json *json, int preset,
                        const struct pm_stats stats[PM_FORWARD_PHASES], const char *source)
{
    pm_json_object(json);
    for (unsigned p = PM_PHASE_PREFILL; p < PM_FORWARD_PHASES; p++) {
        const struct pm_stats *s = &stats[p];
        if (s->count == 0)
            continue; /* a phase has its entry once it was seen */
        pm_json_key(json, phase_names[p]);
        pm_json_object(json);
        pm_json_key(json, "count");
        pm_json_u64(json, s->count);
        pm_json_ms_double(json, "mean_ms", s->mean, s->count);
        if (preset != PM_PRESET_SIMPLE)
            pm_json_ms_double(json, "std_ms", s->std, s->count);
        pm_json_ms_double(json, "min_ms", s->min, s->count);
        pm_json_ms_double(json, "max_ms", s->max, s->count);
        pm_json_ms_double(json, "p50_ms", s->p50, s->count);
        pm_json_ms_double(json, "p95_ms", s->p95, s->count);
        pm_json_ms_double(json, "p99_ms", s->p99, s->count);
        pm_json_end(json);
    }
    if (strcmp(source, "exact") != 0) {
        pm_json_key(json, "percentiles");
        pm_json_text(json, source);
        if (strcmp(source, "histogram") == 0) {
            pm_json_key(json, "percentiles_error_pct");
            pm_json_double(json, 100.0 * PM_HIST_QUANTILE_ERROR + 0.005, 2);
        }
    }
    pm_json_end(json);
}
