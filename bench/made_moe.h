/*
 * The experts of a made-up server: what tokens would have chosen, as the probe moe records it. In
 * each layer one expert is hot, the others are alike but for chance. Used by made_server.c.
 */
#ifndef PM_BENCH_MADE_MOE_H
#define PM_BENCH_MADE_MOE_H

#include "made_server.h"

struct made_moe;

/* Records the layers; `layer` and `counts` are the recorder's numbers of the schemas. */
struct made_moe *made_moe_begin(struct pm_recorder *rec, unsigned layer, unsigned counts,
                                const struct made_options *options, uint64_t now_ns);
/* A step of so many tokens. */
void made_moe_step(struct made_moe *moe, uint32_t tokens);
/* Once a second, or now: records what was chosen since; returns the records. */
unsigned made_moe_flush(struct made_moe *moe, uint64_t now_ns, bool now);
/* NULL is fine. */
void made_moe_free(struct made_moe *moe);

/* The hot expert of a layer. */
uint32_t made_moe_hot(const struct made_options *options, uint32_t layer);

#endif
