/*
 * Probe update_step: what came out of each step and how long the scheduler took to take it in, from
 * Scheduler.update_from_output.
 *
 * Engine core, scheduling thread, under the GIL. The step is found by the SchedulerOutput that
 * schedule() had returned (scheduler.h). How many requests get an output is known since then, so
 * that a step in which every one of them gets one token is counted without a look at any; where
 * drafts were verified, the lists of sampled tokens are measured, and where they cannot tell, what
 * vLLM hands out.
 */
#include "probe/request_life.h"

#include "hook/guard.h"
#include "hook/read.h"
#include "session/doing.h"
#include "session/step_schema.h"

static const struct pm_schema *const schemas[] = {&pm_update_step_schema};

static struct pm_name n_scheduler_output = PM_NAME("scheduler_output");
static struct pm_name n_model_runner_output = PM_NAME("model_runner_output");
static struct pm_name n_scheduled_spec_decode_tokens = PM_NAME("scheduled_spec_decode_tokens");
static struct pm_name n_num_invalid_spec_tokens = PM_NAME("num_invalid_spec_tokens");
static struct pm_name n_sampled_token_ids = PM_NAME("sampled_token_ids");
static struct pm_name n_req_id_to_index = PM_NAME("req_id_to_index");
static struct pm_name n_requests = PM_NAME("requests");
static struct pm_name n_outputs = PM_NAME("outputs");
static struct pm_name n_new_token_ids = PM_NAME("new_token_ids");

/* Drafts verified and accepted, found before vLLM cuts what lies beyond a stop; the update under
 * way is the only one. */
static struct {
    uint32_t drafted, accepted;
} spec;

/* The drafts of one request, as Scheduler.make_spec_decoding_stats counts them. */
static void count_drafts(PyObject *key, PyObject *drafts, PyObject *sampled, PyObject *index,
                         PyObject *invalid)
{
    uint64_t n_drafts, at, n_tokens, n_invalid = 0;
    PyObject *tokens = NULL;
    if (pm_len(drafts, &n_drafts) && pm_u64(pm_dict_item(index, key), &at) &&
        at < (uint64_t)PyList_Size(sampled))
        tokens = PyList_GetItem(sampled, (Py_ssize_t)at); /* borrowed */
    if (tokens == NULL || !pm_len(tokens, &n_tokens) || n_tokens == 0)
        return;
    if (invalid != NULL && !pm_u64(pm_dict_item(invalid, key), &n_invalid))
        n_invalid = 0;
    spec.drafted += (uint32_t)(n_drafts > n_invalid ? n_drafts - n_invalid : 0);
    spec.accepted += (uint32_t)(n_tokens - 1);
}

static void count_spec(PyObject *self, PyObject *output, PyObject *result)
{
    PyObject *drafts = pm_read_attr(output, &n_scheduled_spec_decode_tokens);
    PyObject *invalid = pm_read_attr(output, &n_num_invalid_spec_tokens);
    PyObject *sampled = pm_read_attr(result, &n_sampled_token_ids);
    PyObject *index = pm_read_attr(result, &n_req_id_to_index);
    PyObject *requests = pm_read_attr(self, &n_requests);
    PyObject *key, *value;
    Py_ssize_t at = 0;
    const bool readable = drafts != NULL && PyDict_Check(drafts) && sampled != NULL &&
                          PyList_Check(sampled) && index != NULL;
    while (readable && PyDict_Next(drafts, &at, &key, &value)) {
        if (pm_dict_item(requests, key) != NULL) /* else it was aborted meanwhile */
            count_drafts(key, value, sampled, index,
                         invalid != NULL && PyDict_Check(invalid) ? invalid : NULL);
    }
    Py_XDECREF(drafts);
    Py_XDECREF(invalid);
    Py_XDECREF(sampled);
    Py_XDECREF(index);
    Py_XDECREF(requests);
}

static void update_enter(struct pm_call *call)
{
    PyObject *self = call->args[0];
    struct pm_scheduler *scheduler = pm_scheduler_of(self);
    PyObject *output = pm_call_arg(call, 1, &n_scheduler_output); /* borrowed */
    scheduler->updating = pm_flight_of(scheduler, output);
    scheduler->in_update = true;
    pm_facts_doing(PM_DOING_UPDATE, call->enter_ns);
    spec.drafted = spec.accepted = 0;
    if (scheduler->updating == NULL || scheduler->updating->spec_tokens == 0)
        return;
    PyObject *result = pm_call_arg(call, 2, &n_model_runner_output); /* borrowed */
    if (result != NULL)
        count_spec(self, output, result);
}

/* Tokens in what vLLM hands out: {client: EngineCoreOutputs}. */
static uint32_t tokens_handed_out(PyObject *handed)
{
    uint64_t tokens = 0, n;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Check(handed) && PyDict_Next(handed, &at, &key, &value)) {
        PyObject *outputs = pm_read_attr(value, &n_outputs);
        const Py_ssize_t count =
            outputs != NULL && PyList_Check(outputs) ? PyList_Size(outputs) : 0;
        for (Py_ssize_t i = 0; i < count; i++)
            tokens += pm_read_len(PyList_GetItem(outputs, i), &n_new_token_ids, &n) ? n : 0;
        Py_XDECREF(outputs);
    }
    return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

/* How many tokens the step gave: vLLM has called it done, so that lists are cut to what counts. */
static uint32_t count_tokens(struct pm_call *call, const struct pm_scheduler *scheduler,
                             const struct pm_flight *flight)
{
    PyObject *result = pm_call_arg(call, 2, &n_model_runner_output); /* borrowed */
    PyObject *sampled = result != NULL ? pm_read_attr(result, &n_sampled_token_ids) : NULL;
    const Py_ssize_t n = sampled != NULL && PyList_Check(sampled) ? PyList_Size(sampled) : 0;
    uint64_t tokens = flight->gives, len;
    if (n == 0) { /* a pooling model */
        tokens = 0;
    } else if (flight->spec_tokens > 0 || scheduler->odd_tokens) {
        if (flight->dropped) {
            tokens = tokens_handed_out(call->result);
        } else {
            tokens = 0;
            for (Py_ssize_t i = 0; i < n; i++)
                tokens += pm_len(PyList_GetItem(sampled, i), &len) ? len : 0;
        }
    }
    Py_XDECREF(sampled);
    return (uint32_t)tokens;
}

/* What came out is counted and recorded. */
static void take_update(struct pm_call *call)
{
    struct pm_scheduler *scheduler = pm_scheduler_of(call->args[0]);
    struct pm_flight *flight = scheduler->updating;
    const uint64_t dur_ns = call->end_ns - call->start_ns;
    struct pm_recorder *rec = pm_facts();
    struct pm_update_step fact = {
        .step = flight != NULL ? flight->step : 0,
        .start_ns = call->start_ns,
        .dur_ns = dur_ns < UINT32_MAX ? (uint32_t)dur_ns : UINT32_MAX,
        .instance = scheduler->instance,
        .flags = flight == NULL ? PM_UPDATE_UNKNOWN_STEP : 0,
        .drafted = spec.drafted,
        .accepted = spec.accepted,
    };
    scheduler->in_update = false;
    scheduler->updating = NULL;
    if (call->result == NULL)
        fact.flags |= PM_UPDATE_FAILED;
    pm_life_updated(scheduler, flight, call->end_ns, &fact);
    if (flight != NULL) {
        if (call->result != NULL && flight->gives > 0)
            fact.output_tokens = count_tokens(call, scheduler, flight);
        if (flight->spec_tokens > 0)
            fact.flags |= PM_UPDATE_SPEC;
        flight->output = NULL; /* landed */
    }
    struct pm_update_step *room =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&pm_update_step_schema)) : NULL;
    if (room != NULL) {
        *room = fact;
        pm_recorder_commit(rec, room);
    }
    pm_life_flush(scheduler, call->end_ns);
}

static void update_leave(struct pm_call *call)
{
    pm_facts_doing(PM_DOING_HOOK, call->end_ns);
    const struct pm_flight *flight = pm_scheduler_of(call->args[0])->updating;
    const uint64_t step = flight != NULL ? flight->step : 0;
    take_update(call);
    if (call->result == NULL)
        pm_facts_raised("update", PM_DOING_UPDATE, step, call);
    else
        pm_facts_doing(PM_DOING_BETWEEN, call->end_ns);
}

#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/update_step.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->cpu_timing || settings->preemption || settings->spec_decode;
}

const struct pm_probe pm_probe_update_step = {
    .name = "update_step",
    .control = PM_PROBE_SPINE,
    .component = NULL,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
};
