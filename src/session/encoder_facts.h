/*
 * The facts of encoders on disk (schema "encoder_step"): what of a step's time at the worker went
 * to an encoder (of audio, images, …) before the model, and to cross-attention inside it. One per
 * step that had either; the model's own time is worker_step's. Written by
 * src/probe/encoder_decoder.c, read by src/view/encoder_decoder.c by name. Pure C.
 *
 * All times are of the host's clock: on a device they are those of the launches.
 */
#ifndef PM_SESSION_ENCODER_FACTS_H
#define PM_SESSION_ENCODER_FACTS_H

#include <stdint.h>

enum pm_encoder_flags {
    PM_ENCODER_FAILED = 1, /* a call raised */
};

struct pm_encoder_step {
    uint64_t step;             /* as worker_step numbers it */
    uint64_t encoder_start_ns; /* the first call of the encoder began; 0: none */
    uint64_t encoder_ns;       /* of all its calls */
    uint64_t cross_start_ns;   /* the first cross-attention began; 0: none */
    uint64_t cross_ns;         /* of all layers */
    uint32_t encoder_calls;
    uint32_t items; /* inputs encoded: images, pieces of audio */
    uint32_t cross_calls;
    uint16_t instance; /* n-th worker of the process */
    uint16_t flags;    /* enum pm_encoder_flags */
};

#endif
