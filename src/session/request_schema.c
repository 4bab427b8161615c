/* See request_schema.h: the facts of requests, field by field, as they are written into every file.
 */
#include "session/request_schema.h"

#include "session/request_facts.h"

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
