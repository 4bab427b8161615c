/*
 * See transfer.h. The scheduler's operations come from the engine core's process, the worker's from
 * its own; where both are one process its file is walked once. Called by seed_export.c,
 * report_text.c and report_json.c.
 */
#include "view/transfer.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "session/attrs.h"
#include "session/transfer_facts.h"
#include "view/columns.h"
#include "view/outfile.h"
#include "view/seed.h"

#define HEADER "timestamp_sec,connector,operation,calls,tokens,duration_ms\n"
#define ROWS_MAX 64u /* connectors times operations; others are not told apart */
#define NAME_MAX_BYTES 96

/* One operation of one connector. */
struct row {
    char connector[NAME_MAX_BYTES];
    unsigned operation; /* enum pm_transfer_operation */
    struct pm_samples samples;
    struct pm_stats stats;
    uint64_t calls, tokens, total_ns, failed;
};

struct sums {
    struct row rows[ROWS_MAX]; /* in the order in which they were met */
    size_t n_rows;
    uint64_t lines;       /* of the CSV file */
    uint64_t token_bytes; /* of the KV cache, of this rank; 0: not known */
};

struct walk {
    struct sums *sums;
    struct pm_outfile *file; /* NULL: only the sums */
    uint64_t start_ns;
    pm_transfer_fn fn; /* NULL: nobody is told of steps */
    void *arg;
    struct pm_transfer_step now;      /* of what fn is told next; at_ns 0: nothing */
    struct pm_transfer_step parts[2]; /* of it, what came inside of the step, and outside */
};

static const char *operation_name(unsigned operation)
{
    static const char *const names[] = {
#define X(name, text) text,
        PM_TRANSFERS(X)
#undef X
    };
    return operation < PM_TRANSFERS_COUNT ? names[operation] : "unknown";
}

static void release(struct sums *sums)
{
    for (size_t i = 0; sums != NULL && i < sums->n_rows; i++)
        pm_samples_release(&sums->rows[i].samples);
    free(sums);
}

/* ---- the walk -------------------------------------------------------------------------------- */

static struct row *row_of(struct sums *sums, const char *name, unsigned operation)
{
    char connector[NAME_MAX_BYTES];
    const size_t bytes = strnlen(name, sizeof(connector) - 1);
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)name[i];
        connector[i] = c < 0x20 || c > 0x7e || c == ',' || c == '"' ? '?' : name[i];
    }
    connector[bytes] = '\0';
    for (size_t i = 0; i < sums->n_rows; i++)
        if (sums->rows[i].operation == operation && strcmp(sums->rows[i].connector, connector) == 0)
            return &sums->rows[i];
    if (sums->n_rows == ROWS_MAX)
        return &sums->rows[ROWS_MAX - 1];
    struct row *row = &sums->rows[sums->n_rows++];
    memcpy(row->connector, connector, sizeof(connector));
    row->operation = operation;
    pm_samples_init(&row->samples);
    return row;
}

static int put_line(const struct walk *walk, const struct row *row, uint64_t at_ns, uint64_t calls,
                    uint64_t tokens, uint64_t dur_ns)
{
    char at[PM_NUMBER_MAX], took[PM_NUMBER_MAX], of[24] = "";
    *pm_number_sec6_signed(at, (int64_t)(at_ns - walk->start_ns)) = '\0';
    *pm_number_ms3(took, dur_ns) = '\0';
    if (row->operation <= PM_TRANSFER_LOAD)
        snprintf(of, sizeof(of), "%llu", (unsigned long long)tokens);
    const int rc =
        pm_buf_printf(&walk->file->buf, "%s,%s,%s,%llu,%s,%s\n", at, row->connector,
                      operation_name(row->operation), (unsigned long long)calls, of, took);
    return rc != 0 ? rc : pm_outfile_spill(walk->file);
}

static int tell(struct walk *walk)
{
    struct pm_transfer_step *now = &walk->now;
    int rc = 0;

    for (unsigned i = 0; i < PM_TRANSFERS_COUNT; i++) {
        now->calls[i] = walk->parts[0].calls[i] + walk->parts[1].calls[i];
        now->tokens[i] = walk->parts[0].tokens[i] + walk->parts[1].tokens[i];
        now->dur_ns[i] = walk->parts[0].dur_ns[i] + walk->parts[1].dur_ns[i];
    }
    if (walk->fn != NULL && now->at_ns != 0)
        rc = walk->fn(walk->arg, now);
    memset(now, 0, sizeof(*now));
    memset(walk->parts, 0, sizeof(walk->parts));
    return rc;
}

static void raise_to(uint64_t *value, uint64_t least)
{
    *value = *value < least ? least : *value;
}

/* Records of a step stand one after another: another step's ends it. Of several connectors the
 * greatest counts, since a connector of connectors has what each of its own has. */
static int add_to_step(struct walk *walk, const struct pm_kv_transfer *fact)
{
    struct pm_transfer_step *now = &walk->now;
    struct pm_transfer_step *part = &walk->parts[(fact->flags & PM_TRANSFER_OUTSIDE) != 0];
    const int rc = now->at_ns != 0 && now->step != fact->step ? tell(walk) : 0;

    now->at_ns = now->at_ns == 0 || fact->start_ns < now->at_ns ? fact->start_ns : now->at_ns;
    now->step = fact->step;
    raise_to(&part->calls[fact->operation], fact->calls);
    raise_to(&part->dur_ns[fact->operation], fact->dur_ns);
    if (fact->operation <= PM_TRANSFER_LOAD)
        raise_to(&part->tokens[fact->operation], fact->tokens);
    return rc;
}

/* The operations from first to last of one process's n-th scheduler or worker. */
static int walk_process(struct walk *walk, const struct pm_process *process, unsigned instance,
                        unsigned first, unsigned last)
{
    const int schema = pm_process_schema_find(process, "kv_transfer");
    struct pm_cursor *cursor;
    struct pm_record record;

    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    const struct pm_field *start = pm_column(desc, "start_ns"), *dur = pm_column(desc, "dur_ns");
    const struct pm_field *tokens = pm_column(desc, "tokens"), *calls = pm_column(desc, "calls");
    const struct pm_field *connector = pm_column(desc, "connector");
    const struct pm_field *number = pm_column(desc, "instance");
    const struct pm_field *operation = pm_column(desc, "operation");
    const struct pm_field *flags = pm_column(desc, "flags"), *step = pm_column(desc, "step");
    int rc = pm_cursor_open(&cursor, process, PM_STREAM_CORE);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        const void *payload = record.payload;
        const unsigned what =
            record.schema == (unsigned)schema ? (unsigned)pm_column_get(operation, payload) : 0;
        if (record.schema != (unsigned)schema || record.keyframe || what < first || what > last ||
            pm_column_get(number, payload) != instance)
            continue;
        struct row *row =
            row_of(walk->sums,
                   pm_cursor_string(cursor, (uint32_t)pm_column_get(connector, payload)), what);
        const uint64_t took = pm_column_get(dur, payload);
        row->calls += pm_column_get(calls, payload);
        row->tokens += pm_column_get(tokens, payload);
        row->total_ns += took;
        row->failed += (pm_column_get(flags, payload) & PM_TRANSFER_FAILED) != 0;
        walk->sums->lines++;
        int error = pm_samples_add(&row->samples, took);
        if (error == 0 && walk->fn != NULL && what < PM_TRANSFERS_COUNT)
            error = add_to_step(walk, &(struct pm_kv_transfer){
                                          .step = pm_column_get(step, payload),
                                          .start_ns = pm_column_get(start, payload),
                                          .dur_ns = took,
                                          .tokens = pm_column_get(tokens, payload),
                                          .calls = (uint32_t)pm_column_get(calls, payload),
                                          .operation = (uint8_t)what,
                                          .flags = (uint8_t)pm_column_get(flags, payload),
                                      });
        if (error == 0 && walk->file != NULL)
            error = put_line(walk, row, pm_column_get(start, payload),
                             pm_column_get(calls, payload), pm_column_get(tokens, payload), took);
        if (error != 0) {
            rc = error;
            break;
        }
    }
    pm_cursor_close(cursor);
    const int told = tell(walk);
    return rc != 0 ? rc : told;
}

/* *ret_sums is to be released in any case. */
static int walk_all(const struct pm_session *session, size_t engine, unsigned n,
                    struct pm_outfile *file, pm_transfer_fn fn, void *arg, struct sums **ret_sums)
{
    struct walk walk = {
        .file = file, .start_ns = pm_session_info(session)->start_mono_ns, .fn = fn, .arg = arg};
    const struct pm_process *worker;
    unsigned instance;
    int rank, rc = 0;

    *ret_sums = walk.sums = calloc(1, sizeof(*walk.sums));
    if (walk.sums == NULL)
        return -PM_ENOMEM;
    if (engine >= pm_session_engine_count(session))
        return 0;
    const struct pm_engine *which = pm_session_engine(session, engine);
    if (n == pm_engine_sampler(session, engine) && which->process != NULL)
        rc = walk_process(&walk, which->process, which->instance, PM_TRANSFER_LOOKUP,
                          PM_TRANSFER_LOAD);
    if (rc == 0 && pm_engine_worker(session, engine, n, &worker, &instance, &rank) == 0) {
        const char *bytes = pm_process_attr(worker, PM_ATTR_KV_TOKEN_BYTES);
        walk.sums->token_bytes = bytes != NULL ? strtoull(bytes, NULL, 10) : 0;
        rc = walk_process(&walk, worker, instance, PM_TRANSFER_START_LOAD, PM_TRANSFERS_COUNT - 1);
    }
    for (size_t i = 0; i < walk.sums->n_rows && rc == 0; i++)
        pm_samples_stats(&walk.sums->rows[i].samples, &walk.sums->rows[i].stats);
    return rc;
}

/* ---- as JSON --------------------------------------------------------------------------------- */

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_row(struct pm_json *json, const struct row *row, uint64_t token_bytes)
{
    const struct pm_stats *stats = &row->stats;
    pm_json_object(json);
    put_u64(json, row->operation == PM_TRANSFER_LOAD ? "requests" : "calls", row->calls);
    if (row->operation <= PM_TRANSFER_LOAD)
        put_u64(json, "tokens", row->tokens);
    if (row->operation == PM_TRANSFER_LOAD) {
        pm_json_key(json, "bytes");
        token_bytes > 0 ? pm_json_u64(json, row->tokens * token_bytes) : pm_json_null(json);
    }
    put_u64(json, "steps", stats->count);
    pm_json_key(json, "total_ms");
    pm_json_double(json, (double)row->total_ns / 1e6, 3);
    pm_json_ms_double(json, "mean_ms", stats->mean, stats->count);
    pm_json_ms_double(json, "p95_ms", stats->p95, stats->count);
    pm_json_ms_double(json, "max_ms", stats->max, stats->count);
    put_u64(json, "failed_steps", row->failed);
    pm_json_end(json);
}

static void put_summary(struct pm_json *json, const struct sums *sums)
{
    pm_json_object(json);
    pm_json_key(json, "clock");
    pm_json_text(json, "host");
    pm_json_key(json, "token_bytes");
    sums->token_bytes > 0 ? pm_json_u64(json, sums->token_bytes) : pm_json_null(json);
    pm_json_key(json, "connectors");
    pm_json_object(json);
    for (size_t i = 0; i < sums->n_rows; i++) {
        size_t before = 0;
        while (before < i && strcmp(sums->rows[before].connector, sums->rows[i].connector) != 0)
            before++;
        if (before < i)
            continue;
        pm_json_key(json, sums->rows[i].connector);
        pm_json_object(json);
        for (unsigned operation = 0; operation < PM_TRANSFERS_COUNT; operation++)
            for (size_t k = i; k < sums->n_rows; k++)
                if (sums->rows[k].operation == operation &&
                    strcmp(sums->rows[k].connector, sums->rows[i].connector) == 0) {
                    pm_json_key(json, operation_name(operation));
                    put_row(json, &sums->rows[k], sums->token_bytes);
                }
        pm_json_end(json);
    }
    pm_json_end(json);
    pm_json_end(json);
}

int pm_seed_transfer(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct sums *sums = NULL;
    struct pm_outfile file;
    struct pm_json json;
    int rc = pm_seed_begin(seed, dir_fd, "kv_transfer_timing.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, HEADER);
    if (rc == 0)
        rc = walk_all(seed->session, engine, n, &file, NULL, NULL, &sums);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "kv_transfer_summary.json", &file);
    if (rc == 0) {
        seed->result.rows += sums->lines;
        pm_json_init(&json, &file.buf, 2);
        put_summary(&json, sums);
        rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    }
    release(sums);
    return rc;
}

int pm_transfer_each(const struct pm_session *session, size_t engine, unsigned n, pm_transfer_fn fn,
                     void *arg)
{
    struct sums *sums;
    const int rc = walk_all(session, engine, n, NULL, fn, arg, &sums);

    release(sums);
    return rc;
}

int pm_transfer_report_json(const struct pm_session *session, size_t engine, unsigned n,
                            struct pm_json *json)
{
    struct sums *sums;
    const int rc = walk_all(session, engine, n, NULL, NULL, NULL, &sums);

    if (rc == 0 && sums->n_rows > 0)
        put_summary(json, sums);
    else
        pm_json_null(json);
    release(sums);
    return rc;
}

/* ---- as text --------------------------------------------------------------------------------- */

int pm_transfer_report_text(const struct pm_session *session, size_t engine, unsigned n,
                            bool colour, struct pm_buf *buf)
{
    struct sums *sums;
    const int rc = walk_all(session, engine, n, NULL, NULL, NULL, &sums);

    if (rc == 0 && sums->n_rows > 0) {
        (void)pm_buf_printf(buf, "\n%sKV connectors, ms per step%s\n  %-28s%-11s%9s%11s%10s%10s\n",
                            colour ? "\033[1m" : "", colour ? "\033[0m" : "", "connector",
                            "operation", "calls", "tokens", "mean", "total");
        for (size_t i = 0; i < sums->n_rows; i++) {
            const struct row *row = &sums->rows[i];
            char tokens[24] = "";
            if (row->operation <= PM_TRANSFER_LOAD)
                snprintf(tokens, sizeof(tokens), "%llu", (unsigned long long)row->tokens);
            (void)pm_buf_printf(buf, "  %-28.27s%-11s%9llu%11s%10.3f%10.1f\n", row->connector,
                                operation_name(row->operation), (unsigned long long)row->calls,
                                tokens, row->stats.mean / 1e6, (double)row->total_ns / 1e6);
        }
        (void)pm_buf_add_text(
            buf,
            "  Host clock: how long the scheduler (lookup, load) and one worker were held up.\n");
        if (sums->token_bytes > 0)
            (void)pm_buf_printf(buf, "  A token is %llu bytes of KV cache in this rank.\n",
                                (unsigned long long)sums->token_bytes);
    }
    release(sums);
    return rc != 0 ? rc : pm_buf_status(buf);
}
