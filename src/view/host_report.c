/*
 * See host_report.h. Each part walks what it needs once, and only where its setting was on.
 */
#include "view/host_report.h"

#include "view/cpu.h"
#include "view/life.h"
#include "view/utilization.h"

static const char *const time_names[PM_LIFE_TIMES] = {"queue", "TTFT", "TPOT", "E2E"};
static const char *const time_keys[PM_LIFE_TIMES] = {"queue", "ttft", "tpot", "e2e"};

static void heading(struct pm_buf *buf, bool colour, const char *text)
{
    (void)pm_buf_printf(buf, "\n%s%s%s\n", colour ? "\033[1m" : "", text, colour ? "\033[0m" : "");
}

static const char *ms(double ns, char out[48])
{
    const double value = ns / 1e6;
    snprintf(out, 48, "%.*f", value < 1000.0 ? 3 : value < 100000.0 ? 1 : 0, value);
    return out;
}

static void put_times(struct pm_buf *buf, const char *name, const struct pm_stats *s)
{
    char cells[6][48];
    if (s->count == 0)
        return;
    (void)pm_buf_printf(buf, "  %-19s%8llu%9s%9s%9s%9s%9s\n", name, (unsigned long long)s->count,
                        ms(s->mean, cells[0]), ms(s->p50, cells[1]), ms(s->p95, cells[2]),
                        ms(s->p99, cells[3]), ms(s->max, cells[4]));
}

/* ---- as text ---- */

static void put_preemptions(struct pm_buf *buf, const struct pm_lives *lives)
{
    const uint64_t preemptions = lives->total_preemptions;
    char cells[2][48];
    if (preemptions == 0) {
        (void)pm_buf_printf(buf, "  %-12snone\n", "preempted");
        return;
    }
    (void)pm_buf_printf(
        buf, "  %-12s%llu times, %llu requests: cache exhausted %llu, cache reset %llu\n",
        "preempted", (unsigned long long)preemptions, (unsigned long long)lives->preempted_requests,
        (unsigned long long)lives->preemptions[PM_PREEMPT_EXHAUSTED],
        (unsigned long long)lives->preemptions[PM_PREEMPT_RESET]);
    (void)pm_buf_printf(buf, "  %-12s%llu tokens lost, %llu computed again\n", "",
                        (unsigned long long)lives->lost_tokens,
                        (unsigned long long)lives->recomputed_tokens);
    if (lives->resumes > 0)
        (void)pm_buf_printf(buf, "  %-12sresumed after %s ms on average, %s ms at most\n", "",
                            ms((double)lives->away_ns / (double)lives->resumes, cells[0]),
                            ms((double)lives->longest_away_ns, cells[1]));
}

static void put_finished(struct pm_buf *buf, const struct pm_lives *lives)
{
    uint64_t over = 0;
    (void)pm_buf_printf(buf, "  %-12s", "requests");
    for (unsigned i = 0; i < PM_FINISH_COUNT; i++)
        over += lives->finished[i];
    (void)pm_buf_printf(buf, "%llu finished", (unsigned long long)over);
    for (unsigned i = 0; i < PM_FINISH_COUNT; i++)
        if (lives->finished[i] > 0)
            (void)pm_buf_printf(buf, ", %llu %s", (unsigned long long)lives->finished[i],
                                i != 0 ? pm_finish_reason_text(i) : "unknown");
    if (lives->open > 0)
        (void)pm_buf_printf(buf, "; %llu not over", (unsigned long long)lives->open);
    if (lives->never_ran > 0)
        (void)pm_buf_printf(buf, "; %llu never ran", (unsigned long long)lives->never_ran);
    (void)pm_buf_printf(buf, "\n  %-12s%llu prompt (%llu from the prefix cache), %llu output\n",
                        "tokens", (unsigned long long)lives->prompt_tokens,
                        (unsigned long long)lives->cached_tokens,
                        (unsigned long long)lives->output_tokens);
}

static int requests_text(const struct pm_session *session, size_t engine, bool colour,
                         struct pm_buf *buf)
{
    struct pm_lives lives;
    const int rc = pm_lives_walk(session, engine, NULL, NULL, &lives);

    if (rc == 0 && lives.total_requests > 0) {
        heading(buf, colour, "Requests, as the engine core saw them");
        put_finished(buf, &lives);
        put_preemptions(buf, &lives);
        (void)pm_buf_printf(buf, "  %-19s%8s%9s%9s%9s%9s%9s\n", "ms", "count", "mean", "p50", "p95",
                            "p99", "max");
        put_times(buf, time_names[PM_LIFE_QUEUE], &lives.stats[PM_LIFE_QUEUE]);
        put_times(buf, time_names[PM_LIFE_TTFT], &lives.stats[PM_LIFE_TTFT]);
        put_times(buf, "ITL", &lives.itl);
        put_times(buf, time_names[PM_LIFE_TPOT], &lives.stats[PM_LIFE_TPOT]);
        put_times(buf, time_names[PM_LIFE_E2E], &lives.stats[PM_LIFE_E2E]);
        (void)pm_buf_add_text(buf, "  ITL: between two outputs; TPOT: first to last output by the "
                                   "output tokens but\n  one; E2E: aborted requests left out.\n");
        if (lives.recycled)
            (void)pm_buf_add_text(
                buf, "  Older requests had to go: times, ITL too, are of those held.\n");
    }
    pm_lives_release(&lives);
    return rc;
}

static int utilization_text(const struct pm_session *session, size_t engine, bool colour,
                            struct pm_buf *buf)
{
    struct pm_utilization sums;
    const int rc = pm_utilization_walk(session, engine, NULL, &sums);

    if (rc != 0 || sums.samples == 0 || sums.max_requests == 0 || sums.max_tokens == 0)
        return rc;
    heading(buf, colour, "Utilization");
    (void)pm_buf_printf(buf, "  %-12s%.1f %% of %u requests, %.1f %% of %u tokens a step\n", "mean",
                        sums.seq_pct / (double)sums.samples, sums.max_requests,
                        sums.token_pct / (double)sums.samples, sums.max_tokens);
    (void)pm_buf_printf(buf, "  %-12s%llu of %llu steps with less than half of their tokens\n",
                        "below 50 %", (unsigned long long)sums.underutilized,
                        (unsigned long long)sums.samples);
    return rc;
}

static int operations_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                           struct pm_buf *buf)
{
    struct pm_cpu_sums sums;
    const char *source;
    int rc = pm_cpu_walk(session, engine, n, NULL, &sums);

    if (rc == 0 && sums.n > 0)
        rc = pm_cpu_stats(session, engine, n, &sums, &source);
    if (rc == 0 && sums.n > 0) {
        heading(buf, colour, "Operations of the host, ms");
        (void)pm_buf_printf(buf, "  %-19s%8s%9s%9s%9s%9s%9s\n", "operation", "count", "mean", "p50",
                            "p95", "p99", "max");
        for (unsigned i = 0; i < sums.n; i++)
            put_times(buf, sums.operations[i].operation, &sums.operations[i].stats);
    }
    pm_cpu_release(&sums);
    return rc;
}

int pm_host_report_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                        struct pm_buf *buf)
{
    int rc = 0;
    if (pm_session_setting_on(session, "preemption", true))
        rc = requests_text(session, engine, colour, buf);
    if (rc == 0 && pm_session_setting_on(session, "batch_utilization", true))
        rc = utilization_text(session, engine, colour, buf);
    if (rc == 0 && pm_session_setting_on(session, "cpu_timing", true))
        rc = operations_text(session, engine, n, colour, buf);
    return rc != 0 ? rc : pm_buf_status(buf);
}

/* ---- as JSON ---- */

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_stats(struct pm_json *json, const char *key, const struct pm_stats *s)
{
    pm_json_key(json, key);
    pm_json_object(json);
    put_u64(json, "count", s->count);
    pm_json_ms_double(json, "mean_ms", s->mean, s->count);
    pm_json_ms_double(json, "std_ms", s->std, s->count);
    pm_json_ms_double(json, "min_ms", s->min, s->count);
    pm_json_ms_double(json, "p50_ms", s->p50, s->count);
    pm_json_ms_double(json, "p90_ms", s->p90, s->count);
    pm_json_ms_double(json, "p95_ms", s->p95, s->count);
    pm_json_ms_double(json, "p99_ms", s->p99, s->count);
    pm_json_ms_double(json, "max_ms", s->max, s->count);
    pm_json_end(json);
}

static int requests_json(const struct pm_session *session, size_t engine, struct pm_json *json)
{
    struct pm_lives lives;
    const int rc = pm_lives_walk(session, engine, NULL, NULL, &lives);

    if (rc == 0) {
        pm_json_key(json, "requests");
        pm_json_object(json);
        put_u64(json, "total", lives.total_requests);
        put_u64(json, "not_over", lives.open);
        put_u64(json, "never_ran", lives.never_ran);
        pm_json_key(json, "finished");
        pm_json_object(json);
        for (unsigned i = 0; i < PM_FINISH_COUNT; i++)
            if (lives.finished[i] > 0)
                put_u64(json, i != 0 ? pm_finish_reason_text(i) : "unknown", lives.finished[i]);
        pm_json_end(json);
        put_u64(json, "prompt_tokens", lives.prompt_tokens);
        put_u64(json, "cached_tokens", lives.cached_tokens);
        put_u64(json, "output_tokens", lives.output_tokens);
        put_u64(json, "preemptions", lives.total_preemptions);
        put_u64(json, "preempted_requests", lives.preempted_requests);
        put_u64(json, "lost_tokens", lives.lost_tokens);
        put_u64(json, "recomputed_tokens", lives.recomputed_tokens);
        for (unsigned i = 0; i < PM_LIFE_TIMES; i++)
            put_stats(json, time_keys[i], &lives.stats[i]);
        put_stats(json, "itl", &lives.itl);
        pm_json_key(json, "percentiles");
        pm_json_text(json, lives.recycled ? "held" : "exact");
        pm_json_end(json);
    }
    pm_lives_release(&lives);
    return rc;
}

static int utilization_json(const struct pm_session *session, size_t engine, struct pm_json *json)
{
    struct pm_utilization sums;
    const int rc = pm_utilization_walk(session, engine, NULL, &sums);
    if (rc == 0) {
        pm_json_key(json, "utilization");
        pm_utilization_summary(json, &sums);
    }
    return rc;
}

static int operations_json(const struct pm_session *session, size_t engine, unsigned n,
                           struct pm_json *json)
{
    struct pm_cpu_sums sums;
    const char *source;
    int rc = pm_cpu_walk(session, engine, n, NULL, &sums);

    if (rc == 0)
        rc = pm_cpu_stats(session, engine, n, &sums, &source);
    if (rc == 0) {
        pm_json_key(json, "host_operations");
        pm_json_object(json);
        for (unsigned i = 0; i < sums.n; i++)
            put_stats(json, sums.operations[i].operation, &sums.operations[i].stats);
        pm_json_end(json);
    }
    pm_cpu_release(&sums);
    return rc;
}

int pm_host_report_json(const struct pm_session *session, size_t engine, unsigned n,
                        struct pm_json *json)
{
    int rc = 0;
    if (pm_session_setting_on(session, "preemption", true))
        rc = requests_json(session, engine, json);
    if (rc == 0 && pm_session_setting_on(session, "batch_utilization", true))
        rc = utilization_json(session, engine, json);
    if (rc == 0 && pm_session_setting_on(session, "cpu_timing", true))
        rc = operations_json(session, engine, n, json);
    return rc;
}
