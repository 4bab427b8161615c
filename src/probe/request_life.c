/*
 * Probe request_life: a request's life from Scheduler.add_request to Scheduler._free_request, which
 * vLLM calls exactly once for each, however it ends: at its last token, aborted by a client that
 * hangs up, or before it ever ran.
 *
 * vLLM's front end looks for stop strings itself and then aborts the request: here it was aborted.
 *
 * Engine core, scheduling thread, under the GIL. What lies between is told by the probes sched_step
 * and update_step (request_follow.c); the records are made in request_record.c. Reads a request's
 * attributes twice in its life, never its prompt or its tokens.
 */
#include "probe/request_life.h"

#include <string.h>

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "probe/request_record.h"
#include "session/request_schema.h"

static struct pm_name n_request = PM_NAME("request");
static struct pm_name n_requests = PM_NAME("requests");
static struct pm_name n_request_id = PM_NAME("request_id");
static struct pm_name n_arrival_time = PM_NAME("arrival_time");
static struct pm_name n_num_prompt_tokens = PM_NAME("num_prompt_tokens");
static struct pm_name n_max_tokens = PM_NAME("max_tokens");
static struct pm_name n_priority = PM_NAME("priority");
static struct pm_name n_status = PM_NAME("status");
static struct pm_name n_enum_name = PM_NAME("_name_");
static struct pm_name n_output_token_ids = PM_NAME("_output_token_ids");
static struct pm_name n_num_output_tokens = PM_NAME("num_output_tokens");

/* When the front end got a request, told by the wall clock, as a moment of ours; 0: not known. */
static uint64_t arrived_at(PyObject *request, uint64_t now_ns)
{
    double arrival;
    if (!pm_read_f64(request, &n_arrival_time, &arrival) || !(arrival > 0) || arrival > 1e10)
        return 0;
    const int64_t ago_ns = (int64_t)pm_clock_real_ns() - (int64_t)(arrival * 1e9);
    if (ago_ns <= 0) /* two hosts' clocks, or one that was set */
        return now_ns;
    return (uint64_t)ago_ns < now_ns ? now_ns - (uint64_t)ago_ns : 0;
}

static uint32_t read_u32(PyObject *object, struct pm_name *name)
{
    uint64_t value;
    if (!pm_read_u64(object, name, &value))
        return 0;
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static void begin_life(struct pm_life *life, PyObject *request, uint64_t now_ns)
{
    int64_t priority;
    memset(life, 0, sizeof *life);
    life->queued_ns = now_ns;
    life->arrived_ns = arrived_at(request, now_ns);
    life->prompt = read_u32(request, &n_num_prompt_tokens);
    life->max_tokens = read_u32(request, &n_max_tokens);
    if (pm_read_i64(request, &n_priority, &priority) && priority >= INT32_MIN &&
        priority <= INT32_MAX)
        life->priority = (int32_t)priority;
    life->gives_from = life->gives_until = life->opens_at = life->closes_at = PM_NEVER;
    life->turns = 1;
    life->state = PM_REQUEST_STATE_WAITING;
}

/* Whether the scheduler has a request of this id: then the new one is a streaming session's next
 * piece of input. */
static bool goes_on(PyObject *self, PyObject *key)
{
    PyObject *requests = pm_read_attr(self, &n_requests);
    const bool found = requests != NULL && pm_dict_item(requests, key) != NULL;
    Py_XDECREF(requests);
    return found;
}

static void add_enter(struct pm_call *call)
{
    PyObject *self = call->args[0];
    PyObject *request = pm_call_arg(call, 1, &n_request); /* borrowed */
    PyObject *key = request != NULL ? pm_read_attr(request, &n_request_id) : NULL;
    if (key == NULL || !PyUnicode_Check(key) || goes_on(self, key)) {
        Py_XDECREF(key);
        return;
    }
    struct pm_scheduler *scheduler = pm_scheduler_of(self);
    struct pm_members *members = &scheduler->members;
    struct pm_member *member = pm_members_find(members, key);
    if (member !=
        NULL) { /* the same str again, before the step that forgets the request it named */
        *member = (struct pm_member){.key = member->key, .string = member->string};
        members->settled = false;
    } else {
        member = pm_members_add(members, key);
    }
    Py_DECREF(key);
    struct pm_life *life = member != NULL ? pm_members_life(members, member) : NULL;
    if (life == NULL)
        return;
    begin_life(life, request, call->enter_ns);
    struct pm_recorder *rec = pm_facts();
    if (rec != NULL)
        pm_request_record_queued(rec, scheduler, member, call->enter_ns);
}

/* By name: the numbers of vLLM's statuses differ between its releases. Its enum's members are
 * singletons, looked up once. */
static enum pm_finish_reason reason_of(PyObject *request)
{
    static struct {
        const PyObject
            *status; /* compared, never followed: enum members live as long as vLLM does */
        enum pm_finish_reason reason;
    } known[PM_FINISH_COUNT];
    static const char *const names[PM_FINISH_COUNT] = {
#define X(name, text, status_name) [PM_FINISH_##name] = status_name,
        PM_FINISH_REASONS(X)
#undef X
    };
    char name[64];
    enum pm_finish_reason reason = PM_FINISH_OTHER;
    PyObject *status = pm_read_attr(request, &n_status);
    size_t at = 0;
    while (at < PM_FINISH_COUNT && known[at].status != NULL && known[at].status != status)
        at++;
    if (status != NULL && at < PM_FINISH_COUNT && known[at].status == status) {
        reason = known[at].reason;
    } else if (status != NULL && pm_read_text(status, &n_enum_name, name, sizeof name, NULL)) {
        for (unsigned i = PM_FINISH_STOP; i < PM_FINISH_OTHER; i++)
            reason = strcmp(name, names[i]) == 0 ? (enum pm_finish_reason)i : reason;
        if (at < PM_FINISH_COUNT) {
            known[at].status = status;
            known[at].reason = reason;
        }
    }
    Py_XDECREF(status);
    return reason;
}

uint32_t pm_life_output_tokens(PyObject *request)
{
    uint64_t n;
    if (!pm_read_len(request, &n_output_token_ids, &n) &&
        !pm_read_u64(request, &n_num_output_tokens, &n))
        return 0;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static void free_enter(struct pm_call *call)
{
    PyObject *request = pm_call_arg(call, 1, &n_request); /* borrowed */
    PyObject *key = request != NULL ? pm_read_attr(request, &n_request_id) : NULL;
    if (key == NULL)
        return;
    struct pm_scheduler *scheduler = pm_scheduler_of(call->args[0]);
    struct pm_member *member = pm_members_find(&scheduler->members, key);
    Py_DECREF(key);
    if (member != NULL)
        pm_life_freed(scheduler, member, call->enter_ns, reason_of(request),
                      pm_life_output_tokens(request));
}

/* False: the request is a streaming session's, whose turn is over; the session may go on. */
static void stop_leave(struct pm_call *call)
{
    PyObject *request = pm_call_arg(call, 1, &n_request); /* borrowed */
    if (call->result != Py_False || request == NULL)
        return;
    PyObject *key = pm_read_attr(request, &n_request_id);
    struct pm_scheduler *scheduler = pm_scheduler_of(call->args[0]);
    struct pm_member *member = key != NULL ? pm_members_find(&scheduler->members, key) : NULL;
    Py_XDECREF(key);
    const struct pm_life *life =
        member != NULL ? pm_members_life(&scheduler->members, member) : NULL;
    if (life == NULL || life->state == 0)
        return;
    pm_life_turn_ends(scheduler, member);
    struct pm_counting c = {
        .rec = pm_facts(),
        .scheduler = scheduler,
        .at_ns = call->end_ns,
        .fact = {.step = scheduler->step},
    };
    pm_step_event(&c, member, &(struct pm_step_request){.event = PM_REQUEST_TURN});
}

#define stop_enter NULL
#define add_leave NULL
#define free_leave NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/request_life.def"
};
#undef T

static const struct pm_schema *const schemas[] = {&pm_request_schema, &pm_request_open_schema,
                                                  &pm_request_queued_schema};

static bool enabled(const struct pm_settings *settings)
{
    return settings->preemption;
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    struct pm_scheduler *scheduler;
    for (size_t i = 0; stream == PM_STREAM_CORE && (scheduler = pm_scheduler_at(i)) != NULL; i++) {
        if (scheduler->self != NULL)
            pm_life_keyframe(rec, scheduler);
    }
}

const struct pm_probe pm_probe_request_life = {
    .name = "request_life",
    .control = PM_PROBE_SPINE,
    .component = NULL,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .keyframe = keyframe,
};
