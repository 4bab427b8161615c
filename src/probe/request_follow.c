/*
 * Follows requests through steps without touching those that a step does not change (see
 * request_life.h). Called by the probes sched_step and update_step, engine core, under the GIL.
 *
 *   schedule(4)  request R computes its last prompt token: opens_at = gives_from = 4
 *   update(4)    first output: the run opens, run_first = 4
 *   schedule(5)… R decodes; nothing is done for R
 *   update(5)…   the gap since update(4) is pushed, once for all
 *   schedule(9)  R is not in it: gives_until = 8; closes_at = 8 where update(8) is still to come
 *   update(8)    the run closes: its longest gap is the largest one pushed after step 4
 */
#include "probe/request_life.h"

#include "probe/request_record.h"

static struct pm_life *followed(struct pm_scheduler *scheduler, const struct pm_member *member)
{
    struct pm_life *life = pm_members_life(&scheduler->members, member);
    return life != NULL && life->state != 0 ? life : NULL;
}

bool pm_life_waits(const struct pm_scheduler *scheduler, const struct pm_member *member)
{
    const struct pm_life *life = pm_members_life(&scheduler->members, member);
    return life != NULL && life->state == PM_REQUEST_STATE_WAITING;
}

static uint32_t slot_of(const struct pm_scheduler *scheduler, const struct pm_member *member)
{
    return (uint32_t)(member - scheduler->members.slots);
}

static bool gives_in(const struct pm_life *life, uint64_t step)
{
    return life->gives_from != PM_NEVER && step >= life->gives_from && step <= life->gives_until;
}

/* The open run has had its last output, at at_ns. */
static void close_run(struct pm_scheduler *scheduler, struct pm_life *life, uint64_t at_ns)
{
    life->closes_at = PM_NEVER;
    if (!life->run_open)
        return;
    const uint64_t gap = pm_gaps_since(&scheduler->gaps, life->run_first);
    if (gap > life->longest_gap_ns)
        life->longest_gap_ns = gap;
    life->last_token_ns = at_ns;
    life->run_open = false;
}

/* The newest run ends with the last step that had tokens. */
static void end_run(struct pm_scheduler *scheduler, struct pm_life *life, uint32_t slot)
{
    if (life->gives_from == PM_NEVER || life->gives_until != PM_NEVER || scheduler->last == 0)
        return;
    const uint64_t last = scheduler->last - 1;
    struct pm_flight *flight = pm_flight_at(scheduler, last);
    life->gives_until = last;
    if (flight != NULL && pm_slots_add(&flight->closes, slot))
        life->closes_at = last;
    else
        close_run(scheduler, life, scheduler->updated_ns);
}

/* Outputs of steps under way will not be delivered, but for the one that is being taken in. */
static void drop_outputs(struct pm_scheduler *scheduler, struct pm_life *life)
{
    for (uint32_t i = 0; i < PM_FLIGHTS; i++) {
        struct pm_flight *flight = &scheduler->flights[i];
        if (flight->output == NULL || flight == scheduler->updating || flight->requests == 0 ||
            !gives_in(life, flight->step))
            continue;
        if (flight->gives > 0)
            flight->gives--;
        flight->dropped = true;
        if (life->opens_at == flight->step)
            life->opens_at = PM_NEVER;
    }
}

void pm_life_scheduled(struct pm_counting *c, struct pm_member *member, enum pm_request_event event,
                       uint32_t before, uint32_t again, bool gives)
{
    struct pm_scheduler *scheduler = c->scheduler;
    struct pm_life *life = pm_members_life(&scheduler->members, member);
    if (life == NULL)
        return;
    if (life->state == 0) { /* came before the hooks did, or past the ceiling of members */
        if (event != PM_REQUEST_STARTED)
            return;
        life->gives_from = life->gives_until = life->opens_at = life->closes_at = PM_NEVER;
        life->turns = 1;
    }
    if (event == PM_REQUEST_STARTED) {
        life->started_ns = c->at_ns;
        life->prompt = member->prompt;
        life->cached = before;
    } else if (life->state == PM_REQUEST_STATE_AWAY) {
        life->resumed_ns = c->at_ns;
        if (c->at_ns > life->preempted_ns)
            life->away_ns += c->at_ns - life->preempted_ns;
    }
    life->state = PM_REQUEST_STATE_RUNNING;
    life->recomputed += again;

    const bool in_run = life->gives_from != PM_NEVER && life->gives_until == PM_NEVER;
    const uint32_t slot = slot_of(scheduler, member);
    if (!gives && in_run)
        end_run(scheduler, life, slot);
    if (gives && !in_run && c->flight != NULL && pm_slots_add(&c->flight->opens, slot)) {
        if (life->closes_at != PM_NEVER) /* the run before is still under way: three deep */
            close_run(scheduler, life, scheduler->updated_ns);
        life->gives_from = life->opens_at = c->fact.step;
        life->gives_until = PM_NEVER;
    }
}

void pm_life_left(struct pm_scheduler *scheduler, struct pm_member *member)
{
    struct pm_life *life = followed(scheduler, member);
    if (life != NULL)
        end_run(scheduler, life, slot_of(scheduler, member));
}

void pm_life_preempted(struct pm_scheduler *scheduler, struct pm_member *member, uint64_t at_ns,
                       uint32_t lost_tokens, uint32_t lost_blocks, bool drops)
{
    struct pm_life *life = followed(scheduler, member);
    if (life == NULL)
        return;
    life->preemptions++;
    life->lost += lost_tokens;
    life->blocks += lost_blocks;
    life->preempted_ns = at_ns;
    if (life->first_preempted_ns == 0)
        life->first_preempted_ns = at_ns;
    life->state = PM_REQUEST_STATE_AWAY;
    if (!drops) {
        end_run(scheduler, life, slot_of(scheduler, member));
        return;
    }
    if (life->gives_from != PM_NEVER && life->gives_until == PM_NEVER && scheduler->last > 0)
        life->gives_until = scheduler->last - 1;
    drop_outputs(scheduler, life);
    close_run(scheduler, life, scheduler->updated_ns);
    life->gives_from = life->gives_until = PM_NEVER;
}

void pm_life_turn_ends(struct pm_scheduler *scheduler, struct pm_member *member)
{
    struct pm_life *life = followed(scheduler, member);
    if (life == NULL)
        return;
    /* Outputs of steps under way are dropped by vLLM; the step being taken in gave the turn's last.
     */
    if (scheduler->updating != NULL && gives_in(life, scheduler->updating->step)) {
        drop_outputs(scheduler, life);
        life->gives_until = life->closes_at = scheduler->updating->step;
        if (!pm_slots_add(&scheduler->updating->closes, slot_of(scheduler, member)))
            life->closes_at = PM_NEVER;
    } else {
        end_run(scheduler, life, slot_of(scheduler, member));
    }
}

void pm_life_freed(struct pm_scheduler *scheduler, struct pm_member *member, uint64_t at_ns,
                   enum pm_finish_reason reason, uint32_t outputs)
{
    struct pm_life *life = followed(scheduler, member);
    if (life == NULL || life->state == PM_REQUEST_STATE_FINISHED)
        return;
    if (life->state == PM_REQUEST_STATE_AWAY && at_ns > life->preempted_ns)
        life->away_ns += at_ns - life->preempted_ns;
    life->state = PM_REQUEST_STATE_FINISHED;
    life->reason = (uint8_t)reason;
    life->outputs = outputs;
    life->finished_ns = at_ns;
    drop_outputs(scheduler, life);
    if (scheduler->in_update && pm_slots_add(&scheduler->ended, slot_of(scheduler, member)))
        return; /* its last output and its end are those of the update: pm_life_flush */
    close_run(scheduler, life, scheduler->updated_ns);
    struct pm_recorder *rec = pm_facts();
    if (rec != NULL)
        pm_request_record(rec, scheduler, member);
    life->state = 0;
}

static uint32_t open_runs(struct pm_scheduler *scheduler, const struct pm_flight *flight,
                          uint64_t at_ns)
{
    uint32_t opened = 0;
    for (uint32_t i = 0; i < flight->opens.n; i++) {
        struct pm_life *life = &scheduler->members.lives[flight->opens.slots[i]];
        if (life->state == 0 || life->opens_at != flight->step)
            continue;
        life->opens_at = PM_NEVER;
        if (life->first_token_ns == 0)
            life->first_token_ns = at_ns;
        else if (!life->new_turn && at_ns > life->last_token_ns &&
                 at_ns - life->last_token_ns > life->longest_gap_ns)
            life->longest_gap_ns = at_ns - life->last_token_ns;
        life->new_turn = false;
        life->run_open = true;
        life->run_first = flight->step;
        life->last_token_ns = at_ns;
        opened++;
    }
    return opened;
}

void pm_life_updated(struct pm_scheduler *scheduler, struct pm_flight *flight, uint64_t at_ns,
                     struct pm_update_step *fact)
{
    if (flight == NULL || flight->requests == 0)
        return;
    fact->outputs = flight->gives;
    fact->gap_ns = scheduler->updated_ns != 0 ? at_ns - scheduler->updated_ns : 0;
    scheduler->updated_ns = at_ns;
    fact->finished = scheduler->ended.n;
    if (scheduler->members.lives == NULL)
        return;
    fact->flags |= PM_UPDATE_LIVES;
    const uint32_t opened = open_runs(scheduler, flight, at_ns);
    fact->continued = flight->gives > opened ? flight->gives - opened : 0;
    pm_gaps_push(&scheduler->gaps, flight->step, fact->gap_ns);
    for (uint32_t i = 0; i < flight->closes.n; i++) {
        struct pm_life *life = &scheduler->members.lives[flight->closes.slots[i]];
        if (life->state != 0 && life->closes_at == flight->step)
            close_run(scheduler, life, at_ns);
    }
}

void pm_life_flush(struct pm_scheduler *scheduler, uint64_t at_ns)
{
    struct pm_recorder *rec = scheduler->ended.n > 0 ? pm_facts() : NULL;
    for (uint32_t i = 0; i < scheduler->ended.n; i++) {
        const uint32_t slot = scheduler->ended.slots[i];
        struct pm_life *life = &scheduler->members.lives[slot];
        life->finished_ns = at_ns;
        close_run(scheduler, life, scheduler->updated_ns);
        if (rec != NULL)
            pm_request_record(rec, scheduler, &scheduler->members.slots[slot]);
        life->state = 0;
    }
    scheduler->ended.n = 0;
}

#define KEYFRAME_MAX 256   /* requests in the head of a segment: 50 KiB */
#define KEYFRAME_SCAN 4096 /* members looked at for it */

static bool keyframe_one(struct pm_recorder *rec, struct pm_scheduler *scheduler, uint32_t slot)
{
    const struct pm_life *life = &scheduler->members.lives[slot];
    if (scheduler->members.slots[slot].key == NULL || life->state == 0 ||
        life->state == PM_REQUEST_STATE_FINISHED)
        return false;
    pm_request_record(rec, scheduler, &scheduler->members.slots[slot]);
    return true;
}

void pm_life_keyframe(struct pm_recorder *rec, struct pm_scheduler *scheduler)
{
    const struct pm_members *members = &scheduler->members;
    uint32_t told = 0;
    if (members->lives == NULL)
        return;
    for (uint32_t i = 0; i < members->n_order && told < KEYFRAME_MAX; i++) {
        if (members->order[i] != UINT32_MAX)
            told += keyframe_one(rec, scheduler, members->order[i]);
    }
    /* Then what waits, as far as a glance goes: each is told of again when it starts. */
    for (uint32_t slot = 0; slot < members->n_slots && slot < KEYFRAME_SCAN && told < KEYFRAME_MAX;
         slot++) {
        if (members->slots[slot].last_step == 0 ||
            members->slots[slot].last_step != scheduler->prev)
            told += keyframe_one(rec, scheduler, slot);
    }
}
