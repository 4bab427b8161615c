/*
 * encoder_decoder_timing.csv and encoder_decoder_summary.json: a step's encoder and cross-attention
 * from its encoder_step, its decoder from the model's forward time, as forward_pass_timing.csv has
 * it. Called by seed_export.c and report_text.c.
 *
 * A decoder_only model has no rows: its forward passes are in forward_pass_timing.csv. The forward
 * pass of an encoder_only model is its encoder.
 */
#include "view/encoder_decoder.h"

#include <string.h>

#include "base/number.h"
#include "session/attrs.h"
#include "session/encoder_facts.h"
#include "session/hist.h"
#include "view/columns.h"
#include "view/detail.h"
#include "view/seed.h"

static const char *const component_names[PM_COMPONENTS] = {
    [PM_COMPONENT_ENCODER] = "encoder",
    [PM_COMPONENT_DECODER] = "decoder",
    [PM_COMPONENT_CROSS] = "cross_attention",
};

/* ---- the records of a worker ---- */

struct reader {
    struct pm_cursor *cursor; /* NULL: nothing to read */
    unsigned schema, instance;
    const struct pm_field *step, *encoder_start, *encoder, *cross_start, *cross, *items, *calls;
    const struct pm_field *number;
    struct pm_encoder_step next;
    bool have;
};

static int reader_next(struct reader *reader)
{
    struct pm_record record;
    int rc = 0;

    reader->have = false;
    while (reader->cursor != NULL && (rc = pm_cursor_next(reader->cursor, &record)) == 1) {
        const uint8_t *payload = record.payload;
        if (record.schema != reader->schema || record.keyframe ||
            pm_column_get(reader->number, payload) != reader->instance)
            continue;
        reader->next = (struct pm_encoder_step){
            .step = pm_column_get(reader->step, payload),
            .encoder_start_ns = pm_column_get(reader->encoder_start, payload),
            .encoder_ns = pm_column_get(reader->encoder, payload),
            .cross_start_ns = pm_column_get(reader->cross_start, payload),
            .cross_ns = pm_column_get(reader->cross, payload),
            .items = (uint32_t)pm_column_get(reader->items, payload),
            .cross_calls = (uint32_t)pm_column_get(reader->calls, payload),
        };
        reader->have = true;
        return 0;
    }
    return rc;
}

static int reader_open(struct reader *reader, const struct pm_process *process, unsigned instance)
{
    const int schema = pm_process_schema_find(process, "encoder_step");
    *reader = (struct reader){.instance = instance};
    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    reader->schema = (unsigned)schema;
    reader->step = pm_column(desc, "step");
    reader->encoder_start = pm_column(desc, "encoder_start_ns");
    reader->encoder = pm_column(desc, "encoder_ns");
    reader->cross_start = pm_column(desc, "cross_start_ns");
    reader->cross = pm_column(desc, "cross_ns");
    reader->items = pm_column(desc, "items");
    reader->calls = pm_column(desc, "cross_calls");
    reader->number = pm_column(desc, "instance");
    const int rc = pm_cursor_open(&reader->cursor, process, PM_STREAM_CORE);
    return rc != 0 ? rc : reader_next(reader);
}

/* ---- the walk ---- */

struct walk {
    struct pm_encoder_decoder *sums;
    struct pm_outfile *file; /* NULL: only the sums */
    uint64_t session_start_ns;
};

static int add(struct walk *walk, enum pm_component component, uint64_t at_ns, uint64_t dur_ns,
               const char *context)
{
    int rc = pm_samples_add(&walk->sums->samples[component], dur_ns);
    walk->sums->rows++;
    if (rc != 0 || walk->file == NULL)
        return rc;
    char number[2 * PM_NUMBER_MAX];
    char *out = pm_number_sec6_signed(number, (int64_t)(at_ns - walk->session_start_ns));
    *out++ = ',';
    *out = '\0';
    (void)pm_buf_add_text(&walk->file->buf, number);
    (void)pm_buf_add_text(&walk->file->buf, component_names[component]);
    out = number;
    *out++ = ',';
    out = pm_number_ms3(out, dur_ns);
    *out++ = ',';
    *out = '\0';
    (void)pm_buf_add_text(&walk->file->buf, number);
    (void)pm_buf_add_text(&walk->file->buf, context);
    rc = pm_buf_add_char(&walk->file->buf, '\n');
    return rc != 0 ? rc : pm_outfile_spill(walk->file);
}

static int add_encoder(struct walk *walk, const struct pm_encoder_step *fact)
{
    char context[96];
    if (fact->encoder_ns == 0)
        return 0;
    walk->sums->items += fact->items;
    snprintf(context, sizeof(context), "step=%llu;items=%u%s", (unsigned long long)fact->step,
             fact->items, walk->sums->device ? ";clock=launch" : "");
    return add(walk, PM_COMPONENT_ENCODER, fact->encoder_start_ns, fact->encoder_ns, context);
}

static int add_cross(struct walk *walk, const struct pm_encoder_step *fact)
{
    char context[96];
    if (fact->cross_ns == 0)
        return 0;
    snprintf(context, sizeof(context), "step=%llu;calls=%u%s", (unsigned long long)fact->step,
             fact->cross_calls, walk->sums->device ? ";clock=launch" : "");
    return add(walk, PM_COMPONENT_CROSS, fact->cross_start_ns, fact->cross_ns, context);
}

static int add_forward(struct walk *walk, const struct pm_step *step)
{
    const enum pm_component component = strcmp(walk->sums->model_type, "encoder_only") == 0
                                            ? PM_COMPONENT_ENCODER
                                            : PM_COMPONENT_DECODER;
    char context[96];
    if (!step->has_worker || step->tokens == 0 || step->forward_ns == 0)
        return 0;
    walk->sums->device = step->forward_clock > 1;
    snprintf(context, sizeof(context), "step=%llu;num_seqs=%u;num_tokens=%u",
             (unsigned long long)step->step, step->requests, step->tokens);
    return add(walk, component, step->time_ns, step->forward_ns, context);
}

/* One step: its encoder comes before the model, cross-attention lies inside it. */
static int add_step(struct walk *walk, const struct pm_step *step, struct reader *reader)
{
    const bool has = reader->have && reader->next.step == step->step;
    const struct pm_encoder_step fact = reader->next;
    walk->sums->device = step->forward_clock > 1;
    int rc = has ? add_encoder(walk, &fact) : 0;
    if (rc == 0)
        rc = add_forward(walk, step);
    if (rc == 0 && has)
        rc = add_cross(walk, &fact);
    if (rc == 0 && has)
        rc = reader_next(reader);
    return rc;
}

/* Records before a step that is not held any more. */
static int add_orphans(struct walk *walk, struct reader *reader, uint64_t before)
{
    int rc = 0;
    while (rc == 0 && reader->have && reader->next.step < before) {
        rc = add_encoder(walk, &reader->next);
        if (rc == 0)
            rc = add_cross(walk, &reader->next);
        if (rc == 0)
            rc = reader_next(reader);
    }
    return rc;
}

static int walk_steps(struct walk *walk, const struct pm_session *session, size_t engine,
                      unsigned n, struct reader *reader)
{
    struct pm_steps *steps;
    struct pm_step step;
    int rc = pm_steps_open(&steps, session, engine, n);

    if (rc != 0)
        return rc;
    while ((rc = pm_steps_next(steps, &step)) == 1) {
        rc = add_orphans(walk, reader, step.step);
        if (rc == 0)
            rc = add_step(walk, &step, reader);
        if (rc != 0)
            break;
    }
    pm_steps_close(steps);
    return rc != 0 ? rc : add_orphans(walk, reader, UINT64_MAX);
}

/* What the totals know of encoder and cross-attention where detail had to go. */
static void from_totals(const struct pm_session *session, size_t engine, unsigned n,
                        struct pm_encoder_decoder *sums)
{
    static const struct {
        enum pm_component component;
        const char *schema, *field;
        unsigned first, last;
    } series_of[] = {
        {PM_COMPONENT_ENCODER, "encoder_step", "encoder_ns", 0, 0},
        {PM_COMPONENT_CROSS, "encoder_step", "cross_ns", 0, 0},
        {PM_COMPONENT_DECODER, "worker_step", "model_ns", 1, 2},
    };
    const struct pm_process *process = pm_worker_recycled(session, engine, n);
    struct pm_totals totals;
    if (process == NULL || sums->device || strcmp(sums->model_type, "encoder_only") == 0 ||
        !pm_worker_totals(session, engine, n, &totals))
        return;
    for (size_t i = 0; i < sizeof(series_of) / sizeof(*series_of); i++) {
        struct pm_hist hist = {.buckets = {0}};
        uint64_t sum = 0;
        for (unsigned class = series_of[i].first; class <= series_of[i].last; class ++) {
            struct pm_series series;
            if (pm_series_find(process, &totals, series_of[i].schema, series_of[i].field, class,
                               &series) &&
                series.hist != NULL) {
                pm_hist_merge(&hist, series.hist);
                sum += series.sum;
            }
        }
        pm_stats_from_hist(&hist, sum, &sums->stats[series_of[i].component]);
    }
    pm_totals_free(&totals);
    sums->from_totals = true;
}

/* What kind of model a worker runs: by its own word, else by what any process of the session says.
 */
static const char *model_type(const struct pm_session *session, const struct pm_process *process,
                              unsigned instance)
{
    char key[48];
    const char *type = NULL;

    snprintf(key, sizeof(key), PM_ATTR_MODEL_TYPE ".%u", instance);
    if (process != NULL && instance > 0)
        type = pm_process_attr(process, key);
    if (type == NULL && process != NULL)
        type = pm_process_attr(process, PM_ATTR_MODEL_TYPE);
    if (type == NULL)
        type = pm_session_attr(session, PM_ATTR_MODEL_TYPE);
    return type != NULL ? type : "unknown";
}

int pm_encoder_decoder_walk(const struct pm_session *session, size_t engine, unsigned n,
                            struct pm_outfile *file, struct pm_encoder_decoder *ret_sums)
{
    struct walk walk = {ret_sums, file, pm_session_info(session)->start_mono_ns};
    const struct pm_process *process = NULL;
    struct reader reader;
    unsigned instance = 0;
    int rank, rc = 0;
    const bool found = pm_engine_worker(session, engine, n, &process, &instance, &rank) == 0;

    memset(ret_sums, 0, sizeof(*ret_sums));
    for (unsigned c = 0; c < PM_COMPONENTS; c++)
        pm_samples_init(&ret_sums->samples[c]);
    ret_sums->model_type = model_type(session, found ? process : NULL, instance);
    if (file != NULL)
        rc = pm_buf_add_text(&file->buf, "timestamp_sec,component,duration_ms,context\n");
    if (rc != 0 || strcmp(ret_sums->model_type, "decoder_only") == 0 ||
        strcmp(ret_sums->model_type, "unknown") == 0 || !found)
        return rc;
    rc = reader_open(&reader, process, instance);
    if (rc == 0)
        rc = walk_steps(&walk, session, engine, n, &reader);
    pm_cursor_close(reader.cursor);
    for (unsigned c = 0; c < PM_COMPONENTS && rc == 0; c++)
        pm_samples_stats(&ret_sums->samples[c], &ret_sums->stats[c]);
    ret_sums->recycled = pm_worker_recycled(session, engine, n) != NULL;
    if (rc == 0 && ret_sums->recycled)
        from_totals(session, engine, n, ret_sums);
    return rc;
}

void pm_encoder_decoder_release(struct pm_encoder_decoder *sums)
{
    for (unsigned c = 0; c < PM_COMPONENTS; c++)
        pm_samples_release(&sums->samples[c]);
}

/* ---- the files ---- */

static double total_ns(const struct pm_stats *stats)
{
    return stats->count != 0 ? stats->mean * (double)stats->count : 0.0;
}

/* Of encoder and decoder together; cross-attention is part of the decoder. */
static double share_pct(const struct pm_encoder_decoder *sums, enum pm_component component)
{
    const double whole =
        total_ns(&sums->stats[PM_COMPONENT_ENCODER]) + total_ns(&sums->stats[PM_COMPONENT_DECODER]);
    return whole > 0 ? 100.0 * total_ns(&sums->stats[component]) / whole : 0.0;
}

static void put_summary(struct pm_json *json, const struct pm_encoder_decoder *sums)
{
    pm_json_object(json);
    pm_json_key(json, "model_type");
    pm_json_text(json, sums->model_type);
    for (unsigned c = 0; c < PM_COMPONENTS; c++) {
        const struct pm_stats *stats = &sums->stats[c];
        pm_json_key(json, component_names[c]);
        pm_json_object(json);
        pm_json_key(json, "count");
        pm_json_u64(json, stats->count);
        pm_json_key(json, "total_ms");
        pm_json_double(json, total_ns(stats) / 1e6, 3);
        pm_json_ms_double(json, "mean_ms", stats->mean, stats->count);
        pm_json_ms_double(json, "std_ms", stats->std, stats->count);
        pm_json_end(json);
    }
    for (unsigned c = 0; c < PM_COMPONENTS; c++) {
        char key[32];
        snprintf(key, sizeof(key), "%s_pct", component_names[c]);
        pm_json_key(json, key);
        if (sums->stats[PM_COMPONENT_ENCODER].count + sums->stats[PM_COMPONENT_DECODER].count > 0)
            pm_json_double(json, share_pct(sums, (enum pm_component)c), 2);
        else
            pm_json_null(json);
    }
    pm_json_detail(json, sums->recycled, sums->from_totals);
    pm_json_end(json);
}

int pm_seed_encoder_decoder(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_encoder_decoder sums;
    struct pm_outfile file;
    struct pm_json json;
    int rc = pm_seed_begin(seed, dir_fd, "encoder_decoder_timing.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_encoder_decoder_walk(seed->session, engine, n, &file, &sums);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "encoder_decoder_summary.json", &file);
    if (rc == 0) {
        seed->result.rows += sums.rows;
        pm_json_init(&json, &file.buf, 2);
        put_summary(&json, &sums);
        rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    }
    pm_encoder_decoder_release(&sums);
    return rc;
}

/* ---- the report ---- */

static int report_one(const struct pm_session *session, size_t engine, bool colour,
                      struct pm_buf *buf)
{
    struct pm_encoder_decoder sums;
    const int rc =
        pm_encoder_decoder_walk(session, engine, pm_engine_sampler(session, engine), NULL, &sums);

    if (rc == 0 && sums.rows > 0) {
        (void)pm_buf_printf(buf, "\n%sEncoder and decoder, ms (%.30s)%s\n", colour ? "\033[1m" : "",
                            sums.model_type, colour ? "\033[0m" : "");
        (void)pm_buf_printf(buf, "  %-16s%8s%10s%10s%12s%9s\n", "component", "count", "mean", "p95",
                            "total", "share");
        for (unsigned c = 0; c < PM_COMPONENTS; c++) {
            const struct pm_stats *stats = &sums.stats[c];
            if (stats->count > 0)
                (void)pm_buf_printf(buf, "  %-16s%8llu%10.3f%10.3f%12.1f%7.1f %%\n",
                                    component_names[c], (unsigned long long)stats->count,
                                    stats->mean / 1e6, stats->p95 / 1e6, total_ns(stats) / 1e6,
                                    share_pct(&sums, (enum pm_component)c));
        }
        if (sums.stats[PM_COMPONENT_CROSS].count > 0)
            (void)pm_buf_add_text(buf, "  Cross-attention is part of the decoder.\n");
        if (sums.device)
            (void)pm_buf_add_text(
                buf, "  Encoder and cross-attention: time of the launches, not of the device.\n");
    }
    pm_encoder_decoder_release(&sums);
    return rc;
}

int pm_encoder_decoder_report(const struct pm_session *session, bool colour, struct pm_buf *buf)
{
    int rc = 0;
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0; e++)
        rc = report_one(session, e, colour, buf);
    return rc != 0 ? rc : pm_buf_status(buf);
}
