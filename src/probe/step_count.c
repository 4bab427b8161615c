/* See step_count.h. */
#include "probe/step_count.h"

#include "hook/guard.h"
#include "hook/read.h"
#include "probe/request_life.h"
#include "probe/request_name.h"
#include "probe/sampling.h"
#include "session/step_schema.h"

static struct pm_name n_num_computed_tokens = PM_NAME("num_computed_tokens");
static struct pm_name n_num_prompt_tokens = PM_NAME("num_prompt_tokens");
static struct pm_name n_num_tokens = PM_NAME("num_tokens");
static struct pm_name n_is_prefill_chunk = PM_NAME("is_prefill_chunk");

void pm_step_event(struct pm_counting *c, struct pm_member *member,
                   const struct pm_step_request *what)
{
    if (c->rec == NULL)
        return;
    if (member->string == 0)
        member->string = pm_request_name(c->rec, PM_STREAM_CORE, member->key);
    struct pm_step_request *fact =
        pm_recorder_reserve(c->rec, pm_facts_schema(&pm_step_request_schema));
    if (fact == NULL)
        return;
    *fact = *what;
    fact->step = c->fact.step;
    fact->at_ns = c->at_ns;
    fact->request = member->string;
    fact->instance = c->scheduler->instance;
    pm_recorder_commit(c->rec, fact);
}

static uint32_t drafts_of(const struct pm_counting *c, PyObject *key)
{
    if (c->spec_tokens == NULL)
        return 0;
    uint64_t n;
    PyObject *drafts = pm_dict_item(c->spec_tokens, key);
    return drafts != NULL && pm_len(drafts, &n) ? (uint32_t)n : 0;
}

static void count_decode(struct pm_counting *c, PyObject *key, uint32_t n)
{
    c->fact.decode_requests++;
    c->fact.decode_tokens += n;
    uint32_t drafts = drafts_of(c, key);
    if (drafts > 0) {
        c->fact.spec_requests++;
        c->fact.spec_tokens += drafts;
    }
}

static bool joins(const struct pm_counting *c, const struct pm_member *member)
{
    return member->last_step == 0 || member->last_step != c->scheduler->prev;
}

/* What a member is before this step, read from its request: true when it could be read. *ret_chunk:
 * whether tokens that it has are still to be computed after this step; -1: vLLM does not say
 * (before 0.16). */
static bool read_member(const struct pm_counting *c, struct pm_member *member, uint32_t n,
                        uint32_t *ret_before, int *ret_chunk)
{
    PyObject *request = c->requests != NULL ? pm_dict_item(c->requests, member->key) : NULL;
    uint64_t after, prompt;
    if (request == NULL || !pm_read_u64(request, &n_num_computed_tokens, &after) || after < n)
        return false;
    *ret_before = (uint32_t)(after - n);
    bool chunk;
    *ret_chunk = pm_read_bool(request, &n_is_prefill_chunk, &chunk) ? chunk : -1;

    bool joining = joins(c, member);
    if (joining || member->state == PM_MEMBER_NEW) {
        if (pm_read_u64(request, &n_num_prompt_tokens, &prompt))
            member->prompt = (uint32_t)prompt;
        if (member->preempted || member->state == PM_MEMBER_DECODE ||
            member->state == PM_MEMBER_READY) {
            /* Without the hook on preemption (before 0.12) what is computed again tells it; with
             * it, tokens that were in flight when the request lost its blocks may never have come.
             */
            uint64_t known;
            if (pm_read_u64(request, &n_num_tokens, &known) && known > 0) {
                if (!member->preempted && *ret_before + 1 < known)
                    member->lost_until = (uint32_t)known - 1;
                if (member->lost_until > known)
                    member->lost_until = (uint32_t)known;
            }
        }
    }
    return true;
}

/* One scheduled request that is not just another token of a known decode. */
static void count_closely(struct pm_counting *c, PyObject *key, uint32_t n, uint32_t position)
{
    struct pm_members *members = &c->scheduler->members;
    struct pm_member *member = pm_members_find(members, key);
    if (member == NULL)
        member = pm_members_add(members, key);
    uint32_t before;
    int chunk;
    if (member == NULL || !read_member(c, member, n, &before, &chunk)) {
        count_decode(c, key, n); /* unreadable: counted as the commonest case */
        c->gives++;
        members->next_order[position] = UINT32_MAX;
        c->fact.joined += member == NULL || joins(c, member);
        if (member != NULL)
            members->next_order[position] = (uint32_t)(member - members->slots);
        if (member != NULL)
            member->last_step = c->fact.step + 1;
        return;
    }

    uint32_t end = before + n;
    uint32_t again = member->lost_until > before ? member->lost_until - before : 0;
    if (again > n)
        again = n;
    uint32_t fresh = n - again;
    uint32_t prompt = member->prompt > before + again ? member->prompt - (before + again) : 0;
    if (prompt > fresh)
        prompt = fresh;
    bool prefills = again > 0 || prompt > 0;
    if (!prefills) {
        count_decode(c, key, n);
    } else {
        c->fact.recompute_requests += again > 0;
        c->fact.prefill_requests += again == 0;
        c->fact.recompute_tokens += again;
        c->fact.prefill_tokens += prompt;
        c->fact.decode_tokens += fresh - prompt;
    }

    const bool joined = joins(c, member);
    enum pm_request_event event = 0;
    if (member->state == PM_MEMBER_NEW)
        event = PM_REQUEST_STARTED;
    else if (member->preempted || (joined && again > 0))
        event = PM_REQUEST_RESUMED;
    else if (joined)
        event = PM_REQUEST_JOINED;
    else if (prefills)
        event = PM_REQUEST_CHUNK;
    else if (member->state == PM_MEMBER_READY)
        event = PM_REQUEST_DECODING;

    uint32_t need = member->prompt > member->lost_until ? member->prompt : member->lost_until;
    const bool gives = chunk >= 0 ? chunk == 0 : end >= need;
    if (prefills)
        member->state = end < need ? PM_MEMBER_PREFILL : PM_MEMBER_READY;
    else
        member->state = gives ? PM_MEMBER_DECODE : PM_MEMBER_READY;
    member->preempted = false;
    member->last_step = c->fact.step + 1;
    members->next_order[position] = (uint32_t)(member - members->slots);
    c->fact.joined += joined;
    c->gives += gives;
    if (event != 0)
        pm_step_event(c, member,
                      &(struct pm_step_request){
                          .tokens = n,
                          .computed = before,
                          .event = (uint8_t)event,
                          .phase = prefills ? PM_PHASE_PREFILL : PM_PHASE_DECODE,
                          .flags = gives ? PM_REQUEST_GIVES : 0,
                      });
    pm_life_scheduled(c, member, event, before, again, gives);
}

/* Walks num_scheduled_tokens. True when the batch is the last step's, member by member. */
static bool count_batch(struct pm_counting *c, PyObject *scheduled)
{
    struct pm_members *members = &c->scheduler->members;
    bool same = true;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    uint32_t position = 0;
    while (PyDict_Next(scheduled, &at, &key, &value)) {
        long n = PyLong_AsLong(value);
        if (n < 0 || n > INT32_MAX) {
            pm_guard_discard();
            n = 0;
        }
        c->fact.requests++;
        c->fact.tokens += (uint32_t)n;
        if (position < members->n_order && members->order[position] != UINT32_MAX) {
            struct pm_member *member = &members->slots[members->order[position]];
            if (member->key == key && member->state == PM_MEMBER_DECODE &&
                (n == 1 || c->spec_tokens != NULL) && member->last_step == c->scheduler->prev) {
                if (c->spec_tokens != NULL) {
                    count_decode(c, key, (uint32_t)n);
                } else {
                    c->fact.decode_requests++;
                    c->fact.decode_tokens++;
                }
                c->gives++;
                member->last_step = c->fact.step + 1;
                members->next_order[position++] = (uint32_t)(member - members->slots);
                continue;
            }
            same = same && member->key == key;
        } else {
            same = false;
        }
        count_closely(c, key, (uint32_t)n, position++);
    }
    return same && position == members->n_order;
}

static void count_left_one(struct pm_counting *c, struct pm_member *member)
{
    if (member->key == NULL || member->last_step != c->scheduler->prev)
        return;
    c->fact.left++;
    pm_life_left(c->scheduler, member);
    pm_step_event(c, member, &(struct pm_step_request){.event = PM_REQUEST_LEFT});
}

static void count_left(struct pm_counting *c)
{
    struct pm_members *members = &c->scheduler->members;
    for (uint32_t i = 0; i < members->n_order; i++) {
        if (members->order[i] != UINT32_MAX)
            count_left_one(c, &members->slots[members->order[i]]);
    }
}

static bool member_is_scheduled(const struct pm_counting *c, const struct pm_member *member)
{
    return c->fact.requests > 0 && member->last_step == c->scheduler->prev;
}

/* Members whose requests the scheduler no longer has: named in finished_req_ids, by the same str
 * objects. */
static void forget_finished(struct pm_counting *c, PyObject *finished)
{
    uint64_t n;
    PyObject *iterator = pm_len(finished, &n) && n > 0 ? PyObject_GetIter(finished) : NULL;
    for (PyObject *key; iterator != NULL && (key = PyIter_Next(iterator)) != NULL; Py_DECREF(key)) {
        struct pm_member *member = pm_members_find(&c->scheduler->members, key);
        if (member == NULL || member_is_scheduled(c, member) ||
            pm_life_waits(c->scheduler, member)) /* the same str names a new request already */
            continue;
        if (c->fact.requests == 0)
            count_left_one(c, member);
        if (c->rec != NULL)
            pm_recorder_string_drop(c->rec, PM_STREAM_CORE, member->string);
        pm_members_remove(&c->scheduler->members, member);
        if (c->fact.requests == 0)
            c->scheduler->members.settled = false; /* it may be in the order still */
    }
    pm_guard_discard();
    Py_XDECREF(iterator);
}

/* Most steps are the last one over again: the same keys in the same order, one token each. Nothing
 * is written for them. True: counted. */
static bool count_unchanged(struct pm_counting *c, PyObject *scheduled)
{
    const struct pm_members *members = &c->scheduler->members;
    uint32_t n = members->n_order;
    if (!members->settled || c->spec_tokens != NULL || PyDict_Size(scheduled) != (Py_ssize_t)n)
        return false;
    PyObject *one = PyLong_FromLong(1); /* small ints are shared: compared by pointer */
    PyObject *key, *value;
    Py_ssize_t at = 0;
    uint32_t i = 0;
    while (i < n && PyDict_Next(scheduled, &at, &key, &value) && key == members->keys[i] &&
           value == one)
        i++;
    Py_XDECREF(one);
    if (i < n)
        return false;
    c->fact.requests = c->fact.decode_requests = n;
    c->fact.tokens = c->fact.decode_tokens = n;
    c->gives = n;
    return true;
}

/* The next step's members are this one's: the order is taken over, and what count_unchanged needs.
 */
static void settle(struct pm_members *members, uint32_t n)
{
    uint32_t *order = members->order;
    members->order = members->next_order;
    members->next_order = order;
    members->n_order = n;
    members->settled = true;
    for (uint32_t i = 0; i < n && members->settled; i++) {
        uint32_t slot = members->order[i];
        members->settled = slot != UINT32_MAX && members->slots[slot].state == PM_MEMBER_DECODE;
        if (members->settled)
            members->keys[i] = members->slots[slot].key;
    }
}

void pm_step_count(struct pm_counting *c, PyObject *num_scheduled_tokens, PyObject *finished)
{
    struct pm_members *members = &c->scheduler->members;
    const Py_ssize_t n = PyDict_Size(num_scheduled_tokens);
    /* A step without tokens changes nothing about who is in the batch. */
    if (n > 0 && !count_unchanged(c, num_scheduled_tokens)) {
        if (!pm_members_reserve_order(members, (uint32_t)n))
            return;
        if (!count_batch(c, num_scheduled_tokens))
            count_left(c);
        settle(members, c->fact.requests);
        pm_sampling_count(c);
        c->scheduler->prev = c->fact.step + 1;
    }
    if (n > 0)
        c->scheduler->last = c->fact.step + 1;
    if (finished != NULL)
        forget_finished(c, finished);
}
