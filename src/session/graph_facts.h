/*
 * The CUDA graph facts on disk: what the probe cuda_graph records (src/probe/cuda_graph.c) and the
 * views follow by name (src/view/graph.c). Pure C.
 *
 *   graph_capture   worker, one per graph (all its pieces together) that was captured to be kept
 *   graph_pass      worker, one per executed step with tokens, how its model ran: from which graph,
 *                   or eagerly and why; and one per replay beside the step's model (drafters,
 *                   encoders)
 *   graph_usage     worker, told again at the head of each segment: replays of each graph so far
 *
 * A graph is known by its descriptor, its holder and its variant, all of which stand in every one
 * of these records. Steps are those of worker_step, by number and instance.
 */
#ifndef PM_SESSION_GRAPH_FACTS_H
#define PM_SESSION_GRAPH_FACTS_H

#include <stdint.h>

/* vLLM's CUDAGraphMode as it is at run time, and the encoder's graphs, which have none. */
enum pm_graph_mode {
    PM_GRAPH_MODE_NONE = 0,
    PM_GRAPH_MODE_PIECEWISE = 1,
    PM_GRAPH_MODE_FULL = 2,
    PM_GRAPH_MODE_ENCODER = 3,
    PM_GRAPH_MODES = 4,
};

/* What in vLLM owns a graph. */
#define PM_GRAPH_HOLDERS(X)                                                                        \
    X(UNKNOWN, "unknown")          /* captured unseen, or by something that is not of vLLM */      \
    X(WRAPPER, "CUDAGraphWrapper") /* around the model (FULL) or its pieces (PIECEWISE) */         \
    X(MANAGER, "CudaGraphManager") /* FULL graphs of the newer model runner */                     \
    X(SPECULATOR, "Speculator")    /* a drafter's manager on the newer model runner */             \
    X(BREAKABLE, "BreakableCUDAGraphWrapper")                                                      \
    X(UBATCH, "UBatchWrapper")                                                                     \
    X(ENCODER, "EncoderCudaGraphManager")
enum pm_graph_holder {
#define PM_GRAPH_HOLDER_ENUM(name, text) PM_GRAPH_HOLDER_##name,
    PM_GRAPH_HOLDERS(PM_GRAPH_HOLDER_ENUM)
#undef PM_GRAPH_HOLDER_ENUM
        PM_GRAPH_HOLDERS_COUNT
};

/* When a graph was captured. */
enum pm_graph_when {
    PM_GRAPH_STARTUP = 0,
    PM_GRAPH_RUNTIME = 1, /* outside vLLM's own capturing: a request waited for it */
    PM_GRAPH_AGAIN = 2,   /* by vLLM's own capturing, after steps had been run */
};

/* How a step's model ran. From PM_GRAPH_EAGER on: without a graph, and why. */
#define PM_GRAPH_OUTCOMES(X)                                                                       \
    X(PIECEWISE, "piecewise", "replayed in pieces")                                                \
    X(FULL, "full", "replayed whole")                                                              \
    X(CAPTURED, "captured", "a graph was captured in the step itself")                             \
    X(ASIDE, "aside", "a replay beside the step's model: a drafter's or an encoder's")             \
    X(EAGER, "eager", "graphs are on, and nothing more is known")                                  \
    X(SKIP_COMPILED, "skip_compiled", "encoder inputs in the step: vLLM skips the compiled model") \
    X(NO_DESCRIPTOR, "no_descriptor", "vLLM gave the step no batch descriptor")                    \
    X(TOO_LARGE, "too_large", "more tokens than the largest captured size")                        \
    X(NOT_UNIFORM, "not_uniform", "graphs of this size take only uniform decode batches")          \
    X(DISPATCHED, "dispatched_none", "vLLM chose none, though one of this size was captured")      \
    X(NOT_REPLAYED, "not_replayed", "a graph was chosen, and none was replayed")
enum pm_graph_outcome {
#define PM_GRAPH_OUTCOME_ENUM(name, word, sentence) PM_GRAPH_##name,
    PM_GRAPH_OUTCOMES(PM_GRAPH_OUTCOME_ENUM)
#undef PM_GRAPH_OUTCOME_ENUM
        PM_GRAPH_OUTCOMES_COUNT
};

/* vLLM's descriptor of a batch, and whose graph it is: 16 bytes without holes, compared as such. */
struct pm_graph_desc {
    uint32_t num_tokens;
    int32_t num_reqs; /* -1: None, any number */
    uint16_t num_active_loras;
    uint16_t variant; /* tells graphs of one holder apart that are alike in all the rest */
    uint8_t mode;     /* enum pm_graph_mode */
    uint8_t uniform, has_lora;
    uint8_t holder; /* enum pm_graph_holder */
};
_Static_assert(sizeof(struct pm_graph_desc) == 16, "no holes: descriptors are compared by bytes");

struct pm_graph_capture {
    uint64_t at_ns;      /* the first piece's capture began */
    uint64_t dur_ns;     /* to the end of the last one's, what ran between them included */
    uint64_t capture_ns; /* inside the captures alone */
    struct pm_graph_desc desc;
    uint32_t pieces;
    uint16_t instance; /* n-th worker of the process */
    uint8_t when;      /* enum pm_graph_when */
    uint8_t reserved;
};

struct pm_graph_pass {
    uint64_t step;
    uint64_t at_ns;     /* the first piece's replay began; eager: the model did */
    uint32_t dur_ns;    /* first piece's begin to last piece's end, host clock; 0: eager */
    uint32_t launch_ns; /* inside the replays alone; 0: not timed, see the probe */
    uint32_t tokens;    /* scheduled; 0 beside the step's model, where it is not known */
    uint32_t padding;   /* tokens computed for nothing */
    struct pm_graph_desc desc;
    uint16_t pieces; /* replayed; saturates */
    uint16_t instance;
    uint8_t outcome; /* enum pm_graph_outcome */
    uint8_t reserved[3];
};

struct pm_graph_usage {
    uint64_t replays; /* since the process began, as passes: the pieces of one count once */
    struct pm_graph_desc desc;
    uint16_t instance;
    uint16_t reserved[3];
};

#endif
