/*
 * The steps of an engine for the page: each rank's timeline, and how batches were spread in size.
 * One walk per rank. Called by page.c.
 */
#include "html/data.h"

#include "html/spread.h"
#include "html/thin.h"
#include "reader/engine_facts.h"
#include "session/hist.h"

#define STEPS_HELD 40000u /* of all ranks of an engine: beyond that buckets */
#define STEPS_HELD_MIN 4000u

/* Kinds of steps, as the page counts them. */
enum kind { KIND_EMPTY, KIND_PREFILL, KIND_DECODE, KIND_MIXED, KINDS };

/* clang-format off */
enum column {
    STEP, LEAD, SCHED, PRE, MODEL, POST, SAMPLE, TOTAL, FORWARD, KIND, REQUESTS, TOKENS,
    PREFILL_TOKENS, RECOMPUTED, DECODE_TOKENS, RUNNING, WAITING,
    COUNT_PREFILL, COUNT_DECODE, COUNT_MIXED, BUSY_PREFILL, BUSY_DECODE, BUSY_MIXED,
    MOST_PREFILL, MOST_DECODE, MOST_MIXED, COLUMNS
}; /* clang-format on */

#define ROW PM_THIN_ROW
#define SUM PM_THIN_SUM
#define MIN PM_THIN_MIN
#define MAX PM_THIN_MAX
#define NS PM_THIN_NS
static const struct pm_thin_column columns[COLUMNS] = {
    [STEP] = {"step", ROW | MIN | MAX},
    [LEAD] = {"lead", ROW | NS},
    [SCHED] = {"sched", ROW | SUM | MAX | NS},
    [PRE] = {"pre", ROW | SUM | NS},
    [MODEL] = {"model", ROW | SUM | NS},
    [POST] = {"post", ROW | SUM | NS},
    [SAMPLE] = {"sample", ROW | SUM | NS},
    [TOTAL] = {"total", ROW | SUM | MIN | MAX | NS},
    [FORWARD] = {"fwd", ROW | SUM | MAX | NS},
    [KIND] = {"kind", ROW},
    [REQUESTS] = {"req", ROW | SUM | MIN | MAX},
    [TOKENS] = {"tok", ROW | SUM | MIN | MAX},
    [PREFILL_TOKENS] = {"ptok", ROW | SUM},
    [RECOMPUTED] = {"rtok", ROW | SUM},
    [DECODE_TOKENS] = {"dtok", ROW | SUM},
    [RUNNING] = {"running", ROW | SUM | MAX},
    [WAITING] = {"waiting", ROW | SUM | MAX},
    [COUNT_PREFILL] = {"n_p", SUM},
    [COUNT_DECODE] = {"n_d", SUM},
    [COUNT_MIXED] = {"n_m", SUM},
    [BUSY_PREFILL] = {"busy_p", SUM | NS},
    [BUSY_DECODE] = {"busy_d", SUM | NS},
    [BUSY_MIXED] = {"busy_m", SUM | NS},
    [MOST_PREFILL] = {"max_p", MAX | NS},
    [MOST_DECODE] = {"max_d", MAX | NS},
    [MOST_MIXED] = {"max_m", MAX | NS},
};
#undef ROW
#undef SUM
#undef MIN
#undef MAX
#undef NS

/* What is counted of an engine beside its rows: of the rank that samples. */
struct tally {
    uint64_t steps[KINDS];
    struct pm_hist requests, tokens;
    struct pm_spread forward[KINDS];
};

static enum kind kind_of(const struct pm_step *step)
{
    if (step->tokens == 0)
        return KIND_EMPTY;
    if (step->mixed)
        return KIND_MIXED;
    return step->phase == PM_PHASE_PREFILL ? KIND_PREFILL : KIND_DECODE;
}

static int add(struct pm_thin *thin, struct tally *tally, const struct pm_step *step)
{
    const enum kind kind = kind_of(step);
    const uint64_t begin = step->has_worker ? step->worker_start_ns : step->sched_start_ns;
    uint64_t values[COLUMNS] = {
        [STEP] = step->step,
        [LEAD] = step->has_worker && step->has_sched && begin > step->sched_start_ns
                     ? begin - step->sched_start_ns
                     : 0,
        [SCHED] = step->sched_ns,
        [PRE] = step->pre_ns,
        [MODEL] = step->model_ns,
        [POST] = step->post_ns,
        [SAMPLE] = step->sample_ns,
        [TOTAL] = step->total_ns,
        [FORWARD] = step->forward_ns,
        [KIND] = (uint64_t)kind,
        [REQUESTS] = step->requests,
        [TOKENS] = step->tokens,
        [PREFILL_TOKENS] = step->prefill_tokens,
        [RECOMPUTED] = step->recompute_tokens,
        [DECODE_TOKENS] = step->decode_tokens,
        [RUNNING] = step->running,
        [WAITING] = step->waiting,
    };
    if (kind != KIND_EMPTY) {
        values[COUNT_PREFILL + (unsigned)kind - 1] = 1;
        values[BUSY_PREFILL + (unsigned)kind - 1] = step->total_ns;
        values[MOST_PREFILL + (unsigned)kind - 1] = step->total_ns;
    }
    if (tally != NULL) {
        tally->steps[kind]++;
        if (kind != KIND_EMPTY) {
            pm_hist_add(&tally->requests, step->requests);
            pm_hist_add(&tally->tokens, step->tokens);
        }
        const uint64_t took = step->forward_ns != 0 ? step->forward_ns : step->model_ns;
        if (kind != KIND_EMPTY && took != 0) {
            const int rc = pm_spread_add(&tally->forward[kind], took, 1);
            if (rc != 0)
                return rc;
        }
    }
    return pm_thin_add(thin, begin, values);
}

static int put_rank(struct pm_json *json, const struct pm_session *session, size_t engine,
                    unsigned n, size_t limit, struct tally *tally)
{
    const struct pm_process *process;
    struct pm_steps *steps;
    struct pm_thin thin;
    struct pm_step step;
    unsigned instance, clocks = 0;
    int rank = -1;

    if (pm_engine_worker(session, engine, n, &process, &instance, &rank) != 0)
        rank = -1;
    int rc = pm_steps_open(&steps, session, engine, n);
    if (rc != 0)
        return rc;
    pm_thin_init(&thin, columns, COLUMNS, TOTAL, pm_session_info(session)->start_mono_ns, limit);
    while ((rc = pm_steps_next(steps, &step)) == 1) {
        clocks = step.forward_clock > clocks ? step.forward_clock : clocks;
        rc = add(&thin, tally, &step);
        if (rc != 0)
            break;
    }
    pm_steps_close(steps);
    if (rc == 0) {
        static const char *const words[] = {"none", "wall", "sync", "events"};
        pm_json_object(json);
        pm_json_key(json, "rank");
        rank >= 0 ? pm_json_i64(json, rank) : pm_json_null(json);
        pm_put_text(json, "clock", words[clocks < 4 ? clocks : 0]);
        pm_json_key(json, "steps");
        pm_thin_json(json, &thin);
        pm_json_end(json);
    }
    pm_thin_release(&thin);
    return rc;
}

static void put_hist(struct pm_json *json, const char *key, const struct pm_hist *hist)
{
    pm_json_key(json, key);
    pm_json_array(json);
    for (unsigned i = 0; i < PM_HIST_BUCKETS; i++) {
        if (hist->buckets[i] == 0)
            continue;
        pm_json_array(json);
        pm_json_u64(json, pm_hist_lower(i));
        pm_json_u64(json, pm_hist_upper(i));
        pm_json_u64(json, hist->buckets[i]);
        pm_json_end(json);
    }
    pm_json_end(json);
}

/* The limits of a step, as the scheduler's newest fact tells them. */
static int put_limits(struct pm_json *json, const struct pm_session *session, size_t engine)
{
    struct pm_engine_facts *facts;
    struct pm_sched_step fact;
    uint32_t requests = 0, tokens = 0;
    int rc = pm_engine_facts_open(&facts, session, engine, PM_ENGINE_SCHED);

    if (rc != 0)
        return rc;
    while ((rc = pm_engine_facts_next(facts, &fact)) == 1) {
        requests = fact.max_requests;
        tokens = fact.max_tokens;
        if (requests != 0 && tokens != 0) {
            rc = 0;
            break;
        }
    }
    pm_engine_facts_close(facts);
    pm_put_u64(json, "max_requests", requests);
    pm_put_u64(json, "max_tokens", tokens);
    return rc;
}

int pm_data_steps(struct pm_json *json, const struct pm_session *session, size_t engine)
{
    static const char *const names[KINDS] = {"empty", "prefill", "decode", "mixed"};
    const unsigned found = pm_session_engine(session, engine)->n_ranks;
    const unsigned n_ranks = found > 0 ? found : 1;
    const unsigned sampler = pm_engine_sampler(session, engine);
    const size_t share = STEPS_HELD / n_ranks;
    struct tally tally = {0};
    int rc = 0;

    for (unsigned k = 0; k < KINDS; k++)
        pm_spread_init(&tally.forward[k]);
    pm_put_u64(json, "sampler", sampler);
    pm_json_key(json, "ranks");
    pm_json_array(json);
    for (unsigned n = 0; n < n_ranks && rc == 0; n++)
        rc = put_rank(json, session, engine, n, share > STEPS_HELD_MIN ? share : STEPS_HELD_MIN,
                      n == sampler ? &tally : NULL);
    pm_json_end(json);
    pm_json_key(json, "kinds");
    pm_json_object(json);
    for (unsigned k = 0; k < KINDS; k++) {
        pm_json_key(json, names[k]);
        pm_json_object(json);
        pm_put_u64(json, "steps", tally.steps[k]);
        pm_json_key(json, "forward");
        pm_spread_json(json, &tally.forward[k]);
        pm_json_end(json);
        pm_spread_release(&tally.forward[k]);
    }
    pm_json_end(json);
    put_hist(json, "req_hist", &tally.requests);
    put_hist(json, "tok_hist", &tally.tokens);
    return rc == 0 ? put_limits(json, session, engine) : rc;
}
