/*
 * A request's life, from being added to the scheduler to its end: what of it changes is told here
 * by the step probe (scheduled, left, preempted), by update_step (outputs) and by the probe's own
 * hooks (request_life.c: added, freed). Engine core, scheduling thread, under the GIL. Nothing is
 * done per request in a step that changes nothing.
 *
 * All of them do nothing for a scheduler whose requests are not followed.
 */
#ifndef PM_PROBE_REQUEST_LIFE_H
#define PM_PROBE_REQUEST_LIFE_H

#include "hook/compat.h"

#include "probe/scheduler.h"
#include "probe/step_count.h"
#include "session/request_facts.h"

/* A request that schedule() put into the step, and that was looked at closely: what became of it,
 * the tokens computed before and computed again, and whether the step gives an output of it. */
void pm_life_scheduled(struct pm_counting *counting, struct pm_member *member,
                       enum pm_request_event event, uint32_t before, uint32_t again, bool gives);

/* Whether it was added and has not been scheduled yet. */
bool pm_life_waits(const struct pm_scheduler *scheduler, const struct pm_member *member);

/* It is not in the step after the last one that had tokens. */
void pm_life_left(struct pm_scheduler *scheduler, struct pm_member *member);

/* It lost its tokens and blocks. drops: outputs under way will not be delivered. */
void pm_life_preempted(struct pm_scheduler *scheduler, struct pm_member *member, uint64_t at_ns,
                       uint32_t lost_tokens, uint32_t lost_blocks, bool drops);

/* A turn of a streaming session is over: no output follows until it has a new prompt. */
void pm_life_turn_ends(struct pm_scheduler *scheduler, struct pm_member *member);

/* It is over, at at_ns or, inside an update, when that is: with so many output tokens in its turn.
 */
void pm_life_freed(struct pm_scheduler *scheduler, struct pm_member *member, uint64_t at_ns,
                   enum pm_finish_reason reason, uint32_t outputs);

/* The output of a flight (NULL: of a step that was not seen) has been taken in: at update's leave,
 * after its fact has its own times. Fills outputs, continued, finished and gap_ns, and leaves the
 * requests that ended for pm_life_flush. */
void pm_life_updated(struct pm_scheduler *scheduler, struct pm_flight *flight, uint64_t at_ns,
                     struct pm_update_step *fact);

/* Records the requests that ended in the update. */
void pm_life_flush(struct pm_scheduler *scheduler, uint64_t at_ns);

/* Output tokens of a request so far (of its turn, in a streaming session). */
uint32_t pm_life_output_tokens(PyObject *request);

/* For the keyframe of a segment: requests that are not over, running ones first. */
void pm_life_keyframe(struct pm_recorder *rec, struct pm_scheduler *scheduler);

#endif
