/*
 * A made-up server for the tests of the findings: steps with all that the probes record of them, in
 * the order in which they record it, through the real recorder. Times are exact: a step that is
 * told to last 10 ms lasts 10 ms.
 *
 *   world_begin(&w); world_beat(&w, &(struct beat){…}); …; struct pm_findings f = world_ask(&w,
 * rule);
 */
#ifndef PM_TESTS_EXPLAIN_WORLD_H
#define PM_TESTS_EXPLAIN_WORLD_H

#include "make_session.h"

#include <math.h>

#include "../../src/probe/graph_schema.c" /* the probe's own schemas: pure C */
#include "explain/explain.h"
#include "session/attrs.h"
#include "session/device_facts.h"
#include "session/frontend_facts.h"
#include "session/kv_facts.h"
#include "session/kv_schema.h"
#include "session/moe_facts.h"
#include "session/request_facts.h"
#include "session/request_schema.h"
#include "session/sampling_facts.h"
#include "session/sampling_schema.h"
#include "session/step_schema.h"

/* ---- schemas that no header has ---- */

#define L(member, type, kind) PM_FIELD(struct pm_moe_layer, member, type, "", kind, PM_AGG_NONE, "")
static const struct pm_field world_layer_fields[] = {
    L(at_ns, U64, TIME),  L(name, STR, ID),     L(layer, U32, ID), L(experts, U32, GAUGE),
    L(top_k, U32, GAUGE), L(instance, U16, ID), L(slot, U16, ID),  L(seen, U8, ID),
    L(why, U8, ID),       L(pairs, U8, ID),     L(timed, U8, ID),
};
#undef L
#define N(i)                                                                                       \
    {                                                                                              \
        .name = "n" #i, .type = PM_TYPE_U32,                                                       \
        .offset = offsetof(struct pm_moe_counts, n) + (i) * sizeof(uint32_t), .unit = "",          \
        .kind = PM_KIND_COUNT, .doc = ""                                                           \
    }
#define C(member, type, kind)                                                                      \
    PM_FIELD(struct pm_moe_counts, member, type, "", kind, PM_AGG_NONE, "")
static const struct pm_field world_counts_fields[] = {
    C(at_ns, U64, TIME),
    C(first, U32, ID),
    C(instance, U16, ID),
    C(slot, U16, ID),
    C(what, U8, ID),
    N(0),
    N(1),
    N(2),
    N(3),
    N(4),
    N(5),
    N(6),
    N(7),
    N(8),
    N(9),
    N(10),
    N(11),
    N(12),
    N(13),
    N(14),
    N(15),
    N(16),
    N(17),
    N(18),
    N(19),
    N(20),
    N(21),
    N(22),
    N(23),
    N(24),
    N(25),
    N(26),
    N(27),
    N(28),
    N(29),
    N(30),
    N(31),
};
#undef C
#undef N
#define O(member, type, kind)                                                                      \
    PM_FIELD(struct pm_frontend_op, member, type, "", kind, PM_AGG_NONE, "")
static const struct pm_field world_front_fields[] = {
    O(start_ns, U64, TIME), O(dur_ns, U64, DURATION), O(delay_ns, U64, DURATION),
    O(outputs, U32, COUNT), O(tokens, U32, COUNT),    O(op, U8, ID),
};
#undef O
#define TABLE(name_, struct_, fields_)                                                             \
    {                                                                                              \
        .name = (name_), .stream = PM_STREAM_CORE, .payload_bytes = sizeof(struct struct_),        \
        .classes = 1, .doc = "", .fields = (fields_),                                              \
        .n_fields = sizeof(fields_) / sizeof((fields_)[0])                                         \
    }
static const struct pm_schema world_layer_schema =
    TABLE("moe_layer", pm_moe_layer, world_layer_fields);
static const struct pm_schema world_counts_schema =
    TABLE("moe_counts", pm_moe_counts, world_counts_fields);
static const struct pm_schema world_front_schema =
    TABLE("frontend_op", pm_frontend_op, world_front_fields);
#undef TABLE

enum {
    W_SCHED,
    W_MEMBER,
    W_WORKER,
    W_UPDATE,
    W_QUEUED,
    W_END,
    W_KV,
    W_EVICT,
    W_CAPTURE,
    W_PASS,
    W_LAYER,
    W_COUNTS,
    W_FRONT,
    W_DEVICE,
    W_MIX,
    W_SCHEMAS,
};
static const struct pm_schema *const world_schemas[W_SCHEMAS] = {
    [W_SCHED] = &pm_sched_step_schema,
    [W_MEMBER] = &pm_step_request_schema,
    [W_WORKER] = &pm_worker_step_schema,
    [W_UPDATE] = &pm_update_step_schema,
    [W_QUEUED] = &pm_request_queued_schema,
    [W_END] = &pm_request_schema,
    [W_KV] = &pm_kv_step_schema,
    [W_EVICT] = &pm_kv_eviction_schema,
    [W_CAPTURE] = &pm_graph_capture_schema,
    [W_PASS] = &pm_graph_pass_schema,
    [W_LAYER] = &world_layer_schema,
    [W_COUNTS] = &world_counts_schema,
    [W_FRONT] = &world_front_schema,
    [W_DEVICE] = &pm_device_step_schema,
    [W_MIX] = &pm_sampling_mix_schema,
};

struct world {
    struct mk mk;
    char dir[300];
    uint64_t step, now_ns, updated_ns;
};

/* One process more in the world's session; role bits, engine and rank as given. */
static inline void world_process(struct world *w, unsigned roles, int engine, int rank)
{
    struct pm_recorder_options options = {.session_dir = w->dir,
                                          .token = mk_token,
                                          .schemas = world_schemas,
                                          .n_schemas = W_SCHEMAS,
                                          .ceiling_bytes = 64u << 20,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600};
    struct pm_error err = {""};
    snprintf(w->mk.dir, sizeof w->mk.dir, "%s", w->dir);
    if (pm_recorder_open(&w->mk.rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    mk_find_file(&w->mk);
    pm_recorder_identify(w->mk.rec, roles, engine, rank);
    w->step = 0;
    w->now_ns = MK_START_MONO + 1000 * MK_MS;
    w->updated_ns = 0;
}

/* A server on a CPU with max_num_seqs 8 and max_num_batched_tokens 1000. */
static inline void world_begin(struct world *w)
{
    mk_folder(w->dir, sizeof w->dir);
    world_process(w, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(w->mk.rec, PM_ATTR_DEVICE, "cpu");
    pm_recorder_attr(w->mk.rec, "config.max_num_seqs", "8");
    pm_recorder_attr(w->mk.rec, "config.max_num_batched_tokens", "1000");
}

/* A step: what is in it, and how long its parts take, in microseconds. model_us 0: 8000. */
struct beat {
    uint32_t prefills, prefill_tokens, recomputed, decodes, running, waiting;
    uint32_t sched_us, pre_us, model_us, post_us, sample_us, update_us, idle_us;
    uint32_t used, total; /* KV blocks; total 0: not recorded */
    uint32_t queried, hit, evicted;
    uint32_t continued; /* requests that had an output in the step before */
    uint32_t drafted, accepted;
    bool uncached, worker_only, sched_only;
};

static inline void world_sched(struct world *w, const struct beat *b)
{
    const uint32_t tokens = b->prefill_tokens + b->recomputed + b->decodes;
    const struct pm_sched_step sched = {
        .step = w->step,
        .start_ns = w->now_ns,
        .dur_ns = b->sched_us * 1000,
        .phase = b->prefill_tokens + b->recomputed > 0 ? PM_PHASE_PREFILL : PM_PHASE_DECODE,
        .flags = b->prefill_tokens + b->recomputed > 0 && b->decodes > 0 ? PM_SCHED_MIXED : 0,
        .requests = b->prefills + b->decodes,
        .tokens = tokens,
        .prefill_requests = b->prefills,
        .prefill_tokens = b->prefill_tokens,
        .recompute_requests = b->recomputed > 0,
        .recompute_tokens = b->recomputed,
        .decode_requests = b->decodes,
        .decode_tokens = b->decodes,
        .running = b->running != 0 ? b->running : b->prefills + b->decodes,
        .waiting = b->waiting,
    };
    mk_put(&w->mk, W_SCHED, &sched, sizeof sched);
    if (b->total == 0)
        return;
    const struct pm_kv_step kv = {
        .step = w->step,
        .at_ns = w->now_ns + sched.dur_ns,
        .total = b->total,
        .used = b->used,
        .peak = b->used,
        .evicted = b->evicted,
        .queried_tokens = b->queried,
        .hit_tokens = b->hit,
        .flags = b->uncached ? 0 : PM_KV_CACHING,
    };
    mk_put(&w->mk, W_KV, &kv, sizeof kv);
}

/* Records the step and goes on to the next one. */
static inline void world_beat(struct world *w, const struct beat *b)
{
    const uint32_t model_ns = (b->model_us != 0 ? b->model_us : 8000) * 1000;
    const uint32_t tokens = b->prefill_tokens + b->recomputed + b->decodes;
    const uint32_t own_ns = (b->pre_us + b->post_us + b->sample_us) * 1000 + model_ns;
    const uint64_t worker_ns = w->now_ns + b->sched_us * 1000ull;
    if (!b->worker_only)
        world_sched(w, b);
    const struct pm_worker_step worker = {
        .step = w->step,
        .start_ns = worker_ns,
        .model_ns_at = worker_ns + b->pre_us * 1000ull,
        .pre_ns = b->pre_us * 1000,
        .model_ns = model_ns,
        .post_ns = b->post_us * 1000,
        .sample_ns = b->sample_us * 1000,
        .total_ns = own_ns,
        .requests = b->prefills + b->decodes,
        .tokens = tokens,
        .phase = b->prefill_tokens > 0 ? PM_PHASE_PREFILL : PM_PHASE_DECODE,
        .runner = 1,
        .flags = PM_WORKER_HAS_MODEL | PM_WORKER_HAS_SAMPLE,
        .sampler_ns = b->sample_us * 800,
    };
    if (!b->sched_only)
        mk_put(&w->mk, W_WORKER, &worker, sizeof worker);
    const uint64_t end_ns = worker_ns + own_ns + b->update_us * 1000ull;
    const struct pm_update_step update = {
        .step = w->step,
        .start_ns = worker_ns + own_ns,
        .gap_ns = w->updated_ns != 0 ? end_ns - w->updated_ns : 0,
        .dur_ns = b->update_us * 1000,
        .outputs = b->decodes,
        .continued = w->updated_ns != 0 ? b->continued : 0,
        .output_tokens = b->decodes,
        .drafted = b->drafted,
        .accepted = b->accepted,
        .flags = PM_UPDATE_LIVES,
    };
    if (!b->worker_only)
        mk_put(&w->mk, W_UPDATE, &update, sizeof update);
    w->updated_ns = end_ns;
    w->now_ns = end_ns + b->idle_us * 1000ull;
    w->step++;
}

/* n beats alike. */
static inline void world_beats(struct world *w, struct beat b, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        world_beat(w, &b);
}

/* What the requests of steps from here on ask for. */
static inline void world_mix(struct world *w, struct pm_sampling_mix mix)
{
    mix.step = w->step;
    mix.at_ns = w->now_ns;
    mk_put(&w->mk, W_MIX, &mix, sizeof mix);
}

static inline uint32_t world_id(struct world *w, const char *id)
{
    return pm_recorder_string(w->mk.rec, PM_STREAM_CORE, id, strlen(id));
}

/* What a step (the next one to be recorded) does with a request. */
static inline void world_member(struct world *w, const char *id, enum pm_request_event event,
                                enum pm_phase_class phase, uint32_t tokens, bool gives)
{
    const struct pm_step_request fact = {.step = w->step,
                                         .at_ns = w->now_ns,
                                         .request = world_id(w, id),
                                         .tokens = tokens,
                                         .event = (uint8_t)event,
                                         .phase = (uint8_t)phase,
                                         .flags = gives ? PM_REQUEST_GIVES : 0};
    mk_put(&w->mk, W_MEMBER, &fact, sizeof fact);
}

/* A request that is over, in milliseconds before now; it was queued `life_ms` ago. */
static inline void world_request(struct world *w, const char *id, uint64_t life_ms,
                                 uint64_t front_ms, uint64_t queue_ms, uint64_t prefill_ms,
                                 uint32_t preemptions, uint64_t away_ms, uint32_t lost)
{
    const uint64_t queued_ns = w->now_ns - life_ms * MK_MS;
    struct pm_request_fact fact = {
        .arrived_ns = queued_ns - front_ms * MK_MS,
        .queued_ns = queued_ns,
        .started_ns = queued_ns + queue_ms * MK_MS,
        .first_token_ns = queued_ns + (queue_ms + prefill_ms) * MK_MS,
        .last_token_ns = w->now_ns,
        .finished_ns = w->now_ns,
        .away_ns = away_ms * MK_MS,
        .queue_ns = queue_ms * MK_MS,
        .ttft_ns = (front_ms + queue_ms + prefill_ms) * MK_MS,
        .e2e_ns = (front_ms + life_ms) * MK_MS,
        .request = world_id(w, id),
        .prompt_tokens = 100,
        .output_tokens = 10,
        .preemptions = preemptions,
        .lost_tokens = lost,
        .recomputed_tokens = lost,
        .state = PM_REQUEST_STATE_FINISHED,
        .reason = PM_FINISH_LENGTH,
        .turns = 1,
    };
    const struct pm_request_queued queued = {
        .at_ns = queued_ns, .arrived_ns = fact.arrived_ns, .request = fact.request, .turn = 1};
    mk_put(&w->mk, W_QUEUED, &queued, sizeof queued);
    mk_put(&w->mk, W_END, &fact, sizeof fact);
}

static inline void world_close(struct world *w, uint32_t pid)
{
    mk_close(&w->mk, pid, pid == 77 ? 1 : 77, MK_START_MONO + pid, false);
}

/* Closes the (last) process and asks one rule, NULL: all. Release with world_end. */
static inline struct pm_findings world_ask(struct world *w, const char *rule,
                                           struct pm_session **ret_session)
{
    struct pm_findings findings;
    struct pm_error err = {""};
    if (w->mk.rec != NULL)
        world_close(w, 77);
    *ret_session = mk_session(w->dir);
    if (pm_explain_rule(*ret_session, NULL, rule, &findings, &err) != 0)
        fail_msg("%s", err.text);
    return findings;
}

static inline void world_end(struct world *w, struct pm_session *session,
                             struct pm_findings *findings)
{
    pm_findings_release(findings);
    pm_session_close(session);
    mk_remove(w->dir);
}

/* ---- what is expected ---- */

static inline double world_number(const struct pm_finding *finding, const char *name)
{
    for (unsigned i = 0; i < finding->n_numbers; i++)
        if (strcmp(finding->numbers[i].name, name) == 0)
            return finding->numbers[i].value;
    fail_msg("%s has no figure %s", finding->rule, name);
    return 0;
}

static inline void world_expect(const struct pm_finding *finding, const char *name, double value)
{
    const double got = world_number(finding, name);
    if (!(fabs(got - value) <= 1e-6 * (fabs(value) + 1)))
        fail_msg("%s: %s is %.9g, expected %.9g", finding->rule, name, got, value);
}

static inline bool world_turns(const struct pm_finding *finding, const char *flag,
                               const char *direction)
{
    for (unsigned i = 0; i < finding->n_changes; i++)
        if (strcmp(finding->changes[i].flag, flag) == 0 &&
            strcmp(finding->changes[i].direction, direction) == 0)
            return true;
    return false;
}

/* Asks the rule of a world whose last process is open: exactly one finding. */
static inline struct pm_finding *world_found(struct world *w, const char *rule,
                                             struct pm_session **ret_session,
                                             struct pm_findings *ret_findings)
{
    *ret_findings = world_ask(w, rule, ret_session);
    if (ret_findings->count != 1)
        fail_msg("%s: %zu findings (%s)", rule, ret_findings->count, ret_findings->results[0].why);
    assert_string_equal(ret_findings->rows[0].rule, rule);
    assert_int_equal(ret_findings->results[0].verdict, PM_VERDICT_FOUND);
    assert_true(ret_findings->rows[0].n_evidence > 0);
    return &ret_findings->rows[0];
}

/* The same in a test with a world w: session, findings, and f, which is the finding. */
#define TRIGGER(rule)                                                                              \
    struct pm_session *session;                                                                    \
    struct pm_findings findings;                                                                   \
    const struct pm_finding *f = world_found(&w, rule, &session, &findings)

/* … none, and the verdict. Removes the world. */
static inline void world_silent(struct world *w, const char *rule, enum pm_verdict verdict)
{
    struct pm_session *session;
    struct pm_findings findings = world_ask(w, rule, &session);
    if (findings.count != 0)
        fail_msg("%s: %s", rule, findings.rows[0].title);
    if (findings.results[0].verdict != verdict)
        fail_msg("%s: %s (%s), expected %s", rule, pm_verdict_name(findings.results[0].verdict),
                 findings.results[0].why, pm_verdict_name(verdict));
    assert_true(findings.results[0].why[0] != '\0');
    world_end(w, session, &findings);
}

#endif
