/*
 * What is added up of a running engine, once for the last seconds and once since its process began:
 * the same names in both, in the JSON of `top`, and in what later reads it. Constant data and
 * inline verbs.
 */
#ifndef PM_LIVE_SUMS_H
#define PM_LIVE_SUMS_H

#include <stdint.h>

/* Of the scheduler's process: X(NAME, schema, field, classes). The total of a sum is the series of
 * that field; field "" is the count of its records; classes: 1 every class, 2 all but the first. */
#define PM_LIVE_SUMS(X)                                                                            \
    X(steps, "sched_step", "", 2)                                                                  \
    X(step_requests, "sched_step", "requests", 1)                                                  \
    X(step_tokens, "sched_step", "tokens", 1)                                                      \
    X(prefill_tokens, "sched_step", "prefill_tokens", 1)                                           \
    X(recompute_tokens, "sched_step", "recompute_tokens", 1)                                       \
    X(decode_tokens, "sched_step", "decode_tokens", 1)                                             \
    X(sched_ns, "sched_step", "dur_ns", 1)                                                         \
    X(update_ns, "update_step", "dur_ns", 1)                                                       \
    X(outputs, "update_step", "outputs", 1)                                                        \
    X(output_tokens, "update_step", "output_tokens", 1)                                            \
    X(drafted_tokens, "update_step", "drafted", 1)                                                 \
    X(accepted_tokens, "update_step", "accepted", 1)                                               \
    X(finished, "request", "", 1)                                                                  \
    X(prompt_tokens, "request", "prompt_tokens", 1)                                                \
    X(cached_tokens, "request", "cached_tokens", 1)                                                \
    X(preemptions, "request", "preemptions", 1)                                                    \
    X(evicted_blocks, "kv_step", "evicted", 1)                                                     \
    X(queried_tokens, "kv_step", "queried_tokens", 1)                                              \
    X(hit_tokens, "kv_step", "hit_tokens", 1)

/* Of a worker's process. */
#define PM_LIVE_RANK_SUMS(X)                                                                       \
    X(steps, "worker_step", "", 2)                                                                 \
    X(total_ns, "worker_step", "total_ns", 1)                                                      \
    X(pre_ns, "worker_step", "pre_ns", 1)                                                          \
    X(model_ns, "worker_step", "model_ns", 1)                                                      \
    X(post_ns, "worker_step", "post_ns", 1)                                                        \
    X(sample_ns, "worker_step", "sample_ns", 1)

#define PM_LIVE_MEMBER(name, schema, field, classes) uint64_t name;
struct pm_live_sums {
    PM_LIVE_SUMS(PM_LIVE_MEMBER)
};
struct pm_live_rank_sums {
    PM_LIVE_RANK_SUMS(PM_LIVE_MEMBER)
    uint64_t forward_ns;      /* as in the tables: device time, else vLLM's sync, else wall; in the
                                 total, what was seen since we began to look */
    uint64_t replayed, eager; /* passes of the model from a CUDA graph, and without */
};
#undef PM_LIVE_MEMBER

#endif
