/* See contexts.h. */
#include "reader/contexts.h"

#include "reader/facts.h"
#include "reader/steps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A request in the batch. What it has computed is base + (grown now - grown then): so that a step
 * costs nothing for each of its decodes. */
struct member {
    uint32_t string; /* its id's, as the process numbers texts */
    bool known;      /* base is */
    bool special;    /* an event of the step under way told of it */
    double base;
    double grown_then;
};

struct pm_contexts {
    struct pm_cursor *cursor; /* NULL: nothing to read */
    struct pm_fact_map sched, request, update;
    unsigned instance;
    uint32_t window;
    struct member *members; /* in no order */
    uint32_t *index;        /* of strings: place + 1, open addressing */
    uint32_t n, room;       /* index has 2 * room entries */
    uint32_t n_unknown;
    double grown; /* by what a request that decoded all the while has grown */
    double sum;   /* over the known: base - grown_then */
    /* What events of the step under way say of requests that do not just decode a token. */
    struct pm_context_step special;
    uint32_t n_special; /* members that these are of */
    double special_sum; /* their base - grown_then as of the step before */
    uint32_t decodes;   /* requests that decoded in the newest step */
    bool begun;         /* a step has been read */
};

void pm_contexts_close(struct pm_contexts *contexts)
{
    if (contexts == NULL)
        return;
    pm_cursor_close(contexts->cursor);
    free(contexts->members);
    free(contexts->index);
    free(contexts);
}

int pm_contexts_open(struct pm_contexts **ret_contexts, const struct pm_session *session,
                     size_t engine, uint32_t window)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    if (which == NULL)
        return -PM_ENOTFOUND;
    struct pm_contexts *contexts = calloc(1, sizeof(*contexts));
    if (contexts == NULL)
        return -PM_ENOMEM;
    contexts->instance = which->instance;
    contexts->window = window;
    contexts->sched.schema = contexts->request.schema = contexts->update.schema = -1;
    if (which->process != NULL) {
        pm_fact_map_sched(&contexts->sched, which->process);
        pm_fact_map_member(&contexts->request, which->process);
        pm_fact_map_update(&contexts->update, which->process);
        if (contexts->sched.schema >= 0 && contexts->request.schema >= 0) {
            const int rc = pm_cursor_open(&contexts->cursor, which->process, PM_STREAM_CORE);
            if (rc != 0) {
                pm_contexts_close(contexts);
                return rc;
            }
        }
    }
    *ret_contexts = contexts;
    return 0;
}

/* ---- members --------------------------------------------------------------------------------- */

static uint32_t home(const struct pm_contexts *contexts, uint32_t string)
{
    return (string * 0x9e3779b1u) & (2 * contexts->room - 1);
}

static void index_put(struct pm_contexts *contexts, uint32_t place)
{
    uint32_t at = home(contexts, contexts->members[place].string);
    while (contexts->index[at] != 0)
        at = (at + 1) & (2 * contexts->room - 1);
    contexts->index[at] = place + 1;
}

static struct member *find(const struct pm_contexts *contexts, uint32_t string)
{
    if (contexts->room == 0)
        return NULL;
    for (uint32_t at = home(contexts, string); contexts->index[at] != 0;
         at = (at + 1) & (2 * contexts->room - 1))
        if (contexts->members[contexts->index[at] - 1].string == string)
            return &contexts->members[contexts->index[at] - 1];
    return NULL;
}

static void index_rebuild(struct pm_contexts *contexts)
{
    memset(contexts->index, 0, 2 * sizeof(*contexts->index) * contexts->room);
    for (uint32_t i = 0; i < contexts->n; i++)
        index_put(contexts, i);
}

static struct member *add(struct pm_contexts *contexts, uint32_t string)
{
    if (contexts->n == contexts->room) {
        const uint32_t room = contexts->room != 0 ? contexts->room * 2 : 256;
        struct member *members = realloc(contexts->members, room * sizeof(*members));
        if (members == NULL)
            return NULL;
        contexts->members = members;
        uint32_t *index = malloc(2 * sizeof(*index) * room);
        if (index == NULL)
            return NULL;
        free(contexts->index);
        contexts->index = index;
        contexts->room = room;
        index_rebuild(contexts);
    }
    contexts->members[contexts->n] = (struct member){.string = string};
    index_put(contexts, contexts->n);
    contexts->n_unknown++;
    return &contexts->members[contexts->n++];
}

/* Its part of the sums is taken out: it is not known from here on. */
static void forget(struct pm_contexts *contexts, struct member *member)
{
    if (!member->known)
        return;
    contexts->sum -= member->base - member->grown_then;
    member->known = false;
    contexts->n_unknown++;
}

/* What it has computed after the step under way, with which all others grow by one. */
static void learn(struct pm_contexts *contexts, struct member *member, double base)
{
    forget(contexts, member);
    member->known = true;
    member->base = base;
    member->grown_then = contexts->grown + 1;
    contexts->sum += member->base - member->grown_then;
    contexts->n_unknown--;
}

/* Seldom enough that the index is made anew: where a request leaves. */
static void drop(struct pm_contexts *contexts, struct member *member)
{
    forget(contexts, member);
    contexts->n_unknown--;
    *member = contexts->members[--contexts->n];
    index_rebuild(contexts);
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* n tokens after c computed ones, each of which sees no more than w: the sum of
 * min(c + i, w), i from 1 to n. */
static double pairs_of(double c, double n, double w)
{
    const double below = w > c ? fmin(n, w - c) : 0;
    return below * c + below * (below + 1) / 2 + (n - below) * w;
}

static void count(struct pm_context_step *step, double c, double n, uint32_t window)
{
    step->context += c + n;
    step->pairs += n * c + n * (n + 1) / 2;
    if (window > 0) {
        step->windowed += fmin(c + n, (double)window + n - 1);
        step->windowed_pairs += pairs_of(c, n, window);
    }
}

/* An event of the step under way; -PM_ENOMEM, or 0. */
static int take_event(struct pm_contexts *contexts, const struct pm_step_request *event)
{
    struct member *member = find(contexts, event->request);

    switch ((enum pm_request_event)event->event) {
    case PM_REQUEST_LEFT:
    case PM_REQUEST_PREEMPTED:
        if (member != NULL)
            drop(contexts, member);
        return 0;
    case PM_REQUEST_TURN:
        if (member != NULL)
            forget(contexts, member);
        return 0;
    case PM_REQUEST_PRESENT:
        return member != NULL || add(contexts, event->request) != NULL ? 0 : -PM_ENOMEM;
    case PM_REQUEST_STARTED:
    case PM_REQUEST_RESUMED:
    case PM_REQUEST_CHUNK:
    case PM_REQUEST_JOINED:
    case PM_REQUEST_DECODING:
        break;
    }
    if (member == NULL && (member = add(contexts, event->request)) == NULL)
        return -PM_ENOMEM;
    count(&contexts->special, event->computed, event->tokens, contexts->window);
    contexts->n_special += !member->special;
    contexts->special_sum -= member->special ? member->base - member->grown_then : 0;
    member->special = true;
    /* Of drafts, which a decode may have, it is not known yet what stays. */
    const bool decodes = event->event == PM_REQUEST_DECODING;
    learn(contexts, member, (double)event->computed + (decodes ? 1 : event->tokens));
    contexts->special_sum += member->base - member->grown_then;
    return 0;
}

static void count_decodes(struct pm_contexts *contexts, const struct pm_sched_step *fact,
                          struct pm_context_step *step)
{
    const double n = contexts->n - contexts->n_special;
    const double context = contexts->sum - contexts->special_sum + n * contexts->grown;
    const double tokens = fact->spec_tokens > 0 && fact->decode_requests > 0
                              ? (double)fact->decode_tokens / fact->decode_requests
                              : 1;

    step->context += context + n * tokens;
    step->pairs += tokens * context + n * tokens * (tokens + 1) / 2;
    for (uint32_t i = 0; contexts->window > 0 && i < contexts->n; i++) {
        const struct member *member = &contexts->members[i];
        const double before = member->base + contexts->grown - member->grown_then;
        struct pm_context_step one = {0};
        if (member->special)
            continue;
        count(&one, before, tokens, contexts->window);
        step->windowed += one.windowed;
        step->windowed_pairs += one.windowed_pairs;
    }
}

static void end_step(struct pm_contexts *contexts, const struct pm_sched_step *fact,
                     struct pm_context_step *ret_step)
{
    *ret_step = contexts->special;
    ret_step->step = fact->step;
    ret_step->known = contexts->n_unknown == 0 && contexts->n == fact->requests;
    if (ret_step->known)
        count_decodes(contexts, fact, ret_step);
    for (uint32_t i = 0; contexts->n_special > 0 && i < contexts->n; i++)
        contexts->members[i].special = false;
    memset(&contexts->special, 0, sizeof(contexts->special));
    contexts->n_special = 0;
    contexts->special_sum = 0;
    contexts->grown++;
    contexts->decodes = fact->decode_requests;
    contexts->begun = true;
}

int pm_contexts_next(struct pm_contexts *contexts, struct pm_context_step *ret_step)
{
    struct pm_record record;
    int rc = 0;

    while (contexts->cursor != NULL && (rc = pm_cursor_next(contexts->cursor, &record)) == 1) {
        const int schema = (int)record.schema;
        if (schema == contexts->request.schema && !(record.keyframe && contexts->begun)) {
            struct pm_step_request event;
            pm_fact_take(&contexts->request, record.payload, &event);
            if (event.instance == contexts->instance && take_event(contexts, &event) != 0)
                return -PM_ENOMEM;
        } else if (schema == contexts->sched.schema && !record.keyframe) {
            struct pm_sched_step fact;
            pm_fact_take(&contexts->sched, record.payload, &fact);
            if (fact.instance != contexts->instance || fact.tokens == 0)
                continue;
            end_step(contexts, &fact, ret_step);
            return 1;
        } else if (schema == contexts->update.schema && !record.keyframe) {
            struct pm_update_step fact;
            pm_fact_take(&contexts->update, record.payload, &fact);
            if (fact.instance == contexts->instance && contexts->decodes > 0)
                contexts->grown += (double)fact.accepted / contexts->decodes;
        }
    }
    return rc;
}
