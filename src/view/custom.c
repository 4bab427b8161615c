/*
 * The calls of custom hooks: custom_timing.csv, of all processes of a group in order of the calls'
 * ends, and a section of the report. Called by seed_export.c and report_text.c.
 */
#include "view/custom.h"

#include <stdlib.h>
#include <string.h>

#include "base/custom.h"
#include "base/number.h"
#include "session/attrs.h"
#include "session/custom_facts.h"
#include "view/columns.h"
#include "view/group.h"
#include "view/seed.h"

#define NAME_MAX 257 /* what the recorder keeps of a string */

/* The calls of one process, one at a time. */
struct source {
    struct pm_cursor *cursor;
    unsigned schema;
    const struct pm_field *start, *dur, *name, *hook, *flags;
    struct pm_custom_call call; /* the next one; its name is not read */
    const char *text;           /* its name, until the next call */
};

static int source_open(struct source *source, const struct pm_process *process)
{
    const int schema = pm_process_schema_find(process, "custom_call");
    *source = (struct source){.schema = (unsigned)schema};
    if (schema < 0)
        return -PM_ENOTFOUND;
    const struct pm_schema *desc = pm_process_schema(process, source->schema);
    source->start = pm_column(desc, "start_ns");
    source->dur = pm_column(desc, "dur_ns");
    source->name = pm_column(desc, "name");
    source->hook = pm_column(desc, "hook");
    source->flags = pm_column(desc, "flags");
    return pm_cursor_open(&source->cursor, process, PM_STREAM_CUSTOM);
}

/* 1: source->call is the next one; 0: the end; < 0: error. */
static int source_next(struct source *source)
{
    struct pm_record record;
    int rc;

    while ((rc = pm_cursor_next(source->cursor, &record)) == 1) {
        if (record.schema != source->schema || record.keyframe)
            continue;
        source->call = (struct pm_custom_call){
            .start_ns = pm_column_get(source->start, record.payload),
            .dur_ns = pm_column_get(source->dur, record.payload),
            .hook = (uint8_t)pm_column_get(source->hook, record.payload),
            .flags = (uint8_t)pm_column_get(source->flags, record.payload),
        };
        source->text =
            pm_cursor_string(source->cursor, (uint32_t)pm_column_get(source->name, record.payload));
        return 1;
    }
    return rc;
}

/* ---- custom_timing.csv ---- */

static uint64_t end_of(const struct source *source)
{
    return source->call.start_ns + source->call.dur_ns;
}

/* Names hold no comma, quote or line end: the setting is read so (base/custom.c); but the file is
 * read from any bytes. */
static int put_name(struct pm_buf *buf, const char *name)
{
    if (strpbrk(name, ",\"\r\n") == NULL)
        return pm_buf_add_text(buf, name);
    (void)pm_buf_add_char(buf, '"');
    for (; *name != '\0'; name++) {
        if (*name == '"')
            (void)pm_buf_add_char(buf, '"');
        (void)pm_buf_add_char(buf, *name);
    }
    return pm_buf_add_char(buf, '"');
}

static int put_row(struct pm_outfile *file, const struct source *source, uint64_t start_ns)
{
    char number[2 * PM_NUMBER_MAX];
    char *out = pm_number_sec6_signed(number, (int64_t)(source->call.start_ns - start_ns));
    *out++ = ',';
    (void)pm_buf_add(&file->buf, number, (size_t)(out - number));
    (void)put_name(&file->buf, source->text);
    out = number;
    *out++ = ',';
    out = pm_number_ms3(out, source->call.dur_ns);
    *out++ = '\n';
    const int rc = pm_buf_add(&file->buf, number, (size_t)(out - number));
    return rc != 0 ? rc : pm_outfile_spill(file);
}

/* Merges the sources, whose first calls are read, by their ends; those at their end are closed. */
static int put_rows(struct pm_outfile *file, struct source *sources, size_t *count,
                    uint64_t start_ns, uint64_t *ret_rows)
{
    int rc = 0;
    while (*count > 0 && rc == 0) {
        size_t first = 0;
        for (size_t i = 1; i < *count; i++)
            if (end_of(&sources[i]) < end_of(&sources[first]))
                first = i;
        rc = put_row(file, &sources[first], start_ns);
        *ret_rows += rc == 0;
        const int more = rc == 0 ? source_next(&sources[first]) : 0;
        if (more < 0)
            rc = more;
        if (rc == 0 && more == 0) {
            pm_cursor_close(sources[first].cursor);
            sources[first] = sources[--*count];
        }
    }
    return rc;
}

static int walk(const struct pm_session *session, size_t engine, unsigned n,
                struct pm_outfile *file, uint64_t *ret_rows)
{
    const size_t n_processes = pm_session_process_count(session);
    struct source *sources = calloc(n_processes + 1, sizeof(*sources));
    size_t count = 0;
    int rc = sources == NULL ? -PM_ENOMEM : 0;

    for (size_t p = 0; p < n_processes && rc == 0; p++) {
        const struct pm_process *process = pm_session_process(session, p);
        if (!pm_group_has(session, engine, n, process))
            continue;
        rc = source_open(&sources[count], process);
        if (rc == -PM_ENOTFOUND) {
            rc = 0;
            continue;
        }
        const int more = rc == 0 ? source_next(&sources[count]) : 0;
        if (more == 1)
            count++;
        else
            pm_cursor_close(sources[count].cursor);
        rc = more < 0 ? more : rc;
    }
    if (rc == 0)
        rc = put_rows(file, sources, &count, pm_session_info(session)->start_mono_ns, ret_rows);
    for (size_t i = 0; i < count; i++)
        pm_cursor_close(sources[i].cursor);
    free(sources);
    return rc;
}

int pm_seed_custom(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_outfile file;
    uint64_t rows = 0;
    int rc = pm_seed_begin(seed, dir_fd, "custom_timing.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, "timestamp_sec,name,duration_ms\n");
    if (rc == 0)
        rc = walk(seed->session, engine, n, &file, &rows);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        seed->result.rows += rows;
    return rc;
}

/* ---- the report ---- */

struct figures {
    char name[NAME_MAX];
    struct pm_samples samples;
    uint64_t calls, failed, total_ns; /* calls and total: exact also where detail had to go */
};

static int add_calls(struct figures figures[PM_CUSTOM_CLASSES], struct source *source,
                     bool recycled)
{
    int rc;
    while ((rc = source_next(source)) == 1) {
        struct figures *of = &figures[source->call.hook % PM_CUSTOM_CLASSES];
        if (of->name[0] == '\0')
            snprintf(of->name, sizeof(of->name), "%s", source->text);
        of->failed += (source->call.flags & PM_CUSTOM_FAILED) != 0;
        of->calls += !recycled;
        of->total_ns += recycled ? 0 : source->call.dur_ns;
        rc = pm_samples_add(&of->samples, source->call.dur_ns);
        if (rc != 0)
            return rc;
    }
    return rc;
}

static int add_totals(struct figures figures[PM_CUSTOM_CLASSES], const struct pm_process *process)
{
    struct pm_totals totals;
    const int rc = pm_process_totals(process, &totals);
    if (rc != 0)
        return rc == -PM_ENOMEM ? rc : 0;
    for (unsigned i = 0; i < PM_CUSTOM_CLASSES; i++) {
        struct pm_series series;
        if (!pm_series_find(process, &totals, "custom_call", "dur_ns", i, &series))
            continue;
        figures[i].calls += series.count;
        figures[i].total_ns += series.sum;
    }
    pm_totals_free(&totals);
    return 0;
}

static int gather(const struct pm_session *session, struct figures figures[PM_CUSTOM_CLASSES],
                  bool *ret_recycled)
{
    int rc = 0;
    for (size_t p = 0; p < pm_session_process_count(session) && rc == 0; p++) {
        const struct pm_process *process = pm_session_process(session, p);
        const bool recycled = pm_process_info(process)->first_fact[PM_STREAM_CUSTOM] > 0;
        struct source source;
        rc = source_open(&source, process);
        if (rc == -PM_ENOTFOUND) {
            rc = 0;
            continue;
        }
        if (rc == 0)
            rc = add_calls(figures, &source, recycled);
        pm_cursor_close(source.cursor);
        if (rc == 0 && recycled)
            rc = add_totals(figures, process);
        *ret_recycled = *ret_recycled || recycled;
    }
    return rc;
}

/* Control characters become `?`: this reaches a terminal, and the file may hold anything. */
static void put_figures(struct pm_buf *buf, struct figures *of)
{
    struct pm_stats stats;
    pm_samples_stats(&of->samples, &stats);
    for (char *c = of->name; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    (void)pm_buf_printf(
        buf, "  %s\n%10llu%10.3f%10.3f%10.3f%10.3f%12.1f",
        of->name[0] != '\0' ? of->name : "(calls no longer held)", (unsigned long long)of->calls,
        of->calls != 0 ? (double)of->total_ns / (double)of->calls / 1e6 : 0.0,
        stats.count != 0 ? stats.p50 / 1e6 : 0.0, stats.count != 0 ? stats.p99 / 1e6 : 0.0,
        stats.count != 0 ? stats.max / 1e6 : 0.0, (double)of->total_ns / 1e6);
    if (of->failed > 0)
        (void)pm_buf_printf(buf, "  (%llu raised)", (unsigned long long)of->failed);
    (void)pm_buf_add_char(buf, '\n');
}

int pm_custom_report(const struct pm_session *session, bool colour, struct pm_buf *buf)
{
    struct figures *figures = calloc(PM_CUSTOM_CLASSES, sizeof(*figures));
    bool recycled = false, any = false;

    if (figures == NULL)
        return -PM_ENOMEM;
    for (unsigned i = 0; i < PM_CUSTOM_CLASSES; i++)
        pm_samples_init(&figures[i].samples);
    int rc = gather(session, figures, &recycled);
    for (unsigned i = 0; i < PM_CUSTOM_CLASSES && rc == 0; i++) {
        if (figures[i].calls == 0)
            continue;
        if (!any)
            (void)pm_buf_printf(buf, "\n%sCustom hooks, ms%s\n%10s%10s%10s%10s%10s%12s\n",
                                colour ? "\033[1m" : "", colour ? "\033[0m" : "", "calls", "mean",
                                "p50", "p99", "max", "total");
        any = true;
        put_figures(buf, &figures[i]);
    }
    if (any && recycled)
        (void)pm_buf_add_text(buf,
                              "  Older calls had to go: p50, p99 and max are of those held.\n");
    for (unsigned i = 0; i < PM_CUSTOM_CLASSES; i++)
        pm_samples_release(&figures[i].samples);
    free(figures);
    return rc != 0 ? rc : pm_buf_status(buf);
}
