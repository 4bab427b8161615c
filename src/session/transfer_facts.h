/*
 * The facts of KV connectors on disk (schema "kv_transfer"): calls of vLLM's methods for loading
 * and saving KV cache elsewhere, per step, connector and operation. Written by
 * src/probe/kv_transfer.c, read by src/view/transfer.c by name. Pure C.
 *
 * The scheduler's operations are in the engine core's file, the worker's in the worker's. Times are
 * of the host's clock; what a connector does in threads of its own, or on another stream, is not in
 * them but in the waiting for it.
 */
#ifndef PM_SESSION_TRANSFER_FACTS_H
#define PM_SESSION_TRANSFER_FACTS_H

#include <stdint.h>

#define PM_TRANSFERS(X)                                                                            \
    X(LOOKUP, "lookup")         /* scheduler: get_num_new_matched_tokens; tokens: found */         \
    X(LOAD, "load")             /* scheduler: update_state_after_alloc with tokens to be loaded */ \
    X(START_LOAD, "start_load") /* worker: start_load_kv */                                        \
    X(WAIT_LOAD, "wait_load")   /* worker: wait_for_layer_load */                                  \
    X(SAVE, "save")             /* worker: save_kv_layer */                                        \
    X(WAIT_SAVE, "wait_save")   /* worker: wait_for_save */                                        \
    X(FINISHED, "finished")     /* worker: get_finished, get_transfer_results */
enum pm_transfer_operation {
#define PM_TRANSFER_ENUM(name, text) PM_TRANSFER_##name,
    PM_TRANSFERS(PM_TRANSFER_ENUM)
#undef PM_TRANSFER_ENUM
        PM_TRANSFERS_COUNT
};

enum pm_transfer_flags {
    PM_TRANSFER_FAILED = 1,  /* a call raised */
    PM_TRANSFER_OUTSIDE = 2, /* not in a step: of the next one */
};

struct pm_kv_transfer {
    uint64_t step;      /* as sched_step and worker_step number it */
    uint64_t start_ns;  /* the first call began */
    uint64_t dur_ns;    /* of all its calls */
    uint64_t tokens;    /* lookup: found elsewhere; load: to be loaded */
    uint32_t calls;     /* load: requests */
    uint32_t connector; /* STR: the class's name */
    uint16_t instance;
    uint8_t operation; /* enum pm_transfer_operation */
    uint8_t flags;     /* enum pm_transfer_flags */
    uint32_t reserved;
};

#endif
