/*
 * The records of a request's life: request_queued when it comes, request when it is over and at the
 * head of a segment. Used by request_life.c and request_follow.c; engine core, under the GIL.
 */
#include "probe/request_life.h"

#include "probe/request_name.h"
#include "probe/request_record.h"

/* clang-format off */
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_request_queued, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field queued_fields[] = {
    F(at_ns, U64, "ns", TIME, "add_request was entered"),
    F(arrived_ns, U64, "ns", TIME, "the front end got it, by the wall clock; 0: not known"),
    F(request, STR, "", ID, "id of the request"),
    F(prompt_tokens, U32, "tokens", COUNT, "tokens of its prompt"),
    F(max_tokens, U32, "tokens", GAUGE, "output tokens at most"),
    F(priority, I32, "", ID, "lower goes first under priority scheduling"),
    F(instance, U16, "", ID, "n-th scheduler of the process"),
    F(turn, U16, "", ID, "1; 2 and up: a streaming session goes on"),
    F(flags, U32, "", FLAGS, "1: inside the update that gave the last output of the turn before"),
};
#undef F

/* Of a request that is over, and of one that is not: that is told again in each segment, and counts in no total. */
#define REQUEST_FIELDS(F) \
    F(finished_ns, U64, "ns", TIME, PM_AGG_NONE, "it was over; 0: it is not") \
    F(request, STR, "", ID, PM_AGG_NONE, "id of the request") \
    F(arrived_ns, U64, "ns", TIME, PM_AGG_NONE, "the front end got it, by the wall clock; 0: not known") \
    F(queued_ns, U64, "ns", TIME, PM_AGG_NONE, "add_request was entered") \
    F(started_ns, U64, "ns", TIME, PM_AGG_NONE, "schedule() had returned with it for the first time") \
    F(first_token_ns, U64, "ns", TIME, PM_AGG_NONE, "its first output") \
    F(last_token_ns, U64, "ns", TIME, PM_AGG_NONE, "its last output") \
    F(first_preempted_ns, U64, "ns", TIME, PM_AGG_NONE, "preempted for the first time") \
    F(preempted_ns, U64, "ns", TIME, PM_AGG_NONE, "preempted for the last time") \
    F(resumed_ns, U64, "ns", TIME, PM_AGG_NONE, "resumed for the last time") \
    F(away_ns, U64, "ns", DURATION, PM_AGG_SUM, "from preempted to resumed, or to its end, added up") \
    F(longest_gap_ns, U64, "ns", DURATION, PM_AGG_HIST, "longest time between two outputs of one turn") \
    F(queue_ns, U64, "ns", DURATION, PM_AGG_HIST, "queued to started") \
    F(ttft_ns, U64, "ns", DURATION, PM_AGG_HIST, "arrived (else queued) to first output") \
    F(tpot_ns, U64, "ns", DURATION, PM_AGG_HIST, "first to last output, by the output tokens but one") \
    F(e2e_ns, U64, "ns", DURATION, PM_AGG_HIST, "arrived (else queued) to finished") \
    F(step, U64, "", ID, PM_AGG_NONE, "newest step scheduled when it ended") \
    F(prompt_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens of its prompt") \
    F(cached_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "of them, found in the prefix cache when it started") \
    F(output_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "output tokens") \
    F(max_tokens, U32, "tokens", GAUGE, PM_AGG_NONE, "output tokens at most") \
    F(recomputed_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens scheduled once more after preemptions") \
    F(lost_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "computed tokens that preemptions took") \
    F(lost_blocks, U32, "blocks", COUNT, PM_AGG_SUM, "KV blocks held at preemptions") \
    F(preemptions, U32, "", COUNT, PM_AGG_SUM, "how often it was preempted") \
    F(priority, I32, "", ID, PM_AGG_NONE, "lower goes first under priority scheduling") \
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler of the process") \
    F(state, U8, "", ID, PM_AGG_NONE, "1 waiting, 2 running, 3 preempted, 4 finished") \
    F(reason, U8, "", ID, PM_AGG_NONE, "1 stop, 2 length, 3 abort, 4 error, 5 repetition, 6 length (ignored), 7 other") \
    F(turns, U16, "", COUNT, PM_AGG_NONE, "1; more in a streaming session") \
    F(giving, U8, "", ID, PM_AGG_NONE, "not over: it gives an output in every step now")

#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_request_fact, member, type, unit, kind, agg, doc),
static const struct pm_field request_fields[] = {REQUEST_FIELDS(F)};
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_request_fact, member, type, unit, kind, PM_AGG_NONE, doc),
static const struct pm_field open_fields[] = {REQUEST_FIELDS(F)};
#undef F
/* clang-format on */

const struct pm_schema pm_request_queued_schema = {
    .name = "request_queued",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_request_queued),
    .classes = 1,
    .doc = "One per request added to a scheduler, and per turn of a streaming session.",
    .fields = queued_fields,
    .n_fields = sizeof queued_fields / sizeof *queued_fields,
};

const struct pm_schema pm_request_schema = {
    .name = "request",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_request_fact),
    .classes = 1,
    .doc = "One per request that is over: its times and counts.",
    .fields = request_fields,
    .n_fields = sizeof request_fields / sizeof *request_fields,
};

const struct pm_schema pm_request_open_schema = {
    .name = "request_open",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_request_fact),
    .classes = 1,
    .doc = "At the head of a segment: a request that is not over, as far as it has come.",
    .fields = open_fields,
    .n_fields = sizeof open_fields / sizeof *open_fields,
};

void pm_request_record_queued(struct pm_recorder *rec, struct pm_scheduler *scheduler,
                              struct pm_member *member, uint64_t at_ns)
{
    const struct pm_life *life = pm_members_life(&scheduler->members, member);
    const bool named = member->string != 0;
    const uint32_t name =
        named ? member->string : pm_request_name(rec, PM_STREAM_CORE, member->key);
    struct pm_request_queued *fact =
        pm_recorder_reserve(rec, pm_facts_schema(&pm_request_queued_schema));
    if (fact != NULL) {
        *fact = (struct pm_request_queued){
            .at_ns = at_ns,
            .arrived_ns = life->arrived_ns,
            .request = name,
            .prompt_tokens = life->prompt,
            .max_tokens = life->max_tokens,
            .priority = life->priority,
            .instance = scheduler->instance,
            .turn = life->turns,
            .flags = scheduler->in_update ? PM_QUEUED_IN_UPDATE : 0,
        };
        pm_recorder_commit(rec, fact);
    }
    /* Not held while it waits: each segment begins with the names held, and a queue may be long. */
    if (!named)
        pm_recorder_string_drop(rec, PM_STREAM_CORE, name);
}

static uint64_t since(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? to_ns - from_ns : 0;
}

void pm_request_record(struct pm_recorder *rec, struct pm_scheduler *scheduler,
                       struct pm_member *member)
{
    const struct pm_life *life = pm_members_life(&scheduler->members, member);
    const bool named = member->string != 0;
    const uint32_t name =
        named ? member->string : pm_request_name(rec, PM_STREAM_CORE, member->key);
    const uint64_t came_ns = life->arrived_ns != 0 ? life->arrived_ns : life->queued_ns;
    const uint32_t tokens = life->earlier_outputs + life->outputs;
    uint64_t last_token_ns = life->last_token_ns, longest_gap_ns = life->longest_gap_ns;
    if (life->run_open) { /* head of a segment: as far as it has come */
        const uint64_t gap_ns = pm_gaps_since(&scheduler->gaps, life->run_first);
        longest_gap_ns = gap_ns > longest_gap_ns ? gap_ns : longest_gap_ns;
        last_token_ns = scheduler->updated_ns;
    }
    const struct pm_schema *schema =
        life->state == PM_REQUEST_STATE_FINISHED ? &pm_request_schema : &pm_request_open_schema;
    struct pm_request_fact *fact = pm_recorder_reserve(rec, pm_facts_schema(schema));
    if (fact != NULL) {
        *fact = (struct pm_request_fact){
            .arrived_ns = life->arrived_ns,
            .queued_ns = life->queued_ns,
            .started_ns = life->started_ns,
            .first_token_ns = life->first_token_ns,
            .last_token_ns = last_token_ns,
            .finished_ns = life->finished_ns,
            .first_preempted_ns = life->first_preempted_ns,
            .preempted_ns = life->preempted_ns,
            .resumed_ns = life->resumed_ns,
            .away_ns = life->away_ns,
            .longest_gap_ns = longest_gap_ns,
            .queue_ns = since(life->queued_ns, life->started_ns),
            .ttft_ns = since(came_ns, life->first_token_ns),
            .tpot_ns = tokens > 1 ? since(life->first_token_ns, last_token_ns) / (tokens - 1) : 0,
            .e2e_ns = since(came_ns, life->finished_ns),
            .step = scheduler->step > 0 ? scheduler->step - 1 : 0,
            .request = name,
            .prompt_tokens = life->prompt,
            .cached_tokens = life->cached,
            .output_tokens = tokens,
            .max_tokens = life->max_tokens,
            .recomputed_tokens = life->recomputed,
            .lost_tokens = life->lost,
            .lost_blocks = life->blocks,
            .preemptions = life->preemptions,
            .priority = life->priority,
            .instance = scheduler->instance,
            .state = life->state,
            .reason = life->reason,
            .turns = life->turns,
            .giving = life->state != PM_REQUEST_STATE_FINISHED && life->gives_from != PM_NEVER &&
                      life->gives_until == PM_NEVER,
        };
        pm_recorder_commit(rec, fact);
    }
    if (!named)
        pm_recorder_string_drop(rec, PM_STREAM_CORE, name);
}
