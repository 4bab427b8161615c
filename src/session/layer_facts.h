/*
 * The facts of layers on disk. Written by src/probe/layer.c, read by src/view/layer.c by name. Pure
 * C.
 *
 *   layer_time   worker, per layer, kind of module and phase: what its modules took so far
 *   layer_pass   worker, per phase: passes of the model so far, and how many were not seen
 *
 * All of them only grow, and are recorded again when they have: about once a second, when the
 * engine runs empty, and at the process's end. So the newest record of each is the truth, however
 * old the first one was.
 *
 * The time of a module is without that of the modules inside of it that are told apart. Together
 * all of one phase are the time of its passes: the model's own `forward`, from its call to its
 * return.
 */
#ifndef PM_SESSION_LAYER_FACTS_H
#define PM_SESSION_LAYER_FACTS_H

#include <stdint.h>

#define PM_LAYER_KINDS(X)                                                                          \
    X(OTHER, "other") /* what the kinds below leave of a layer, and of the model */                \
    X(ATTENTION, "attention")                                                                      \
    X(MLP, "mlp")                                                                                  \
    X(MOE, "moe") /* a block of experts, with its router and its shared experts */                 \
    X(NORM, "norm")
enum pm_layer_kind {
#define PM_LAYER_ENUM(name, text) PM_LAYER_##name,
    PM_LAYER_KINDS(PM_LAYER_ENUM)
#undef PM_LAYER_ENUM
        PM_LAYER_KINDS_COUNT
};

#define PM_LAYER_OUTSIDE (-1) /* of no layer: embedding, the last norm, what is left */

struct pm_layer_time {
    uint64_t at_ns;     /* when it was told */
    uint64_t ns;        /* host clock: on a device the launches */
    uint64_t device_ns; /* by its events; 0: none */
    uint64_t calls;
    uint64_t device_calls; /* of these, those that device_ns is of */
    int32_t layer;         /* from 0; PM_LAYER_OUTSIDE */
    uint16_t instance;     /* n-th worker of the process */
    uint8_t kind;          /* enum pm_layer_kind */
    uint8_t phase;         /* enum pm_phase_class of the step: prefill or decode */
};

struct pm_layer_pass {
    uint64_t at_ns;
    uint64_t ns; /* of all passes, host clock */
    uint64_t device_ns;
    uint64_t passes;        /* calls of the model in steps */
    uint64_t device_passes; /* of these, with device_ns */
    uint64_t unseen; /* steps with tokens in which the model was not called by Python: replayed */
    uint16_t instance;
    uint8_t phase;
    uint8_t on_device; /* 1: the worker runs on a device */
    uint32_t reserved;
};

#endif
