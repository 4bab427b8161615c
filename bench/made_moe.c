/* See made_moe.h. */
#include "made_moe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/moe_facts.h"

#define FLUSH_NS 1000000000ull

struct made_moe {
    struct pm_recorder *rec;
    const struct made_options *options;
    unsigned counts_schema;
    uint64_t flushed_ns, tokens, rng; /* tokens since the last flush */
    double *carried; /* per layer and expert: the part of a selection that is left */
};

uint32_t made_moe_hot(const struct made_options *options, uint32_t layer)
{
    return (uint32_t)((options->moe_seed * 5 + layer * 7 + 3) % options->moe_experts);
}

static double chance(struct made_moe *moe)
{
    moe->rng ^= moe->rng << 13, moe->rng ^= moe->rng >> 7, moe->rng ^= moe->rng << 17;
    return (double)(moe->rng >> 11) / 9007199254740992.0;
}

static void *reserve(struct made_moe *moe, unsigned schema)
{
    void *payload = pm_recorder_reserve(moe->rec, schema);
    for (int i = 0; payload == NULL && i < 3; i++) {
        pm_recorder_round(moe->rec);
        payload = pm_recorder_reserve(moe->rec, schema);
    }
    return payload;
}

struct made_moe *made_moe_begin(struct pm_recorder *rec, unsigned layer, unsigned counts,
                                const struct made_options *options, uint64_t now_ns)
{
    struct made_moe *moe = calloc(1, sizeof *moe);
    if (moe == NULL)
        abort();
    *moe = (struct made_moe){.rec = rec,
                             .options = options,
                             .counts_schema = counts,
                             .flushed_ns = now_ns,
                             .rng = (options->seed + 17) * 0x9E3779B97F4A7C15ull | 1};
    moe->carried = calloc((size_t)options->moe_layers * options->moe_experts, sizeof(double));
    if (moe->carried == NULL)
        abort();
    for (uint32_t i = 0; i < options->moe_layers; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%u.mlp.experts", i);
        const uint32_t string = pm_recorder_string(rec, PM_STREAM_CORE, name, strlen(name));
        struct pm_moe_layer *fact = reserve(moe, layer);
        if (fact == NULL)
            continue; /* the ceiling: the recorder has counted it */
        *fact = (struct pm_moe_layer){.at_ns = now_ns,
                                      .name = string,
                                      .layer = i,
                                      .experts = options->moe_experts,
                                      .top_k = options->moe_top_k,
                                      .slot = (uint16_t)i,
                                      .seen = PM_MOE_HOST};
        pm_recorder_commit(rec, fact);
    }
    return moe;
}

void made_moe_step(struct made_moe *moe, uint32_t tokens)
{
    moe->tokens += tokens;
}

/* What an expert got, whole; the rest is carried on. */
static uint32_t selections(struct made_moe *moe, uint32_t layer, uint32_t expert)
{
    const struct made_options *o = moe->options;
    const double all = (double)moe->tokens * o->moe_top_k, mean = all / o->moe_experts;
    const double others = (all - mean * o->moe_hot) / (o->moe_experts - 1);
    double *left = &moe->carried[(size_t)layer * o->moe_experts + expert];
    double n =
        expert == made_moe_hot(o, layer) ? mean * o->moe_hot : others * (0.9 + 0.2 * chance(moe));
    n += *left;
    *left = n - (double)(uint32_t)n;
    return (uint32_t)n;
}

unsigned made_moe_flush(struct made_moe *moe, uint64_t now_ns, bool now)
{
    const struct made_options *o = moe->options;
    unsigned records = 0;
    if (moe->tokens == 0 || (!now && now_ns - moe->flushed_ns < FLUSH_NS))
        return 0;
    for (uint32_t i = 0; i < o->moe_layers; i++)
        for (uint32_t first = 0; first < o->moe_experts; first += PM_MOE_DELTAS) {
            struct pm_moe_counts *fact = reserve(moe, moe->counts_schema);
            if (fact == NULL)
                continue;
            *fact = (struct pm_moe_counts){.at_ns = now_ns, .first = first, .slot = (uint16_t)i};
            for (uint32_t e = 0; e < PM_MOE_DELTAS && first + e < o->moe_experts; e++)
                fact->n[e] = selections(moe, i, first + e);
            pm_recorder_commit(moe->rec, fact);
            records++;
        }
    moe->flushed_ns = now_ns;
    moe->tokens = 0;
    return records;
}

void made_moe_free(struct made_moe *moe)
{
    if (moe == NULL)
        return;
    free(moe->carried);
    free(moe);
}
