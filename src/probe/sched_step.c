/*
 * Probe sched_step: what each engine step was made of, from Scheduler.schedule.
 *
 * Runs in the engine core, on its scheduling thread, under the GIL. Records one sched_step per
 * call, and a step_request for every change of membership (session/step_facts.h says what the
 * fields mean).
 */
#include "probe/request_life.h"

#include <string.h>

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "probe/request_record.h"
#include "probe/step_mark.h"
#include "session/attrs.h"
#include "session/doing.h"
#include "session/step_schema.h"

static const struct pm_schema *const schemas[] = {&pm_sched_step_schema, &pm_step_request_schema};

static struct pm_name n_requests = PM_NAME("requests");
static struct pm_name n_num_scheduled_tokens = PM_NAME("num_scheduled_tokens");
static struct pm_name n_scheduled_spec_decode_tokens = PM_NAME("scheduled_spec_decode_tokens");
static struct pm_name n_finished_req_ids = PM_NAME("finished_req_ids");
static struct pm_name n_request = PM_NAME("request");
static struct pm_name n_request_id = PM_NAME("request_id");
static struct pm_name n_session = PM_NAME("session");
static struct pm_name n_drop_stale_output = PM_NAME("drop_stale_output");
static struct pm_name n_num_computed_tokens = PM_NAME("num_computed_tokens");
static struct pm_name n_num_prompt_tokens = PM_NAME("num_prompt_tokens");
static struct pm_name n_max_num_running_reqs = PM_NAME("max_num_running_reqs");
static struct pm_name n_max_num_scheduled_tokens = PM_NAME("max_num_scheduled_tokens");
static struct pm_name n_num_sampled_tokens_per_step = PM_NAME("num_sampled_tokens_per_step");
static struct pm_name n_kv_cache_manager = PM_NAME("kv_cache_manager");
static struct pm_name n_coordinator = PM_NAME("coordinator");
static struct pm_name n_single_type_managers = PM_NAME("single_type_managers");
static struct pm_name n_req_to_blocks = PM_NAME("req_to_blocks");

/* What holds for all steps of a scheduler. */
static void read_limits(PyObject *self, struct pm_scheduler *scheduler)
{
    uint64_t value;
    scheduler->limits_known = true;
    if (pm_read_u64(self, &n_max_num_running_reqs, &value))
        scheduler->max_requests = (uint32_t)value;
    if (pm_read_u64(self, &n_max_num_scheduled_tokens, &value))
        scheduler->max_tokens = (uint32_t)value;
    scheduler->odd_tokens = pm_read_u64(self, &n_num_sampled_tokens_per_step, &value) && value != 1;
}

static void schedule_enter(struct pm_call *call)
{
    pm_scheduler_of(call->args[0])->scheduling = true;
    pm_facts_doing(PM_DOING_SCHEDULE, call->enter_ns);
}

/* What schedule() made is counted and recorded. */
static void take_step(struct pm_call *call)
{
    PyObject *self = call->args[0];
    struct pm_scheduler *scheduler = pm_scheduler_of(self);
    scheduler->scheduling = false;
    if (call->result == NULL)
        return; /* raised: the step never was */
    if (!scheduler->limits_known)
        read_limits(self, scheduler);

    uint64_t dur_ns = call->end_ns - call->start_ns;
    struct pm_counting c = {
        .rec = pm_facts(),
        .scheduler = scheduler,
        .at_ns = call->end_ns,
        .flight = pm_flight_begin(scheduler, scheduler->step),
        .fact =
            {
                .step = scheduler->step++,
                .start_ns = call->start_ns,
                .dur_ns = dur_ns < UINT32_MAX ? (uint32_t)dur_ns : UINT32_MAX,
                .instance = scheduler->instance,
                .max_requests = scheduler->max_requests,
                .max_tokens = scheduler->max_tokens,
            },
    };
    if (c.fact.step == 0 && c.rec != NULL) {
        pm_recorder_identify(c.rec, PM_ROLE_ENGINE, -1, -1);
        pm_session_late(self, PM_ROLE_ENGINE);
    }
    if (pm_facts_late())
        pm_step_mark(PM_ATTR_MARK_SCHED, scheduler->instance, c.fact.step, call->result,
                     &scheduler->marks);
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
    pm_queue_counts(self, &scheduler->queues, &c.fact.running, &c.fact.waiting);
    Py_XDECREF(scheduled);
    Py_XDECREF(spec);
    Py_XDECREF(finished);
    Py_XDECREF(requests);

    c.flight->output = call->result;
    c.flight->requests = c.fact.requests;
    c.flight->gives = c.gives;
    c.flight->spec_tokens = c.fact.spec_tokens;
    bool prefills = c.fact.prefill_requests + c.fact.recompute_requests > 0;
    if (c.fact.tokens > 0)
        c.fact.phase = prefills ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
    if (prefills && c.fact.decode_requests > 0)
        c.fact.flags |= PM_SCHED_MIXED;
    if (c.rec == NULL)
        return;
    struct pm_sched_step *fact = pm_recorder_reserve(c.rec, pm_facts_schema(&pm_sched_step_schema));
    if (fact != NULL) {
        *fact = c.fact;
        pm_recorder_commit(c.rec, fact);
    }
}

static void schedule_leave(struct pm_call *call)
{
    pm_facts_doing(PM_DOING_HOOK, call->end_ns);
    take_step(call);
    if (call->result == NULL)
        pm_facts_raised("schedule", PM_DOING_SCHEDULE, pm_scheduler_of(call->args[0])->step, call);
    else
        pm_facts_doing(PM_DOING_HAND_OVER, call->end_ns);
    pm_facts_stepped(PM_ROLE_ENGINE);
}

/* The member of the request that is an argument of a hooked call; NULL: it has none. */
static struct pm_member *member_of(struct pm_scheduler *scheduler, PyObject *request)
{
    PyObject *key = request != NULL ? pm_read_attr(request, &n_request_id) : NULL;
    struct pm_member *member = key != NULL ? pm_members_find(&scheduler->members, key) : NULL;
    Py_XDECREF(key);
    return member;
}

/* The KV blocks that a request holds, over all cache groups. */
static uint32_t blocks_of(PyObject *self, PyObject *key)
{
    PyObject *manager = pm_read_attr(self, &n_kv_cache_manager);
    PyObject *coordinator = manager != NULL ? pm_read_attr(manager, &n_coordinator) : NULL;
    PyObject *groups =
        coordinator != NULL ? pm_read_attr(coordinator, &n_single_type_managers) : NULL;
    uint64_t blocks = 0, n;
    PyObject *iterator = groups != NULL ? PyObject_GetIter(groups) : NULL;
    for (PyObject *group; iterator != NULL && (group = PyIter_Next(iterator)) != NULL;
         Py_DECREF(group)) {
        PyObject *held = pm_read_attr(group, &n_req_to_blocks);
        blocks += held != NULL && pm_len(pm_dict_item(held, key), &n) ? n : 0;
        Py_XDECREF(held);
    }
    pm_guard_discard();
    Py_XDECREF(iterator);
    Py_XDECREF(groups);
    Py_XDECREF(coordinator);
    Py_XDECREF(manager);
    return blocks < UINT32_MAX ? (uint32_t)blocks : UINT32_MAX;
}

/* Before the request loses its tokens: how many it had computed. */
static void preempt_enter(struct pm_call *call)
{
    PyObject *self = call->args[0];
    struct pm_scheduler *scheduler = pm_scheduler_of(self);
    PyObject *request = pm_call_arg(call, 1, &n_request); /* borrowed */
    struct pm_member *member = member_of(scheduler, request);
    uint64_t computed;
    if (member == NULL || !pm_read_u64(request, &n_num_computed_tokens, &computed))
        return;
    if (member->lost_until < computed)
        member->lost_until = (uint32_t)computed;
    member->preempted = true;
    scheduler->members.settled = false;
    member->state = PM_MEMBER_PREFILL;
    /* vLLM drops what is under way where the cache is reset (the argument came with 0.27.1). */
    const PyObject *drop = pm_call_arg(call, 3, &n_drop_stale_output);
    const bool drops = drop != NULL ? drop == Py_True : !scheduler->scheduling;
    const uint32_t blocks = blocks_of(self, member->key);
    struct pm_counting c = {
        .rec = pm_facts(),
        .scheduler = scheduler,
        .at_ns = call->start_ns,
        .fact = {.step = scheduler->step},
    };
    pm_life_preempted(scheduler, member, call->start_ns, (uint32_t)computed, blocks, drops);
    pm_step_event(&c, member,
                  &(struct pm_step_request){
                      .computed = (uint32_t)computed,
                      .event = PM_REQUEST_PREEMPTED,
                      .blocks = blocks,
                      .reason = scheduler->scheduling ? PM_PREEMPT_EXHAUSTED : PM_PREEMPT_RESET,
                      .flags = drops ? PM_REQUEST_DROPS : 0,
                  });
}

/* A streaming session goes on: its request gets another prompt, and loses the outputs so far. */
static void turn_enter(struct pm_call *call)
{
    struct pm_scheduler *scheduler = pm_scheduler_of(call->args[0]);
    PyObject *request = pm_call_arg(call, 1, &n_session); /* borrowed */
    struct pm_member *member = member_of(scheduler, request);
    struct pm_life *life = member != NULL ? pm_members_life(&scheduler->members, member) : NULL;
    if (life == NULL || life->state == 0)
        return;
    pm_life_turn_ends(scheduler, member);
    life->earlier_outputs += pm_life_output_tokens(request);
}

static void turn_leave(struct pm_call *call)
{
    struct pm_scheduler *scheduler = pm_scheduler_of(call->args[0]);
    PyObject *request = pm_call_arg(call, 1, &n_session); /* borrowed */
    struct pm_member *member = member_of(scheduler, request);
    uint64_t prompt;
    if (member == NULL || call->result == NULL)
        return;
    if (pm_read_u64(request, &n_num_prompt_tokens, &prompt))
        member->prompt = (uint32_t)prompt;
    member->lost_until = 0;
    if (member->state != PM_MEMBER_NEW)
        member->state = PM_MEMBER_PREFILL;
    scheduler->members.settled = false;
    struct pm_life *life = pm_members_life(&scheduler->members, member);
    if (life == NULL || life->state == 0)
        return;
    life->prompt = member->prompt;
    life->new_turn = true;
    life->turns++;
    struct pm_recorder *rec = pm_facts();
    if (rec != NULL)
        pm_request_record_queued(rec, scheduler, member, call->end_ns);
}

static void init_enter(struct pm_call *call)
{
    pm_scheduler_add(call->args[0]);
}

#define init_leave NULL
#define preempt_leave NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/sched_step.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->forward_pass || settings->cpu_timing || settings->batch_utilization ||
           settings->preemption || settings->spec_decode || settings->sampling;
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    struct pm_scheduler *scheduler;
    for (size_t i = 0; stream == PM_STREAM_CORE && (scheduler = pm_scheduler_at(i)) != NULL; i++) {
        if (scheduler->self == NULL)
            continue;
        struct pm_counting c = {
            .rec = rec,
            .scheduler = scheduler,
            .at_ns = pm_clock_now_ns(),
            .fact = {.step = scheduler->step},
        };
        const struct pm_members *members = &scheduler->members;
        for (uint32_t n = 0; n < members->n_order; n++) {
            const uint32_t slot = members->order[n];
            if (slot != UINT32_MAX && members->slots[slot].key != NULL)
                pm_step_event(&c, &members->slots[slot],
                              &(struct pm_step_request){.event = PM_REQUEST_PRESENT});
        }
    }
}

const struct pm_probe pm_probe_sched_step = {
    .name = "sched_step",
    .control = PM_PROBE_SPINE,
    .component = "Scheduler",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = pm_scheduler_reset,
    .keyframe = keyframe,
};
