/*
 * The records of a request's life: request_queued when it comes, request when it is over and at the
 * head of a segment. Used by request_life.c and request_follow.c; engine core, under the GIL.
 */
#include "probe/request_life.h"

#include "probe/request_name.h"
#include "probe/request_record.h"
#include "session/request_schema.h"

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
