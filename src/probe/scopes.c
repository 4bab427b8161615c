/*
 * Probe scopes: named parts of the serving as NVTX ranges, for a tool such as Nsight Systems
 * (VLLM_PROFILING_NVTX=1, or names in VLLM_NVTX_SCOPES_FOR_PROFILING), and as spans of the session
 * (names in VLLM_CUSTOM_SCOPES_FOR_PROFILING), which the timelines show.
 *
 *   step               Worker.execute_model, with its batch in the label
 *   model_forward      the model's call within it, of either model runner
 *   attention          each layer's attention, where it is an opaque operation: only if named
 *   sampling           Worker.sample_tokens
 *   scheduling         Scheduler.schedule
 *   output_processing  Scheduler.update_from_output
 *
 * Runs in engine cores and workers, under the GIL. Where no tool is attached and no span is asked
 * for, nothing is hooked. Needs the probe worker_step, which knows what a step is.
 */
#include "probe/probe.h"

#include <stdio.h>
#include <string.h>

#include "gpu/nvtx.h"
#include "hook/read.h"
#include "probe/scope_names.h"
#include "probe/worker_now.h"
#include "session/attrs.h"

struct scope_span {
    uint64_t start_ns, dur_ns, step;
    uint32_t name, tokens;
};

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct scope_span, member, type, unit, kind, agg, doc)
static const struct pm_field fields[] = {
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "the scope began"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_SUM, "to its end, host clock"),
    F(step, U64, "", ID, PM_AGG_NONE, "of the worker, as worker_step has it; of the scheduler's scopes 0"),
    F(name, STR, "", ID, PM_AGG_NONE, "of the scope"),
    F(tokens, U32, "tokens", COUNT, PM_AGG_NONE, "of the step; of the scheduler's scopes 0"),
};
#undef F
/* clang-format on */

static const struct pm_schema scope_span_schema = {
    .name = "scope_span",
    .stream = PM_STREAM_CUSTOM,
    .payload_bytes = sizeof(struct scope_span),
    .classes = 1,
    .doc = "One per scope of VLLM_CUSTOM_SCOPES_FOR_PROFILING that was gone through.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};
static const struct pm_schema *const schemas[] = {&scope_span_schema};

extern const struct pm_probe pm_probe_scopes;

static struct {
    unsigned ranges, spans; /* PM_SCOPE_BIT(scope): as NVTX ranges, as records */
    char unknown[160];      /* the first name that is none */
    bool asked, open;       /* whether a tool takes ranges */
    uint32_t strings[PM_SCOPES];
    uint64_t model_ns; /* the newer runner's model began; 0: it is not running */
    bool model_pushed;
} state;

/* ---- the settings ---- */

static bool enabled(const struct pm_settings *settings)
{
    state.unknown[0] = '\0';
    state.ranges = pm_scopes_parse(settings->nvtx_scopes, state.unknown, sizeof state.unknown);
    if (state.ranges != 0)
        state.ranges |= PM_SCOPE_BIT(PM_SCOPE_STEP);
    else if (settings->nvtx)
        state.ranges = PM_SCOPES_BY_DEFAULT;
    state.spans = pm_scopes_parse(settings->custom_scopes, state.unknown, sizeof state.unknown);
    return state.ranges != 0 || state.spans != 0 || state.unknown[0] != '\0';
}

/* Loads the tool when the first range is due: in processes that serve, and late enough. */
static bool tool(void)
{
    char why[512], text[640];
    if (state.asked)
        return state.open;
    state.asked = true;
    state.open = pm_nvtx_open(why, sizeof why);
    snprintf(text, sizeof text, "NVTX ranges are not drawn: %s", why);
    if (!state.open)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "nvtx", text);
    return state.open;
}

/* ---- ranges and spans ---- */

static bool push(enum pm_scope scope, const char *label, uint64_t payload)
{
    if (!(state.ranges & PM_SCOPE_BIT(scope)) || !tool())
        return false;
    pm_nvtx_push(label, pm_scopes[scope].argb, payload);
    return true;
}

static void record(enum pm_scope scope, uint64_t start_ns, uint64_t end_ns)
{
    struct pm_worker_now now = {0};
    struct pm_recorder *rec = state.spans & PM_SCOPE_BIT(scope) ? pm_facts() : NULL;
    if (!rec)
        return;
    const char *name = pm_scopes[scope].name;
    if (state.strings[scope] == 0)
        state.strings[scope] = pm_recorder_string(rec, PM_STREAM_CUSTOM, name, strlen(name));
    if (scope != PM_SCOPE_SCHEDULING && scope != PM_SCOPE_OUTPUT)
        (void)pm_worker_now(&now);
    struct scope_span *fact = pm_recorder_reserve(rec, pm_facts_schema(&scope_span_schema));
    if (!fact)
        return;
    *fact = (struct scope_span){.start_ns = start_ns,
                                .dur_ns = end_ns - start_ns,
                                .step = now.step,
                                .name = state.strings[scope],
                                .tokens = now.tokens};
    pm_recorder_commit(rec, fact);
}

/* call->scratch[0]: 1 gone through, 2 pushed as well. */
static void begin(struct pm_call *call, enum pm_scope scope, const char *label, uint64_t payload)
{
    call->scratch[0] = push(scope, label, payload) ? 2 : 1;
}

static void end(struct pm_call *call, enum pm_scope scope)
{
    if (call->scratch[0] == 2)
        pm_nvtx_pop();
    if (call->scratch[0] != 0)
        record(scope, call->start_ns, call->end_ns);
}

/* ---- the worker ---- */

static struct pm_name n_scheduler_output = PM_NAME("scheduler_output");

/* "prefill" or "decode", as far as a worker can tell (worker_step.c). */
static const char *phase_of(PyObject *output, const struct pm_worker_now *now)
{
    static struct pm_name n_new = PM_NAME("scheduled_new_reqs");
    static struct pm_name n_spec = PM_NAME("scheduled_spec_decode_tokens");
    uint64_t n;
    if (now->tokens == 0)
        return "empty";
    if (pm_read_len(output, &n_new, &n) && n > 0)
        return "prefill";
    return now->tokens > now->requests && !(pm_read_len(output, &n_spec, &n) && n > 0) ? "prefill"
                                                                                       : "decode";
}

static void execute_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    char label[128] = "step";
    call->scratch[0] = 0;
    if (!pm_worker_now(&now))
        return; /* warm-up */
    PyObject *output = pm_call_arg(call, 1, &n_scheduler_output);
    if (output && state.ranges & PM_SCOPE_BIT(PM_SCOPE_STEP) && tool())
        snprintf(label, sizeof label, "step %llu %s: %u request%s, %u token%s",
                 (unsigned long long)now.step, phase_of(output, &now), now.requests,
                 now.requests == 1 ? "" : "s", now.tokens, now.tokens == 1 ? "" : "s");
    begin(call, PM_SCOPE_STEP, label, now.tokens);
}

static void model_over(uint64_t now_ns)
{
    if (state.model_ns == 0)
        return;
    if (state.model_pushed)
        pm_nvtx_pop();
    record(PM_SCOPE_MODEL, state.model_ns, now_ns);
    state.model_ns = 0;
}

static void execute_leave(struct pm_call *call)
{
    model_over(call->end_ns);
    end(call, PM_SCOPE_STEP);
}

static void model_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    call->scratch[0] = 0;
    if (pm_worker_now(&now))
        begin(call, PM_SCOPE_MODEL, pm_scopes[PM_SCOPE_MODEL].name, now.tokens);
}

static void model_leave(struct pm_call *call)
{
    end(call, PM_SCOPE_MODEL);
}

/* The newer runner tells begin and end by calls of their own. */
static void model_start_leave(struct pm_call *call)
{
    struct pm_worker_now now;
    if (state.model_ns != 0 || !pm_worker_now(&now))
        return;
    state.model_ns = call->end_ns;
    state.model_pushed = push(PM_SCOPE_MODEL, pm_scopes[PM_SCOPE_MODEL].name, now.tokens);
}

static void model_end_enter(struct pm_call *call)
{
    model_over(call->enter_ns);
}

static void sample_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    call->scratch[0] = 0;
    if (pm_worker_now(&now))
        begin(call, PM_SCOPE_SAMPLING, pm_scopes[PM_SCOPE_SAMPLING].name, now.requests);
}

static void sample_leave(struct pm_call *call)
{
    end(call, PM_SCOPE_SAMPLING);
}

/* ---- attention ---- */

static void attention_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    call->scratch[0] = 0;
    if (pm_worker_now(&now))
        begin(call, PM_SCOPE_ATTENTION, pm_scopes[PM_SCOPE_ATTENTION].name, now.tokens);
}

static void attention_leave(struct pm_call *call)
{
    end(call, PM_SCOPE_ATTENTION);
}

#define CLASSES 4 /* backends in one process */

/* Attention.__init__(self, …): its backend's implementation is of a class that the platform chose.
 * Where the layer calls it directly, torch.compile would trace it: it is left alone. */
static void layer_leave(struct pm_call *call)
{
    static struct pm_target targets[CLASSES];
    static const void *classes[CLASSES];
    static struct pm_name n_impl = PM_NAME("impl"), n_class = PM_NAME("__class__");
    static struct pm_name n_direct = PM_NAME("use_direct_call");
    bool direct = true;
    size_t i = 0;
    if (!call->result || call->nargs < 1)
        return;
    (void)pm_read_bool(call->args[0], &n_direct, &direct);
    if (direct) {
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "scope.attention",
                      "attention is called directly on this platform, where torch.compile traces "
                      "it: its scope is not seen");
        return;
    }
    PyObject *impl = pm_read_attr(call->args[0], &n_impl);
    PyObject *class = impl ? pm_read_attr(impl, &n_class) : NULL;
    while (i < CLASSES && classes[i] && classes[i] != class)
        i++;
    if (class && i < CLASSES && !classes[i]) {
        classes[i] = class; /* an address to compare with */
        targets[i] = (struct pm_target){
            .module = "vllm.v1.attention.backend",
            .qualname = "AttentionImpl.forward",
            .kind = PM_TARGET_METHOD,
            .flags = PM_TARGET_OPTIONAL | PM_TARGET_OUTERMOST,
            .versions = "0.11.0+",
            .enter = attention_enter,
            .leave = attention_leave,
        };
        (void)pm_facts_hook(class, &pm_probe_scopes, &targets[i]);
    }
    Py_XDECREF(class);
    Py_XDECREF(impl);
}

/* ---- the scheduler ---- */

static void schedule_enter(struct pm_call *call)
{
    begin(call, PM_SCOPE_SCHEDULING, pm_scopes[PM_SCOPE_SCHEDULING].name, 0);
}

static void schedule_leave(struct pm_call *call)
{
    end(call, PM_SCOPE_SCHEDULING);
}

static void output_enter(struct pm_call *call)
{
    begin(call, PM_SCOPE_OUTPUT, pm_scopes[PM_SCOPE_OUTPUT].name, 0);
}

static void output_leave(struct pm_call *call)
{
    end(call, PM_SCOPE_OUTPUT);
}

/* ---- the probe ---- */

/* Places that other probes have too, which say from when on vLLM has them. */
#define ROW(scope_, module_, qualname_, flags_, enter_, leave_)                                    \
    {                                                                                              \
        PM_SCOPE_BIT(scope_),                                                                      \
        {                                                                                          \
            .module = module_, .qualname = qualname_, .kind = PM_TARGET_METHOD,                    \
            .flags = PM_TARGET_OPTIONAL | (flags_), .versions = "0.11.0+", .enter = enter_,        \
            .leave = leave_                                                                        \
        }                                                                                          \
    }
#define WORKER "vllm.v1.worker.gpu_worker"
#define CONNECTOR "vllm.v1.worker.gpu.kv_connector"
#define SCHEDULER "vllm.v1.core.sched.scheduler"
static const struct {
    unsigned scopes;
    struct pm_target target;
} rows[] = {
    ROW(PM_SCOPE_STEP, WORKER, "Worker.execute_model", PM_TARGET_OUTERMOST, execute_enter,
        execute_leave),
    ROW(PM_SCOPE_SAMPLING, WORKER, "Worker.sample_tokens", PM_TARGET_OUTERMOST, sample_enter,
        sample_leave),
    ROW(PM_SCOPE_MODEL, "vllm.v1.worker.gpu_model_runner", "GPUModelRunner._model_forward", 0,
        model_enter, model_leave),
    ROW(PM_SCOPE_MODEL, "vllm.v1.worker.gpu.async_utils", "StepTimingCollector.forward_start", 0,
        NULL, model_start_leave),
    ROW(PM_SCOPE_MODEL, CONNECTOR, "KVConnector.pre_forward", 0, NULL, model_start_leave),
    ROW(PM_SCOPE_MODEL, CONNECTOR, "ActiveKVConnector.pre_forward", 0, NULL, model_start_leave),
    ROW(PM_SCOPE_MODEL, CONNECTOR, "KVConnector.finish_forward", 0, model_end_enter, NULL),
    ROW(PM_SCOPE_MODEL, CONNECTOR, "ActiveKVConnector.finish_forward", 0, model_end_enter, NULL),
    ROW(PM_SCOPE_SCHEDULING, SCHEDULER, "Scheduler.schedule", PM_TARGET_OUTERMOST, schedule_enter,
        schedule_leave),
    ROW(PM_SCOPE_OUTPUT, SCHEDULER, "Scheduler.update_from_output", PM_TARGET_OUTERMOST,
        output_enter, output_leave),
    ROW(PM_SCOPE_ATTENTION, "vllm.model_executor.layers.attention.attention", "Attention.__init__",
        0, NULL, layer_leave),
    ROW(PM_SCOPE_ATTENTION, "vllm.attention.layer", "Attention.__init__", 0, NULL, layer_leave),
};

static const struct pm_target *more(const struct pm_settings *settings, size_t *ret_n)
{
    static struct pm_target chosen[sizeof rows / sizeof *rows];
    char text[512];
    unsigned wanted = state.spans;
    (void)settings;
    *ret_n = 0;
    if (state.unknown[0] != '\0') {
        snprintf(text, sizeof text,
                 "no scope is called %s: there are step, model_forward, attention, sampling, "
                 "scheduling, output_processing and all; functions are named in "
                 "VLLM_PROFILING_CUSTOM",
                 state.unknown);
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "scopes", text);
    }
    if (state.ranges != 0 && pm_nvtx_wanted())
        wanted |= state.ranges;
    else if (state.ranges != 0)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "nvtx",
                      "NVTX ranges are not drawn: no tool is attached (" PM_NVTX_PATH
                      " is not set), start the server under one, such as nsys profile -t nvtx");
    if (wanted & PM_SCOPE_BIT(PM_SCOPE_MODEL))
        wanted |= PM_SCOPE_BIT(PM_SCOPE_STEP); /* the end of a step ends its model */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].scopes & wanted)
            chosen[(*ret_n)++] = rows[i].target;
    return chosen;
}

static void reset(void)
{
    memset(state.strings, 0, sizeof state.strings);
    state.model_ns = 0;
}

const struct pm_probe pm_probe_scopes = {
    .name = "scopes",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .more = more,
    .reset = reset,
};
