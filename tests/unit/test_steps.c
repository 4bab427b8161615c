/*
 * Engines, ranks and the join of the scheduler's steps with the workers': worked out by hand.
 */
#include "make_session.h"

#define ENGINE_PID 100u
#define WORKER_PID 200u

/* All steps of one worker, at most 64. */
struct walked {
    struct pm_step steps[64];
    size_t count;
    uint64_t mismatched, sched_only, worker_only;
};

static void walk(const struct pm_session *session, size_t engine, unsigned n, struct walked *ret)
{
    struct pm_steps *steps;
    int rc;
    memset(ret, 0, sizeof *ret);
    assert_int_equal(pm_steps_open(&steps, session, engine, n), 0);
    while ((rc = pm_steps_next(steps, &ret->steps[ret->count])) == 1)
        assert_true(++ret->count < 64);
    assert_int_equal(rc, 0);
    pm_steps_confess(steps, &ret->mismatched, &ret->sched_only, &ret->worker_only);
    pm_steps_close(steps);
}

/* Engine and worker in two processes, the worker the engine's child; fn writes the facts. */
static struct pm_session *two_processes(char *dir, size_t size, void (*engine)(struct mk *),
                                        void (*worker)(struct mk *))
{
    struct mk mk;
    mk_folder(dir, size);
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE, 0, -1);
    engine(&mk);
    mk_close(&mk, ENGINE_PID, 1, MK_START_MONO, false);
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_WORKER, 0, 0);
    worker(&mk);
    mk_close(&mk, WORKER_PID, ENGINE_PID, MK_START_MONO + 5, true);
    return mk_session(dir);
}

/* A request of 250 tokens in chunks of 100, another joins, both decode, an empty step, one more. */
static void hand_engine(struct mk *mk)
{
    mk_sched(mk, mk_sched_of(0, 1, 0));
    mk_sched(mk, mk_sched_of(1, 1, 0));
    mk_sched(mk, mk_sched_of(2, 1, 1)); /* mixed */
    mk_sched(mk, mk_sched_of(3, 0, 2));
    mk_sched(mk, mk_sched_of(4, 0, 0)); /* no tokens */
    struct pm_sched_step again = mk_sched_of(5, 0, 1);
    again.phase = PM_PHASE_PREFILL; /* computes again what it lost: the worker sees a decode */
    again.requests = 2;
    again.tokens = 31;
    again.recompute_requests = 1;
    again.recompute_tokens = 30;
    mk_sched(mk, again);
    mk_sched(mk, mk_sched_of(6, 0, 2)); /* scheduled ahead, not run */
}

static void hand_worker(struct mk *mk)
{
    mk_worker(mk, mk_worker_of(0, 1, 0, 8000000));
    mk_worker(mk, mk_worker_of(1, 1, 0, 7000000));
    mk_worker(mk, mk_worker_of(2, 1, 1, 9000000));
    mk_worker(mk, mk_worker_of(3, 0, 2, 3000000));
    mk_worker(mk, mk_worker_of(4, 0, 0, 0));
    struct pm_worker_step again = mk_worker_of(5, 0, 2, 4000000);
    again.tokens = 31;
    mk_worker(mk, again);
}

static void a_case_worked_out_by_hand(void **state)
{
    static const unsigned phases[] = {PM_PHASE_PREFILL, PM_PHASE_PREFILL, PM_PHASE_PREFILL,
                                      PM_PHASE_DECODE,  PM_PHASE_EMPTY,   PM_PHASE_PREFILL,
                                      PM_PHASE_DECODE};
    static const uint64_t forwards[] = {8000000, 7000000, 9000000, 3000000, 0, 4000000, 0};
    static const uint32_t tokens[] = {100, 100, 101, 2, 0, 31, 2};
    char dir[300];
    struct walked walked;
    (void)state;

    struct pm_session *session = two_processes(dir, sizeof dir, hand_engine, hand_worker);
    assert_int_equal(pm_session_engine_count(session), 1);
    const struct pm_engine *engine = pm_session_engine(session, 0);
    assert_int_equal(engine->n_ranks, 1);
    assert_int_equal(pm_process_info(engine->process)->pid, ENGINE_PID);
    walk(session, 0, 0, &walked);
    assert_int_equal(walked.count, 7);
    for (unsigned i = 0; i < 7; i++) {
        const struct pm_step *step = &walked.steps[i];
        assert_int_equal(step->step, i);
        assert_int_equal(step->phase, phases[i]);
        assert_false(step->phase_guessed);
        assert_int_equal(step->tokens, tokens[i]);
        assert_int_equal(step->forward_ns, forwards[i]);
        assert_int_equal(step->forward_clock, forwards[i] != 0);
        assert_int_equal(step->has_worker, i < 6);
        assert_int_equal(step->matched, i < 6);
        assert_true(step->has_sched);
        assert_int_equal(step->mixed, i == 2);
    }
    assert_int_equal(walked.steps[0].time_ns, mk_worker_of(0, 1, 0, 0).model_ns_at);
    assert_int_equal(walked.steps[4].time_ns, mk_worker_of(4, 0, 0, 0).start_ns);
    assert_int_equal(walked.steps[6].time_ns, mk_sched_of(6, 0, 2).start_ns);
    assert_int_equal(walked.steps[5].recompute_tokens, 30);
    assert_int_equal(walked.steps[2].pre_ns, 200000);
    /* The step that was scheduled ahead is no confession: it is at the end. */
    assert_int_equal(walked.mismatched + walked.sched_only + walked.worker_only, 0);
    pm_session_close(session);
    mk_remove(dir);
}

/* schedule(N + 1) runs before the worker's step N has ended, outputs come later still. */
static void async_engine(struct mk *mk)
{
    for (uint64_t step = 0; step < 8; step++)
        mk_sched(mk, mk_sched_of(step, step == 0, 4));
}

static struct pm_worker_step on_device(uint64_t step, unsigned flags)
{
    struct pm_worker_step fact = mk_worker_of(step, step == 0, 4, 90000); /* a launch */
    fact.flags |= PM_WORKER_DEVICE | flags;
    return fact;
}

static void async_worker(struct mk *mk)
{
    struct pm_worker_step fact;
    for (uint64_t step = 0; step < 4; step++) {
        mk_worker(mk, on_device(step, PM_WORKER_ASYNC));
        if (step > 0) /* the one before it becomes known */
            mk_sync(mk, step - 1, on_device(step - 1, 0).model_ns_at + 2000000 + step, 0);
    }
    mk_sync(mk, 99, 12345, 0);                                /* of no step */
    mk_sync(mk, 3, on_device(3, 0).model_ns_at + 2500000, 1); /* of another instance */
    mk_sync(mk, 3, on_device(3, 0).model_ns_at + 2000004, 0);
    fact = on_device(4, 0);
    fact.sync_ns = 1700000;
    mk_worker(mk, fact);
    fact = on_device(5, PM_WORKER_ASYNC);
    fact.gpu_ns = 1500000;
    fact.sync_ns = 1800000;
    mk_worker(mk, fact);
    mk_worker(mk, on_device(6, PM_WORKER_ASYNC)); /* never known */
    mk_worker(mk, on_device(7, PM_WORKER_ASYNC));
    mk_sync(mk, 7, on_device(7, 0).model_ns_at - 5, 0); /* before it began: not believed */
}

static void asynchronous_steps_on_a_device(void **state)
{
    static const uint64_t forwards[] = {2000001, 2000002, 2000003, 2000004, 1700000, 1500000, 0, 0};
    static const unsigned clocks[] = {2, 2, 2, 2, 2, 3, 0, 0};
    char dir[300];
    struct walked walked;
    (void)state;

    struct pm_session *session = two_processes(dir, sizeof dir, async_engine, async_worker);
    walk(session, 0, 0, &walked);
    assert_int_equal(walked.count, 8);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(walked.steps[i].step, i);
        assert_true(walked.steps[i].matched);
        assert_int_equal(walked.steps[i].forward_ns, forwards[i]);
        assert_int_equal(walked.steps[i].forward_clock, clocks[i]);
    }
    pm_session_close(session);
    mk_remove(dir);
}

static void torn_engine(struct mk *mk)
{
    mk_sched(mk, mk_sched_of(2, 0, 1)); /* 0 and 1 had to go */
    mk_sched(mk, mk_sched_of(3, 0, 1));
    mk_sched(mk, mk_sched_of(4, 1, 3)); /* the worker saw another batch */
    mk_sched(mk, mk_sched_of(5, 0, 1)); /* the worker's fact was lost */
    mk_sched(mk, mk_sched_of(7, 0, 1)); /* 6 was lost here */
    mk_sched(mk, mk_sched_of(7, 0, 1)); /* told twice */
    mk_sched(mk, mk_sched_of(8, 0, 1));
    mk_sched(mk, mk_sched_of(0, 1, 0)); /* numbering begins anew */
    mk_sched(mk, mk_sched_of(9, 0, 1));
}

static void torn_worker(struct mk *mk)
{
    mk_worker(mk, mk_worker_of(0, 1, 0, 1000));
    mk_worker(mk, mk_worker_of(1, 0, 1, 1001));
    mk_worker(mk, mk_worker_of(2, 0, 1, 1002));
    mk_worker(mk, mk_worker_of(3, 0, 1, 1003));
    mk_worker(mk, mk_worker_of(4, 0, 3, 1004));
    mk_worker(mk, mk_worker_of(6, 0, 1, 1006));
    mk_worker(mk, mk_worker_of(7, 0, 1, 1007));
    mk_worker(mk, mk_worker_of(8, 0, 1, 1008));
    mk_worker(mk, mk_worker_of(0, 1, 0, 1000));
    mk_worker(mk, mk_worker_of(9, 0, 1, 1009));
    struct pm_worker_step other = mk_worker_of(10, 0, 1, 1010);
    other.instance = 3; /* not this engine's */
    mk_worker(mk, other);
}

static void halves_are_never_guessed_together(void **state)
{
    /* step, has the scheduler's half, has the worker's, they agree */
    static const unsigned expected[][4] = {
        {0, 0, 1, 0}, {1, 0, 1, 0}, {2, 1, 1, 1}, {3, 1, 1, 1}, {4, 1, 1, 0},
        {5, 1, 0, 0}, {6, 0, 1, 0}, {7, 1, 1, 1}, {7, 1, 0, 0}, {8, 1, 1, 1},
        {0, 1, 0, 0}, {0, 0, 1, 0}, {9, 1, 1, 1},
    };
    char dir[300];
    struct walked walked;
    (void)state;

    struct pm_session *session = two_processes(dir, sizeof dir, torn_engine, torn_worker);
    /* The worker's other instance finds the only scheduler there is: a rank of its own. */
    assert_int_equal(pm_session_engine_count(session), 1);
    assert_int_equal(pm_session_engine(session, 0)->n_ranks, 2);
    walk(session, 0, 0, &walked);
    assert_int_equal(walked.count, sizeof expected / sizeof expected[0]);
    for (size_t i = 0; i < walked.count; i++) {
        const struct pm_step *step = &walked.steps[i];
        assert_int_equal(step->step, expected[i][0]);
        assert_int_equal(step->has_sched, expected[i][1]);
        assert_int_equal(step->has_worker, expected[i][2]);
        assert_int_equal(step->matched, expected[i][3]);
        /* The phase is the scheduler's only where the pair agrees, or where it is alone. */
        assert_int_equal(step->phase_guessed, step->has_worker && !step->matched);
        if (step->has_worker)
            assert_int_equal(step->forward_ns, 1000 + step->step);
    }
    /* The mismatched pair shows what the worker did. */
    assert_int_equal(walked.steps[4].tokens, 3);
    assert_int_equal(walked.steps[4].phase, PM_PHASE_DECODE);
    assert_int_equal(walked.mismatched, 1);
    assert_int_equal(walked.sched_only, 3);  /* 5, the second 7, the new 0 */
    assert_int_equal(walked.worker_only, 2); /* 6, the new 0; 0 and 1 are at the beginning */
    pm_session_close(session);
    mk_remove(dir);
}

/* Two data-parallel engines of two ranks each, their files made in a mixed order. */
static void engines_and_ranks_are_numbered(void **state)
{
    static const struct {
        unsigned role;
        int engine, rank;
        uint32_t pid, ppid;
    } made[] = {
        {PM_ROLE_FRONTEND, -1, -1, 10, 1}, {PM_ROLE_ENGINE, 1, -1, 31, 10},
        {PM_ROLE_ENGINE, 0, -1, 30, 10},   {PM_ROLE_WORKER, 1, 1, 43, 31},
        {PM_ROLE_WORKER, 0, 1, 41, 30},    {PM_ROLE_WORKER, 1, 0, 42, 31},
        {PM_ROLE_WORKER, 0, 0, 40, 30},
    };
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        mk_open(&mk, dir, 64u << 20, false);
        pm_recorder_identify(mk.rec, made[i].role, made[i].engine, made[i].rank);
        for (uint64_t step = 0; step < 3; step++) {
            if (made[i].role == PM_ROLE_ENGINE)
                mk_sched(&mk, mk_sched_of(step, 0, 2 + (uint32_t)made[i].engine));
            if (made[i].role == PM_ROLE_WORKER)
                mk_worker(&mk, mk_worker_of(step, 0, 2 + (uint32_t)made[i].engine,
                                            1000 + (uint32_t)made[i].rank));
        }
        mk_close(&mk, made[i].pid, made[i].ppid, MK_START_MONO + i, true);
    }
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_session_process_count(session), 7);
    assert_int_equal(pm_session_engine_count(session), 2);
    for (unsigned e = 0; e < 2; e++) {
        const struct pm_engine *engine = pm_session_engine(session, e);
        assert_int_equal(engine->number, e);
        assert_int_equal(pm_process_info(engine->process)->pid, 30 + e);
        assert_int_equal(engine->n_ranks, 2);
        for (unsigned n = 0; n < 2; n++) {
            const struct pm_process *process;
            struct walked walked;
            unsigned instance;
            int rank;
            assert_int_equal(pm_engine_worker(session, e, n, &process, &instance, &rank), 0);
            assert_int_equal(rank, n);
            assert_int_equal(pm_process_info(process)->pid, 40 + 2 * e + n);
            walk(session, e, n, &walked);
            assert_int_equal(walked.count, 3);
            assert_true(walked.steps[2].matched);
            assert_int_equal(walked.steps[2].requests, 2 + e);
            assert_int_equal(walked.steps[2].forward_ns, 1000 + n);
        }
        const struct pm_process *none;
        unsigned instance;
        int rank;
        assert_int_equal(pm_engine_worker(session, e, 2, &none, &instance, &rank), -PM_ENOTFOUND);
    }
    pm_session_close(session);
    mk_remove(dir);
}

/* LLM() made twice in one process that schedules and works, one after another. */
static void engines_one_after_another(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, -1, -1);
    for (uint16_t instance = 0; instance < 2; instance++)
        for (uint64_t step = 0; step < 4; step++) {
            struct pm_sched_step sched = mk_sched_of(step, 0, 1u + instance);
            struct pm_worker_step worker = mk_worker_of(step, 0, 1u + instance, 500);
            sched.instance = worker.instance = instance;
            sched.start_ns += instance * 1000000000ull;
            worker.start_ns += instance * 1000000000ull;
            mk_sched(&mk, sched);
            mk_worker(&mk, worker);
        }
    mk_close(&mk, 50, 1, MK_START_MONO, false);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_session_engine_count(session), 2);
    for (unsigned e = 0; e < 2; e++) {
        const struct pm_process *process;
        struct walked walked;
        unsigned instance;
        int rank;
        assert_int_equal(pm_session_engine(session, e)->n_ranks, 1);
        assert_int_equal(pm_engine_worker(session, e, 0, &process, &instance, &rank), 0);
        assert_int_equal(instance, e);
        assert_int_equal(rank, 0);
        walk(session, e, 0, &walked);
        assert_int_equal(walked.count, 4);
        assert_int_equal(walked.steps[3].requests, 1 + e);
        assert_true(walked.steps[3].matched);
    }
    pm_session_close(session);
    mk_remove(dir);
}

/* A long run with a short one in its middle: found although neither end of the file shows it. */
static void a_short_engine_inside_a_long_one(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    for (int with_other = 0; with_other < 2; with_other++) {
        mk_folder(dir, sizeof dir);
        mk_open(&mk, dir, 64u << 20, false);
        pm_recorder_identify(mk.rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
        for (uint64_t step = 0; step < 4000; step++) {
            mk_sched(&mk, mk_sched_of(step, 0, 1));
            mk_worker(&mk, mk_worker_of(step, 0, 1, 500));
            if (step % 100 == 0)
                pm_recorder_round(mk.rec);
            if (step != 2000 || !with_other)
                continue;
            struct pm_sched_step sched = mk_sched_of(0, 0, 7);
            struct pm_worker_step worker = mk_worker_of(0, 0, 7, 900);
            sched.instance = worker.instance = 1;
            mk_sched(&mk, sched);
            mk_worker(&mk, worker);
        }
        mk_close(&mk, 50, 1, MK_START_MONO, false);
        struct pm_session *session = mk_session(dir);
        assert_int_equal(pm_session_engine_count(session), 1 + with_other);
        assert_int_equal(pm_session_engine(session, 0)->n_ranks, 1);
        if (with_other) {
            struct walked walked;
            walk(session, 1, 0, &walked);
            assert_int_equal(walked.count, 1);
            assert_int_equal(walked.steps[0].requests, 7);
            assert_int_equal(walked.steps[0].forward_ns, 900);
        }
        pm_session_close(session);
        mk_remove(dir);
    }
}

/* Workers whose engine's file is lost; an engine that has only its role. */
static void one_side_alone(void **state)
{
    char dir[300];
    struct mk mk;
    struct walked walked;
    (void)state;

    mk_folder(dir, sizeof dir);
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_WORKER, -1, -1);
    mk_worker(&mk, mk_worker_of(0, 1, 0, 700));
    mk_worker(&mk, mk_worker_of(1, 0, 1, 300));
    mk_close(&mk, 61, 60, MK_START_MONO, true);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_session_engine_count(session), 1);
    assert_null(pm_session_engine(session, 0)->process);
    walk(session, 0, 0, &walked);
    assert_int_equal(walked.count, 2);
    assert_true(walked.steps[0].phase_guessed);
    assert_int_equal(walked.steps[0].phase, PM_PHASE_PREFILL);
    assert_int_equal(walked.steps[1].phase, PM_PHASE_DECODE);
    pm_session_close(session);

    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE, -1, -1);
    mk_close(&mk, 60, 1, MK_START_MONO, true);
    session = mk_session(dir);
    assert_int_equal(pm_session_engine_count(session), 1);
    assert_int_equal(pm_process_info(pm_session_engine(session, 0)->process)->pid, 60);
    walk(session, 0, 0, &walked);
    assert_int_equal(walked.count, 2);
    pm_session_close(session);
    mk_remove(dir);
}

/* Another release of the probe: fields in another order, some gone, one new. */
static void fields_are_found_by_name(void **state)
{
    struct other {
        uint32_t fresh;
        uint16_t tokens;
        uint8_t phase;
        uint8_t pad;
        uint64_t start_ns;
        uint32_t requests;
        uint32_t step;
    };
    static const struct pm_field fields[] = {
        PM_FIELD(struct other, fresh, U32, "", ID, PM_AGG_NONE, ""),
        PM_FIELD(struct other, tokens, U16, "", COUNT, PM_AGG_SUM, ""),
        PM_FIELD(struct other, phase, U8, "", ID, PM_AGG_NONE, ""),
        PM_FIELD(struct other, start_ns, U64, "", TIME, PM_AGG_NONE, ""),
        PM_FIELD(struct other, requests, U32, "", COUNT, PM_AGG_SUM, ""),
        PM_FIELD(struct other, step, U32, "", ID, PM_AGG_NONE, ""),
    };
    static const struct pm_schema schema = {.name = "sched_step",
                                            .stream = PM_STREAM_CORE,
                                            .payload_bytes = sizeof(struct other),
                                            .classes = 1,
                                            .doc = "",
                                            .fields = fields,
                                            .n_fields = 6};
    const struct pm_schema *const schemas[] = {&schema};
    char dir[300];
    struct walked walked;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    struct pm_recorder_options options = {.session_dir = dir,
                                          .token = mk_token,
                                          .schemas = schemas,
                                          .n_schemas = 1,
                                          .ceiling_bytes = 64u << 20,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600};
    snprintf(mk.dir, sizeof mk.dir, "%s", dir);
    assert_int_equal(pm_recorder_open(&mk.rec, &options, NULL), 0);
    mk_find_file(&mk);
    struct other fact = {.fresh = 9,
                         .tokens = 77,
                         .phase = 2,
                         .start_ns = MK_START_MONO + 5,
                         .requests = 7,
                         .step = 3};
    mk_put(&mk, 0, &fact, sizeof fact);
    mk_close(&mk, 60, 1, MK_START_MONO, true);
    struct pm_session *session = mk_session(dir);
    walk(session, 0, 0, &walked);
    assert_int_equal(walked.count, 1);
    assert_int_equal(walked.steps[0].step, 3);
    assert_int_equal(walked.steps[0].tokens, 77);
    assert_int_equal(walked.steps[0].requests, 7);
    assert_int_equal(walked.steps[0].phase, PM_PHASE_DECODE);
    assert_int_equal(walked.steps[0].sched_start_ns, MK_START_MONO + 5);
    assert_int_equal(walked.steps[0].running, 0);
    pm_session_close(session);
    mk_remove(dir);
}

/* Recording began while the server ran: the worker's first step is the scheduler's third, which the
 * second request that was new to both tells; what the worker saw before the scheduler has no pair.
 */
static void late_engine(struct mk *mk)
{
    for (unsigned i = 0; i < 5; i++)
        mk_sched(mk, mk_sched_of(i, 0, i + 1));
    pm_recorder_attr(mk->rec, "mark.sched.0.0", "1 00000000000000aa");
    pm_recorder_attr(mk->rec, "mark.sched.0.1", "3 00000000000000bb");
}

static void late_worker(struct mk *mk)
{
    for (unsigned i = 0; i < 3; i++)
        mk_worker(mk, mk_worker_of(i, 0, i + 3, 1000000));
    pm_recorder_attr(mk->rec, "mark.worker.0.0", "1 00000000000000bb");
}

static void early_worker(struct mk *mk)
{
    for (unsigned i = 0; i < 7; i++)
        mk_worker(mk, mk_worker_of(i, 0, i < 2 ? 9 : i - 1, 1000000));
    pm_recorder_attr(mk->rec, "mark.worker.0.0", "0 00000000000000cc");
    pm_recorder_attr(mk->rec, "mark.worker.0.1", "3 00000000000000aa");
}

static void begun_late(void **state)
{
    void (*const workers[])(struct mk *) = {late_worker, early_worker};
    static const size_t matched[] = {3, 5};
    struct walked walked;
    (void)state;
    for (size_t w = 0; w < 2; w++) {
        char dir[256];
        struct pm_session *session = two_processes(dir, sizeof dir, late_engine, workers[w]);
        size_t pairs = 0;
        walk(session, 0, 0, &walked);
        for (size_t i = 0; i < walked.count; i++)
            pairs += walked.steps[i].matched;
        assert_int_equal(walked.count, 5);
        assert_int_equal(pairs, matched[w]);
        assert_int_equal(walked.mismatched, 0);
        pm_session_close(session);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_case_worked_out_by_hand),
        cmocka_unit_test(asynchronous_steps_on_a_device),
        cmocka_unit_test(halves_are_never_guessed_together),
        cmocka_unit_test(engines_and_ranks_are_numbered),
        cmocka_unit_test(engines_one_after_another),
        cmocka_unit_test(a_short_engine_inside_a_long_one),
        cmocka_unit_test(one_side_alone),
        cmocka_unit_test(fields_are_found_by_name),
        cmocka_unit_test(begun_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
