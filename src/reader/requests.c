/*
 * Walks one engine's records and hands out its requests (see requests.h). Called by the views on
 * one thread; owns its cursor and the requests that are not over.
 */
#include "reader/requests.h"

#include "reader/facts.h"
#include "reader/request_track.h"
#include "reader/span.h"
#include "reader/steps.h"

#include <stdlib.h>
#include <string.h>

struct pm_requests {
    struct pm_cursor *cursor; /* NULL: nothing to read */
    struct pm_fact_map sched, member, update, queued, request, open;
    unsigned instance;
    struct pm_request_watch watch;
    struct pm_track track;
    bool at_end;
    /* Of a session that is narrowed to a span: the walk itself is not, for what was under way is
     * known from before; what it hands out is. */
    const struct pm_process *process;
    const struct pm_span_view *view;
};

static bool seen_at(const struct pm_requests *requests, uint64_t at_ns)
{
    return requests->view == NULL ||
           (at_ns >= pm_span_from_ns(requests->view) && at_ns < pm_span_to_ns(requests->view));
}

/* Whether it lived in the span. */
static bool seen_alive(const struct pm_requests *requests, const struct pm_request_fact *fact)
{
    if (requests->view == NULL)
        return true;
    const uint64_t came_ns = fact->arrived_ns != 0 ? fact->arrived_ns : fact->queued_ns;
    return came_ns < pm_span_to_ns(requests->view) &&
           (fact->finished_ns == 0 || fact->finished_ns >= pm_span_from_ns(requests->view));
}

void pm_requests_close(struct pm_requests *requests)
{
    if (requests == NULL)
        return;
    pm_cursor_close(requests->cursor);
    pm_track_release(&requests->track);
    free(requests);
}

int pm_requests_open(struct pm_requests **ret_requests, const struct pm_session *session,
                     size_t engine, const struct pm_request_watch *watch)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    if (which == NULL)
        return -PM_ENOTFOUND;
    struct pm_requests *requests = calloc(1, sizeof(*requests));
    if (requests == NULL)
        return -PM_ENOMEM;
    requests->instance = which->instance;
    if (watch != NULL)
        requests->watch = *watch;
    if (which->process != NULL) {
        pm_fact_map_sched(&requests->sched, which->process);
        pm_fact_map_member(&requests->member, which->process);
        pm_fact_map_update(&requests->update, which->process);
        pm_fact_map_queued(&requests->queued, which->process);
        pm_fact_map_request(&requests->request, which->process);
        pm_fact_map_open(&requests->open, which->process);
        requests->process = which->process;
        requests->view = session->view;
        int rc = pm_cursor_open_all(&requests->cursor, which->process, PM_STREAM_CORE);
        if (rc != 0) {
            pm_requests_close(requests);
            return rc;
        }
    }
    *ret_requests = requests;
    return 0;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t since(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? to_ns - from_ns : 0;
}

static int tell(struct pm_requests *requests, struct pm_request_moment moment,
                const struct pm_request *request)
{
    moment.request = request;
    if (requests->watch.moment == NULL || !seen_at(requests, moment.at_ns))
        return 0;
    return requests->watch.moment(&moment, requests->watch.arg);
}

/* The durations of one that is not over, as far as they are known. */
static void derive(struct pm_request *request)
{
    struct pm_request_fact *fact = &request->fact;
    const uint64_t came_ns = fact->arrived_ns != 0 ? fact->arrived_ns : fact->queued_ns;
    if (request->outputs_known && fact->output_tokens == 0)
        fact->output_tokens = (uint32_t)request->outputs;
    fact->queue_ns = since(fact->queued_ns, fact->started_ns);
    fact->ttft_ns = since(came_ns, fact->first_token_ns);
    if (request->outputs_known && request->outputs > 1)
        fact->tpot_ns = since(fact->first_token_ns, fact->last_token_ns) / (request->outputs - 1);
}

static int on_queued(struct pm_requests *requests, const uint8_t *payload)
{
    struct pm_request_queued fact;
    pm_fact_take(&requests->queued, payload, &fact);
    if (fact.instance != requests->instance)
        return 0;
    const char *id = pm_cursor_string(requests->cursor, fact.request);
    struct pm_tracked *tracked = fact.turn > 1 ? pm_track_find(&requests->track, id) : NULL;
    if (tracked != NULL)
        pm_track_turn(&requests->track, tracked, (fact.flags & PM_QUEUED_IN_UPDATE) != 0);
    else
        tracked = pm_track_add(&requests->track, id);
    if (tracked == NULL) /* too many at a time: told of at its end */
        return 0;
    struct pm_request_fact *now = &tracked->request.fact;
    if (fact.turn <= 1) {
        now->queued_ns = fact.at_ns;
        now->arrived_ns = fact.arrived_ns;
        now->state = PM_REQUEST_STATE_WAITING;
    }
    now->prompt_tokens = fact.prompt_tokens;
    now->max_tokens = fact.max_tokens;
    now->priority = fact.priority;
    now->turns = fact.turn;
    return 0;
}

static int on_preempted(struct pm_requests *requests, struct pm_tracked *tracked,
                        const struct pm_step_request *fact)
{
    struct pm_request_fact *now = &tracked->request.fact;
    now->preemptions++;
    now->lost_tokens += fact->computed;
    now->lost_blocks += fact->blocks;
    now->preempted_ns = fact->at_ns;
    if (now->first_preempted_ns == 0)
        now->first_preempted_ns = fact->at_ns;
    now->state = PM_REQUEST_STATE_AWAY;
    pm_track_ends(&requests->track, tracked, (fact->flags & PM_REQUEST_DROPS) != 0);
    return tell(requests,
                (struct pm_request_moment){
                    .kind = PM_MOMENT_PREEMPTED,
                    .at_ns = fact->at_ns,
                    .running_ns = since(later(now->started_ns, now->resumed_ns), fact->at_ns),
                    .step = fact->step,
                    .tokens = fact->computed,
                    .blocks = fact->blocks,
                    .reason = fact->reason,
                },
                &tracked->request);
}

static int on_scheduled(struct pm_requests *requests, struct pm_tracked *tracked,
                        const struct pm_step_request *fact)
{
    struct pm_request_fact *now = &tracked->request.fact;
    struct pm_request_moment moment = {
        .kind = PM_MOMENT_STARTED,
        .at_ns = fact->at_ns,
        .step = fact->step,
        .tokens = fact->computed,
    };
    pm_track_gives(&requests->track, tracked, fact->step, (fact->flags & PM_REQUEST_GIVES) != 0);
    const bool was_away = now->state == PM_REQUEST_STATE_AWAY;
    now->state = PM_REQUEST_STATE_RUNNING;
    if (fact->event == PM_REQUEST_STARTED) {
        now->started_ns = fact->at_ns;
        now->cached_tokens = fact->computed;
        now->turns = now->turns != 0 ? now->turns : 1;
        return tell(requests, moment, &tracked->request);
    }
    if (!was_away)
        return 0;
    now->resumed_ns = fact->at_ns;
    moment.kind = PM_MOMENT_RESUMED;
    moment.away_ns = since(now->preempted_ns, fact->at_ns);
    now->away_ns += moment.away_ns;
    return tell(requests, moment, &tracked->request);
}

static int on_member(struct pm_requests *requests, const uint8_t *payload)
{
    struct pm_step_request fact;
    pm_fact_take(&requests->member, payload, &fact);
    if (fact.instance != requests->instance || fact.event == PM_REQUEST_PRESENT)
        return 0;
    const char *id = pm_cursor_string(requests->cursor, fact.request);
    struct pm_tracked *tracked = pm_track_find(&requests->track, id);
    if (tracked == NULL &&
        (fact.event == PM_REQUEST_LEFT ||
         fact.event == PM_REQUEST_TURN)) /* it is over: the step after tells so */
        return 0;
    if (tracked == NULL || (fact.event == PM_REQUEST_STARTED &&
                            tracked->request.fact.state != PM_REQUEST_STATE_WAITING))
        tracked = pm_track_add(&requests->track, id);
    if (tracked == NULL)
        return 0;
    switch (fact.event) {
    case PM_REQUEST_LEFT:
        pm_track_ends(&requests->track, tracked, false);
        return 0;
    case PM_REQUEST_TURN:
        pm_track_turn(&requests->track, tracked, true);
        return 0;
    case PM_REQUEST_PREEMPTED:
        return on_preempted(requests, tracked, &fact);
    default:
        return on_scheduled(requests, tracked, &fact);
    }
}

static int on_update(struct pm_requests *requests, const uint8_t *payload)
{
    struct pm_update_step fact;
    pm_fact_take(&requests->update, payload, &fact);
    if (fact.instance != requests->instance || (fact.flags & PM_UPDATE_UNKNOWN_STEP) != 0 ||
        (fact.gap_ns == 0 && fact.outputs == 0)) /* of a step without tokens */
        return 0;
    const bool seen = requests->view == NULL ||
                      pm_span_has_step(requests->view, requests->process, fact.instance, fact.step);
    return pm_track_updated(&requests->track, &fact, fact.start_ns + fact.dur_ns,
                            seen ? requests->watch.gap : NULL, requests->watch.arg);
}

/* The head of a segment tells of a request whose beginning is not in the file any more. */
static int on_open(struct pm_requests *requests, const uint8_t *payload)
{
    struct pm_request_fact fact;
    pm_fact_take(&requests->open, payload, &fact);
    const char *id = pm_cursor_string(requests->cursor, fact.request);
    if (fact.instance != requests->instance || pm_track_find(&requests->track, id) != NULL)
        return 0;
    struct pm_tracked *tracked = pm_track_add(&requests->track, id);
    if (tracked == NULL)
        return 0;
    tracked->request.fact = fact;
    if (fact.giving == 0)
        return 0;
    /* Its run goes on: counted from the next update. */
    tracked->gives_from = 0;
    if (fact.first_token_ns != 0) {
        tracked->run_open = true;
        tracked->run_first = requests->track.updated > 0 ? requests->track.updated - 1 : 0;
        tracked->run_first_ordinal = requests->track.ordinal + 1;
    }
    return 0;
}

/* 1: *ret_request has ended. */
static int on_request(struct pm_requests *requests, const struct pm_record *record,
                      struct pm_request *ret_request)
{
    struct pm_request_fact fact;
    pm_fact_take(&requests->request, record->payload, &fact);
    if (fact.instance != requests->instance)
        return 0;
    const char *id = pm_cursor_string(requests->cursor, fact.request);
    memset(ret_request, 0, sizeof(*ret_request));
    struct pm_tracked *tracked = pm_track_find(&requests->track, id);
    if (tracked != NULL) {
        pm_track_settle(&requests->track, tracked);
        *ret_request = tracked->request;
        pm_track_remove(&requests->track, tracked);
    } else {
        memcpy(ret_request->id, id, strnlen(id, PM_REQUEST_ID_MAX - 1));
    }
    ret_request->fact = fact;
    ret_request->ended_fact = record->fact;
    if (!ret_request->outputs_known)
        ret_request->outputs = 0;
    const uint64_t began_ns = later(fact.started_ns, fact.resumed_ns);
    int rc =
        tell(requests,
             (struct pm_request_moment){
                 .kind = PM_MOMENT_FINISHED,
                 .at_ns = fact.finished_ns,
                 .running_ns = fact.preempted_ns > began_ns ? 0 : since(began_ns, fact.finished_ns),
                 .step = fact.step,
                 .reason = fact.reason,
             },
             ret_request);
    if (rc < 0)
        return rc;
    return seen_alive(requests, &ret_request->fact);
}

static int on_record(struct pm_requests *requests, const struct pm_record *record,
                     struct pm_request *ret_request)
{
    const int schema = (int)record->schema;
    if (schema == requests->open.schema)
        return on_open(requests, record->payload);
    if (record->keyframe)
        return 0;
    if (schema == requests->request.schema)
        return on_request(requests, record, ret_request);
    if (schema == requests->member.schema)
        return on_member(requests, record->payload);
    if (schema == requests->update.schema)
        return on_update(requests, record->payload);
    if (schema == requests->queued.schema)
        return on_queued(requests, record->payload);
    if (schema == requests->sched.schema) {
        struct pm_sched_step fact;
        pm_fact_take(&requests->sched, record->payload, &fact);
        if (fact.instance == requests->instance && fact.tokens > 0)
            requests->track.last = fact.step + 1;
    }
    return 0;
}

int pm_requests_poll(struct pm_requests *requests, struct pm_request *ret_request)
{
    struct pm_record record;
    int rc = 0;

    while (requests->cursor != NULL && (rc = pm_cursor_next(requests->cursor, &record)) == 1) {
        rc = requests->watch.record != NULL ? requests->watch.record(&record, requests->watch.arg)
                                            : 0;
        if (rc == 0)
            rc = on_record(requests, &record, ret_request);
        if (rc != 0)
            return rc;
    }
    return rc;
}

void pm_requests_skip(struct pm_requests *requests, uint64_t from_ns, uint64_t fact)
{
    if (requests->cursor != NULL)
        pm_cursor_skip(requests->cursor, from_ns, fact);
}

void pm_requests_open_ones(const struct pm_requests *requests,
                           bool (*each)(const struct pm_request *request, void *arg), void *arg)
{
    const struct pm_tracked *tracked = requests->track.oldest;
    for (bool more = true; more && tracked != NULL; tracked = tracked->newer) {
        struct pm_tracked copy = *tracked;
        pm_track_settle(&requests->track, &copy);
        derive(&copy.request);
        more = each(&copy.request, arg);
    }
}

int pm_requests_next(struct pm_requests *requests, struct pm_request *ret_request)
{
    struct pm_record record;
    int rc = 0;

    while (!requests->at_end && requests->cursor != NULL &&
           (rc = pm_cursor_next(requests->cursor, &record)) == 1) {
        rc = on_record(requests, &record, ret_request);
        if (rc != 0)
            return rc;
    }
    if (rc < 0)
        return rc;
    requests->at_end = true;
    struct pm_tracked *open = requests->track.oldest;
    while (open != NULL && !seen_alive(requests, &open->request.fact)) {
        pm_track_remove(&requests->track, open);
        open = requests->track.oldest;
    }
    if (open == NULL)
        return 0;
    pm_track_settle(&requests->track, open);
    derive(&open->request);
    *ret_request = open->request;
    pm_track_remove(&requests->track, open);
    return 1;
}
