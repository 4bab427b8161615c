/* See compute_model.h. */
#include "view/compute_model.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"

/* ---- sizes ----------------------------------------------------------------------------------- */

/* A number of an attribute of this prefix; by_default where there is none. */
static double number(const struct pm_session *session, const char *prefix, const char *name,
                     double by_default)
{
    char key[96], *rest;
    snprintf(key, sizeof(key), "%s%s", prefix, name);
    const char *text = pm_session_attr(session, key);
    if (text == NULL)
        return by_default;
    const double value = strtod(text, &rest);
    return rest != text && value >= 0 && value < 1e15 ? value : by_default;
}

static double size_of(const struct pm_session *session, const char *name, double by_default)
{
    return number(session, PM_ATTR_SIZE_PREFIX, name, by_default);
}

/* Bytes of a value of a type by its name: float32, bfloat16, fp8_e4m3, int8, …; 0: not known. */
static double bytes_of_type(const char *name)
{
    static const struct {
        const char *part;
        double bytes;
    } types[] = {{"float32", 4}, {"float16", 2}, {"half", 2},  {"fp8", 1},
                 {"float8", 1},  {"int8", 1},    {"fp4", 0.5}, {"int4", 0.5}};
    for (size_t i = 0; name != NULL && i < sizeof(types) / sizeof(*types); i++)
        if (strstr(name, types[i].part) != NULL)
            return types[i].bytes;
    return 0; /* bfloat16 holds "float16" */
}

/* Bytes of a weight by vLLM's name of how the model is quantised; 0: not known. As vLLM's own
 * estimate takes them (vllm/v1/metrics/perf.py). */
static double bytes_of_quantization(const char *name)
{
    static const struct {
        const char *name;
        double bytes;
    } methods[] = {{"fp8", 1},
                   {"fbgemm_fp8", 1},
                   {"ptpc_fp8", 1},
                   {"fp_quant", 1},
                   {"modelopt", 1},
                   {"modelopt_mxfp8", 1},
                   {"experts_int8", 1},
                   {"mxfp4", 0.5},
                   {"awq", 0.5},
                   {"awq_marlin", 0.5},
                   {"gptq", 0.5},
                   {"gptq_marlin", 0.5},
                   {"modelopt_fp4", 0.5},
                   {"petit_nvfp4", 0.5},
                   {"compressed-tensors", 0.5},
                   {"torchao", 0.5},
                   {"quark", 0.5},
                   {"moe_wna16", 0.5},
                   {"inc", 0.5}};
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
        if (strcmp(methods[i].name, name) == 0)
            return methods[i].bytes;
    return 0;
}

static double count_moe_layers(const struct pm_session *session, double layers)
{
    const double first = size_of(session, "first_k_dense_replace", 0);
    const double every = fmax(1, size_of(session, "moe_layer_freq", 1));
    const double step = size_of(session, "interleave_moe_layer_step",
                                fmax(1, size_of(session, "decoder_sparse_step", 1)));
    double n = 0;
    for (unsigned layer = 0; layer < layers && layers < 100000; layer++) {
        const bool by_step = step <= 1 || fmod(layer + 1.0, step) == 0;
        n += layer >= first && fmod(layer, every) == 0 && by_step;
    }
    return n;
}

static int fail(int rc, char *ret_why, size_t size, const char *why)
{
    snprintf(ret_why, size, "%s", why);
    return rc;
}

int pm_model_sizes_read(const struct pm_session *session, struct pm_model_sizes *ret_sizes,
                        char *ret_why, size_t why_size)
{
    const char *quantization = pm_session_attr(session, PM_ATTR_CONFIG_PREFIX "quantization");
    const char *type = pm_session_attr(session, PM_ATTR_CONFIG_PREFIX "dtype");
    const char *cache = pm_session_attr(session, PM_ATTR_CONFIG_PREFIX "kv_cache_dtype");
    struct pm_model_sizes sizes = {
        .hidden = size_of(session, "hidden_size", 0),
        .layers = size_of(session, "num_hidden_layers", 0),
        .heads = size_of(session, "num_attention_heads", 0),
        .vocabulary = size_of(session, "vocab_size", 0),
        .inner = size_of(session, "intermediate_size", 0),
        .experts = size_of(session, "num_experts", 0),
        .window = size_of(session, "sliding_window", 0),
        .kv_rank = size_of(session, "kv_lora_rank", 0),
        .tensor = number(session, PM_ATTR_PARALLEL_PREFIX, "tensor", 1),
        .pipeline = number(session, PM_ATTR_PARALLEL_PREFIX, "pipeline", 1),
        .data = number(session, PM_ATTR_PARALLEL_PREFIX, "data", 1),
        .expert_parallel = number(session, PM_ATTR_PARALLEL_PREFIX, "expert", 0) != 0,
    };

    if (sizes.hidden <= 0 || sizes.layers <= 0 || sizes.heads <= 0 || sizes.vocabulary <= 0)
        return fail(-PM_ENOTFOUND, ret_why, why_size,
                    "the session does not have the model's sizes");
    if (size_of(session, "other_layers", 0) > 0)
        return fail(-PM_EINVALID, ret_why, why_size,
                    "the model has layers that are neither full nor sliding-window attention");
    if (sizes.inner <= 0 && sizes.experts <= 0)
        return fail(-PM_ENOTFOUND, ret_why, why_size, "the size of the model's MLP is not known");
    sizes.kv_heads = size_of(session, "num_key_value_heads", sizes.heads);
    sizes.head = size_of(session, "head_dim", 0);
    if (sizes.head <= 0)
        sizes.head = floor(sizes.hidden / sizes.heads);
    if (sizes.experts > 0) {
        sizes.top_k = size_of(session, "num_experts_per_tok", 1);
        sizes.expert_inner = size_of(session, "moe_intermediate_size", sizes.inner);
        sizes.shared = size_of(session, "n_shared_experts", 0);
        sizes.moe_layers = count_moe_layers(session, sizes.layers);
    }
    if (sizes.window > 0)
        sizes.window_layers = size_of(session, "window_layers", sizes.layers);
    if (sizes.kv_rank > 0) {
        sizes.q_rank = size_of(session, "q_lora_rank", 0);
        sizes.nope = size_of(session, "qk_nope_head_dim", 0);
        sizes.rope = size_of(session, "qk_rope_head_dim", 0);
        sizes.value = size_of(session, "v_head_dim", 0);
    }
    sizes.weight_bytes = sizes.head_bytes = bytes_of_type(type);
    sizes.cache_bytes =
        cache != NULL && strcmp(cache, "auto") != 0 ? bytes_of_type(cache) : sizes.weight_bytes;
    if (quantization != NULL && strcmp(quantization, "None") != 0)
        sizes.weight_bytes = bytes_of_quantization(quantization);
    if (sizes.head_bytes <= 0) /* a type that is not known, but how it is quantised is */
        sizes.head_bytes = sizes.weight_bytes;
    if (sizes.weight_bytes <= 0 || sizes.cache_bytes <= 0)
        return fail(-PM_ENOTFOUND, ret_why, why_size,
                    "how many bytes a weight, or a cached value, has is not known");
    *ret_sizes = sizes;
    return 0;
}

/* ---- a step's work --------------------------------------------------------------------------- */

static double part(double whole, double parts)
{
    return fmax(1, floor(whole / fmax(1, parts)));
}

/* Values of one layer's attention matrices on one rank, of its cache for a token, and operations of
 * a pair. */
static void attention(const struct pm_model_sizes *s, double *ret_matrices, double *ret_cached,
                      double *ret_pair)
{
    const double q = part(s->heads, s->tensor), kv = part(s->kv_heads, s->tensor);

    if (s->kv_rank > 0) {
        const double qk = s->nope + s->rope;
        const double to_q =
            s->q_rank > 0 ? s->hidden * s->q_rank + s->q_rank * q * qk : s->hidden * q * qk;
        *ret_matrices = to_q + s->hidden * (s->kv_rank + s->rope) +
                        s->kv_rank * q * (s->nope + s->value) + q * s->value * s->hidden;
        *ret_cached = s->kv_rank + s->rope;
        *ret_pair = 2 * q * (qk + s->value);
        return;
    }
    *ret_matrices = s->hidden * (q + 2 * kv) * s->head + q * s->head * s->hidden;
    *ret_cached = 2 * kv * s->head;
    *ret_pair = 4 * q * s->head;
}

void pm_model_work(const struct pm_model_sizes *s, double tokens, double rows,
                   const struct pm_context_step *context, struct pm_step_work *ret_work)
{
    const double stages = fmax(1, s->pipeline);
    const double layers = s->layers / stages, moe = s->moe_layers / stages;
    const double windowed = s->window_layers / stages, full = layers - windowed;
    const double expert_ranks = s->data * s->tensor; /* vLLM spreads experts over both */
    const double dense = 3 * s->hidden * part(s->inner, s->tensor);
    const double head = s->hidden * part(s->vocabulary, s->tensor);
    double matrices, cached, pair, computed = 0, read = 0;

    attention(s, &matrices, &cached, &pair);
    if (moe > 0) {
        const double inner = part(s->expert_inner, s->expert_parallel ? 1 : expert_ranks);
        const double expert = 3 * s->hidden * inner;
        const double here = s->expert_parallel ? fmax(1, s->experts / expert_ranks) : s->experts;
        const double shared = s->shared * 3 * s->hidden * part(s->expert_inner, s->tensor);
        /* The tokens of all data-parallel ranks come to each rank's experts: taken to be as many
         * as here. Experts of this rank, for one of the tokens here: */
        const double all_tokens = tokens * fmax(1, s->data);
        const double a_token = s->top_k * here / s->experts * fmax(1, s->data);
        const double chosen = here * (1 - pow(1 - s->top_k / s->experts, all_tokens));
        computed = moe * (expert * a_token + shared);
        read = moe * (expert * chosen + shared);
    }
    const double common = layers * matrices + (s->inner > 0 ? (layers - moe) * dense : 0);
    ret_work->operations = 2 * tokens * (common + computed) +
                           pair * (context->pairs * full + context->windowed_pairs * windowed) +
                           2 * rows * head;
    ret_work->weight_bytes = s->weight_bytes * (common + read) + s->head_bytes * head;
    ret_work->cache_read_bytes =
        s->cache_bytes * cached * (context->context * full + context->windowed * windowed);
    ret_work->cache_written_bytes = s->cache_bytes * cached * tokens * layers;
}

/* ---- what a device can do -------------------------------------------------------------------- */

static const struct {
    const char *needle, *also;
    double tflops, gbps;
} peaks[] = {
#define X(needle, also, tflops, gbps) {needle, also, tflops, gbps},
#include "view/device_peaks.def"
#undef X
};

/* Whether a name has this word: between characters that are no letters or digits. */
static bool has_word(const char *name, const char *word)
{
    for (const char *at = name; (at = strstr(at, word)) != NULL; at++) {
        const unsigned char after = (unsigned char)at[strlen(word)];
        if ((at == name || !isalnum((unsigned char)at[-1])) && !isalnum(after))
            return true;
    }
    return false;
}

bool pm_device_peak_of(const char *device, struct pm_device_peak *ret_peak)
{
    for (size_t i = 0; i < sizeof(peaks) / sizeof(*peaks); i++) {
        if (!has_word(device, peaks[i].needle) || strstr(device, peaks[i].also) == NULL)
            continue;
        snprintf(ret_peak->name, sizeof(ret_peak->name), "%s%s%s", peaks[i].needle,
                 peaks[i].also[0] != '\0' ? " " : "", peaks[i].also);
        ret_peak->operations = peaks[i].tflops * 1e12;
        ret_peak->bytes = peaks[i].gbps * 1e9;
        return true;
    }
    return false;
}

bool pm_device_peak_parse(const char *text, struct pm_device_peak *ret_peak)
{
    char *rest;
    const double tflops = strtod(text, &rest);
    if (rest == text || *rest != ',' || !(tflops > 0))
        return false;
    const char *second = rest + 1;
    const double gbps = strtod(second, &rest);
    if (rest == second || *rest != '\0' || !(gbps > 0))
        return false;
    snprintf(ret_peak->name, sizeof(ret_peak->name), "given");
    ret_peak->operations = tflops * 1e12;
    ret_peak->bytes = gbps * 1e9;
    return true;
}

bool pm_device_peak_find(const struct pm_session *session, struct pm_device_peak *ret_peak)
{
    const char *given = pm_session_attr(session, PM_ATTR_SETTING_PREFIX "device_peak");
    const char *device = pm_session_attr(session, PM_ATTR_DEVICE_NAME);
    if (given != NULL && pm_device_peak_parse(given, ret_peak))
        return true;
    return device != NULL && pm_device_peak_of(device, ret_peak);
}
