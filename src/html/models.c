/*
 * What a worker tells of its model, for the page: CUDA graphs, experts, encoder and decoder. Called
 * by page.c.
 */
#include "html/data.h"

#include <stdlib.h>
#include <string.h>

#include "view/encoder_decoder.h"
#include "view/graph.h"
#include "view/moe.h"

#define GRAPHS_SHOWN 200u
#define CELLS_MAX (1u << 20) /* of the heat map */

/* ---- CUDA graphs ---- */

/* Padding by graph, of the replays that are held. */
struct padding {
    struct {
        struct pm_graph_desc desc;
        uint64_t passes, tokens, padding, ns;
    } * rows;
    size_t n, room;
};

static int on_replay(void *arg, const struct pm_graph_pass *pass)
{
    struct padding *all = arg;
    size_t i = 0;
    while (i < all->n && memcmp(&all->rows[i].desc, &pass->desc, sizeof(pass->desc)) != 0)
        i++;
    if (i == all->n) {
        if (all->n == all->room) {
            const size_t room = all->room != 0 ? 2 * all->room : 64;
            void *rows = realloc(all->rows, room * sizeof(*all->rows));
            if (rows == NULL)
                return -PM_ENOMEM;
            all->rows = rows;
            all->room = room;
        }
        memset(&all->rows[i], 0, sizeof(all->rows[i]));
        all->rows[all->n++].desc = pass->desc;
    }
    all->rows[i].passes++;
    all->rows[i].tokens += pass->tokens;
    all->rows[i].padding += pass->padding;
    all->rows[i].ns += pass->dur_ns;
    /* The commonest stand in front. */
    if (i > 0 && all->rows[i].passes > all->rows[i / 2].passes) {
        const __typeof__(*all->rows) row = all->rows[i];
        all->rows[i] = all->rows[i / 2];
        all->rows[i / 2] = row;
    }
    return 0;
}

static void put_graph_row(struct pm_json *json, const struct pm_session *session,
                          const struct pm_graph_row *row, const struct padding *padding)
{
    char name[PM_GRAPH_TEXT_MAX];

    *pm_graph_put_desc(name, &row->desc, '|') = '\0';
    pm_json_object(json);
    pm_put_text(json, "descriptor", name);
    pm_put_text(json, "mode", pm_graph_mode_name(row->desc.mode));
    pm_put_u64(json, "num_tokens", row->desc.num_tokens);
    pm_json_key(json, "num_reqs");
    row->desc.num_reqs >= 0 ? pm_json_i64(json, row->desc.num_reqs) : pm_json_null(json);
    pm_json_key(json, "uniform");
    pm_json_bool(json, row->desc.uniform != 0);
    pm_json_key(json, "has_lora");
    pm_json_bool(json, row->desc.has_lora != 0);
    pm_put_u64(json, "replays", row->replays);
    pm_put_u64(json, "pieces", row->pieces);
    pm_json_key(json, "captured");
    pm_put_moment(json, session, row->at_ns);
    pm_json_key(json, "capture_ms");
    row->at_ns != 0 ? pm_json_ms3(json, row->capture_ns) : pm_json_null(json);
    pm_put_u64(json, "at_runtime", row->at_runtime);
    for (size_t i = 0; i < padding->n; i++)
        if (memcmp(&padding->rows[i].desc, &row->desc, sizeof(row->desc)) == 0) {
            pm_put_u64(json, "held", padding->rows[i].passes);
            pm_put_u64(json, "tokens", padding->rows[i].tokens);
            pm_put_u64(json, "padding", padding->rows[i].padding);
            pm_json_key(json, "mean_ms");
            pm_json_ratio(json, padding->rows[i].ns, 1, padding->rows[i].passes * 1000000, 3);
        }
    pm_json_end(json);
}

static int put_graphs(struct pm_json *json, const struct pm_session *session, size_t engine,
                      unsigned n)
{
#define WORD(name, word, sentence) [PM_GRAPH_##name] = word,
#define SENTENCE(name, word, sentence) [PM_GRAPH_##name] = sentence,
    static const char *const words[PM_GRAPH_OUTCOMES_COUNT] = {PM_GRAPH_OUTCOMES(WORD)};
    static const char *const sentences[PM_GRAPH_OUTCOMES_COUNT] = {PM_GRAPH_OUTCOMES(SENTENCE)};
#undef WORD
#undef SENTENCE
    struct padding padding = {0};
    struct pm_graph_sums sums;
    uint64_t passes = 0;
    const int rc = pm_graph_walk(session, engine, n, on_replay, &padding, &sums);

    for (unsigned i = 0; i < PM_GRAPH_OUTCOMES_COUNT; i++)
        passes += sums.passes[i];
    pm_json_key(json, "graphs");
    if (rc == 0 && (passes > 0 || sums.n_rows > 0)) {
        pm_graph_sort(&sums);
        pm_json_object(json);
        pm_put_u64(json, "captures", sums.captures);
        pm_put_u64(json, "captures_at_runtime", sums.captures_at_runtime);
        pm_json_key(json, "capture_ms");
        pm_json_ms3(json, sums.capture_ns);
        pm_put_u64(json, "replays", sums.replays);
        pm_put_u64(json, "graphs", sums.n_rows);
        pm_json_key(json, "outcomes");
        pm_json_array(json);
        for (unsigned i = 0; i < PM_GRAPH_OUTCOMES_COUNT; i++) {
            if (sums.passes[i] == 0)
                continue;
            pm_json_object(json);
            pm_put_text(json, "outcome", words[i]);
            pm_put_text(json, "sentence", sentences[i]);
            pm_json_key(json, "replayed");
            pm_json_bool(json, i == PM_GRAPH_FULL || i == PM_GRAPH_PIECEWISE);
            pm_put_u64(json, "steps", sums.passes[i]);
            pm_put_u64(json, "tokens", sums.tokens[i]);
            pm_put_u64(json, "padding", sums.padding[i]);
            pm_json_end(json);
        }
        pm_json_end(json);
        pm_json_key(json, "rows");
        pm_json_array(json);
        for (size_t i = 0; i < sums.n_rows && i < GRAPHS_SHOWN; i++)
            put_graph_row(json, session, &sums.rows[i], &padding);
        pm_json_end(json);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_graph_sums_release(&sums);
    free(padding.rows);
    return rc;
}

/* ---- experts ---- */

static int put_moe(struct pm_json *json, const struct pm_session *session, size_t engine,
                   unsigned n)
{
    struct pm_moe_sums sums;
    const char *why;
    uint64_t cells = 0;
    const int rc = pm_moe_walk(session, engine, n, NULL, &sums);

    pm_json_key(json, "moe");
    if (rc == 0 && (sums.n_layers > 0 || sums.reason != NULL)) {
        const int observable = pm_moe_observable(&sums, &why);
        pm_json_object(json);
        pm_json_key(json, "observable");
        observable < 0 ? pm_json_null(json) : pm_json_bool(json, observable > 0);
        pm_put_text(json, "reason", why);
        pm_put_u64(json, "selections", sums.selections);
        pm_json_key(json, "layers");
        pm_json_array(json);
        for (size_t i = 0; i < sums.n_layers; i++) {
            const struct pm_moe_sum *layer = &sums.layers[i];
            if (layer->n == NULL)
                continue;
            pm_json_object(json);
            pm_put_u64(json, "layer", layer->fact.layer);
            pm_moe_put_layer(json, layer);
            cells += layer->fact.experts;
            pm_json_key(json, "n");
            pm_json_array(json);
            for (uint32_t e = 0; e < layer->fact.experts && cells <= CELLS_MAX; e++)
                pm_json_u64(json, layer->n[e]);
            pm_json_end(json);
            pm_json_end(json);
        }
        pm_json_end(json);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_moe_sums_release(&sums);
    return rc;
}

/* ---- encoder and decoder ---- */

static int put_encoder(struct pm_json *json, const struct pm_session *session, size_t engine,
                       unsigned n)
{
    static const char *const names[PM_COMPONENTS] = {"encoder", "decoder", "cross_attention"};
    struct pm_encoder_decoder sums;
    const int rc = pm_encoder_decoder_walk(session, engine, n, NULL, &sums);

    pm_json_key(json, "encoder");
    if (rc == 0 &&
        sums.stats[PM_COMPONENT_ENCODER].count + sums.stats[PM_COMPONENT_CROSS].count > 0) {
        pm_json_object(json);
        pm_put_text(json, "model_type", sums.model_type);
        pm_put_u64(json, "items", sums.items);
        pm_json_key(json, "device");
        pm_json_bool(json, sums.device);
        pm_json_key(json, "components");
        pm_json_array(json);
        for (unsigned i = 0; i < PM_COMPONENTS; i++) {
            const struct pm_stats *stats = &sums.stats[i];
            pm_json_object(json);
            pm_put_text(json, "name", names[i]);
            pm_put_u64(json, "count", stats->count);
            pm_json_ms_double(json, "total_ms", stats->mean * (double)stats->count, stats->count);
            pm_json_ms_double(json, "mean_ms", stats->mean, stats->count);
            pm_json_ms_double(json, "p50_ms", stats->p50, stats->count);
            pm_json_ms_double(json, "p99_ms", stats->p99, stats->count);
            pm_json_ms_double(json, "max_ms", stats->max, stats->count);
            pm_json_end(json);
        }
        pm_json_end(json);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_encoder_decoder_release(&sums);
    return rc;
}

int pm_data_models(struct pm_json *json, const struct pm_session *session, size_t engine,
                   unsigned n)
{
    int rc = put_graphs(json, session, engine, n);
    if (rc == 0)
        rc = put_moe(json, session, engine, n);
    if (rc == 0)
        rc = put_encoder(json, session, engine, n);
    return rc;
}
