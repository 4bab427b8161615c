/*
 * CUDA graphs, experts, sampling and front ends, as the views sum them up. Called by explain.c.
 */
#include "explain/look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain/rules.h"
#include "reader/steps.h"
#include "session/attrs.h"
#include "view/columns.h"
#include "view/graph.h"
#include "view/group.h"
#include "view/moe.h"
#include "view/sampling.h"

const char *pm_look_config(const struct pm_look *look, const char *key)
{
    const char *value = look->process != NULL ? pm_process_attr(look->process, key) : NULL;
    return value != NULL ? value : pm_session_attr(look->session, key);
}

uint64_t pm_look_config_u64(const struct pm_look *look, const char *key)
{
    const char *value = pm_look_config(look, key);
    return value != NULL && value[0] >= '0' && value[0] <= '9' ? strtoull(value, NULL, 10) : 0;
}

/* ---- graphs ---- */

int pm_look_take_graphs(struct pm_look *look)
{
    struct pm_look_graphs *graphs = &look->graphs;
    struct pm_graph_sums sums;
    const int rc = pm_graph_walk(look->session, look->engine, look->sampler, NULL, NULL, &sums);

    if (rc != 0) {
        pm_graph_sums_release(&sums);
        return rc;
    }
    pm_graph_sort(&sums);
    graphs->replays = sums.replays;
    for (unsigned i = 0; i < PM_GRAPH_OUTCOMES_COUNT; i++) {
        graphs->passes[i] = sums.passes[i];
        graphs->tokens[i] = sums.tokens[i];
        graphs->padding[i] = sums.padding[i];
        graphs->seen = graphs->seen || sums.passes[i] > 0;
    }
    for (size_t i = 0; i < sums.n_rows; i++) {
        const struct pm_graph_row *row = &sums.rows[i];
        const bool captured = row->at_ns != 0;
        graphs->captured += captured;
        graphs->capture_ns += captured ? row->capture_ns : 0;
        graphs->unused += captured && row->replays == 0;
        graphs->unused_capture_ns += captured && row->replays == 0 ? row->capture_ns : 0;
        graphs->at_runtime += row->at_runtime;
        graphs->at_runtime_ns += row->at_runtime > 0 ? row->capture_ns : 0;
        graphs->used += row->replays > 0;
        if (captured && row->desc.num_tokens > graphs->largest)
            graphs->largest = row->desc.num_tokens;
        if (row->replays > 0 && graphs->n_top < PM_LOOK_WORST) {
            char *end = pm_graph_put_desc(graphs->top[graphs->n_top], &row->desc, '|');
            *end = '\0';
            graphs->top_n[graphs->n_top++] = row->replays;
        }
    }
    graphs->top_replays = graphs->n_top > 0 ? graphs->top_n[0] : 0;
    pm_graph_sums_release(&sums);
    return 0;
}

/* ---- experts ---- */

static void add_layer(struct pm_look_moe *moe, const struct pm_moe_sum *layer)
{
    struct pm_moe_balance balance;
    const uint32_t experts = layer->fact.experts;

    moe->layers++;
    if (layer->n == NULL || layer->fact.seen == PM_MOE_UNSEEN || experts < 2 ||
        (double)layer->selections < pm_limits.expert_selections * experts)
        return;
    moe->layers_seen++;
    moe->experts += experts;
    pm_moe_balance_of(layer->n, experts, &balance);
    const double ratio = balance.mean > 0 ? (double)balance.max / balance.mean : 0;
    moe->mean_max_mean += ratio;
    moe->uneven += ratio > pm_limits.expert_ratio;
    if (ratio > moe->worst_max_mean) {
        moe->worst_max_mean = ratio;
        moe->worst_layer = layer->fact.layer;
        for (uint32_t e = 0; e < experts; e++)
            if (layer->n[e] == balance.max)
                moe->worst_expert = e;
    }
    moe->dead_layers += balance.chosen < experts;
    for (uint32_t e = 0; e < experts; e++) {
        if (layer->n[e] != 0)
            continue;
        const size_t used = strlen(moe->dead_text);
        if (moe->dead < 12 && used + 32 < sizeof(moe->dead_text))
            snprintf(moe->dead_text + used, sizeof(moe->dead_text) - used, "%slayer %u expert %u",
                     used > 0 ? ", " : "", layer->fact.layer, e);
        moe->dead++;
    }
}

int pm_look_take_moe(struct pm_look *look)
{
    struct pm_look_moe *moe = &look->moe;
    struct pm_moe_sums sums;
    const int rc = pm_moe_walk(look->session, look->engine, look->sampler, NULL, &sums);

    for (size_t i = 0; rc == 0 && i < sums.n_layers; i++) {
        add_layer(moe, &sums.layers[i]);
        moe->calls += sums.layers[i].calls;
        moe->time_ns += sums.layers[i].time_ns;
    }
    moe->seen = rc == 0 && sums.n_layers > 0;
    moe->selections = rc == 0 ? sums.selections : 0;
    moe->enough = moe->layers_seen > 0;
    if (moe->layers_seen > 0)
        moe->mean_max_mean /= (double)moe->layers_seen;
    pm_moe_sums_release(&sums);
    return rc;
}

/* ---- sampling ---- */

int pm_look_take_sampling(struct pm_look *look)
{
    struct pm_look_sampling *to = &look->sampling;
    struct pm_sampling sampling;
    const int rc = pm_sampling_walk(look->session, look->engine, look->sampler, NULL, &sampling);

    for (unsigned i = 0; rc == 0 && i < PM_SAMPLING_ALL; i++) {
        const struct pm_sampling_cost *cost = &sampling.costs[i];
        if (!pm_sampling_is_told(&sampling, i) ||
            (cost->verdict != PM_SAMPLING_TOLD && cost->verdict != PM_SAMPLING_SMALL))
            continue;
        to->settings[i].told = true;
        to->settings[i].sure = cost->verdict == PM_SAMPLING_TOLD;
        to->settings[i].cost_s = cost->cost_ns / 1e9;
        to->settings[i].error_s = cost->error_ns / 1e9;
        to->settings[i].with = sampling.with[i];
        to->settings[i].step_s = (double)sampling.with_ns[i] / 1e9 / (double)sampling.with[i];
        to->settings[i].requests = sampling.request_steps[i];
        pm_sampling_companions(cost, i, to->settings[i].together, sizeof(to->settings[i].together));
    }
    to->steps = rc == 0 ? sampling.steps : 0;
    for (unsigned i = 0; i < PM_SAMPLING_CLOCKS; i++)
        if (sampling.clocks[i] > sampling.clocks[to->clock])
            to->clock = (enum pm_sampling_clock)i;
    pm_sampling_release(&sampling);
    return rc;
}

/* ---- front ends ---- */

static int read_front(struct pm_look_front *front, const struct pm_process *process, int number)
{
    const struct pm_schema *schema = pm_process_schema(process, (size_t)number);
    const struct pm_field *start = pm_column(schema, "start_ns"),
                          *dur = pm_column(schema, "dur_ns"),
                          *delay = pm_column(schema, "delay_ns"), *op = pm_column(schema, "op"),
                          *tokens = pm_column(schema, "tokens"),
                          *outputs = pm_column(schema, "outputs");
    struct pm_cursor *cursor;
    struct pm_record record;
    int rc = pm_cursor_open(&cursor, process, schema->stream);

    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        if (record.schema != (unsigned)number || record.keyframe)
            continue;
        const uint64_t kind = pm_column_get(op, record.payload);
        const uint64_t begin_ns = pm_column_get(start, record.payload);
        const uint64_t took_ns = pm_column_get(dur, record.payload);
        if (kind >= PM_FRONTEND_CLASSES)
            continue;
        pm_times_add(&front->op[kind], took_ns);
        front->from_ns =
            front->from_ns == 0 || begin_ns < front->from_ns ? begin_ns : front->from_ns;
        front->to_ns = begin_ns + took_ns > front->to_ns ? begin_ns + took_ns : front->to_ns;
        if (kind == PM_FRONTEND_DETOKENIZATION) {
            const uint64_t waited_ns = pm_column_get(delay, record.payload);
            front->busy_ns += took_ns;
            front->outputs += pm_column_get(outputs, record.payload);
            if (waited_ns != 0)
                pm_times_add(&front->delay, waited_ns);
        } else if (kind == PM_FRONTEND_TOKENIZATION) {
            front->tokens += pm_column_get(tokens, record.payload);
        }
    }
    pm_cursor_close(cursor);
    return rc;
}

int pm_look_take_front(struct pm_look *look)
{
    int rc = 0;

    for (size_t i = 0; i < pm_session_process_count(look->session) && rc == 0; i++) {
        const struct pm_process *process = pm_session_process(look->session, i);
        const int number = pm_process_schema_find(process, "frontend_op");
        if (number < 0 || !pm_group_has(look->session, look->engine, look->sampler, process))
            continue;
        const uint64_t before = look->front.op[PM_FRONTEND_DETOKENIZATION].count;
        rc = read_front(&look->front, process, number);
        look->front.processes += look->front.op[PM_FRONTEND_DETOKENIZATION].count > before;
    }
    return rc;
}
