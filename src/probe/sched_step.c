/*
 * Probe sched_step: what each engine step was made of, from Scheduler.schedule.
 *
 * Runs in the engine core, on its scheduling thread, under the GIL. Records one sched_step per
 * call, and a step_request for every change of membership (probe/step_facts.h says what the fields
 * mean).
 */
#include "probe/step_count.h"

#include <string.h>

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/read.h"

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_sched_step, member, type, unit, kind, agg, doc)
static const struct pm_field sched_step_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, from 0 per scheduler"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "schedule() was entered"),
    F(dur_ns, U32, "ns", DURATION, PM_AGG_HIST, "schedule() took"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler of the process"),
    F(phase, U8, "", ID, PM_AGG_CLASS, "0 no tokens, 1 prefill, 2 decode"),
    F(flags, U8, "", FLAGS, PM_AGG_NONE, "1: prefill and decode requests together"),
    F(requests, U32, "requests", COUNT, PM_AGG_HIST, "scheduled requests"),
    F(tokens, U32, "tokens", COUNT, PM_AGG_HIST, "scheduled tokens"),
    F(prefill_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests with prompt tokens to compute for the first time"),
    F(prefill_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "prompt tokens computed for the first time"),
    F(recompute_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests with tokens to compute again after a preemption"),
    F(recompute_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens computed again after a preemption"),
    F(decode_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests that only decode"),
    F(decode_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens that are neither prompt nor recomputed, drafts included"),
    F(spec_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests with draft tokens to verify"),
    F(spec_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "draft tokens to verify"),
    F(running, U32, "requests", GAUGE, PM_AGG_NONE, "running queue after schedule()"),
    F(waiting, U32, "requests", GAUGE, PM_AGG_NONE, "waiting queue after schedule()"),
    F(joined, U32, "requests", COUNT, PM_AGG_SUM, "members that the step before did not have"),
    F(left, U32, "requests", COUNT, PM_AGG_SUM, "members of the step before that this one does not have"),
};
#undef F
/* clang-format on */

static const struct pm_schema sched_step_schema = {
    .name = "sched_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_sched_step),
    .classes = PM_PHASE_CLASSES,
    .doc = "One per Scheduler.schedule: the step's number and composition.",
    .fields = sched_step_fields,
    .n_fields = sizeof sched_step_fields / sizeof *sched_step_fields,
};

static const struct pm_schema *const schemas[] = {&sched_step_schema, &pm_step_request_schema};

static struct pm_name n_requests = PM_NAME("requests");
static struct pm_name n_running = PM_NAME("running");
static struct pm_name n_waiting = PM_NAME("waiting");
static struct pm_name n_get_request_counts = PM_NAME("get_request_counts");
static struct pm_name n_num_scheduled_tokens = PM_NAME("num_scheduled_tokens");
static struct pm_name n_scheduled_spec_decode_tokens = PM_NAME("scheduled_spec_decode_tokens");
static struct pm_name n_finished_req_ids = PM_NAME("finished_req_ids");
static struct pm_name n_request = PM_NAME("request");
static struct pm_name n_request_id = PM_NAME("request_id");
static struct pm_name n_num_computed_tokens = PM_NAME("num_computed_tokens");

#define SCHEDULERS_MAX 4 /* live at a time in one process; the oldest makes room */

static struct pm_scheduler schedulers[SCHEDULERS_MAX];
static uint16_t n_instances;

static void scheduler_clear(struct pm_scheduler *scheduler)
{
    pm_members_clear(&scheduler->members);
    memset(scheduler, 0, sizeof *scheduler);
}

/* A new scheduler's place; one of the same address (the old one is gone) makes room first. */
static struct pm_scheduler *scheduler_add(const PyObject *self)
{
    struct pm_scheduler *place = &schedulers[0];
    for (size_t i = 0; i < SCHEDULERS_MAX; i++) {
        struct pm_scheduler *each = &schedulers[i];
        if (each->self == self || each->self == NULL) {
            place = each;
            break;
        }
        if (each->instance < place->instance)
            place = each;
    }
    scheduler_clear(place);
    place->self = self;
    place->instance = n_instances++;
    return place;
}

static struct pm_scheduler *scheduler_of(const PyObject *self)
{
    for (size_t i = 0; i < SCHEDULERS_MAX; i++) {
        if (schedulers[i].self == self)
            return &schedulers[i];
    }
    return scheduler_add(self);
}

static void read_queues(PyObject *self, struct pm_sched_step *fact)
{
    PyObject *method = pm_read_attr(self, &n_get_request_counts);
    PyObject *counts = method != NULL ? PyObject_CallNoArgs(method) : NULL;
    Py_XDECREF(method);
    if (counts != NULL && PyTuple_Check(counts) && PyTuple_Size(counts) >= 2) {
        long running = PyLong_AsLong(PyTuple_GetItem(counts, 0));
        long waiting = PyLong_AsLong(PyTuple_GetItem(counts, 1));
        fact->running = running > 0 ? (uint32_t)running : 0;
        fact->waiting = waiting > 0 ? (uint32_t)waiting : 0;
    } else {
        pm_guard_discard();
        uint64_t n;
        fact->running = pm_read_len(self, &n_running, &n) ? (uint32_t)n : 0;
        fact->waiting = pm_read_len(self, &n_waiting, &n) ? (uint32_t)n : 0;
    }
    pm_guard_discard();
    Py_XDECREF(counts);
}

static void schedule_leave(struct pm_call *call)
{
    PyObject *self = call->args[0];
    struct pm_scheduler *scheduler = scheduler_of(self);
    if (call->result == NULL)
        return; /* raised: the step never was */

    uint64_t dur_ns = call->end_ns - call->start_ns;
    struct pm_counting c = {
        .rec = pm_facts(),
        .scheduler = scheduler,
        .at_ns = call->end_ns,
        .fact =
            {
                .step = scheduler->step++,
                .start_ns = call->start_ns,
                .dur_ns = dur_ns < UINT32_MAX ? (uint32_t)dur_ns : UINT32_MAX,
                .instance = scheduler->instance,
            },
    };
    if (c.fact.step == 0 && c.rec != NULL)
        pm_recorder_identify(c.rec, PM_ROLE_ENGINE, -1, -1);
    PyObject *scheduled = pm_read_attr(call->result, &n_num_scheduled_tokens);
    PyObject *spec = pm_read_attr(call->result, &n_scheduled_spec_decode_tokens);
    PyObject *finished = pm_read_attr(call->result, &n_finished_req_ids);
    PyObject *requests = pm_read_attr(self, &n_requests);
    if (requests != NULL && PyDict_Check(requests))
        c.requests = requests;
    if (spec != NULL && PyDict_Check(spec) && PyDict_Size(spec) > 0)
        c.spec_tokens = spec;

    if (scheduled != NULL && PyDict_Check(scheduled))
        pm_step_count(&c, scheduled, finished);
    read_queues(self, &c.fact);
    Py_XDECREF(scheduled);
    Py_XDECREF(spec);
    Py_XDECREF(finished);
    Py_XDECREF(requests);

    bool prefills = c.fact.prefill_requests + c.fact.recompute_requests > 0;
    if (c.fact.tokens > 0)
        c.fact.phase = prefills ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
    if (prefills && c.fact.decode_requests > 0)
        c.fact.flags |= PM_SCHED_MIXED;
    if (c.rec == NULL)
        return;
    struct pm_sched_step *fact = pm_recorder_reserve(c.rec, pm_facts_schema(&sched_step_schema));
    if (fact != NULL) {
        *fact = c.fact;
        pm_recorder_commit(c.rec, fact);
    }
}

/* Before the request loses its tokens: how many it had computed. */
static void preempt_enter(struct pm_call *call)
{
    struct pm_scheduler *scheduler = scheduler_of(call->args[0]);
    PyObject *request = pm_call_arg(call, 1, &n_request); /* borrowed */
    uint64_t computed;
    if (request == NULL || !pm_read_u64(request, &n_num_computed_tokens, &computed))
        return;
    PyObject *key = pm_read_attr(request, &n_request_id);
    struct pm_member *member = key != NULL ? pm_members_find(&scheduler->members, key) : NULL;
    Py_XDECREF(key);
    if (member == NULL)
        return;
    if (member->lost_until < computed)
        member->lost_until = (uint32_t)computed;
    member->preempted = true;
    scheduler->members.settled = false;
    member->state = PM_MEMBER_PREFILL;
    struct pm_counting c = {
        .rec = pm_facts(),
        .scheduler = scheduler,
        .at_ns = call->start_ns,
        .fact = {.step = scheduler->step},
    };
    pm_step_event(&c, member, PM_REQUEST_PREEMPTED, 0, (uint32_t)computed, PM_PHASE_EMPTY);
}

static void init_enter(struct pm_call *call)
{
    scheduler_add(call->args[0]);
}

#define init_leave NULL
#define schedule_enter NULL
#define preempt_leave NULL
#define T(hook, module_, qualname_, kind_, flags_, versions_, quiet_when_)                         \
    {.module = module_,                                                                            \
     .qualname = qualname_,                                                                        \
     .kind = PM_TARGET_##kind_,                                                                    \
     .flags = flags_,                                                                              \
     .versions = versions_,                                                                        \
     .quiet_when = quiet_when_,                                                                    \
     .enter = hook##_enter,                                                                        \
     .leave = hook##_leave},
static const struct pm_target targets[] = {
#include "probe/sched_step.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->forward_pass || settings->cpu_timing || settings->batch_utilization;
}

static void reset(void)
{
    for (size_t i = 0; i < SCHEDULERS_MAX; i++)
        scheduler_clear(&schedulers[i]);
    n_instances = 0;
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    for (size_t i = 0; stream == PM_STREAM_CORE && i < SCHEDULERS_MAX; i++) {
        struct pm_scheduler *scheduler = &schedulers[i];
        if (scheduler->self == NULL)
            continue;
        struct pm_counting c = {
            .rec = rec,
            .scheduler = scheduler,
            .at_ns = pm_clock_now_ns(),
            .fact = {.step = scheduler->step},
        };
        for (uint32_t n = 0; n < scheduler->members.n_order; n++) {
            uint32_t slot = scheduler->members.order[n];
            if (slot != UINT32_MAX && scheduler->members.slots[slot].key != NULL)
                pm_step_event(&c, &scheduler->members.slots[slot], PM_REQUEST_PRESENT, 0, 0, 0);
        }
    }
}

const struct pm_probe pm_probe_sched_step = {
    .name = "sched_step",
    .component = "Scheduler",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
    .keyframe = keyframe,
};
