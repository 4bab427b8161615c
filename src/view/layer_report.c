/*
 * layer_timing.csv and layer_summary.json, and the layers' part of the reports (see layer.h).
 * Called by seed_export.c, report_text.c and report_json.c.
 */
#include "view/layer.h"

#include <string.h>

#include "view/outfile.h"
#include "view/seed.h"

#define HEADER "layer_idx,kind,count,total_ms,mean_ms,share_pct\n"
#define LAYERS_SHOWN 8 /* of the text report: the slowest ones where there are more */

/* The kinds in the order in which they are shown: what is left comes last. */
static const unsigned order[] = {PM_LAYER_ATTENTION, PM_LAYER_MLP, PM_LAYER_MOE, PM_LAYER_NORM,
                                 PM_LAYER_OTHER};
#define KINDS (sizeof(order) / sizeof(*order))

static double share_pct(const struct pm_layers *layers, uint64_t ns)
{
    const uint64_t whole = pm_layer_pass_ns(layers);
    return whole > 0 ? 100.0 * (double)ns / (double)whole : 0.0;
}

static uint64_t calls_of(const struct pm_layer_sum *sum)
{
    return sum->calls[0] + sum->calls[1];
}

static uint64_t passes_of(const struct pm_layers *layers)
{
    return layers->passes[0] + layers->passes[1];
}

static const char *clock_name(const struct pm_layers *layers)
{
    return layers->device ? "device" : layers->launch ? "launch" : "host";
}

/* ---- layer_timing.csv ------------------------------------------------------------------------ */

static int put_rows(struct pm_outfile *file, const struct pm_layers *layers, uint64_t *rows)
{
    int rc = pm_buf_add_text(&file->buf, HEADER);
    for (size_t i = 0; i < layers->n_rows && rc == 0; i++)
        for (size_t k = 0; k < KINDS && rc == 0; k++) {
            const struct pm_layer_row *row = &layers->rows[i];
            const struct pm_layer_sum *sum = &row->kinds[order[k]];
            const uint64_t calls = calls_of(sum), ns = pm_layer_ns(sum);
            if (calls == 0)
                continue;
            if (row->layer != PM_LAYER_OUTSIDE)
                (void)pm_buf_printf(&file->buf, "%d", row->layer);
            (void)pm_buf_printf(&file->buf, ",%s,%llu,%.3f,%.3f,%.2f\n",
                                pm_layer_kind_name(order[k]), (unsigned long long)calls,
                                (double)ns / 1e6, (double)ns / (double)calls / 1e6,
                                share_pct(layers, ns));
            rc = pm_outfile_spill(file);
            *rows += 1;
        }
    return rc;
}

/* ---- layer_summary.json ---------------------------------------------------------------------- */

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_ms(struct pm_json *json, const char *key, double ns)
{
    pm_json_key(json, key);
    pm_json_double(json, ns / 1e6, 3);
}

static void put_share(struct pm_json *json, uint64_t ns, uint64_t whole)
{
    pm_json_key(json, "share_pct");
    pm_json_ratio(json, ns, 100, whole, 2);
}

static void put_kind(struct pm_json *json, const char *name, uint64_t calls, uint64_t ns,
                     uint64_t passes, uint64_t whole)
{
    if (calls == 0)
        return;
    pm_json_key(json, name);
    pm_json_object(json);
    put_u64(json, "calls", calls);
    put_ms(json, "total_ms", (double)ns);
    pm_json_ms_double(json, "mean_per_pass_ms", passes > 0 ? (double)ns / (double)passes : 0.0,
                      passes);
    put_share(json, ns, whole);
    pm_json_end(json);
}

static void put_phases(struct pm_json *json, const struct pm_layers *layers)
{
    static const char *const names[] = {"prefill", "decode"};
    pm_json_key(json, "phases");
    pm_json_object(json);
    for (unsigned p = 0; p < 2; p++) {
        pm_json_key(json, names[p]);
        pm_json_object(json);
        put_u64(json, "passes", layers->passes[p]);
        put_ms(json, "forward_ms", (double)layers->pass_ns[p]);
        pm_json_key(json, "kinds");
        pm_json_object(json);
        for (size_t k = 0; k < KINDS; k++)
            put_kind(json, pm_layer_kind_name(order[k]), layers->kinds[order[k]].calls[p],
                     layers->kinds[order[k]].ns[p], layers->passes[p], layers->pass_ns[p]);
        pm_json_end(json);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_layers(struct pm_json *json, const struct pm_layers *layers)
{
    pm_json_key(json, "layers");
    pm_json_array(json);
    for (size_t i = 0; i < layers->n_rows; i++) {
        const struct pm_layer_row *row = &layers->rows[i];
        pm_json_object(json);
        pm_json_key(json, "layer_idx");
        if (row->layer == PM_LAYER_OUTSIDE)
            pm_json_null(json);
        else
            pm_json_i64(json, row->layer);
        put_ms(json, "total_ms", (double)pm_layer_row_ns(row));
        put_share(json, pm_layer_row_ns(row), pm_layer_pass_ns(layers));
        for (size_t k = 0; k < KINDS; k++) {
            char key[32];
            snprintf(key, sizeof(key), "%s_ms", pm_layer_kind_name(order[k]));
            if (calls_of(&row->kinds[order[k]]) > 0)
                put_ms(json, key, (double)pm_layer_ns(&row->kinds[order[k]]));
        }
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_summary(struct pm_json *json, const struct pm_layers *layers)
{
    const uint64_t passes = passes_of(layers);

    pm_json_object(json);
    pm_json_key(json, "source");
    pm_json_text(json, layers->all_passes + layers->unseen > 0 ? "modules" : "none");
    pm_json_key(json, "hooks");
    pm_json_text(json, layers->hooks);
    pm_json_key(json, "clock");
    pm_json_text(json, clock_name(layers));
    put_u64(json, "passes", passes);
    put_u64(json, "passes_without_times",
            layers->all_passes - (passes < layers->all_passes ? passes : layers->all_passes));
    put_u64(json, "steps_not_seen", layers->unseen);
    put_ms(json, "forward_ms", (double)pm_layer_pass_ns(layers));
    put_ms(json, "host_forward_ms", (double)layers->host_ns);
    pm_json_key(json, "kinds");
    pm_json_object(json);
    for (size_t k = 0; k < KINDS; k++)
        put_kind(json, pm_layer_kind_name(order[k]), calls_of(&layers->kinds[order[k]]),
                 pm_layer_ns(&layers->kinds[order[k]]), passes, pm_layer_pass_ns(layers));
    pm_json_end(json);
    pm_json_key(json, "host_ms");
    pm_json_object(json);
    for (size_t k = 0; k < KINDS; k++)
        if (layers->kinds[order[k]].host_ns > 0)
            put_ms(json, pm_layer_kind_name(order[k]), (double)layers->kinds[order[k]].host_ns);
    pm_json_end(json);
    put_phases(json, layers);
    put_layers(json, layers);
    pm_json_end(json);
}

int pm_seed_layer(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_layers layers;
    struct pm_outfile file;
    struct pm_json json;
    int rc = pm_layer_walk(seed->session, engine, n, &layers);

    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "layer_timing.csv", &file);
    if (rc == 0)
        rc = pm_seed_finish(seed, &file, put_rows(&file, &layers, &seed->result.rows));
    if (rc == 0)
        rc = pm_seed_begin(seed, dir_fd, "layer_summary.json", &file);
    if (rc == 0) {
        pm_json_init(&json, &file.buf, 2);
        put_summary(&json, &layers);
        rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
    }
    pm_layer_release(&layers);
    return rc;
}

/* ---- the report ------------------------------------------------------------------------------ */

static void put_line(struct pm_buf *buf, const struct pm_layers *layers, const char *name,
                     uint64_t calls, uint64_t ns)
{
    const uint64_t passes = passes_of(layers);
    (void)pm_buf_printf(buf, "  %-12s%10llu%12.3f%12.1f%9.1f %%\n", name, (unsigned long long)calls,
                        passes > 0 ? (double)ns / (double)passes / 1e6 : 0.0, (double)ns / 1e6,
                        share_pct(layers, ns));
}

/* The slowest layers, where some stand out: each with what is most of it. */
static void put_slowest(struct pm_buf *buf, const struct pm_layers *layers)
{
    const size_t shown = layers->n_rows < LAYERS_SHOWN ? layers->n_rows : LAYERS_SHOWN;
    uint64_t limit_ns = UINT64_MAX;
    size_t limit_at = 0;

    for (size_t n = 0; n < shown; n++) {
        const struct pm_layer_row *best = NULL;
        for (size_t i = 0; i < layers->n_rows; i++) {
            const uint64_t ns = pm_layer_row_ns(&layers->rows[i]);
            const bool left = ns < limit_ns || (ns == limit_ns && i > limit_at);
            if (left && (best == NULL || ns > pm_layer_row_ns(best)))
                best = &layers->rows[i];
        }
        if (best == NULL)
            return;
        limit_ns = pm_layer_row_ns(best);
        limit_at = (size_t)(best - layers->rows);
        if (best->layer == PM_LAYER_OUTSIDE)
            (void)pm_buf_printf(buf, "  %-12s", "no layer");
        else
            (void)pm_buf_printf(buf, "  layer %-6d", best->layer);
        (void)pm_buf_printf(buf, "%9.1f %% ", share_pct(layers, limit_ns));
        for (size_t k = 0; k < KINDS; k++)
            if (calls_of(&best->kinds[order[k]]) > 0)
                (void)pm_buf_printf(buf, " %s %.1f", pm_layer_kind_name(order[k]),
                                    share_pct(layers, pm_layer_ns(&best->kinds[order[k]])));
        (void)pm_buf_add_text(buf, "\n");
    }
    if (layers->n_rows > shown)
        (void)pm_buf_printf(buf, "  … and %zu more (layer_timing.csv has them all)\n",
                            layers->n_rows - shown);
}

static void put_text(struct pm_buf *buf, const struct pm_layers *layers, bool colour)
{
    const uint64_t passes = passes_of(layers);

    (void)pm_buf_printf(buf,
                        "\n%sLayers, ms per pass of the model (%s)%s\n  %-12s%10s%12s%12s%11s\n",
                        colour ? "\033[1m" : "",
                        layers->device   ? "the device's events"
                        : layers->launch ? "host clock: the launches, not the device"
                                         : "host clock",
                        colour ? "\033[0m" : "", "kind", "calls", "mean", "total", "share");
    for (size_t k = 0; k < KINDS; k++)
        if (calls_of(&layers->kinds[order[k]]) > 0)
            put_line(buf, layers, pm_layer_kind_name(order[k]), calls_of(&layers->kinds[order[k]]),
                     pm_layer_ns(&layers->kinds[order[k]]));
    put_slowest(buf, layers);
    (void)pm_buf_printf(buf,
                        "  By timers in the model's modules, of %llu passes. other: what the rest\n"
                        "  leaves of a layer and of the model.\n",
                        (unsigned long long)passes);
    if (layers->all_passes > passes)
        (void)pm_buf_printf(buf, "  %llu passes more have no events.\n",
                            (unsigned long long)(layers->all_passes - passes));
    if (layers->unseen > 0)
        (void)pm_buf_printf(buf,
                            "  In %llu steps the model was replayed from a CUDA graph: not seen.\n",
                            (unsigned long long)layers->unseen);
}

int pm_layer_report_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                         struct pm_buf *buf)
{
    struct pm_layers layers;
    const int rc = pm_layer_walk(session, engine, n, &layers);

    if (rc == 0 && passes_of(&layers) > 0)
        put_text(buf, &layers, colour);
    pm_layer_release(&layers);
    return rc != 0 ? rc : pm_buf_status(buf);
}

int pm_layer_report_json(const struct pm_session *session, size_t engine, unsigned n,
                         struct pm_json *json)
{
    struct pm_layers layers;
    const int rc = pm_layer_walk(session, engine, n, &layers);

    if (rc == 0 && (layers.hooks != NULL || layers.all_passes + layers.unseen > 0))
        put_summary(json, &layers);
    else
        pm_json_null(json);
    pm_layer_release(&layers);
    return rc;
}
