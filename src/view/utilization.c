/*
 * How full the batches were: batch_utilization.csv and its summary, from the scheduler's facts
 * alone. Called by seed_export.c and the reports.
 */
#include "view/utilization.h"

#include <string.h>

#include "base/number.h"
#include "reader/engine_facts.h"
#include "session/hist.h"
#include "view/detail.h"
#include "view/seed.h"

static const char *const phase_names[PM_PHASE_CLASSES] = {"", "prefill", "decode"};

/* 100 * value / most with 2 decimals; nothing where the limit is not known. */
static char *put_share(char *out, uint32_t value, uint32_t most)
{
    return most != 0 ? pm_number_ratio(out, value, 100, most, 2) : out;
}

static char *put_limit(char *out, uint32_t most)
{
    return most != 0 ? pm_number_u64(out, most) : out;
}

static int put_row(struct pm_outfile *file, const struct pm_sched_step *step, uint64_t start_ns)
{
    char *out = pm_buf_reserve(&file->buf, 10 * (PM_NUMBER_MAX + 1));
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(step->start_ns - start_ns));
    *out++ = ',';
    out = pm_number_u64(out, step->requests);
    *out++ = ',';
    out = put_limit(out, step->max_requests);
    *out++ = ',';
    out = put_share(out, step->requests, step->max_requests);
    *out++ = ',';
    out = pm_number_u64(out, step->tokens);
    *out++ = ',';
    out = put_limit(out, step->max_tokens);
    *out++ = ',';
    out = put_share(out, step->tokens, step->max_tokens);
    *out++ = ',';
    for (const char *c = phase_names[step->phase % PM_PHASE_CLASSES]; *c != '\0'; c++)
        *out++ = *c;
    *out++ = ',';
    out = pm_number_u64(out, step->running);
    *out++ = ',';
    out = pm_number_u64(out, step->waiting);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

static void count(struct pm_utilization *sums, const struct pm_sched_step *step)
{
    const unsigned phase = step->phase % PM_PHASE_CLASSES;
    sums->samples++;
    sums->phase_samples[phase]++;
    if (step->max_requests != 0) {
        sums->max_requests = step->max_requests;
        sums->seq_pct += 100.0 * step->requests / step->max_requests;
    }
    if (step->max_tokens != 0) {
        const double pct = 100.0 * step->tokens / step->max_tokens;
        sums->max_tokens = step->max_tokens;
        sums->token_pct += pct;
        sums->phase_token_pct[phase] += pct;
        sums->underutilized += 2ull * step->tokens < step->max_tokens;
    }
}

/* Of the values counted in a histogram, those below a bound: whole buckets, and the share of the
 * one that it falls into. */
static uint64_t below(const struct pm_hist *hist, uint64_t bound)
{
    uint64_t found = 0;
    for (unsigned i = 0; i < PM_HIST_BUCKETS; i++) {
        const uint64_t lower = pm_hist_lower(i), upper = pm_hist_upper(i);
        if (hist->buckets[i] == 0 || lower >= bound)
            continue;
        found += upper < bound ? hist->buckets[i]
                               : (uint64_t)((double)hist->buckets[i] * (double)(bound - lower) /
                                            (double)(upper - lower + 1));
    }
    return found;
}

/* Older steps had to go: the totals know all of them, as long as they are this engine's alone. */
static void from_totals(struct pm_utilization *sums, const struct pm_process *process,
                        const struct pm_totals *totals)
{
    struct pm_utilization all = {.max_requests = sums->max_requests,
                                 .max_tokens = sums->max_tokens,
                                 .recycled = true,
                                 .from_totals = true};
    for (unsigned p = PM_PHASE_PREFILL; p < PM_PHASE_CLASSES; p++) {
        struct pm_series requests, tokens;
        if (!pm_series_find(process, totals, "sched_step", "requests", p, &requests) ||
            !pm_series_find(process, totals, "sched_step", "tokens", p, &tokens) ||
            tokens.hist == NULL || sums->max_requests == 0 || sums->max_tokens == 0)
            return;
        const double pct = 100.0 * (double)tokens.sum / sums->max_tokens;
        all.samples += requests.count;
        all.phase_samples[p] = requests.count;
        all.seq_pct += 100.0 * (double)requests.sum / sums->max_requests;
        all.token_pct += pct;
        all.phase_token_pct[p] = pct;
        all.underutilized += below(tokens.hist, (sums->max_tokens + 1) / 2);
    }
    *sums = all;
}

int pm_utilization_walk(const struct pm_session *session, size_t engine, struct pm_outfile *file,
                        struct pm_utilization *ret_sums)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct pm_utilization sums = {0};
    struct pm_engine_facts *facts;
    struct pm_sched_step step;
    int rc = 0;

    if (file != NULL)
        rc = pm_buf_add_text(&file->buf,
                             "timestamp_sec,num_seqs,max_num_seqs,seq_utilization_pct,num_tokens,"
                             "max_tokens,token_utilization_pct,phase,running_queue_len,"
                             "waiting_queue_len\n");
    if (rc == 0 && engine < pm_session_engine_count(session)) {
        rc = pm_engine_facts_open(&facts, session, engine, PM_ENGINE_SCHED);
        if (rc != 0)
            return rc;
        while ((rc = pm_engine_facts_next(facts, &step)) == 1) {
            if (step.tokens == 0)
                continue;
            count(&sums, &step);
            rc = file != NULL ? put_row(file, &step, start_ns) : 0;
            if (rc != 0)
                break;
        }
        pm_engine_facts_close(facts);
    }
    sums.rows = sums.samples;
    if (rc == 0) {
        struct pm_totals totals;
        const struct pm_process *process = pm_engine_recycled(session, engine);
        sums.recycled = process != NULL;
        if (process != NULL && pm_engine_totals(session, engine, &totals)) {
            const uint64_t rows = sums.rows;
            from_totals(&sums, process, &totals);
            sums.rows = rows;
            pm_totals_free(&totals);
        }
        *ret_sums = sums;
    }
    return rc;
}

static void put_mean(struct pm_json *json, const char *key, double sum, uint64_t count)
{
    pm_json_key(json, key);
    if (count == 0)
        pm_json_null(json);
    else
        pm_json_double(json, sum / (double)count, 2);
}

static void put_count(struct pm_json *json, const char *key, uint64_t value, bool known)
{
    pm_json_key(json, key);
    known ? pm_json_u64(json, value) : pm_json_null(json);
}

void pm_utilization_summary(struct pm_json *json, const struct pm_utilization *sums)
{
    pm_json_object(json);
    put_count(json, "total_samples", sums->samples, true);
    put_mean(json, "mean_seq_utilization_pct", sums->seq_pct, sums->samples);
    put_mean(json, "mean_token_utilization_pct", sums->token_pct, sums->samples);
    put_count(json, "underutilization_events", sums->underutilized, true);
    put_mean(json, "prefill_avg_utilization", sums->phase_token_pct[PM_PHASE_PREFILL],
             sums->phase_samples[PM_PHASE_PREFILL]);
    put_mean(json, "decode_avg_utilization", sums->phase_token_pct[PM_PHASE_DECODE],
             sums->phase_samples[PM_PHASE_DECODE]);
    put_count(json, "max_num_seqs", sums->max_requests, sums->max_requests != 0);
    put_count(json, "max_tokens", sums->max_tokens, sums->max_tokens != 0);
    pm_json_detail(json, sums->recycled, sums->from_totals);
    pm_json_end(json);
}

int pm_seed_utilization(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_utilization sums;
    struct pm_outfile file;
    struct pm_json json;

    (void)n;
    int rc = pm_seed_begin(seed, dir_fd, "batch_utilization.csv", &file);
    if (rc != 0)
        return rc;
    rc = pm_utilization_walk(seed->session, engine, &file, &sums);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc != 0)
        return rc;
    seed->result.rows += sums.rows;
    rc = pm_seed_begin(seed, dir_fd, "batch_utilization_summary.json", &file);
    if (rc != 0)
        return rc;
    pm_json_init(&json, &file.buf, 2);
    pm_utilization_summary(&json, &sums);
    return pm_seed_finish(seed, &file, pm_json_finish(&json));
}
