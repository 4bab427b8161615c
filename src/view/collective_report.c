/*
 * collective_timing.csv and collective_summary.json, and the collective operations' part of the
 * reports (see collective.h). Called by seed_export.c, report_text.c and report_json.c.
 */
#include "view/collective.h"

#include <string.h>

#include "view/detail.h"
#include "view/seed.h"

#define HEADER "timestamp_sec,group,operation,bytes,duration_ms,captured\n"

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_ms(struct pm_json *json, const char *key, uint64_t ns)
{
    pm_json_key(json, key);
    pm_json_double(json, (double)ns / 1e6, 3);
}

static void put_figures(struct pm_json *json, const struct pm_collective_row *row)
{
    const struct pm_stats *stats = &row->stats;

    put_u64(json, "calls", row->calls);
    put_u64(json, "bytes", row->bytes);
    put_u64(json, "timed_calls", row->timed_calls);
    put_u64(json, "steps", stats->count);
    put_ms(json, "total_ms", row->total_ns);
    put_ms(json, "host_ms", row->host_ns);
    pm_json_ms_double(json, "mean_ms", stats->mean, stats->count);
    pm_json_ms_double(json, "p50_ms", stats->p50, stats->count);
    pm_json_ms_double(json, "p95_ms", stats->p95, stats->count);
    pm_json_ms_double(json, "p99_ms", stats->p99, stats->count);
    pm_json_ms_double(json, "max_ms", stats->max, stats->count);
    put_u64(json, "captured_calls", row->captured_calls);
    put_u64(json, "captured_bytes", row->captured_bytes);
}

static bool is_first_of_group(const struct pm_collectives *sums, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(sums->rows[k].group, sums->rows[i].group) == 0)
            return false;
    return true;
}

static void put_groups(struct pm_json *json, const struct pm_collectives *sums)
{
    pm_json_key(json, "groups");
    pm_json_object(json);
    for (size_t i = 0; i < sums->n_rows; i++) {
        if (!is_first_of_group(sums, i))
            continue;
        pm_json_key(json, sums->rows[i].group);
        pm_json_object(json);
        for (size_t k = i; k < sums->n_rows; k++) {
            if (strcmp(sums->rows[k].group, sums->rows[i].group) != 0)
                continue;
            pm_json_key(json, pm_collective_operation_name(sums->rows[k].operation));
            pm_json_object(json);
            put_figures(json, &sums->rows[k]);
            pm_json_end(json);
        }
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_summary(struct pm_json *json, const struct pm_collectives *sums)
{
    pm_json_object(json);
    pm_json_key(json, "clock");
    pm_json_text(json, pm_collective_clock(sums));
    put_u64(json, "calls", sums->calls);
    put_u64(json, "timed_calls", sums->timed_calls);
    put_u64(json, "bytes", sums->bytes);
    put_ms(json, "total_ms", sums->total_ns);
    put_ms(json, "host_ms", sums->host_ns);
    put_u64(json, "captured_calls", sums->captured_calls);
    put_u64(json, "captured_bytes", sums->captured_bytes);
    put_groups(json, sums);
    pm_json_key(json, "outside_steps");
    pm_json_object(json);
    put_u64(json, "calls", sums->outside_calls);
    put_u64(json, "bytes", sums->outside_bytes);
    pm_json_end(json);
    pm_json_detail(json, sums->recycled, false);
    pm_json_end(json);
}

int pm_seed_collective(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_collectives sums = {0};
    struct pm_outfile file;
    struct pm_json json;
    int rc = pm_seed_begin(seed, dir_fd, "collective_timing.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, HEADER);
    if (rc == 0)
        rc = pm_collective_walk(seed->session, engine, n, &file, &sums);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "collective_summary.json", &file);
    if (rc == 0) {
        seed->result.rows += sums.lines;
        pm_json_init(&json, &file.buf, 2);
        put_summary(&json, &sums);
        rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    }
    pm_collective_release(&sums);
    return rc;
}

/* ---- the report ---- */

static void put_bytes(struct pm_buf *buf, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof(units) / sizeof(*units); unit++)
        value /= 1024;
    (void)pm_buf_printf(buf, "%9.*f %-3s", unit == 0 ? 0 : 1, value, units[unit]);
}

static void put_row(struct pm_buf *buf, const struct pm_collective_row *row)
{
    const struct pm_stats *stats = &row->stats;
    (void)pm_buf_printf(buf, "  %-8.20s%-15s", row->group,
                        pm_collective_operation_name(row->operation));
    if (row->calls > 0) {
        (void)pm_buf_printf(buf, "%9llu", (unsigned long long)row->calls);
        put_bytes(buf, row->bytes);
        (void)pm_buf_printf(buf, "%10.3f%10.3f%10.1f\n", stats->mean / 1e6, stats->p95 / 1e6,
                            (double)row->total_ns / 1e6);
    }
    if (row->captured_calls > 0) {
        if (row->calls > 0)
            (void)pm_buf_printf(buf, "  %-23s", "");
        (void)pm_buf_printf(buf, "%9llu", (unsigned long long)row->captured_calls);
        put_bytes(buf, row->captured_bytes);
        (void)pm_buf_add_text(buf, "  in CUDA graphs, not timed\n");
    }
    if (row->failed > 0)
        (void)pm_buf_printf(buf, "  %-23s in %llu steps a call raised\n", "",
                            (unsigned long long)row->failed);
}

int pm_collective_report_text(const struct pm_session *session, size_t engine, unsigned n,
                              bool colour, struct pm_buf *buf)
{
    struct pm_collectives sums;
    const int rc = pm_collective_walk(session, engine, n, NULL, &sums);

    if (rc == 0 && sums.calls + sums.captured_calls > 0) {
        (void)pm_buf_printf(
            buf, "\n%sCollective operations, ms per step%s\n  %-8s%-15s%9s%13s%10s%10s%10s\n",
            colour ? "\033[1m" : "", colour ? "\033[0m" : "", "group", "operation", "calls",
            "bytes", "mean", "p95", "total");
        for (size_t i = 0; i < sums.n_rows; i++)
            put_row(buf, &sums.rows[i]);
        (void)pm_buf_add_text(buf, "  Of one rank. ");
        (void)pm_buf_add_text(
            buf, sums.by_device
                     ? "By the device's events: waiting for the other ranks is part of the time.\n"
                 : sums.device
                     ? "Host clock: the times are those of the launches, not the device's.\n"
                     : "Host clock: waiting for the other ranks is part of the time.\n");
        if (sums.timed_calls < sums.calls)
            (void)pm_buf_printf(buf, "  %llu of %llu calls have no events, and no time here.\n",
                                (unsigned long long)(sums.calls - sums.timed_calls),
                                (unsigned long long)sums.calls);
        if (sums.captured_calls > 0)
            (void)pm_buf_add_text(
                buf, "  In CUDA graphs: what was called at the capture, times the replays.\n");
        if (sums.recycled)
            (void)pm_buf_add_text(buf, "  Older steps had to go: what Python called is of those "
                                       "held.\n");
    }
    pm_collective_release(&sums);
    return rc != 0 ? rc : pm_buf_status(buf);
}

int pm_collective_report_json(const struct pm_session *session, size_t engine, unsigned n,
                              struct pm_json *json)
{
    struct pm_collectives sums;
    const int rc = pm_collective_walk(session, engine, n, NULL, &sums);

    if (rc == 0 && sums.calls + sums.captured_calls + sums.outside_calls > 0)
        put_summary(json, &sums);
    else
        pm_json_null(json);
    pm_collective_release(&sums);
    return rc;
}
