/*
 * A made-up server: continuous batching with chunked prefill, a KV cache that can run out, requests
 * that come by chance through the day. Its facts are those that the probes would record, with the
 * schemas that they use, so that a session of any length can be had without running vLLM.
 */
#ifndef PM_BENCH_MADE_SERVER_H
#define PM_BENCH_MADE_SERVER_H

#include <stdint.h>

#include "recorder/recorder.h"

/* What a phase takes, as a factor of the default; for comparisons. */
struct made_factors {
    double schedule, pre, model, sample, update;
};

struct made_options {
    double hours;
    double requests_per_s;           /* on average; a day's wave goes round it */
    double wave;                     /* 0..1: how high the wave is */
    double prompt_mean, output_mean; /* tokens; log-normal */
    uint32_t kv_blocks;              /* of 16 tokens */
    uint32_t max_requests, max_tokens;
    uint64_t seed;
    struct made_factors factors;
    uint32_t moe_layers, moe_experts, moe_top_k; /* 0 layers: a dense model */
    double moe_hot;    /* how often the layer's hot expert is taken, by the mean */
    uint64_t moe_seed; /* which one it is; of the model, not of the server */
};

struct made_counts {
    uint64_t steps, requests, preemptions, output_tokens, records;
    uint64_t end_ns; /* CLOCK_MONOTONIC of the last update */
};

/* The schemas, in the order that the server uses; for pm_recorder_options. The last MADE_OF_MOE of
 * them are those of experts: a dense model is recorded without. */
#define MADE_OF_MOE 2
extern const struct pm_schema *const made_schemas[];
extern const size_t made_n_schemas;

/* Serves from start_ns on and records it. Requests still under way at the end stay open. */
void made_serve(struct pm_recorder *rec, const struct made_options *options, uint64_t start_ns,
                struct made_counts *ret_counts);

#endif
