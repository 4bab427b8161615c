/*
 * What a step of a model computes and moves: floating point operations, bytes read, bytes written,
 * of one rank, from the model's and the cache's sizes. Pure but for reading a session's attributes;
 * used by compute.c and by tests.
 *
 * With T tokens in the step, R rows of logits (a request's last token, and each of its drafts), and
 * the contexts of reader/contexts.h (pairs P, context C; Pw and Cw within a window):
 *
 *   matrices of a layer   attention  D (q + 2 kv) d + q d D
 *                         MLP        3 D I      (gate, up, down)
 *                         experts    3 D M k    (k of E for a token), and 3 D M s shared ones
 *   operations  =  2 T (sum over layers) + 4 q d (P full layers + Pw window layers) + 2 R D V
 *   read        =  b (sum over layers, but with e experts of a layer instead of k a token) + h D V
 *                  + c 2 kv d (C full layers + Cw window layers)
 *   written     =  c 2 kv d T layers
 *
 * D hidden size, q and kv heads, d their size, I and M inner sizes, V vocabulary, b bytes of a
 * weight, h of one of the logits' matrix, c of a cached value. e = E (1 - (1 - k/E)^T): the experts
 * that T tokens choose where each is as likely as the others. With latent attention (MLA) the
 * matrices are q_a, q_b, kv_a, kv_b and o, a token's cache is kv_lora_rank + qk_rope_head_dim
 * values, and a pair costs 2 q (qk_nope + qk_rope + v) operations. Tensor parallelism divides
 * heads, inner sizes and the vocabulary, pipeline parallelism the layers, expert parallelism the
 * experts. With data parallelism the experts are spread over its ranks as well, and compute the
 * tokens of all of them: as many each as here.
 *
 * Not counted: activations (what one kernel hands to the next stays near it, where kernels are
 * fused), embeddings, norms, biases, routers, the vision part of a model, sampling.
 */
#ifndef PM_VIEW_COMPUTE_MODEL_H
#define PM_VIEW_COMPUTE_MODEL_H

#include "reader/contexts.h"

struct pm_model_sizes {
    double hidden, layers, heads, kv_heads, head, inner, vocabulary;
    double experts, top_k, expert_inner, shared, moe_layers; /* experts 0: there are none */
    double window, window_layers;              /* of the layers, those with a window */
    double q_rank, kv_rank, nope, rope, value; /* latent attention; kv_rank 0: not */
    double weight_bytes, cache_bytes;          /* of one value */
    double head_bytes; /* of one of the logits' matrix, which no method quantises */
    double tensor, pipeline, data;
    bool expert_parallel;
};

/* 0; -PM_ENOTFOUND with a reason where the session does not tell, -PM_EINVALID where the formula
 * does not fit the model: ret_why says why not, a sentence without its full stop. */
PM_MUST_USE int pm_model_sizes_read(const struct pm_session *session,
                                    struct pm_model_sizes *ret_sizes, char *ret_why,
                                    size_t why_size);

struct pm_step_work {
    double operations;
    double weight_bytes, cache_read_bytes, cache_written_bytes;
};

/* Of one rank, the last one of a pipeline. */
void pm_model_work(const struct pm_model_sizes *sizes, double tokens, double rows,
                   const struct pm_context_step *context, struct pm_step_work *ret_work);

/* What a device can do at most: dense 16-bit operations, and bytes from its memory, a second. */
struct pm_device_peak {
    char name[64]; /* as in the table, or "given" */
    double operations, bytes;
};

/* By the name that torch has for the device, or by what the setting device_peak gives ("989,3350":
 * TFLOP/s and GB/s). False: neither. */
bool pm_device_peak_find(const struct pm_session *session, struct pm_device_peak *ret_peak);
bool pm_device_peak_parse(const char *text, struct pm_device_peak *ret_peak);
bool pm_device_peak_of(const char *device, struct pm_device_peak *ret_peak);

#endif
