/*
 * Probe worker_step: how long each executed step took and where, from Worker.execute_model and
 * sample_tokens, with the model's boundaries from whichever of the two model runners is in use.
 *
 * Runs in the worker, under the GIL; get_output may come from another thread. Records one
 * worker_step per step, when its last call has returned, and a worker_sync where the output is
 * known only later. Warm-up (anything inside compile_or_warm_up_model) and dummy runs (which never
 * come through Worker.execute_model) are left out.
 */
#include "hook/compat.h"

#include <string.h>

#include "hook/read.h"
#include "probe/probe.h"
#include "probe/step_mark.h"
#include "probe/worker_known.h"
#include "probe/worker_now.h"
#include "probe/worker_output.h"
#include "session/attrs.h"
#include "session/step_facts.h"
#include "session/doing.h"
#include "session/step_schema.h"

static const struct pm_schema *const schemas[] = {&pm_worker_step_schema, &pm_worker_sync_schema};

/* The step that is being executed; step_open false: none. Moments in CLOCK_MONOTONIC ns, 0: not
 * seen. */
struct open_step {
    const struct pm_worker *worker;
    uint64_t start_ns, model_start_ns, model_end_ns, execute_end_ns;
    uint64_t sample_start_ns, end_ns, sync_ns;
    bool in_model; /* the model's call began, and did not return */
    struct pm_worker_step fact;
};

static struct {
    struct open_step open;
    uint64_t said[PM_PHASE_CLASSES]; /* passes of each phase so far, for the console */
    uint16_t warming_up;             /* depth of compile_or_warm_up_model */
    bool step_open;
} state;

static struct pm_name n_num_scheduled_tokens = PM_NAME("num_scheduled_tokens");
static struct pm_name n_total_num_scheduled_tokens = PM_NAME("total_num_scheduled_tokens");
static struct pm_name n_scheduled_new_reqs = PM_NAME("scheduled_new_reqs");
static struct pm_name n_scheduled_spec_decode_tokens = PM_NAME("scheduled_spec_decode_tokens");
static struct pm_name n_scheduler_output = PM_NAME("scheduler_output");

static uint32_t span(uint64_t from_ns, uint64_t to_ns)
{
    if (from_ns == 0 || to_ns <= from_ns)
        return 0;
    return to_ns - from_ns < UINT32_MAX ? (uint32_t)(to_ns - from_ns) : UINT32_MAX;
}

/* What the worker can tell of the phase: a resumed request's last single token looks like a decode
 * to it. */
static unsigned phase_of(PyObject *scheduler_output, const struct pm_worker_step *fact)
{
    uint64_t n;
    if (fact->tokens == 0)
        return PM_PHASE_EMPTY;
    if (pm_read_len(scheduler_output, &n_scheduled_new_reqs, &n) && n > 0)
        return PM_PHASE_PREFILL;
    if (fact->tokens > fact->requests &&
        !(pm_read_len(scheduler_output, &n_scheduled_spec_decode_tokens, &n) && n > 0))
        return PM_PHASE_PREFILL;
    return PM_PHASE_DECODE;
}

/* With VERBOSE: the first pass of each phase, and every LOG_INTERVAL-th. */
static void say(const struct pm_worker_step *fact)
{
    static const char *const names[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
    const struct pm_settings *settings = pm_facts_settings();
    if (!settings->verbose || fact->phase == PM_PHASE_EMPTY || fact->phase >= PM_PHASE_CLASSES)
        return;
    if (state.said[fact->phase]++ % (uint64_t)settings->log_interval != 0)
        return;
    bool synced = (fact->flags & PM_WORKER_DEVICE) != 0 && fact->sync_ns != 0;
    uint64_t ns = fact->gpu_ns != 0 ? fact->gpu_ns : synced ? fact->sync_ns : fact->model_ns;
    pm_facts_say("[Forward Pass] %s: %.2fms (batch=%u, tokens=%u)", names[fact->phase],
                 (double)ns / 1e6, fact->requests, fact->tokens);
}

static void finish_step(uint64_t end_ns)
{
    struct open_step *open = &state.open;
    struct pm_worker_step *fact = &open->fact;
    state.step_open = false;
    pm_facts_doing(PM_DOING_AFTER_STEP, end_ns);
    if (open->model_start_ns != 0 && open->model_end_ns == 0)
        open->model_end_ns = open->execute_end_ns;
    if (open->model_start_ns != 0)
        fact->flags |= PM_WORKER_HAS_MODEL;
    fact->model_ns_at = open->model_start_ns;
    fact->pre_ns = span(open->start_ns,
                        open->model_start_ns != 0 ? open->model_start_ns : open->execute_end_ns);
    fact->model_ns = span(open->model_start_ns, open->model_end_ns);
    fact->post_ns = span(open->model_end_ns, open->execute_end_ns);
    if ((fact->flags & PM_WORKER_ASYNC) == 0)
        fact->sync_ns = span(open->model_start_ns, open->sync_ns);
    fact->total_ns = span(open->start_ns, end_ns);

    struct pm_recorder *rec = pm_facts();
    if (rec == NULL)
        return;
    if (fact->step == 0)
        pm_recorder_identify(rec, PM_ROLE_WORKER, -1, -1);
    struct pm_worker_step *room = pm_recorder_reserve(rec, pm_facts_schema(&pm_worker_step_schema));
    if (room != NULL) {
        *room = *fact;
        pm_recorder_commit(rec, room);
    }
    say(fact);
    pm_facts_stepped(PM_ROLE_WORKER);
}

bool pm_worker_now(struct pm_worker_now *ret_now)
{
    if (!state.step_open)
        return false;
    ret_now->step = state.open.fact.step;
    ret_now->requests = state.open.fact.requests;
    ret_now->tokens = state.open.fact.tokens;
    ret_now->instance = state.open.fact.instance;
    ret_now->phase = state.open.fact.phase;
    ret_now->device = (state.open.fact.flags & PM_WORKER_DEVICE) != 0;
    return true;
}

void pm_worker_flag(uint32_t flag, bool on)
{
    if (state.step_open && on)
        state.open.fact.flags |= flag;
    else if (state.step_open)
        state.open.fact.flags &= ~flag;
}

static void execute_enter(struct pm_call *call)
{
    if (state.warming_up > 0)
        return;
    if (state.step_open) /* a rank whose steps end without sample_tokens */
        finish_step(state.open.execute_end_ns);

    PyObject *self = call->args[0];
    PyObject *output = pm_call_arg(call, 1, &n_scheduler_output); /* borrowed */
    uint64_t requests = 0, tokens = 0;
    if (output == NULL || !pm_read_len(output, &n_num_scheduled_tokens, &requests) ||
        !pm_read_u64(output, &n_total_num_scheduled_tokens, &tokens))
        return;
    struct pm_worker *worker = pm_workers_of(self);
    if (worker->unsynced && !pm_worker_sync(worker, output))
        return;
    if (!worker->described) {
        worker->described = true;
        pm_worker_describe(self, worker);
        pm_session_late(self, PM_ROLE_WORKER);
    }
    if (pm_facts_late())
        pm_step_mark(PM_ATTR_MARK_WORKER, worker->instance, worker->step, output, &worker->marks);
    memset(&state.open, 0, sizeof state.open);
    state.open.worker = worker;
    state.open.start_ns = call->enter_ns;
    state.open.fact = (struct pm_worker_step){
        .step = worker->step++,
        .start_ns = call->enter_ns,
        .requests = (uint32_t)requests,
        .tokens = (uint32_t)tokens,
        .instance = worker->instance,
        .flags = worker->device ? PM_WORKER_DEVICE : 0,
    };
    state.open.fact.phase = (uint8_t)phase_of(output, &state.open.fact);
    state.step_open = true;
    pm_facts_doing(PM_DOING_PREPARE, call->enter_ns);
}

/* Where the output is asynchronous, the step's end is known only later. */
static void look_for_output(PyObject *output)
{
    if (pm_output_expect(output, state.open.fact.step, state.open.fact.instance))
        state.open.fact.flags |= PM_WORKER_ASYNC;
}

static void execute_leave(struct pm_call *call)
{
    if (!state.step_open || state.warming_up > 0)
        return;
    state.open.execute_end_ns = call->end_ns;
    pm_facts_doing(PM_DOING_AFTER_MODEL, call->end_ns);
    if (call->result == NULL)
        state.open.fact.flags |= PM_WORKER_FAILED;
    else if (call->result == Py_None && state.open.fact.tokens > 0)
        return; /* sample_tokens ends the step */
    else if (call->result != Py_None)
        look_for_output(call->result);
    const unsigned doing = state.open.in_model              ? PM_DOING_MODEL
                           : state.open.model_start_ns != 0 ? PM_DOING_AFTER_MODEL
                                                            : PM_DOING_PREPARE;
    finish_step(call->end_ns);
    if (call->result == NULL)
        pm_facts_raised("execute_model", doing, state.open.fact.step, call);
}

static void sample_enter(struct pm_call *call)
{
    if (state.step_open && state.warming_up == 0)
        pm_facts_doing(PM_DOING_SAMPLE, call->enter_ns);
}

static void sample_leave(struct pm_call *call)
{
    if (!state.step_open || state.warming_up > 0)
        return;
    state.open.fact.flags |= PM_WORKER_HAS_SAMPLE;
    state.open.fact.sample_ns = span(call->start_ns, call->end_ns);
    if (call->result == NULL)
        state.open.fact.flags |= PM_WORKER_FAILED;
    else if (call->result != Py_None)
        look_for_output(call->result);
    finish_step(call->end_ns);
    if (call->result == NULL)
        pm_facts_raised("sample_tokens", PM_DOING_SAMPLE, state.open.fact.step, call);
}

static void model_enter(struct pm_call *call)
{
    if (!state.step_open)
        return;
    state.open.in_model = true;
    pm_facts_doing(PM_DOING_MODEL, call->enter_ns);
}

static void model_leave(struct pm_call *call)
{
    if (!state.step_open)
        return;
    state.open.in_model = call->result == NULL;
    pm_facts_doing(PM_DOING_AFTER_MODEL, call->end_ns);
    state.open.model_start_ns = call->start_ns;
    state.open.model_end_ns = call->end_ns;
    state.open.fact.runner = 1;
}

/* The last of forward_start and pre_forward is what the model's call follows. */
static void model_start_leave(struct pm_call *call)
{
    if (!state.step_open)
        return;
    state.open.in_model = true;
    state.open.model_start_ns = call->end_ns;
    state.open.fact.runner = 2;
    pm_facts_doing(PM_DOING_MODEL, call->end_ns);
}

static void model_end_enter(struct pm_call *call)
{
    if (!state.step_open || state.open.model_start_ns == 0)
        return;
    state.open.in_model = false;
    state.open.model_end_ns = call->enter_ns;
    pm_facts_doing(PM_DOING_AFTER_MODEL, call->enter_ns);
}

/* A part of sample_tokens: when it began and how long it took, the first time in a step. */
static void put_part(const struct pm_call *call, uint32_t *ret_at_ns, uint32_t *ret_ns)
{
    if (!state.step_open || *ret_ns != 0)
        return;
    *ret_at_ns = span(state.open.start_ns, call->start_ns);
    *ret_ns = span(call->start_ns, call->end_ns);
}

static void sampler_leave(struct pm_call *call)
{
    put_part(call, &state.open.fact.sampler_at_ns, &state.open.fact.sampler_ns);
}

static void bookkeep_leave(struct pm_call *call)
{
    put_part(call, &state.open.fact.bookkeep_at_ns, &state.open.fact.bookkeep_ns);
}

static void draft_leave(struct pm_call *call)
{
    put_part(call, &state.open.fact.draft_at_ns, &state.open.fact.draft_ns);
}

static void sync_leave(struct pm_call *call)
{
    /* Waits for the device only where outputs are not asynchronous; finish_step learns that from
     * the output. */
    if (state.step_open)
        state.open.sync_ns = call->end_ns;
    bookkeep_leave(call);
}

static void get_output_enter(struct pm_call *call)
{
    pm_facts_doing(PM_DOING_OUTPUT, call->enter_ns);
}

static void get_output_leave(struct pm_call *call)
{
    pm_facts_doing(PM_DOING_AFTER_STEP, call->end_ns);
    pm_output_known(call->args[0], call->end_ns);
}

static void warm_up_enter(struct pm_call *call)
{
    state.warming_up++;
    pm_facts_doing(PM_DOING_WARM_UP, call->enter_ns);
}

static void warm_up_leave(struct pm_call *call)
{
    if (state.warming_up > 0)
        state.warming_up--;
    pm_facts_doing(PM_DOING_AFTER_STEP, call->end_ns);
}

static void init_enter(struct pm_call *call)
{
    const struct pm_worker *worker = pm_workers_add(call->args[0]);
    if (state.open.worker == worker) /* it took the place of the one whose step was open */
        state.step_open = false;
}

#define init_leave NULL
#define model_start_enter NULL
#define model_end_leave NULL
#define sync_enter NULL
#define sampler_enter NULL
#define bookkeep_enter NULL
#define draft_enter NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/worker_step.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->forward_pass || settings->cpu_timing || settings->encoder_decoder ||
           settings->cuda_graph || settings->moe != 0 || settings->spec_decode ||
           settings->sampling || settings->layer;
}

static void reset(void)
{
    memset(&state, 0, sizeof state);
    pm_workers_reset();
    pm_outputs_reset();
}

const struct pm_probe pm_probe_worker_step = {
    .name = "worker_step",
    .control = PM_PROBE_SPINE,
    .component = "GPUModelRunner.execute_model",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
};
