/*
 * Compositions of steps and requests as keys (metrics.h). Small sizes stand for themselves; larger
 * ones are classes, within which the estimator takes out what the sizes explain.
 */
#include "compare/metrics.h"

#include <stdio.h>

/* Where each size lies in a key, and how fine its classes are: exact below, then 2^bits a doubling.
 */
struct scale {
    unsigned shift, exact, bits;
};
static const struct scale decode_batch = {2, 32, 3};
static const struct scale mixed_decodes = {2, 4, 1};
static const struct scale prefill_tokens = {12, 4, 2};
static const struct scale prefill_requests = {22, 4, 1};
static const struct scale kv_tokens = {32, 2, 0};
#define DRAFTS_SHIFT 42
#define FIELD_MASK 1023u

static uint64_t put(const struct scale *scale, uint64_t value)
{
    return (uint64_t)pm_size_class(value, scale->exact, scale->bits) << scale->shift;
}

static unsigned get(const struct scale *scale, uint64_t key)
{
    return (unsigned)(key >> scale->shift) & FIELD_MASK;
}

const char *pm_work_name(unsigned kind)
{
    static const char *const names[PM_WORK_KINDS] = {"decode", "prefill", "mixed"};
    return kind < PM_WORK_KINDS ? names[kind] : "";
}

uint64_t pm_composition_key(const struct pm_composition *what)
{
    uint64_t key = (uint64_t)what->kind;
    key |=
        put(what->kind == PM_WORK_DECODE ? &decode_batch : &mixed_decodes, what->decode_requests);
    key |= put(&prefill_tokens, what->prefill_tokens);
    key |= put(&prefill_requests, what->prefill_requests);
    key |= put(&kv_tokens, what->kv_tokens);
    key |= (what->drafts_per_request < 15 ? what->drafts_per_request : 15) << DRAFTS_SHIFT;
    return key;
}

enum pm_work pm_composition_kind(uint64_t key)
{
    return (enum pm_work)(key & 3);
}

unsigned pm_composition_class(uint64_t key)
{
    const unsigned kind = (unsigned)(key & 3);
    const unsigned size =
        kind == PM_WORK_DECODE ? get(&decode_batch, key) : get(&prefill_tokens, key);
    return kind | size << 2;
}

void pm_composition_words(unsigned class_number, char *out, size_t size)
{
    const unsigned kind = class_number & 3, part = class_number >> 2;
    const struct scale *scale = kind == PM_WORK_DECODE ? &decode_batch : &prefill_tokens;
    const unsigned long long from = pm_size_class_lower(part, scale->exact, scale->bits);
    const unsigned long long next = pm_size_class_lower(part + 1, scale->exact, scale->bits);
    const char *const of = kind == PM_WORK_DECODE ? "requests" : "prompt tokens";

    if (next > from + 1)
        snprintf(out, size, "%s of %llu to %llu %s", pm_work_name(kind), from, next - 1, of);
    else
        snprintf(out, size, "%s of %llu %s", pm_work_name(kind), from,
                 from != 1                ? of
                 : kind == PM_WORK_DECODE ? "request"
                                          : "prompt token");
}

uint64_t pm_request_key(uint64_t new_prompt_tokens, uint64_t output_tokens, uint64_t crowd,
                        uint64_t prompt_tokens_beside)
{
    return (uint64_t)pm_size_class(new_prompt_tokens, 2, 1) |
           (uint64_t)pm_size_class(output_tokens, 2, 1) << 10 |
           (uint64_t)pm_size_class(crowd, 4, 1) << 20 |
           (uint64_t)pm_size_class(prompt_tokens_beside, 2, 0) << 30;
}
