/*
 * Gathers a worker's CUDA graph facts (see graph.h): captures from the KEEP stream, which is never
 * recycled, replays from the steps' stream. Called by graph_files.c and graph_report.c.
 *
 * Each segment of the steps' stream opens with the replays of each graph so far, so that counts are
 * exact also where older steps had to go.
 */
#include "view/graph.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "view/columns.h"
#include "view/detail.h"

/* The descriptor's fields in one schema. */
struct desc_columns {
    const struct pm_field *num_tokens, *num_reqs, *num_active_loras, *variant, *mode, *uniform,
        *has_lora, *holder, *instance;
};

static struct desc_columns find_desc(const struct pm_schema *schema)
{
    return (struct desc_columns){
        .num_tokens = pm_column(schema, "num_tokens"),
        .num_reqs = pm_column(schema, "num_reqs"),
        .num_active_loras = pm_column(schema, "num_active_loras"),
        .variant = pm_column(schema, "variant"),
        .mode = pm_column(schema, "mode"),
        .uniform = pm_column(schema, "uniform"),
        .has_lora = pm_column(schema, "has_lora"),
        .holder = pm_column(schema, "holder"),
        .instance = pm_column(schema, "instance"),
    };
}

static struct pm_graph_desc get_desc(const struct desc_columns *columns, const void *payload)
{
    return (struct pm_graph_desc){
        .num_tokens = (uint32_t)pm_column_get(columns->num_tokens, payload),
        .num_reqs = (int32_t)pm_column_get(columns->num_reqs, payload),
        .num_active_loras = (uint16_t)pm_column_get(columns->num_active_loras, payload),
        .variant = (uint16_t)pm_column_get(columns->variant, payload),
        .mode = (uint8_t)pm_column_get(columns->mode, payload),
        .uniform = pm_column_get(columns->uniform, payload) != 0,
        .has_lora = pm_column_get(columns->has_lora, payload) != 0,
        .holder = (uint8_t)pm_column_get(columns->holder, payload),
    };
}

/* ---- the rows ---- */

static size_t hash_of(const struct pm_graph_desc *desc)
{
    uint64_t words[2];
    memcpy(words, desc, sizeof(words));
    uint64_t hash = (words[0] ^ words[1] * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
    return (size_t)(hash ^ hash >> 29);
}

static uint32_t *index_place(const struct pm_graph_sums *sums, const struct pm_graph_desc *desc)
{
    size_t at = hash_of(desc) & (sums->index_size - 1);
    while (sums->index[at] != 0 &&
           memcmp(&sums->rows[sums->index[at] - 1].desc, desc, sizeof(*desc)) != 0)
        at = (at + 1) & (sums->index_size - 1);
    return &sums->index[at];
}

static int grow(struct pm_graph_sums *sums)
{
    const size_t room = sums->room != 0 ? 2 * sums->room : 64;
    struct pm_graph_row *rows = realloc(sums->rows, room * sizeof(*rows));
    if (rows == NULL)
        return -PM_ENOMEM;
    sums->rows = rows;
    uint32_t *index = calloc(2 * room, sizeof(*index));
    if (index == NULL)
        return -PM_ENOMEM;
    free(sums->index);
    sums->index = index;
    sums->index_size = 2 * room;
    sums->room = room;
    for (size_t i = 0; i < sums->n_rows; i++)
        *index_place(sums, &rows[i].desc) = (uint32_t)(i + 1);
    return 0;
}

/* The row of a graph, made where there is none. */
static int row_of(struct pm_graph_sums *sums, const struct pm_graph_desc *desc,
                  struct pm_graph_row **ret_row)
{
    if (sums->n_rows == sums->room) {
        const int rc = grow(sums);
        if (rc != 0)
            return rc;
    }
    uint32_t *place = index_place(sums, desc);
    if (*place == 0) {
        sums->rows[sums->n_rows] =
            (struct pm_graph_row){.desc = *desc, .order = (uint32_t)sums->n_rows};
        *place = (uint32_t)++sums->n_rows;
    }
    *ret_row = &sums->rows[*place - 1];
    return 0;
}

void pm_graph_sums_release(struct pm_graph_sums *sums)
{
    free(sums->rows);
    free(sums->index);
    memset(sums, 0, sizeof(*sums));
}

/* ---- the facts ---- */

static int add_capture(struct pm_graph_sums *sums, const struct pm_graph_desc *desc,
                       const struct pm_graph_capture *fact)
{
    struct pm_graph_row *row;
    if (desc->holder == PM_GRAPH_HOLDER_UNKNOWN) /* not vLLM's: it has no descriptor */
        return 0;
    const int rc = row_of(sums, desc, &row);
    if (rc != 0)
        return rc;
    if (row->at_ns == 0)
        row->at_ns = fact->at_ns;
    row->pieces = fact->pieces;
    row->capture_ns += fact->capture_ns;
    row->at_runtime += fact->when == PM_GRAPH_RUNTIME;
    sums->captures++;
    sums->captures_at_runtime += fact->when == PM_GRAPH_RUNTIME;
    sums->capture_ns += fact->capture_ns;
    return 0;
}

static int walk_captures(const struct pm_process *process, unsigned instance,
                         struct pm_graph_sums *sums)
{
    const int schema = pm_process_schema_find(process, "graph_capture");
    struct pm_cursor *cursor;
    struct pm_record record;

    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    const struct desc_columns columns = find_desc(desc);
    const struct pm_field *at = pm_column(desc, "at_ns"), *took = pm_column(desc, "capture_ns");
    const struct pm_field *pieces = pm_column(desc, "pieces"), *when = pm_column(desc, "when");
    int rc = pm_cursor_open(&cursor, process, desc->stream);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        if (record.schema != (unsigned)schema ||
            pm_column_get(columns.instance, record.payload) != instance)
            continue;
        const struct pm_graph_desc graph = get_desc(&columns, record.payload);
        const struct pm_graph_capture fact = {
            .at_ns = pm_column_get(at, record.payload),
            .capture_ns = pm_column_get(took, record.payload),
            .pieces = (uint32_t)pm_column_get(pieces, record.payload),
            .when = (uint8_t)pm_column_get(when, record.payload),
        };
        rc = add_capture(sums, &graph, &fact);
        if (rc != 0)
            break;
    }
    pm_cursor_close(cursor);
    return rc;
}

/* The steps' side: replays, as they come, and the counts so far at the head of a segment. */
struct steps {
    int pass, usage; /* schemas; -1: none */
    struct desc_columns pass_desc, usage_desc;
    const struct pm_field *step, *at, *dur, *launch, *tokens, *padding, *pieces, *outcome, *replays;
};

static bool find_steps(struct steps *steps, const struct pm_process *process)
{
    steps->pass = pm_process_schema_find(process, "graph_pass");
    steps->usage = pm_process_schema_find(process, "graph_usage");
    if (steps->pass < 0)
        return false;
    const struct pm_schema *pass = pm_process_schema(process, (size_t)steps->pass);
    steps->pass_desc = find_desc(pass);
    steps->step = pm_column(pass, "step");
    steps->at = pm_column(pass, "at_ns");
    steps->dur = pm_column(pass, "dur_ns");
    steps->launch = pm_column(pass, "launch_ns");
    steps->tokens = pm_column(pass, "tokens");
    steps->padding = pm_column(pass, "padding");
    steps->pieces = pm_column(pass, "pieces");
    steps->outcome = pm_column(pass, "outcome");
    if (steps->usage >= 0) {
        const struct pm_schema *usage = pm_process_schema(process, (size_t)steps->usage);
        steps->usage_desc = find_desc(usage);
        steps->replays = pm_column(usage, "replays");
    }
    return true;
}

static int add_usage(struct pm_graph_sums *sums, const struct steps *steps, const void *payload)
{
    const struct pm_graph_desc desc = get_desc(&steps->usage_desc, payload);
    struct pm_graph_row *row;
    const int rc = row_of(sums, &desc, &row);
    const uint64_t replays = pm_column_get(steps->replays, payload);
    if (rc == 0 && row->replays < replays) {
        sums->replays += replays - row->replays;
        row->replays = replays;
    }
    return rc;
}

static int add_pass(struct pm_graph_sums *sums, const struct steps *steps, const void *payload,
                    pm_graph_replay_fn fn, void *arg)
{
    const struct pm_graph_pass pass = {
        .step = pm_column_get(steps->step, payload),
        .at_ns = pm_column_get(steps->at, payload),
        .dur_ns = (uint32_t)pm_column_get(steps->dur, payload),
        .launch_ns = (uint32_t)pm_column_get(steps->launch, payload),
        .tokens = (uint32_t)pm_column_get(steps->tokens, payload),
        .padding = (uint32_t)pm_column_get(steps->padding, payload),
        .desc = get_desc(&steps->pass_desc, payload),
        .pieces = (uint16_t)pm_column_get(steps->pieces, payload),
        .outcome = (uint8_t)pm_column_get(steps->outcome, payload),
    };
    const unsigned outcome = pass.outcome < PM_GRAPH_OUTCOMES_COUNT ? pass.outcome : PM_GRAPH_EAGER;
    struct pm_graph_row *row;

    sums->passes[outcome]++;
    sums->tokens[outcome] += pass.tokens;
    sums->padding[outcome] += pass.padding;
    sums->replay_ns[outcome] += pass.dur_ns;
    if (pass.pieces == 0)
        return 0;
    const int rc = row_of(sums, &pass.desc, &row);
    if (rc != 0)
        return rc;
    row->replays++;
    sums->replays++;
    sums->held++;
    return fn != NULL ? fn(arg, &pass) : 0;
}

static int walk_steps(const struct pm_process *process, unsigned instance, pm_graph_replay_fn fn,
                      void *arg, struct pm_graph_sums *sums)
{
    struct steps steps = {0};
    struct pm_cursor *cursor;
    struct pm_record record;

    if (!find_steps(&steps, process))
        return 0;
    int rc = pm_cursor_open(&cursor, process, PM_STREAM_CORE);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        int error = 0;
        if (record.schema == (unsigned)steps.usage &&
            pm_column_get(steps.usage_desc.instance, record.payload) == instance)
            error = add_usage(sums, &steps, record.payload);
        else if (record.schema == (unsigned)steps.pass && !record.keyframe &&
                 pm_column_get(steps.pass_desc.instance, record.payload) == instance)
            error = add_pass(sums, &steps, record.payload, fn, arg);
        if (error != 0) {
            rc = error;
            break;
        }
    }
    pm_cursor_close(cursor);
    return rc;
}

/* Older steps had to go: the totals know what became of all of them. */
static void from_totals(struct pm_graph_sums *sums, const struct pm_process *process,
                        const struct pm_totals *totals)
{
    for (unsigned i = 0; i < PM_GRAPH_OUTCOMES_COUNT; i++) {
        struct pm_series tokens, padding, dur;
        if (!pm_series_find(process, totals, "graph_pass", "tokens", i, &tokens) ||
            !pm_series_find(process, totals, "graph_pass", "padding", i, &padding) ||
            !pm_series_find(process, totals, "graph_pass", "dur_ns", i, &dur))
            return;
        sums->passes[i] = tokens.count;
        sums->tokens[i] = tokens.sum;
        sums->padding[i] = padding.sum;
        sums->replay_ns[i] = dur.sum;
    }
    sums->from_totals = true;
}

int pm_graph_walk(const struct pm_session *session, size_t engine, unsigned n,
                  pm_graph_replay_fn fn, void *arg, struct pm_graph_sums *ret_sums)
{
    const struct pm_process *process;
    struct pm_totals totals;
    unsigned instance;
    int rank;

    memset(ret_sums, 0, sizeof(*ret_sums));
    if (engine >= pm_session_engine_count(session) ||
        pm_engine_worker(session, engine, n, &process, &instance, &rank) != 0)
        return 0;
    int rc = walk_captures(process, instance, ret_sums);
    if (rc == 0)
        rc = walk_steps(process, instance, fn, arg, ret_sums);
    ret_sums->recycled = pm_worker_recycled(session, engine, n) != NULL;
    if (rc == 0 && ret_sums->recycled && pm_worker_totals(session, engine, n, &totals)) {
        from_totals(ret_sums, process, &totals);
        pm_totals_free(&totals);
    }
    return rc;
}

static int by_replays(const void *left, const void *right)
{
    const struct pm_graph_row *a = left, *b = right;
    if (a->replays != b->replays)
        return a->replays > b->replays ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

void pm_graph_sort(struct pm_graph_sums *sums)
{
    if (sums->n_rows > 1)
        qsort(sums->rows, sums->n_rows, sizeof(*sums->rows), by_replays);
}

/* ---- words ---- */

const char *pm_graph_mode_name(unsigned mode)
{
    static const char *const names[PM_GRAPH_MODES] = {"NONE", "PIECEWISE", "FULL", "ENCODER"};
    return mode < PM_GRAPH_MODES ? names[mode] : "UNKNOWN";
}

static char *put_text(char *out, const char *text)
{
    const size_t bytes = strlen(text);
    memcpy(out, text, bytes);
    return out + bytes;
}

char *pm_graph_put_desc(char *out, const struct pm_graph_desc *desc, char separator)
{
    out = put_text(out, pm_graph_mode_name(desc->mode));
    *out++ = separator;
    out = pm_number_u64(out, desc->num_tokens);
    *out++ = separator;
    out =
        desc->num_reqs >= 0 ? pm_number_u64(out, (uint64_t)desc->num_reqs) : put_text(out, "None");
    *out++ = separator;
    out = put_text(out, desc->uniform ? "True" : "False");
    *out++ = separator;
    return put_text(out, desc->has_lora ? "True" : "False");
}
