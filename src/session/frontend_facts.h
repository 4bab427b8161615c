/*
 * The facts of the front end on disk (schema "frontend_op"): what the Python API server, or the
 * process of an LLM(), does with a request before the engine has it and with each step's outputs
 * after it. Written by src/probe/frontend.c, read by src/view/frontend.c by name. Pure C.
 */
#ifndef PM_SESSION_FRONTEND_FACTS_H
#define PM_SESSION_FRONTEND_FACTS_H

#include <stdint.h>

/* Names of the operations: X(NUMBER, NAME, operation in the files) */
#define PM_FRONTEND_OPS(X)                                                                         \
    X(0, TOKENIZATION, "tokenization")                                                             \
    X(1, DETOKENIZATION, "detokenization")                                                         \
    X(2, ADMISSION, "admission")
enum pm_frontend_kind {
#define PM_FRONTEND_ENUM(number, name, text) PM_FRONTEND_##name = (number),
    PM_FRONTEND_OPS(PM_FRONTEND_ENUM)
#undef PM_FRONTEND_ENUM
        PM_FRONTEND_CLASSES
};

enum pm_frontend_flags {
    PM_FRONTEND_FAILED = 1, /* it raised */
};

/*
 * tokenization    a prompt to token ids: tokens of it; where vLLM batches or queues the call, the
 *                 wait is part of it
 * detokenization  OutputProcessor.process_outputs: once per step, or once per 128 outputs of it
 * admission       from a request's arrival (vLLM's arrival_time, wall clock) to add_request
 */
struct pm_frontend_op {
    uint64_t start_ns;
    uint64_t dur_ns;
    uint64_t delay_ns; /* detokenization: since the engine core had sent them; 0: not known */
    uint32_t outputs;  /* detokenization: requests with an output */
    uint32_t tokens;   /* of the prompt, where known */
    uint8_t op;        /* enum pm_frontend_kind */
    uint8_t flags;     /* enum pm_frontend_flags */
    uint8_t reserved[6];
};

#endif
