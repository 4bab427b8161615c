/*
 * The seeds' files of experts: moe_expert_selection.csv, moe_expert_timing.csv,
 * moe_expert_coselection.csv, moe_load_imbalance.csv and moe_summary.json. Called by seed_export.c
 * through its table.
 */
#include "view/moe.h"

#include "base/number.h"
#include "view/seed.h"

#define SELECTION_HEADER "layer_idx,expert_id,selection_count,percentage\n"
#define TIMING_HEADER "timestamp_sec,layer_idx,num_tokens,duration_ms\n"
#define COSELECTION_HEADER "layer_idx,expert_id_1,expert_id_2,coselection_count\n"
#define IMBALANCE_HEADER "layer_idx,timestamp_sec,std_dev,max_min_ratio\n"
#define ROW_MAX (4 * (PM_NUMBER_MAX + 1))

/* ---- what the walk writes as it goes ---- */

struct going {
    struct pm_outfile *timing, *imbalance;
    uint64_t start_ns, rows;
};

static int put_call(void *arg, const struct pm_moe_sum *layer, const struct pm_moe_time *time)
{
    struct going *going = arg;
    char *out = pm_buf_reserve(&going->timing->buf, ROW_MAX);
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&going->timing->buf);
    out = pm_number_sec6_signed(out, (int64_t)(time->at_ns - going->start_ns));
    *out++ = ',';
    out = pm_number_u64(out, layer->fact.layer);
    *out++ = ',';
    out = pm_number_u64(out, time->tokens);
    *out++ = ',';
    out = pm_number_ms3(out, time->dur_ns);
    *out++ = '\n';
    pm_buf_advance(&going->timing->buf, (size_t)(out - begin));
    going->rows++;
    return pm_outfile_spill(going->timing);
}

static int put_part(void *arg, const struct pm_moe_sum *layer)
{
    struct going *going = arg;
    struct pm_moe_balance balance;
    char *out = pm_buf_reserve(&going->imbalance->buf, ROW_MAX);
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&going->imbalance->buf);
    pm_moe_balance_of(layer->part, layer->fact.experts, &balance);
    out = pm_number_u64(out, layer->fact.layer);
    *out++ = ',';
    out = pm_number_sec6_signed(out, (int64_t)(layer->part_ns - going->start_ns));
    *out++ = ',';
    out = pm_number_double(out, balance.std, 3);
    *out++ = ',';
    out = pm_number_double(out, balance.max_min, 3);
    *out++ = '\n';
    pm_buf_advance(&going->imbalance->buf, (size_t)(out - begin));
    going->rows++;
    return pm_outfile_spill(going->imbalance);
}

static int going_files(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n,
                       struct pm_moe_sums *sums)
{
    struct pm_outfile timing, imbalance;
    struct going going = {.timing = &timing,
                          .imbalance = &imbalance,
                          .start_ns = pm_session_info(seed->session)->start_mono_ns};
    const struct pm_moe_tell tell = {.part = put_part, .call = put_call, .arg = &going};
    int rc = pm_seed_begin(seed, dir_fd, "moe_expert_timing.csv", &timing);

    if (rc != 0)
        return rc;
    rc = pm_seed_begin(seed, dir_fd, "moe_load_imbalance.csv", &imbalance);
    if (rc != 0)
        return pm_seed_finish(seed, &timing, rc);
    rc = pm_buf_add_text(&timing.buf, TIMING_HEADER);
    if (rc == 0)
        rc = pm_buf_add_text(&imbalance.buf, IMBALANCE_HEADER);
    if (rc == 0)
        rc = pm_moe_walk(seed->session, engine, n, &tell, sums);
    rc = pm_seed_finish(seed, &timing, rc);
    rc = pm_seed_finish(seed, &imbalance, rc);
    if (rc == 0)
        seed->result.rows += going.rows;
    return rc;
}

/* ---- from the sums ---- */

static int put_cells(struct pm_outfile *file, const uint64_t *cells, unsigned n, uint64_t of)
{
    char *out = pm_buf_reserve(&file->buf, ROW_MAX);
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    for (unsigned i = 0; i < n; i++) {
        out = pm_number_u64(out, cells[i]);
        *out++ = i + 1 < n || of > 0 ? ',' : '\n';
    }
    if (of > 0) {
        out = pm_number_ratio(out, cells[n - 1], 100, of, 2);
        *out++ = '\n';
    }
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

/* Every expert of a layer of which anything was seen: those that were never chosen too. */
static int selection_file(struct pm_seed *seed, int dir_fd, const struct pm_moe_sums *sums)
{
    struct pm_outfile file;
    uint64_t rows = 0;
    int rc = pm_seed_begin(seed, dir_fd, "moe_expert_selection.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, SELECTION_HEADER);
    for (size_t i = 0; i < sums->n_layers; i++) {
        const struct pm_moe_sum *layer = &sums->layers[i];
        for (uint32_t e = 0; rc == 0 && layer->selections > 0 && e < layer->fact.experts; e++) {
            rc = put_cells(&file, (uint64_t[]){layer->fact.layer, e, layer->n[e]}, 3,
                           layer->selections);
            rows++;
        }
    }
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        seed->result.rows += rows;
    return rc;
}

/* Pairs that met. */
static int coselection_file(struct pm_seed *seed, int dir_fd, const struct pm_moe_sums *sums)
{
    struct pm_outfile file;
    uint64_t rows = 0;
    int rc = pm_seed_begin(seed, dir_fd, "moe_expert_coselection.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_buf_add_text(&file.buf, COSELECTION_HEADER);
    for (size_t i = 0; i < sums->n_layers; i++) {
        const struct pm_moe_sum *layer = &sums->layers[i];
        const uint32_t experts = layer->pairs != NULL ? layer->fact.experts : 0;
        for (uint32_t a = 0; a < experts; a++) {
            for (uint32_t b = a + 1; b < experts && rc == 0; b++) {
                const uint64_t met = layer->pairs[pm_moe_pair(experts, a, b)];
                if (met == 0)
                    continue;
                rc = put_cells(&file, (uint64_t[]){layer->fact.layer, a, b, met}, 4, 0);
                rows++;
            }
        }
    }
    rc = pm_seed_finish(seed, &file, rc);
    if (rc == 0)
        seed->result.rows += rows;
    return rc;
}

static int summary_file(struct pm_seed *seed, int dir_fd, const struct pm_moe_sums *sums)
{
    struct pm_outfile file;
    struct pm_json json;
    const char *why;
    const int observable = pm_moe_observable(sums, &why);
    size_t layers = 0;
    int rc = pm_seed_begin(seed, dir_fd, "moe_summary.json", &file);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sums->n_layers; i++)
        layers += sums->layers[i].n != NULL;
    pm_json_init(&json, &file.buf, 2);
    pm_json_object(&json);
    pm_json_key(&json, "moe_layers");
    pm_json_u64(&json, layers);
    pm_json_key(&json, "observable");
    observable < 0 ? pm_json_null(&json) : pm_json_bool(&json, observable > 0);
    pm_json_key(&json, "reason");
    pm_json_text(&json, why);
    pm_json_key(&json, "in_graph");
    pm_json_text(&json, sums->in_graph);
    pm_json_key(&json, "total_selections");
    pm_json_u64(&json, sums->selections);
    pm_json_key(&json, "layers");
    pm_json_object(&json);
    for (size_t i = 0; i < sums->n_layers; i++) {
        const struct pm_moe_sum *layer = &sums->layers[i];
        char key[32];
        if (layer->n == NULL)
            continue;
        (void)snprintf(key, sizeof(key), "%u", (unsigned)layer->fact.layer);
        pm_json_key(&json, key);
        pm_json_object(&json);
        pm_moe_put_layer(&json, layer);
        pm_json_end(&json);
    }
    pm_json_end(&json);
    pm_json_end(&json);
    return pm_seed_finish(seed, &file, pm_json_finish(&json));
}

int pm_seed_moe(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_moe_sums sums = {0};
    int rc = going_files(seed, dir_fd, engine, n, &sums);

    if (rc == 0)
        rc = selection_file(seed, dir_fd, &sums);
    if (rc == 0)
        rc = coselection_file(seed, dir_fd, &sums);
    if (rc == 0)
        rc = summary_file(seed, dir_fd, &sums);
    pm_moe_sums_release(&sums);
    return rc;
}
