/*
 * The seeds' files of CUDA graphs: cuda_graph_captures.csv, cuda_graph_usage.csv and
 * cuda_graph_timeline.csv. Called by seed_export.c through its table.
 */
#include "view/graph.h"

#include "base/number.h"
#include "view/seed.h"

#define DESCRIPTOR "runtime_mode,num_tokens,num_reqs,uniform,has_lora"
#define CAPTURES_HEADER DESCRIPTOR ",capture_time_sec\n"
#define USAGE_HEADER DESCRIPTOR ",replay_count\n"
#define TIMELINE_HEADER "timestamp_sec,descriptor,duration_ms\n"
#define ROW_MAX (PM_GRAPH_TEXT_MAX + 2 * (PM_NUMBER_MAX + 1))

struct timeline {
    struct pm_outfile *file;
    uint64_t start_ns;
};

static int put_replay(void *arg, const struct pm_graph_pass *pass)
{
    const struct timeline *timeline = arg;
    char *out = pm_buf_reserve(&timeline->file->buf, ROW_MAX);
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&timeline->file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(pass->at_ns - timeline->start_ns));
    *out++ = ',';
    out = pm_graph_put_desc(out, &pass->desc, '|');
    *out++ = ',';
    out = pm_number_ms3(out, pass->dur_ns);
    *out++ = '\n';
    pm_buf_advance(&timeline->file->buf, (size_t)(out - begin));
    return pm_outfile_spill(timeline->file);
}

static int put_row(struct pm_outfile *file, const struct pm_graph_row *row, const int64_t *at_ns)
{
    char *out = pm_buf_reserve(&file->buf, ROW_MAX);
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_graph_put_desc(out, &row->desc, ',');
    *out++ = ',';
    out = at_ns != NULL ? pm_number_sec6_signed(out, *at_ns) : pm_number_u64(out, row->replays);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

/* A row per graph that was captured, in that order, or per graph known, most replayed first. */
static int table_file(struct pm_seed *seed, int dir_fd, struct pm_graph_sums *sums, bool captures)
{
    const uint64_t start_ns = pm_session_info(seed->session)->start_mono_ns;
    struct pm_outfile file;
    uint64_t rows = 0;
    int rc = pm_seed_begin(seed, dir_fd,
                           captures ? "cuda_graph_captures.csv" : "cuda_graph_usage.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, captures ? CAPTURES_HEADER : USAGE_HEADER);
    for (size_t i = 0; i < sums->n_rows && rc == 0; i++) {
        const struct pm_graph_row *row = &sums->rows[i];
        const int64_t at_ns = (int64_t)(row->at_ns - start_ns);
        if (captures && row->at_ns == 0)
            continue;
        rc = put_row(&file, row, captures ? &at_ns : NULL);
        rows++;
    }
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        seed->result.rows += rows;
    return rc;
}

/* The walk writes the timeline as it goes; the other two come from its sums. */
static int timeline_file(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n,
                         struct pm_graph_sums *sums)
{
    struct pm_outfile file;
    struct timeline timeline = {.file = &file,
                                .start_ns = pm_session_info(seed->session)->start_mono_ns};
    int rc = pm_seed_begin(seed, dir_fd, "cuda_graph_timeline.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, TIMELINE_HEADER);
    if (rc == 0)
        rc = pm_graph_walk(seed->session, engine, n, put_replay, &timeline, sums);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        seed->result.rows += sums->held;
    return rc;
}

int pm_seed_graphs(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_graph_sums sums = {0};
    int rc = timeline_file(seed, dir_fd, engine, n, &sums);

    if (rc == 0)
        rc = table_file(seed, dir_fd, &sums, true);
    pm_graph_sort(&sums);
    if (rc == 0)
        rc = table_file(seed, dir_fd, &sums, false);
    pm_graph_sums_release(&sums);
    return rc;
}
