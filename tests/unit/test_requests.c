/*
 * Requests: the reader's account of them (reader/requests.h) and the files made of it (view/life.h,
 * view/utilization.h, view/cpu.h), from sessions worked out by hand.
 */
#include "make_session.h"

#include "base/buf.h"
#include "reader/requests.h"
#include "view/life.h"
#include "view/view.h"

#define U(member, type, kind, agg) PM_FIELD(struct pm_update_step, member, type, "", kind, agg, "")
static const struct pm_field update_fields[] = {
    U(step, U64, ID, PM_AGG_NONE),
    U(start_ns, U64, TIME, PM_AGG_NONE),
    U(gap_ns, U64, DURATION, PM_AGG_HIST),
    U(dur_ns, U32, DURATION, PM_AGG_HIST),
    U(instance, U16, ID, PM_AGG_NONE),
    U(flags, U16, FLAGS, PM_AGG_NONE),
    U(outputs, U32, COUNT, PM_AGG_SUM),
    U(continued, U32, COUNT, PM_AGG_SUM),
    U(output_tokens, U32, COUNT, PM_AGG_SUM),
};
#define Q(member, type, kind)                                                                      \
    PM_FIELD(struct pm_request_queued, member, type, "", kind, PM_AGG_NONE, "")
static const struct pm_field queued_fields[] = {
    Q(at_ns, U64, TIME),          Q(arrived_ns, U64, TIME),  Q(request, STR, ID),
    Q(prompt_tokens, U32, COUNT), Q(max_tokens, U32, GAUGE), Q(priority, I32, ID),
    Q(instance, U16, ID),         Q(turn, U16, ID),          Q(flags, U32, FLAGS)};
#define E(member, type, kind, agg) PM_FIELD(struct pm_request_fact, member, type, "", kind, agg, "")
static const struct pm_field end_fields[] = {E(finished_ns, U64, TIME, PM_AGG_NONE),
                                             E(request, STR, ID, PM_AGG_NONE),
                                             E(arrived_ns, U64, TIME, PM_AGG_NONE),
                                             E(queued_ns, U64, TIME, PM_AGG_NONE),
                                             E(started_ns, U64, TIME, PM_AGG_NONE),
                                             E(first_token_ns, U64, TIME, PM_AGG_NONE),
                                             E(last_token_ns, U64, TIME, PM_AGG_NONE),
                                             E(first_preempted_ns, U64, TIME, PM_AGG_NONE),
                                             E(preempted_ns, U64, TIME, PM_AGG_NONE),
                                             E(resumed_ns, U64, TIME, PM_AGG_NONE),
                                             E(away_ns, U64, DURATION, PM_AGG_SUM),
                                             E(longest_gap_ns, U64, DURATION, PM_AGG_HIST),
                                             E(queue_ns, U64, DURATION, PM_AGG_HIST),
                                             E(ttft_ns, U64, DURATION, PM_AGG_HIST),
                                             E(tpot_ns, U64, DURATION, PM_AGG_HIST),
                                             E(e2e_ns, U64, DURATION, PM_AGG_HIST),
                                             E(step, U64, ID, PM_AGG_NONE),
                                             E(prompt_tokens, U32, COUNT, PM_AGG_SUM),
                                             E(output_tokens, U32, COUNT, PM_AGG_SUM),
                                             E(preemptions, U32, COUNT, PM_AGG_SUM),
                                             E(priority, I32, ID, PM_AGG_NONE),
                                             E(instance, U16, ID, PM_AGG_NONE),
                                             E(state, U8, ID, PM_AGG_NONE),
                                             E(reason, U8, ID, PM_AGG_NONE)};
#define M(member, type, kind)                                                                      \
    PM_FIELD(struct pm_step_request, member, type, "", kind, PM_AGG_NONE, "")
static const struct pm_field member_fields[] = {
    M(step, U64, ID),        M(at_ns, U64, TIME),  M(request, STR, ID), M(tokens, U32, COUNT),
    M(computed, U32, GAUGE), M(instance, U16, ID), M(event, U8, ID),    M(phase, U8, ID),
    M(blocks, U32, COUNT),   M(reason, U8, ID),    M(flags, U8, FLAGS)};
#define L(member, type, kind, agg) PM_FIELD(struct pm_sched_step, member, type, "", kind, agg, "")
static const struct pm_field sched_fields[] = {
    L(step, U64, ID, PM_AGG_NONE),         L(start_ns, U64, TIME, PM_AGG_NONE),
    L(dur_ns, U32, DURATION, PM_AGG_HIST), L(instance, U16, ID, PM_AGG_NONE),
    L(phase, U8, ID, PM_AGG_CLASS),        L(requests, U32, COUNT, PM_AGG_HIST),
    L(tokens, U32, COUNT, PM_AGG_HIST),    L(running, U32, GAUGE, PM_AGG_NONE),
    L(waiting, U32, GAUGE, PM_AGG_NONE),   L(max_requests, U32, GAUGE, PM_AGG_NONE),
    L(max_tokens, U32, GAUGE, PM_AGG_NONE)};

enum { SCHED, MEMBER, UPDATE, QUEUED, END, TABLES };
static const struct pm_schema tables[TABLES] = {
    [SCHED] = MK_TABLE("sched_step", pm_sched_step, PM_PHASE_CLASSES, sched_fields),
    [MEMBER] = MK_TABLE("step_request", pm_step_request, 1, member_fields),
    [UPDATE] = MK_TABLE("update_step", pm_update_step, 1, update_fields),
    [QUEUED] = MK_TABLE("request_queued", pm_request_queued, 1, queued_fields),
    [END] = MK_TABLE("request", pm_request_fact, 1, end_fields),
};
static const struct pm_schema *const schemas[TABLES] = {&tables[0], &tables[1], &tables[2],
                                                        &tables[3], &tables[4]};

/* Moments in ms after the session's start. */
#define AT(ms) (MK_START_MONO + (uint64_t)((ms)*1000) * MK_US)

struct story {
    struct mk mk;
    char dir[300];
};

static void begin(struct story *story)
{
    mk_folder(story->dir, sizeof story->dir);
    struct pm_recorder_options options = {.session_dir = story->dir,
                                          .token = mk_token,
                                          .schemas = schemas,
                                          .n_schemas = TABLES,
                                          .ceiling_bytes = 64 << 20,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600};
    struct pm_error err = {""};
    snprintf(story->mk.dir, sizeof story->mk.dir, "%s", story->dir);
    if (pm_recorder_open(&story->mk.rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    pm_recorder_identify(story->mk.rec, PM_ROLE_ENGINE, 0, -1);
    mk_find_file(&story->mk);
}

static struct pm_session *end(struct story *story, bool killed)
{
    mk_close(&story->mk, 77, 1, MK_START_MONO, killed);
    return mk_session(story->dir);
}

static uint32_t name(struct story *story, const char *id)
{
    return pm_recorder_string(story->mk.rec, PM_STREAM_CORE, id, strlen(id));
}

static void queued(struct story *story, const char *id, double ms, uint32_t prompt)
{
    struct pm_request_queued fact = {.at_ns = AT(ms),
                                     .arrived_ns = AT(ms) - MK_MS,
                                     .request = name(story, id),
                                     .prompt_tokens = prompt,
                                     .max_tokens = 9,
                                     .priority = -3,
                                     .turn = 1};
    mk_put(&story->mk, QUEUED, &fact, sizeof fact);
}

static void step(struct story *story, uint64_t number, double ms, uint32_t requests,
                 uint32_t tokens, unsigned phase)
{
    struct pm_sched_step fact = {.step = number,
                                 .start_ns = AT(ms),
                                 .dur_ns = 100 * MK_US,
                                 .phase = (uint8_t)phase,
                                 .requests = requests,
                                 .tokens = tokens,
                                 .running = requests,
                                 .waiting = 1,
                                 .max_requests = 4,
                                 .max_tokens = 30};
    mk_put(&story->mk, SCHED, &fact, sizeof fact);
}

static void member(struct story *story, const char *id, uint64_t number, double ms, unsigned event,
                   unsigned flags, uint32_t computed)
{
    struct pm_step_request fact = {.step = number,
                                   .at_ns = AT(ms),
                                   .request = name(story, id),
                                   .tokens = 1,
                                   .computed = computed,
                                   .event = (uint8_t)event,
                                   .flags = (uint8_t)flags,
                                   .blocks = event == PM_REQUEST_PREEMPTED ? 3 : 0,
                                   .reason =
                                       event == PM_REQUEST_PREEMPTED ? PM_PREEMPT_EXHAUSTED : 0};
    mk_put(&story->mk, MEMBER, &fact, sizeof fact);
}

/* Returned at ms, after 50 us. */
static void update(struct story *story, uint64_t number, double ms, double gap_ms, uint32_t outputs,
                   uint32_t continued)
{
    struct pm_update_step fact = {.step = number,
                                  .start_ns = AT(ms) - 50 * MK_US,
                                  .dur_ns = 50 * MK_US,
                                  .gap_ns = (uint64_t)(gap_ms * 1000) * MK_US,
                                  .outputs = outputs,
                                  .continued = continued,
                                  .output_tokens = outputs,
                                  .flags = PM_UPDATE_LIVES};
    mk_put(&story->mk, UPDATE, &fact, sizeof fact);
}

/* a, of 10 prompt tokens, runs from step 0; b comes in step 1, is preempted in step 3 and resumed
 * in step 4; a is over with step 4. c waits all the time. Outputs: a at 2, 4, 9, 12, 15 ms; b at 4
 * and 9, then at 15 and 18. */
static void tell_story(struct story *story, bool with_end)
{
    queued(story, "a", 0.5, 10);
    queued(story, "b", 0.6, 5);
    queued(story, "c", 0.7, 7);
    member(story, "a", 0, 1.1, PM_REQUEST_STARTED, PM_REQUEST_GIVES, 4);
    step(story, 0, 1, 1, 6, PM_PHASE_PREFILL);
    update(story, 0, 2, 0, 1, 0);
    member(story, "b", 1, 3.1, PM_REQUEST_STARTED, PM_REQUEST_GIVES, 0);
    step(story, 1, 3, 2, 6, PM_PHASE_PREFILL);
    update(story, 1, 4, 2, 2, 1);
    step(story, 2, 5, 2, 2, PM_PHASE_DECODE);
    update(story, 2, 9, 5, 2, 2);
    member(story, "b", 3, 10, PM_REQUEST_PREEMPTED, 0, 7);
    member(story, "b", 3, 10.1, PM_REQUEST_LEFT, 0, 0);
    step(story, 3, 10, 1, 1, PM_PHASE_DECODE);
    update(story, 3, 12, 3, 1, 1);
    member(story, "b", 4, 13.1, PM_REQUEST_RESUMED, PM_REQUEST_GIVES, 0);
    step(story, 4, 13, 2, 9, PM_PHASE_PREFILL);
    update(story, 4, 15, 3, 2, 1);
    if (with_end) {
        struct pm_request_fact fact = {.arrived_ns = AT(0.5) - MK_MS,
                                       .queued_ns = AT(0.5),
                                       .started_ns = AT(1.1),
                                       .first_token_ns = AT(2),
                                       .last_token_ns = AT(15),
                                       .finished_ns = AT(15),
                                       .longest_gap_ns = 5 * MK_MS,
                                       .queue_ns = 600 * MK_US,
                                       .ttft_ns = 2500 * MK_US,
                                       .tpot_ns = 3250 * MK_US,
                                       .e2e_ns = 15500 * MK_US,
                                       .step = 4,
                                       .request = name(story, "a"),
                                       .prompt_tokens = 10,
                                       .output_tokens = 5,
                                       .priority = -3,
                                       .state = PM_REQUEST_STATE_FINISHED,
                                       .reason = PM_FINISH_LENGTH};
        mk_put(&story->mk, END, &fact, sizeof fact);
    }
    member(story, "a", 5, 16.1, PM_REQUEST_LEFT, 0, 0);
    step(story, 5, 16, 1, 1, PM_PHASE_DECODE);
    update(story, 5, 18, 3, 1, 1);
}

static void requests_that_are_over_and_that_are_not(void **state)
{
    struct pm_requests *requests;
    struct pm_request request;
    struct story story;
    (void)state;

    begin(&story);
    tell_story(&story, true);
    struct pm_session *session = end(&story, true);
    assert_int_equal(pm_requests_open(&requests, session, 0, NULL), 0);

    assert_int_equal(pm_requests_next(requests, &request), 1);
    assert_string_equal(request.id, "a");
    assert_int_equal(request.fact.state, PM_REQUEST_STATE_FINISHED);
    assert_int_equal(request.fact.priority, -3);
    assert_true(request.outputs_known);
    assert_int_equal(request.outputs, 5);

    assert_int_equal(pm_requests_next(requests, &request), 1);
    assert_string_equal(request.id, "b");
    assert_int_equal(request.fact.state, PM_REQUEST_STATE_RUNNING);
    assert_int_equal(request.fact.started_ns, AT(3.1));
    assert_int_equal(request.fact.first_token_ns, AT(4));
    assert_int_equal(request.fact.last_token_ns, AT(18));
    assert_int_equal(request.fact.longest_gap_ns, 6 * MK_MS); /* 9 to 15, over the preemption */
    assert_int_equal(request.outputs, 4);
    assert_int_equal(request.fact.preemptions, 1);
    assert_int_equal(request.fact.lost_tokens, 7);
    assert_int_equal(request.fact.lost_blocks, 3);
    assert_int_equal(request.fact.away_ns, 3100 * MK_US);
    assert_int_equal(request.fact.finished_ns, 0);
    assert_int_equal(request.fact.tpot_ns, 14 * MK_MS / 3);

    assert_int_equal(pm_requests_next(requests, &request), 1);
    assert_string_equal(request.id, "c");
    assert_int_equal(request.fact.state, PM_REQUEST_STATE_WAITING);
    assert_int_equal(request.fact.started_ns, 0);
    assert_int_equal(request.outputs, 0);
    assert_int_equal(pm_requests_next(requests, &request), 0);
    assert_int_equal(pm_requests_next(requests, &request), 0);
    pm_requests_close(requests);
    pm_session_close(session);
    mk_remove(story.dir);
}

/* The same without the end of a: what the engine recorded of it is what the steps tell. */
static void the_steps_alone_tell_the_same(void **state)
{
    struct pm_requests *requests;
    struct pm_request request;
    struct story story;
    (void)state;

    begin(&story);
    tell_story(&story, false);
    struct pm_session *session = end(&story, true);
    assert_int_equal(pm_requests_open(&requests, session, 0, NULL), 0);
    assert_int_equal(pm_requests_next(requests, &request), 1);
    assert_string_equal(request.id, "a");
    assert_int_equal(request.outputs, 5);
    assert_int_equal(request.fact.first_token_ns, AT(2));
    assert_int_equal(request.fact.last_token_ns, AT(15));
    assert_int_equal(request.fact.longest_gap_ns, 5 * MK_MS);
    assert_int_equal(request.fact.queue_ns, 600 * MK_US);
    assert_int_equal(request.fact.ttft_ns, 2500 * MK_US);
    assert_int_equal(request.fact.tpot_ns, 3250 * MK_US);
    pm_requests_close(requests);
    pm_session_close(session);
    mk_remove(story.dir);
}

/* Asynchronous scheduling: schedule(1) before update(0), and an abort while step 1 is under way. */
static void outputs_under_way_are_not_counted(void **state)
{
    struct pm_requests *requests;
    struct pm_request request;
    struct story story;
    (void)state;

    begin(&story);
    queued(&story, "a", 0.5, 10);
    member(&story, "a", 0, 1.1, PM_REQUEST_STARTED, PM_REQUEST_GIVES, 0);
    step(&story, 0, 1, 1, 10, PM_PHASE_PREFILL);
    step(&story, 1, 2, 1, 1, PM_PHASE_DECODE);
    update(&story, 0, 3, 0, 1, 0);
    step(&story, 2, 4, 1, 1, PM_PHASE_DECODE);
    struct pm_session *session = end(&story, true);
    assert_int_equal(pm_requests_open(&requests, session, 0, NULL), 0);
    assert_int_equal(pm_requests_next(requests, &request), 1);
    assert_int_equal(request.outputs, 1);
    assert_int_equal(request.fact.last_token_ns, AT(3));
    assert_int_equal(request.fact.longest_gap_ns, 0);
    pm_requests_close(requests);
    pm_session_close(session);
    mk_remove(story.dir);
}

/* An id that comes again names another request. */
static void ids_that_come_again(void **state)
{
    struct pm_requests *requests;
    struct pm_request request;
    struct story story;
    (void)state;

    begin(&story);
    for (int i = 0; i < 3; i++) {
        queued(&story, "same", i * 10 + 1, 10 + (uint32_t)i);
        struct pm_request_fact fact = {.queued_ns = AT(i * 10 + 1),
                                       .finished_ns = AT(i * 10 + 5),
                                       .request = name(&story, "same"),
                                       .prompt_tokens = 10 + (uint32_t)i,
                                       .state = PM_REQUEST_STATE_FINISHED,
                                       .reason = PM_FINISH_ABORT};
        mk_put(&story.mk, END, &fact, sizeof fact);
    }
    step(&story, 0, 40, 0, 0, PM_PHASE_EMPTY);
    struct pm_session *session = end(&story, false);
    assert_int_equal(pm_requests_open(&requests, session, 0, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pm_requests_next(requests, &request), 1);
        assert_int_equal(request.fact.prompt_tokens, 10 + i);
        assert_int_equal(request.fact.reason, PM_FINISH_ABORT);
    }
    assert_int_equal(pm_requests_next(requests, &request), 0);
    pm_requests_close(requests);
    pm_session_close(session);
    mk_remove(story.dir);
}

static void expect_file(const char *dir, const char *file, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    char *got = mk_read(path, NULL);
    assert_non_null(got);
    assert_string_equal(got, text);
    free(got);
}

static void the_files_byte_by_byte(void **state)
{
    const struct pm_export_options options = {.preset = -1};
    struct pm_error err = {""};
    struct story story;
    (void)state;

    begin(&story);
    tell_story(&story, true);
    queued(&story, "d, \"quoted\"", 20, 1);
    struct pm_session *session = end(&story, true);
    assert_int_equal(pm_export_seed(session, &options, NULL, &err), 0);
    expect_file(story.dir, "preemption_events.csv",
                "timestamp_sec,request_id,event,reason,running_time_sec,extra_info\n"
                "0.001100,a,started,,0.000000,step=0;queue_sec=0.000600;cached_tokens=4\n"
                "0.003100,b,started,,0.000000,step=1;queue_sec=0.002500;cached_tokens=0\n"
                "0.010000,b,preempted,kv_cache_exhausted,0.006900,step=3;tokens_lost=7;"
                "blocks_held=3\n"
                "0.013100,b,resumed,,0.000000,step=4;delay_sec=0.003100;cached_tokens=0\n"
                "0.015000,a,finished,length,0.013900,step=4;prompt_tokens=10;cached_tokens=0;"
                "output_tokens=5;preemptions=0\n");
    expect_file(story.dir, "request_lifecycle.csv",
                "request_id,started_sec,preempted_sec,resumed_sec,finished_sec,total_time_sec,"
                "preemption_delay_sec\n"
                "a,0.001100,,,0.015000,0.013900,\n"
                "b,0.003100,0.010000,0.013100,,,0.003100\n"
                "c,,,,,,\n"
                "\"d, \"\"quoted\"\"\",,,,,,\n");
    expect_file(story.dir, "preemption_summary.json",
                "{\n"
                "  \"total_preemptions\": 1,\n"
                "  \"total_requests\": 4,\n"
                "  \"preemption_reasons\": {\n"
                "    \"kv_cache_exhausted\": 1\n"
                "  },\n"
                "  \"mean_running_time_before_preempt\": 0.006900,\n"
                "  \"mean_resume_delay\": 0.003100,\n"
                "  \"max_resume_delay\": 0.003100\n"
                "}\n");
    expect_file(story.dir, "batch_utilization.csv",
                "timestamp_sec,num_seqs,max_num_seqs,seq_utilization_pct,num_tokens,max_tokens,"
                "token_utilization_pct,phase,running_queue_len,waiting_queue_len\n"
                "0.001000,1,4,25.00,6,30,20.00,prefill,1,1\n"
                "0.003000,2,4,50.00,6,30,20.00,prefill,2,1\n"
                "0.005000,2,4,50.00,2,30,6.67,decode,2,1\n"
                "0.010000,1,4,25.00,1,30,3.33,decode,1,1\n"
                "0.013000,2,4,50.00,9,30,30.00,prefill,2,1\n"
                "0.016000,1,4,25.00,1,30,3.33,decode,1,1\n");
    expect_file(story.dir, "batch_utilization_summary.json",
                "{\n"
                "  \"total_samples\": 6,\n"
                "  \"mean_seq_utilization_pct\": 37.50,\n"
                "  \"mean_token_utilization_pct\": 13.89,\n"
                "  \"underutilization_events\": 6,\n"
                "  \"prefill_avg_utilization\": 23.33,\n"
                "  \"decode_avg_utilization\": 4.44,\n"
                "  \"max_num_seqs\": 4,\n"
                "  \"max_tokens\": 30\n"
                "}\n");
    expect_file(story.dir, "cpu_operations_timing.csv",
                "timestamp_sec,operation,duration_ms,context\n"
                "0.001000,scheduling,0.100000,step=0;num_seqs=1;num_tokens=6\n"
                "0.001950,output_processing,0.050000,step=0;outputs=1;output_tokens=1\n"
                "0.003000,scheduling,0.100000,step=1;num_seqs=2;num_tokens=6\n"
                "0.003950,output_processing,0.050000,step=1;outputs=2;output_tokens=2\n"
                "0.005000,scheduling,0.100000,step=2;num_seqs=2;num_tokens=2\n"
                "0.008950,output_processing,0.050000,step=2;outputs=2;output_tokens=2\n"
                "0.010000,scheduling,0.100000,step=3;num_seqs=1;num_tokens=1\n"
                "0.011950,output_processing,0.050000,step=3;outputs=1;output_tokens=1\n"
                "0.013000,scheduling,0.100000,step=4;num_seqs=2;num_tokens=9\n"
                "0.014950,output_processing,0.050000,step=4;outputs=2;output_tokens=2\n"
                "0.016000,scheduling,0.100000,step=5;num_seqs=1;num_tokens=1\n"
                "0.017950,output_processing,0.050000,step=5;outputs=1;output_tokens=1\n");
    expect_file(story.dir, "cpu_timing_summary.json",
                "{\n"
                "  \"scheduling\": {\n"
                "    \"count\": 6,\n"
                "    \"mean_ms\": 0.100000,\n"
                "    \"std_ms\": 0.000000,\n"
                "    \"min_ms\": 0.100000,\n"
                "    \"max_ms\": 0.100000,\n"
                "    \"p95_ms\": 0.100000\n"
                "  },\n"
                "  \"output_processing\": {\n"
                "    \"count\": 6,\n"
                "    \"mean_ms\": 0.050000,\n"
                "    \"std_ms\": 0.000000,\n"
                "    \"min_ms\": 0.050000,\n"
                "    \"max_ms\": 0.050000,\n"
                "    \"p95_ms\": 0.050000\n"
                "  }\n"
                "}\n");
    pm_session_close(session);
    mk_remove(story.dir);
}

/* ITL of the story: a 2, 5, 3, 3 ms; b 5, 6, 3. */
static void times_between_outputs(void **state)
{
    struct pm_lives lives;
    struct story story;
    (void)state;

    begin(&story);
    tell_story(&story, true);
    struct pm_session *session = end(&story, true);
    assert_int_equal(pm_lives_walk(session, 0, NULL, NULL, &lives), 0);
    assert_int_equal(lives.itl.count, 7);
    assert_int_equal((uint64_t)lives.itl.min, 2 * MK_MS);
    assert_int_equal((uint64_t)lives.itl.max, 6 * MK_MS);
    assert_int_equal((uint64_t)lives.itl.mean, 27 * MK_MS / 7);
    assert_int_equal((uint64_t)lives.itl.p50, 3 * MK_MS); /* 2 3 3 3 5 5 6 */
    assert_int_equal((uint64_t)lives.itl.p90, 5400 * MK_US);
    assert_int_equal(lives.stats[PM_LIFE_QUEUE].count, 2);
    assert_int_equal(lives.stats[PM_LIFE_E2E].count, 1);
    pm_lives_release(&lives);
    pm_session_close(session);
    mk_remove(story.dir);
}

static void nothing_seen_gives_headers_and_keys(void **state)
{
    const struct pm_export_options options = {.preset = -1};
    struct pm_error err = {""};
    struct story story;
    (void)state;

    begin(&story);
    struct pm_session *session = end(&story, false);
    assert_int_equal(pm_export_seed(session, &options, NULL, &err), 0);
    expect_file(story.dir, "request_lifecycle.csv",
                "request_id,started_sec,preempted_sec,resumed_sec,finished_sec,total_time_sec,"
                "preemption_delay_sec\n");
    expect_file(story.dir, "cpu_operations_timing.csv",
                "timestamp_sec,operation,duration_ms,context\n");
    expect_file(story.dir, "cpu_timing_summary.json", "{}\n");
    expect_file(story.dir, "preemption_summary.json",
                "{\n"
                "  \"total_preemptions\": 0,\n"
                "  \"total_requests\": 0,\n"
                "  \"preemption_reasons\": {},\n"
                "  \"mean_running_time_before_preempt\": null,\n"
                "  \"mean_resume_delay\": null,\n"
                "  \"max_resume_delay\": null\n"
                "}\n");
    expect_file(story.dir, "batch_utilization_summary.json",
                "{\n"
                "  \"total_samples\": 0,\n"
                "  \"mean_seq_utilization_pct\": null,\n"
                "  \"mean_token_utilization_pct\": null,\n"
                "  \"underutilization_events\": 0,\n"
                "  \"prefill_avg_utilization\": null,\n"
                "  \"decode_avg_utilization\": null,\n"
                "  \"max_num_seqs\": null,\n"
                "  \"max_tokens\": null\n"
                "}\n");
    pm_session_close(session);
    mk_remove(story.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_are_over_and_that_are_not),
        cmocka_unit_test(the_steps_alone_tell_the_same),
        cmocka_unit_test(outputs_under_way_are_not_counted),
        cmocka_unit_test(ids_that_come_again),
        cmocka_unit_test(the_files_byte_by_byte),
        cmocka_unit_test(times_between_outputs),
        cmocka_unit_test(nothing_seen_gives_headers_and_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
