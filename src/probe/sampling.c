/*
 * Probe sampling: which settings the requests of each step's batch ask for, and what the engine
 * core takes for the bitmasks of grammars. How long sampling takes is known from worker_step and
 * device_step; src/view/sampling.c brings them together.
 *
 * Runs in the engine core, on its scheduling thread, under the GIL. A request's SamplingParams are
 * read once, when it is scheduled for the first time; what they ask for is kept as bits in its
 * member. A step whose batch is the last one's does not come here at all.
 */
#include "probe/sampling.h"

#include <string.h>

#include "base/clock.h"
#include "hook/read.h"
#include "session/sampling_facts.h"
#include "session/sampling_schema.h"

extern const struct pm_probe pm_probe_sampling;

#define KNOWN 0x8000u /* in a member's bits: they have been read */
#define BIT(name) (1u << PM_SAMPLING_##name)
#define GREEDY_BELOW 1e-5 /* vllm/sampling_params.py, _SAMPLING_EPS */
_Static_assert(PM_SAMPLING_COUNT < 15, "a member's bits have room for 15");

static const struct pm_schema *const schemas[] = {&pm_sampling_mix_schema,
                                                  &pm_grammar_bitmask_schema};

/* The mix that holds, by scheduler. */
#define SCHEDULERS 4u
static struct {
    struct pm_sampling_mix told[SCHEDULERS];
    bool has[SCHEDULERS];
} state;

/* ---- what a request asks for ----------------------------------------------------------------- */

static double number(PyObject *params, struct pm_name *name, double by_default)
{
    double value;
    return pm_read_f64(params, name, &value) ? value : by_default;
}

/* Whether the attribute is there and neither None nor, where it has a length, empty. */
static bool given(PyObject *params, struct pm_name *name)
{
    uint64_t n = 1;
    PyObject *value = pm_read_attr(params, name);
    const bool is = value != NULL && value != Py_None && (!pm_len(value, &n) || n > 0);
    Py_XDECREF(value);
    return is;
}

static uint16_t random_bits(PyObject *params)
{
    static struct pm_name n_top_p = PM_NAME("top_p"), n_top_k = PM_NAME("top_k");
    static struct pm_name n_min_p = PM_NAME("min_p"), n_seed = PM_NAME("seed");
    unsigned bits = BIT(TEMPERATURE);
    if (number(params, &n_top_p, 1) < 1)
        bits |= BIT(TOP_P);
    if (number(params, &n_top_k, 0) > 0)
        bits |= BIT(TOP_K);
    if (number(params, &n_min_p, 0) > GREEDY_BELOW)
        bits |= BIT(MIN_P);
    if (given(params, &n_seed))
        bits |= BIT(SEED);
    return (uint16_t)bits;
}

static uint16_t bits_of(PyObject *params)
{
    static struct pm_name n_temperature = PM_NAME("temperature");
    static struct pm_name n_repetition = PM_NAME("repetition_penalty");
    static struct pm_name n_presence = PM_NAME("presence_penalty");
    static struct pm_name n_frequency = PM_NAME("frequency_penalty");
    static struct pm_name n_logprobs = PM_NAME("logprobs");
    static struct pm_name n_logprob_ids = PM_NAME("logprob_token_ids");
    static struct pm_name n_prompt_logprobs = PM_NAME("prompt_logprobs");
    static struct pm_name n_structured = PM_NAME("structured_outputs");
    static struct pm_name n_guided = PM_NAME("guided_decoding");
    static struct pm_name n_bias = PM_NAME("logit_bias"), n_words = PM_NAME("bad_words");
    static struct pm_name n_allowed = PM_NAME("allowed_token_ids");
    static struct pm_name n_min_tokens = PM_NAME("min_tokens");
    const double no_temperature = -1, temperature = number(params, &n_temperature, no_temperature);
    if (temperature < 0)
        return 0; /* no SamplingParams that we know */
    unsigned bits = KNOWN;
    bits |= temperature < GREEDY_BELOW ? BIT(GREEDY) : random_bits(params);
    if (number(params, &n_repetition, 1) != 1 || number(params, &n_presence, 0) != 0 ||
        number(params, &n_frequency, 0) != 0)
        bits |= BIT(PENALTIES);
    if (given(params, &n_logprobs) || given(params, &n_logprob_ids))
        bits |= BIT(LOGPROBS);
    if (given(params, &n_prompt_logprobs))
        bits |= BIT(PROMPT_LOGPROBS);
    if (given(params, &n_structured) || given(params, &n_guided))
        bits |= BIT(STRUCTURED);
    if (given(params, &n_bias) || given(params, &n_words) || given(params, &n_allowed) ||
        number(params, &n_min_tokens, 0) > 0)
        bits |= BIT(TOKEN_RULES);
    return (uint16_t)bits;
}

/* A member's bits; without KNOWN where they cannot be read. A pooling model's request has none. */
static uint16_t bits_of_member(const struct pm_counting *c, struct pm_member *member)
{
    static struct pm_name n_sampling_params = PM_NAME("sampling_params");
    if ((member->sampling & KNOWN) == 0 && c->requests != NULL) {
        PyObject *request = pm_dict_item(c->requests, member->key); /* borrowed */
        PyObject *params = request != NULL ? pm_read_attr(request, &n_sampling_params) : NULL;
        if (params == Py_None)
            member->sampling = KNOWN;
        else if (params != NULL)
            member->sampling = bits_of(params);
        Py_XDECREF(params);
    }
    return member->sampling;
}

static bool enabled(const struct pm_settings *settings)
{
    return settings->sampling && settings->preset != PM_PRESET_SIMPLE;
}

/* ---- the mix --------------------------------------------------------------------------------- */

static void add_bits(struct pm_sampling_mix *mix, unsigned bits, uint32_t n)
{
    if ((bits & KNOWN) == 0)
        mix->unknown += n;
#define ADD(name, member, doc) mix->member += (bits & BIT(name)) != 0 ? n : 0;
    PM_SAMPLING_SETTINGS(ADD)
#undef ADD
}

static void record(struct pm_recorder *rec, const struct pm_sampling_mix *mix)
{
    struct pm_sampling_mix *room =
        pm_recorder_reserve(rec, pm_facts_schema(&pm_sampling_mix_schema));
    if (room == NULL)
        return;
    *room = *mix;
    pm_recorder_commit(rec, room);
}

/* Whether the mix is another one than that which was told last: step and moment left out. */
static bool differs(const struct pm_sampling_mix *a, const struct pm_sampling_mix *b)
{
    const size_t from = offsetof(struct pm_sampling_mix, requests);
    return memcmp((const char *)a + from, (const char *)b + from, sizeof *a - from) != 0;
}

void pm_sampling_count(const struct pm_counting *c)
{
    const struct pm_members *members = &c->scheduler->members;
    const unsigned at = c->scheduler->instance % SCHEDULERS;
    struct pm_sampling_mix mix = {.instance = c->scheduler->instance};
    unsigned last = 0;
    uint32_t run = 0; /* members, one after another, with the same bits */

    if (!enabled(pm_facts_settings())) {
        if (!state.has[at] || (state.told[at].flags & PM_SAMPLING_OFF) != 0)
            return;
        mix.flags = PM_SAMPLING_OFF;
    } else {
        mix.requests = members->n_order;
        for (uint32_t i = 0; i < members->n_order; i++) {
            const uint32_t slot = members->order[i];
            const unsigned bits = slot != UINT32_MAX ? bits_of_member(c, &members->slots[slot]) : 0;
            if (bits != last) {
                add_bits(&mix, last, run);
                run = 0;
                last = bits;
            }
            run++;
        }
        add_bits(&mix, last, run);
    }
    if (c->rec == NULL || (state.has[at] && !differs(&mix, &state.told[at])))
        return;
    mix.step = c->fact.step;
    mix.at_ns = c->at_ns;
    state.told[at] = mix;
    state.has[at] = true;
    record(c->rec, &mix);
}

/* ---- grammars -------------------------------------------------------------------------------- */

static void bitmask_leave(struct pm_call *call)
{
    static struct pm_name n_ids = PM_NAME("structured_output_request_ids");
    struct pm_recorder *rec = pm_facts();
    PyObject *ids = pm_call_arg(call, 2, &n_ids); /* borrowed */
    const struct pm_scheduler *newest = NULL, *each;
    uint64_t n = 0;

    if (call->result == NULL || rec == NULL || ids == NULL || !pm_len(ids, &n) || n == 0)
        return;
    /* A process has one scheduler but in tests: the step is the one that it made last. */
    for (size_t i = 0; (each = pm_scheduler_at(i)) != NULL; i++)
        if (each->self != NULL && (newest == NULL || each->instance > newest->instance))
            newest = each;
    if (newest == NULL || newest->step == 0)
        return;
    struct pm_grammar_bitmask *fact =
        pm_recorder_reserve(rec, pm_facts_schema(&pm_grammar_bitmask_schema));
    if (fact == NULL)
        return;
    const uint64_t dur_ns = call->end_ns - call->start_ns;
    *fact = (struct pm_grammar_bitmask){
        .step = newest->step - 1,
        .start_ns = call->start_ns,
        .dur_ns = dur_ns < UINT32_MAX ? (uint32_t)dur_ns : UINT32_MAX,
        .requests = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX,
        .instance = newest->instance,
    };
    pm_recorder_commit(rec, fact);
}

#define bitmask_enter NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/sampling.def"
};
#undef T

/* What a new segment must know: the mix that holds. */
static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    for (unsigned i = 0; stream == PM_STREAM_CORE && i < SCHEDULERS; i++)
        if (state.has[i])
            record(rec, &state.told[i]);
}

static void reset(void)
{
    memset(&state, 0, sizeof state);
}

const struct pm_probe pm_probe_sampling = {
    .name = "sampling",
    .component = NULL,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
    .keyframe = keyframe,
};
