/*
 * Probe frontend: what the Python front end does before the engine has a request and after it has
 * sent a step's outputs: tokenization, the way from arrival to add_request, and
 * OutputProcessor.process_outputs, which turns tokens into text.
 *
 * API server or the process of an LLM(), under the GIL; tokenization may run in an executor's
 * thread. One record per prompt, one per request and one per step's outputs: nothing per running
 * request. Only lengths are read, never a prompt. vLLM's Rust front end has no such process: a note
 * says so.
 */
#include "probe/probe.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hook/read.h"
#include "session/attrs.h"
#include "session/frontend_facts.h"

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_frontend_op, member, type, unit, kind, agg, doc)
static const struct pm_field fields[] = {
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "the operation began"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_HIST, "it took"),
    F(delay_ns, U64, "ns", DURATION, PM_AGG_HIST, "detokenization: since the engine core had sent the outputs; 0: not known"),
    F(outputs, U32, "requests", COUNT, PM_AGG_SUM, "detokenization: requests with an output"),
    F(tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokenization and admission: tokens of the prompt, where known"),
    F(op, U8, "", ID, PM_AGG_CLASS, "0 tokenization, 1 detokenization, 2 admission"),
    F(flags, U8, "", FLAGS, PM_AGG_NONE, "1 it raised"),
};
#undef F
/* clang-format on */

static const struct pm_schema frontend_op_schema = {
    .name = "frontend_op",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_frontend_op),
    .classes = PM_FRONTEND_CLASSES,
    .doc = "One per prompt tokenized, request admitted and step's outputs handled in the front "
           "end.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};

static const struct pm_schema *const schemas[] = {&frontend_op_schema};

static struct pm_name n_engine_core_outputs = PM_NAME("engine_core_outputs");
static struct pm_name n_engine_core_timestamp = PM_NAME("engine_core_timestamp");
static struct pm_name n_request = PM_NAME("request");
static struct pm_name n_arrival_time = PM_NAME("arrival_time");
static struct pm_name n_prompt_token_ids = PM_NAME("prompt_token_ids");

static bool identified;

static void reset(void)
{
    identified = false;
}

static void record(const struct pm_frontend_op *op)
{
    if (!identified)
        identified = pm_facts_identify(PM_ROLE_FRONTEND, -1, -1);
    struct pm_recorder *rec = pm_facts();
    struct pm_frontend_op *room =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&frontend_op_schema)) : NULL;
    if (room == NULL)
        return;
    *room = *op;
    pm_recorder_commit(rec, room);
}

static uint32_t clamp(uint64_t value)
{
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

/* BaseRenderer._tokenize_prompt(self, prompt, params) -> {"prompt_token_ids": […], …}, and those
 * before it, which return the list itself or something of the tokenizer's own. */
static void tokenize_leave(struct pm_call *call)
{
    PyObject *ids = call->result;
    uint64_t tokens = 0;
    if (ids != NULL && PyDict_Check(ids))
        ids = pm_dict_item(ids, pm_name_object(&n_prompt_token_ids)); /* borrowed */
    if (ids == NULL || !PyList_Check(ids) || !pm_len(ids, &tokens))
        tokens = 0;
    record(&(struct pm_frontend_op){
        .start_ns = call->start_ns,
        .dur_ns = call->end_ns - call->start_ns,
        .tokens = clamp(tokens),
        .op = PM_FRONTEND_TOKENIZATION,
        .flags = call->result == NULL ? PM_FRONTEND_FAILED : 0,
    });
}

/* Nanoseconds from then, a moment in seconds of a clock that is now_ns now; 0 where that makes no
 * sense: another machine's clock, or one that was set. */
static uint64_t since(double then_sec, uint64_t now_ns)
{
    static const double too_long_ns = 86400e9;
    const double ns = (double)now_ns - then_sec * 1e9;
    return then_sec > 0 && ns > 0 && ns < too_long_ns ? (uint64_t)ns : 0;
}

/* OutputProcessor.process_outputs(self, engine_core_outputs, engine_core_timestamp=None, …); the
 * timestamp is the engine core's time.monotonic(), which is our clock. */
static void outputs_leave(struct pm_call *call)
{
    PyObject *list = pm_call_arg(call, 1, &n_engine_core_outputs);     /* borrowed */
    PyObject *moment = pm_call_arg(call, 2, &n_engine_core_timestamp); /* borrowed */
    const double sent_sec = moment != NULL && PyFloat_Check(moment) ? PyFloat_AsDouble(moment) : 0;
    uint64_t outputs = 0;
    if (list == NULL || !pm_len(list, &outputs) || outputs == 0)
        return; /* statistics only */
    record(&(struct pm_frontend_op){
        .start_ns = call->start_ns,
        .dur_ns = call->end_ns - call->start_ns,
        .delay_ns = since(sent_sec, call->start_ns),
        .outputs = clamp(outputs),
        .op = PM_FRONTEND_DETOKENIZATION,
        .flags = call->result == NULL ? PM_FRONTEND_FAILED : 0,
    });
    pm_facts_stepped(PM_ROLE_FRONTEND);
}

static uint64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* OutputProcessor.add_request(self, request, …); arrival_time is the front end's time.time(). */
static void admit_leave(struct pm_call *call)
{
    PyObject *request = pm_call_arg(call, 1, &n_request); /* borrowed */
    double arrival_sec = 0;
    uint64_t tokens = 0;
    const uint64_t wall = wall_ns() - (call->end_ns - call->start_ns); /* when it was called */
    if (call->result == NULL || request == NULL ||
        !pm_read_f64(request, &n_arrival_time, &arrival_sec))
        return;
    const uint64_t delay_ns = since(arrival_sec, wall);
    if (delay_ns == 0)
        return;
    if (!pm_read_len(request, &n_prompt_token_ids, &tokens))
        tokens = 0;
    record(&(struct pm_frontend_op){
        .start_ns = call->start_ns - delay_ns,
        .dur_ns = delay_ns,
        .tokens = clamp(tokens),
        .op = PM_FRONTEND_ADMISSION,
    });
}

/* EngineArgs.create_engine_config(self, …): where vLLM is about to start a front end. */
static void config_leave(struct pm_call *call)
{
    const char *rust = getenv("VLLM_USE_RUST_FRONTEND");
    if (call->result != NULL && rust != NULL && strtol(rust, NULL, 10) != 0)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "frontend",
                      "VLLM_USE_RUST_FRONTEND is set: vLLM's Rust front end serves, and "
                      "tokenization, detokenization and admission are not seen");
}

#define tokenize_enter NULL
#define outputs_enter NULL
#define admit_enter NULL
#define config_enter NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/frontend.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->cpu_timing && settings->preset != PM_PRESET_SIMPLE;
}

const struct pm_probe pm_probe_frontend = {
    .name = "frontend",
    .component = NULL,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
};
