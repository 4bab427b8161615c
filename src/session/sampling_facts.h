/*
 * The facts of sampling on disk: which settings the requests of a batch ask for (schema
 * "sampling_mix"), and what the engine core takes for bitmasks of grammars ("grammar_bitmask").
 * Written by src/probe/sampling.c, read by src/view/sampling.c by name. Pure C.
 *
 * A mix holds from its step until the next one: it is written only where it differs from the one
 * before. A request counts in every setting that it asks for; a setting counts as vLLM's sampler
 * takes it (vllm/v1/sample, vllm/sampling_params.py): below a temperature of 1e-5 a request is
 * greedy, and what narrows the choice (top_p, top_k, min_p, seed) has no effect on it.
 */
#ifndef PM_SESSION_SAMPLING_FACTS_H
#define PM_SESSION_SAMPLING_FACTS_H

#include <stdint.h>

/* X(NAME, member and text, sentence) */
/* clang-format off */
#define PM_SAMPLING_SETTINGS(X)                                                                    \
    X(GREEDY,          greedy,            "requests that take the likeliest token")                \
    X(TEMPERATURE,     temperature,       "requests that draw a token at random")                  \
    X(TOP_P,           top_p,             "of them, with top_p below 1")                           \
    X(TOP_K,           top_k,             "of them, with top_k")                                   \
    X(MIN_P,           min_p,             "of them, with min_p")                                   \
    X(SEED,            seed,              "of them, with a seed of their own")                     \
    X(PENALTIES,       penalties,         "requests with a repetition, presence or frequency penalty") \
    X(LOGPROBS,        logprobs,          "requests that are given log probabilities")             \
    X(PROMPT_LOGPROBS, prompt_logprobs,   "requests that are given those of their prompt")         \
    X(STRUCTURED,      structured_output, "requests held to a grammar, a schema, a choice")        \
    X(TOKEN_RULES,     token_rules,       "requests with logit_bias, allowed_token_ids, bad_words or min_tokens")
/* clang-format on */
enum pm_sampling_setting {
#define PM_SAMPLING_ENUM(name, member, doc) PM_SAMPLING_##name,
    PM_SAMPLING_SETTINGS(PM_SAMPLING_ENUM)
#undef PM_SAMPLING_ENUM
        PM_SAMPLING_COUNT
};

enum pm_sampling_flags {
    PM_SAMPLING_OFF = 1, /* was switched off: from here on nothing is known */
};

struct pm_sampling_mix {
    uint64_t step;
    uint64_t at_ns;
    uint32_t requests; /* scheduled in the step */
    uint32_t unknown;  /* of them, those whose settings could not be read */
#define PM_SAMPLING_MEMBER(name, member, doc) uint32_t member;
    PM_SAMPLING_SETTINGS(PM_SAMPLING_MEMBER)
#undef PM_SAMPLING_MEMBER
    uint16_t instance; /* n-th scheduler of the process */
    uint8_t flags;     /* enum pm_sampling_flags */
    uint8_t reserved[1];
};

struct pm_grammar_bitmask {
    uint64_t step; /* that it is for */
    uint64_t start_ns;
    uint32_t dur_ns;   /* grammar_bitmask took; saturates */
    uint32_t requests; /* held to a grammar in the step */
    uint16_t instance; /* n-th scheduler of the process */
    uint8_t reserved[6];
};

#endif
