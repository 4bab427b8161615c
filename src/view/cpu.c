/*
 * cpu_operations_timing.csv and cpu_timing_summary.json: merges the sources of operations by time
 * (see cpu.h). Called by seed_export.c and the reports.
 */
#include "view/cpu.h"

#include <string.h>

#include "base/number.h"
#include "session/hist.h"
#include "view/detail.h"
#include "view/frontend.h"
#include "view/seed.h"

static const pm_cpu_open_fn openers[] = {
#define X(function) function,
#include "view/cpu_sources.def"
#undef X
};
#define SOURCES (sizeof(openers) / sizeof(*openers))

/* The histogram that knows all of an operation's times, in whose process; those of other sources
 * have none. */
static const struct {
    const char *operation, *schema, *field;
    bool of_worker;
} totals_of[] = {
    {"scheduling", "sched_step", "dur_ns", false},
    {"batch_prep", "worker_step", "pre_ns", true},
    {"model_execution", "worker_step", "model_ns", true},
    {"sampling", "worker_step", "sampler_ns", true},
    {"bookkeeping", "worker_step", "bookkeep_ns", true},
    {"drafting", "worker_step", "draft_ns", true},
    {"output_processing", "update_step", "dur_ns", false},
};

struct merge {
    struct pm_cpu_source *sources[SOURCES];
    struct pm_cpu_op heads[SOURCES];
    bool have[SOURCES];
};

static int fill(struct merge *merge, size_t i)
{
    if (merge->sources[i] == NULL)
        return 0;
    int rc = merge->sources[i]->next(merge->sources[i], &merge->heads[i]);
    merge->have[i] = rc == 1;
    return rc < 0 ? rc : 0;
}

static void merge_close(struct merge *merge)
{
    for (size_t i = 0; i < SOURCES; i++)
        if (merge->sources[i] != NULL)
            merge->sources[i]->close(merge->sources[i]);
}

static int merge_open(struct merge *merge, const struct pm_session *session, size_t engine,
                      unsigned n)
{
    const bool sampler =
        engine >= pm_session_engine_count(session) || n == pm_engine_sampler(session, engine);
    int rc = 0;
    memset(merge, 0, sizeof(*merge));
    for (size_t i = 0; i < SOURCES && rc == 0; i++) {
        rc = openers[i](&merge->sources[i], session, engine, n, sampler);
        if (rc == 0)
            rc = fill(merge, i);
    }
    return rc;
}

#define KEY_MAX 32
#define CONTEXT_MAX (PM_CPU_TAGS_MAX * (KEY_MAX + PM_NUMBER_MAX + 2))

static char *put_context(char *out, const struct pm_cpu_op *op)
{
    for (size_t i = 0; i < PM_CPU_TAGS_MAX && op->tags[i].key != NULL; i++) {
        const size_t bytes = strnlen(op->tags[i].key, KEY_MAX);
        const bool ms = bytes > 3 && memcmp(op->tags[i].key + bytes - 3, "_ms", 3) == 0;
        if (i > 0)
            *out++ = ';';
        memcpy(out, op->tags[i].key, bytes);
        out += bytes;
        *out++ = '=';
        out = ms ? pm_number_ms3(out, op->tags[i].value) : pm_number_u64(out, op->tags[i].value);
    }
    return out;
}

static int put_row(struct pm_outfile *file, const struct pm_cpu_op *op, uint64_t start_ns)
{
    const size_t name = strlen(op->operation);
    char *out = pm_buf_reserve(&file->buf, 2 * PM_NUMBER_MAX + name + CONTEXT_MAX + 4);
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(op->at_ns - start_ns));
    *out++ = ',';
    memcpy(out, op->operation, name);
    out += name;
    *out++ = ',';
    out = pm_number_ms6(out, op->dur_ns);
    *out++ = ',';
    out = put_context(out, op);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

static int count(struct pm_cpu_sums *sums, const struct pm_cpu_op *op)
{
    unsigned i = 0;
    while (i < sums->n && sums->operations[i].operation != op->operation &&
           strcmp(sums->operations[i].operation, op->operation) != 0)
        i++;
    if (i == sums->n) {
        if (i == PM_CPU_OPERATIONS_MAX)
            return 0;
        sums->operations[i].operation = op->operation;
        pm_samples_init(&sums->operations[i].samples);
        sums->n++;
    }
    sums->rows++;
    return pm_samples_add(&sums->operations[i].samples, op->dur_ns);
}

int pm_cpu_walk(const struct pm_session *session, size_t engine, unsigned n,
                struct pm_outfile *file, struct pm_cpu_sums *ret_sums)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct merge merge;
    int rc = 0;

    memset(ret_sums, 0, sizeof(*ret_sums));
    ret_sums->recycled = pm_engine_recycled(session, engine) != NULL ||
                         pm_worker_recycled(session, engine, n) != NULL ||
                         pm_frontend_recycled(session, engine, n);
    if (file != NULL)
        rc = pm_buf_add_text(&file->buf, "timestamp_sec,operation,duration_ms,context\n");
    if (rc != 0)
        return rc;
    rc = merge_open(&merge, session, engine, n);
    while (rc == 0) {
        size_t first = SOURCES;
        for (size_t i = 0; i < SOURCES; i++)
            if (merge.have[i] &&
                (first == SOURCES || merge.heads[i].at_ns < merge.heads[first].at_ns))
                first = i;
        if (first == SOURCES)
            break;
        rc = count(ret_sums, &merge.heads[first]);
        if (rc == 0 && file != NULL)
            rc = put_row(file, &merge.heads[first], start_ns);
        if (rc == 0)
            rc = fill(&merge, first);
    }
    merge_close(&merge);
    return rc;
}

/* An operation's histogram over all phases with tokens; false where there is none. */
static bool stats_from_totals(const struct pm_process *process, const struct pm_totals *totals,
                              const char *schema, const char *field, struct pm_stats *ret_stats)
{
    struct pm_hist hist = {.buckets = {0}};
    uint64_t sum = 0;
    bool found = false;
    for (unsigned class = 0; class < 3; class ++) {
        struct pm_series series;
        if (!pm_series_find(process, totals, schema, field, class, &series) || series.hist == NULL)
            break;
        if (class == 0 && strcmp(schema, "update_step") != 0)
            continue; /* steps without tokens */
        pm_hist_merge(&hist, series.hist);
        sum += series.sum;
        found = true;
    }
    if (found)
        pm_stats_from_hist(&hist, sum, ret_stats);
    return found && ret_stats->count > 0;
}

int pm_cpu_stats(const struct pm_session *session, size_t engine, unsigned n,
                 struct pm_cpu_sums *sums, const char **ret_source)
{
    struct pm_totals of_engine, of_worker;
    *ret_source = "exact";
    for (unsigned i = 0; i < sums->n; i++) {
        pm_samples_stats(&sums->operations[i].samples, &sums->operations[i].stats);
        if (!sums->operations[i].stats.exact)
            *ret_source = "histogram";
    }
    if (!sums->recycled)
        return 0;
    *ret_source = "held";
    const struct pm_process *engine_process = pm_engine_recycled(session, engine);
    const struct pm_process *worker_process = pm_worker_recycled(session, engine, n);
    const bool have_engine =
        engine_process != NULL && pm_engine_totals(session, engine, &of_engine);
    const bool have_worker =
        worker_process != NULL && pm_worker_totals(session, engine, n, &of_worker);
    for (size_t t = 0; t < sizeof(totals_of) / sizeof(*totals_of); t++) {
        const bool have = totals_of[t].of_worker ? have_worker : have_engine;
        for (unsigned i = 0; have && i < sums->n; i++) {
            if (strcmp(sums->operations[i].operation, totals_of[t].operation) == 0 &&
                stats_from_totals(totals_of[t].of_worker ? worker_process : engine_process,
                                  totals_of[t].of_worker ? &of_worker : &of_engine,
                                  totals_of[t].schema, totals_of[t].field,
                                  &sums->operations[i].stats))
                *ret_source = "histogram";
        }
    }
    for (unsigned i = 0; i < sums->n && pm_frontend_recycled(session, engine, n); i++)
        if (pm_frontend_stats(session, engine, n, sums->operations[i].operation,
                              &sums->operations[i].stats))
            *ret_source = "histogram";
    if (have_engine)
        pm_totals_free(&of_engine);
    if (have_worker)
        pm_totals_free(&of_worker);
    return 0;
}

void pm_cpu_release(struct pm_cpu_sums *sums)
{
    for (unsigned i = 0; i < sums->n; i++)
        pm_samples_release(&sums->operations[i].samples);
    sums->n = 0;
}

static void put_ms(struct pm_json *json, const char *key, double ns)
{
    pm_json_key(json, key);
    pm_json_double(json, ns / 1e6, 6);
}

static void put_summary(struct pm_json *json, const struct pm_cpu_sums *sums, const char *source)
{
    pm_json_object(json);
    for (unsigned i = 0; i < sums->n; i++) {
        const struct pm_stats *stats = &sums->operations[i].stats;
        pm_json_key(json, sums->operations[i].operation);
        pm_json_object(json);
        pm_json_key(json, "count");
        pm_json_u64(json, stats->count);
        put_ms(json, "mean_ms", stats->mean);
        put_ms(json, "std_ms", stats->std);
        put_ms(json, "min_ms", stats->min);
        put_ms(json, "max_ms", stats->max);
        put_ms(json, "p95_ms", stats->p95);
        pm_json_end(json);
    }
    pm_json_detail(json, strcmp(source, "exact") != 0, strcmp(source, "histogram") == 0);
    pm_json_end(json);
}

int pm_seed_cpu(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_cpu_sums sums = {.n = 0};
    struct pm_outfile file;
    struct pm_json json;
    const char *source;

    int rc = pm_seed_begin(seed, dir_fd, "cpu_operations_timing.csv", &file);
    if (rc != 0)
        return rc;
    rc = pm_cpu_walk(seed->session, engine, n, &file, &sums);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc != 0)
        goto done;
    seed->result.rows += sums.rows;
    rc = pm_cpu_stats(seed->session, engine, n, &sums, &source);
    if (rc != 0) {
        rc = pm_error_set(seed->err, rc, "%s", pm_strerror(rc));
        goto done;
    }
    rc = pm_seed_begin(seed, dir_fd, "cpu_timing_summary.json", &file);
    if (rc != 0)
        goto done;
    pm_json_init(&json, &file.buf, 2);
    put_summary(&json, &sums, source);
    rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
done:
    pm_cpu_release(&sums);
    return rc;
}
