/*
 * The facts of collective operations on disk. Written by src/probe/collective*.c, read by
 * src/view/collective.c by name. Pure C.
 *
 *   collective_step      worker, one per step, group and operation that Python called in it; and
 *                        one with PM_COLLECTIVE_OUTSIDE for what was called since the step before
 *   collective_device    worker, one per step, group and operation whose events were read back,
 * some steps later: what the device took for them collective_capture   worker, one per captured
 * graph object, group and operation: what each of its replays does again without Python
 *
 * Bytes are those of the tensors that this rank gives to the operation (of those that it is given,
 * where it only receives). Times of collective_step are of the host's clock: on a device those of
 * the launches.
 */
#ifndef PM_SESSION_COLLECTIVE_FACTS_H
#define PM_SESSION_COLLECTIVE_FACTS_H

#include <stdint.h>

#include "session/graph_facts.h"

#define PM_COLLECTIVE_OPERATIONS(X)                                                                \
    X(ALL_REDUCE, "all_reduce")                                                                    \
    X(ALL_GATHER, "all_gather")                                                                    \
    X(REDUCE_SCATTER, "reduce_scatter")                                                            \
    X(GATHER, "gather")                                                                            \
    X(BROADCAST, "broadcast")                                                                      \
    X(SEND, "send")                                                                                \
    X(RECV, "recv")                                                                                \
    X(DISPATCH, "dispatch") /* of tokens to the ranks of their experts */                          \
    X(COMBINE, "combine")   /* of what the experts made of them */
enum pm_collective_operation {
#define PM_COLLECTIVE_ENUM(name, text) PM_COLLECTIVE_##name,
    PM_COLLECTIVE_OPERATIONS(PM_COLLECTIVE_ENUM)
#undef PM_COLLECTIVE_ENUM
        PM_COLLECTIVE_OPERATIONS_COUNT
};

enum pm_collective_flags {
    PM_COLLECTIVE_FAILED = 1,  /* a call raised */
    PM_COLLECTIVE_OUTSIDE = 2, /* between steps: start-up, warm-up, dummy steps */
    PM_COLLECTIVE_DEVICE = 4,  /* of tensors on a device: the times are those of launches */
};

struct pm_collective_step {
    uint64_t step;     /* as worker_step numbers it; outside: the next one */
    uint64_t start_ns; /* the first call began */
    uint64_t dur_ns;   /* of all its calls */
    uint64_t bytes;
    uint32_t calls;
    uint32_t group;    /* STR: vLLM's name, "tp:0" */
    uint16_t instance; /* n-th worker of the process */
    uint8_t operation; /* enum pm_collective_operation */
    uint8_t flags;     /* enum pm_collective_flags */
};

struct pm_collective_device {
    uint64_t step;
    uint64_t at_ns;     /* host: the first event of the step's operations was recorded */
    uint64_t device_ns; /* of these calls, by the device's events */
    uint32_t calls;     /* with events: collective_step has all of them */
    uint32_t group;     /* STR: vLLM's name, "tp:0" */
    uint16_t instance;
    uint8_t operation;
    uint8_t reserved[5];
};

struct pm_collective_capture {
    uint64_t at_ns;  /* its first call began */
    uint64_t dur_ns; /* the calls took, which ran nothing then */
    uint64_t bytes;
    struct pm_graph_desc desc; /* the graph's, as graph_capture has it */
    uint32_t calls;
    uint32_t group; /* STR */
    uint32_t piece; /* of the graph, from 0; a newer record of the same replaces the older one */
    uint16_t instance;
    uint8_t operation;
    uint8_t reserved;
};

#endif
