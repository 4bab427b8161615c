/*
 * The steps of old: schedule() from batch_utilization.csv, the model from forward_pass_timing.csv,
 * and what the host did from cpu_operations_timing.csv, paired by time.
 *
 * Both profilers write a row of batch_utilization per schedule() and a row of forward_pass_timing
 * per pass, each in order. A pass belongs to the oldest schedule() before it that is still without
 * one and has its tokens; where none has, to the oldest.
 */
#include "convert/parts.h"

#include <stdlib.h>
#include <string.h>

#include "session/request_facts.h"
#include "session/step_facts.h"

#define NEAR_NS 5000000ull /* between a row and the operation that it is about */
#define WAITING 8u         /* schedules ahead of their pass */

struct schedule {
    uint64_t at_ns, dur_ns;
    uint32_t requests, max_requests, tokens, max_tokens, running, waiting;
    unsigned phase;
};

/* One operation of cpu_operations_timing.csv, read on its own. */
struct operations {
    struct pm_csv csv;
    const char *name;
    bool has;
    uint64_t at_ns, dur_ns;
};

enum { SCHEDULING, EXECUTION, PREPARATION, SAMPLING, OUTPUT, OPERATIONS };
static const char *const operation_names[OPERATIONS] = {
    "scheduling", "model_execution", "batch_prep", "sampling", "output_processing"};

struct steps {
    struct pm_source source;
    struct pm_csv passes, batches;
    struct operations operations[OPERATIONS];
    bool has_pass;
    uint64_t pass_at_ns, pass_ns;
    uint32_t pass_requests, pass_tokens;
    unsigned pass_phase;
    struct schedule waiting[WAITING]; /* oldest first */
    unsigned n_waiting;
    struct schedule next;
    bool has_next;
};

enum { P_AT, P_PHASE, P_REQUESTS, P_TOKENS, P_FULL_MS, P_SIMPLE_MS };
static const char *const pass_columns[] = {"timestamp_sec", "phase",           "batch_size",
                                           "num_tokens",    "forward_time_ms", "duration_ms"};
enum { B_AT, B_REQUESTS, B_TOKENS, B_MAX_REQUESTS, B_MAX_TOKENS, B_PHASE, B_RUNNING, B_WAITING };
static const char *const batch_columns[] = {"timestamp_sec",     "num_seqs",         "num_tokens",
                                            "max_num_seqs",      "max_tokens",       "phase",
                                            "running_queue_len", "waiting_queue_len"};
enum { O_AT, O_NAME, O_MS };
static const char *const operation_columns[] = {"timestamp_sec", "operation", "duration_ms"};

static unsigned phase_of(const char *word)
{
    return strcmp(word, "prefill") == 0 ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
}

static uint32_t narrow(uint64_t ns)
{
    return ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

/* ---- reading ---- */

static int next_pass(struct steps *steps, struct pm_error *err)
{
    struct pm_csv *csv = &steps->passes;
    const unsigned ms = csv->places[P_FULL_MS] >= 0 ? P_FULL_MS : P_SIMPLE_MS;
    int rc = pm_csv_next(csv, err);

    steps->has_pass = rc == 1;
    if (rc != 1)
        return rc;
    rc = pm_csv_scaled(csv, P_AT, 9, &steps->pass_at_ns, NULL, err);
    if (rc == 0)
        rc = pm_csv_scaled(csv, ms, 6, &steps->pass_ns, NULL, err);
    if (rc == 0)
        rc = pm_csv_u32(csv, P_REQUESTS, &steps->pass_requests, err);
    if (rc == 0)
        rc = pm_csv_u32(csv, P_TOKENS, &steps->pass_tokens, err);
    steps->pass_phase = phase_of(pm_csv_text(csv, P_PHASE));
    return rc;
}

static int next_batch(struct steps *steps, struct pm_error *err)
{
    struct pm_csv *csv = &steps->batches;
    struct schedule *next = &steps->next;
    int rc = pm_csv_next(csv, err);

    steps->has_next = rc == 1;
    if (rc != 1)
        return rc;
    memset(next, 0, sizeof(*next));
    rc = pm_csv_scaled(csv, B_AT, 9, &next->at_ns, NULL, err);
    const struct {
        unsigned column;
        uint32_t *value;
    } numbers[] = {
        {B_REQUESTS, &next->requests},         {B_TOKENS, &next->tokens},
        {B_MAX_REQUESTS, &next->max_requests}, {B_MAX_TOKENS, &next->max_tokens},
        {B_RUNNING, &next->running},           {B_WAITING, &next->waiting},
    };
    for (size_t i = 0; rc == 0 && i < sizeof(numbers) / sizeof(*numbers); i++)
        rc = pm_csv_u32(csv, numbers[i].column, numbers[i].value, err);
    next->phase = phase_of(pm_csv_text(csv, B_PHASE));
    return rc;
}

static int next_operation(struct operations *operations, struct pm_error *err)
{
    int rc;

    operations->has = false;
    while ((rc = pm_csv_next(&operations->csv, err)) == 1) {
        if (strcmp(pm_csv_text(&operations->csv, O_NAME), operations->name) != 0)
            continue;
        rc = pm_csv_scaled(&operations->csv, O_AT, 9, &operations->at_ns, NULL, err);
        if (rc == 0)
            rc = pm_csv_scaled(&operations->csv, O_MS, 6, &operations->dur_ns, NULL, err);
        operations->has = rc == 0;
        break;
    }
    return rc == 1 ? 0 : rc;
}

/* The first operation of the kind between two moments; those before them are dropped. */
static int take(struct operations *operations, uint64_t from_ns, uint64_t to_ns, uint64_t *ret_at,
                uint64_t *ret_dur, struct pm_error *err)
{
    int rc = 0;

    *ret_at = *ret_dur = 0;
    while (rc == 0 && operations->has && operations->at_ns < from_ns)
        rc = next_operation(operations, err);
    if (rc == 0 && operations->has && operations->at_ns <= to_ns) {
        *ret_at = operations->at_ns;
        *ret_dur = operations->dur_ns;
        rc = next_operation(operations, err);
    }
    return rc;
}

/* ---- pairing ---- */

static uint64_t back(uint64_t at_ns, uint64_t by_ns)
{
    return at_ns > by_ns ? at_ns - by_ns : 0;
}

/* What the source comes to next: the pass at hand, once the schedules up to it are read. */
static int look(struct steps *steps, struct pm_error *err)
{
    int rc = 0;

    while (rc == 0 && steps->has_next && steps->n_waiting < WAITING &&
           (!steps->has_pass || steps->next.at_ns <= steps->pass_at_ns)) {
        struct schedule *schedule = &steps->waiting[steps->n_waiting++];
        uint64_t at;
        *schedule = steps->next;
        rc = take(&steps->operations[SCHEDULING], back(schedule->at_ns, NEAR_NS),
                  schedule->at_ns + NEAR_NS, &at, &schedule->dur_ns, err);
        if (rc == 0)
            rc = next_batch(steps, err);
    }
    steps->source.at_end = !steps->has_pass && steps->n_waiting == 0;
    if (steps->n_waiting > 0)
        steps->source.at_ns = steps->waiting[0].at_ns;
    else
        steps->source.at_ns = steps->pass_at_ns;
    return rc;
}

static void drop_oldest(struct steps *steps)
{
    steps->n_waiting--;
    memmove(steps->waiting, steps->waiting + 1, steps->n_waiting * sizeof(*steps->waiting));
}

/* ---- writing ---- */

static void fix_phase(struct pm_convert *all, unsigned *phase, uint32_t requests, uint32_t tokens)
{
    if (*phase == PM_PHASE_DECODE && tokens > requests) {
        *phase = PM_PHASE_PREFILL;
        all->result->rephased++;
    }
}

static int write_schedule(struct pm_convert *all, const struct schedule *schedule)
{
    struct pm_sched_step *fact;
    unsigned phase = schedule->phase;
    int rc = pm_convert_reserve(all, PM_CONVERT_SCHED, &fact);

    if (rc != 0)
        return rc;
    fix_phase(all, &phase, schedule->requests, schedule->tokens);
    fact->step = all->step;
    fact->start_ns = all->start_ns + schedule->at_ns;
    fact->dur_ns = narrow(schedule->dur_ns);
    fact->phase = (uint8_t)(schedule->tokens > 0 ? phase : PM_PHASE_EMPTY);
    fact->requests = schedule->requests;
    fact->tokens = schedule->tokens;
    if (phase == PM_PHASE_PREFILL) {
        fact->prefill_requests = schedule->requests;
        fact->prefill_tokens = schedule->tokens;
    } else {
        fact->decode_requests = schedule->requests;
        fact->decode_tokens = schedule->tokens;
    }
    fact->running = schedule->running;
    fact->waiting = schedule->waiting;
    fact->max_requests = schedule->max_requests;
    fact->max_tokens = schedule->max_tokens;
    pm_recorder_commit(all->rec, fact);
    all->result->schedules++;
    return 0;
}

/* What the host did round a pass. */
struct around {
    uint64_t prep_at, prep_ns, sample_at, sample_ns, output_at, output_ns, whole_at, whole_ns;
};

static int look_around(struct steps *steps, struct around *around, struct pm_error *err)
{
    const uint64_t at = steps->pass_at_ns, end = at + steps->pass_ns;
    int rc = take(&steps->operations[PREPARATION], back(at, NEAR_NS), at, &around->prep_at,
                  &around->prep_ns, err);
    if (rc == 0)
        rc = take(&steps->operations[EXECUTION], back(at, steps->pass_ns + NEAR_NS), end + NEAR_NS,
                  &around->whole_at, &around->whole_ns, err);
    if (rc == 0)
        rc = take(&steps->operations[SAMPLING], at, end + NEAR_NS, &around->sample_at,
                  &around->sample_ns, err);
    if (rc == 0)
        rc = take(&steps->operations[OUTPUT], at, end + around->sample_ns + 2 * NEAR_NS,
                  &around->output_at, &around->output_ns, err);
    return rc;
}

static int write_pass(struct steps *steps, struct pm_convert *all, const struct schedule *schedule)
{
    struct around around;
    struct pm_worker_step *fact;
    unsigned phase = steps->pass_phase;
    int rc = look_around(steps, &around, all->err);

    if (rc == 0)
        rc = pm_convert_reserve(all, PM_CONVERT_WORKER, &fact);
    if (rc != 0)
        return rc;
    fact->step = all->step;
    fact->requests = schedule != NULL ? schedule->requests : steps->pass_requests;
    fact->tokens = schedule != NULL ? schedule->tokens : steps->pass_tokens;
    if (schedule == NULL)
        fix_phase(all, &phase, fact->requests, fact->tokens);
    fact->phase = (uint8_t)phase;
    fact->pre_ns = narrow(around.prep_ns);
    fact->model_ns = narrow(steps->pass_ns);
    fact->model_ns_at = all->start_ns + steps->pass_at_ns;
    fact->start_ns = fact->model_ns_at - fact->pre_ns;
    const uint64_t parts = (uint64_t)fact->pre_ns + fact->model_ns;
    fact->total_ns = narrow(around.whole_ns > parts ? around.whole_ns : parts);
    /* The operation is the sampler alone, a part of sampling. */
    if (around.sample_at > fact->start_ns - all->start_ns) {
        fact->sampler_at_ns = narrow(around.sample_at - (fact->start_ns - all->start_ns));
        fact->sampler_ns = narrow(around.sample_ns);
    }
    fact->gpu_ns = all->on_device ? steps->pass_ns : 0;
    fact->runner = 1;
    fact->flags = PM_WORKER_HAS_MODEL | (all->on_device ? PM_WORKER_DEVICE : 0);
    pm_recorder_commit(all->rec, fact);
    all->result->passes++;
    if (around.output_ns != 0) {
        struct pm_update_step *update;
        rc = pm_convert_reserve(all, PM_CONVERT_UPDATE, &update);
        if (rc != 0)
            return rc;
        update->step = all->step;
        update->start_ns = all->start_ns + around.output_at;
        update->dur_ns = narrow(around.output_ns);
        pm_recorder_commit(all->rec, update);
    }
    return 0;
}

static int write_next(struct pm_source *source, struct pm_convert *all)
{
    struct steps *steps = (struct steps *)(void *)source;
    const struct schedule *mine = NULL;
    int rc = 0;

    for (unsigned w = 0; w < steps->n_waiting && steps->has_pass && mine == NULL; w++)
        if (steps->waiting[w].tokens == steps->pass_tokens)
            mine = &steps->waiting[w];
    if (mine == NULL && steps->n_waiting > 0)
        mine = &steps->waiting[0];
    /* Those before it had no pass. */
    while (rc == 0 && mine != NULL && mine != &steps->waiting[0]) {
        rc = write_schedule(all, &steps->waiting[0]);
        all->step++;
        drop_oldest(steps);
        mine--;
    }
    if (rc == 0 && mine != NULL)
        rc = write_schedule(all, mine);
    if (rc == 0 && steps->has_pass) {
        all->result->unpaired += mine == NULL && steps->batches.file != NULL;
        rc = write_pass(steps, all, mine);
        if (rc == 0)
            rc = next_pass(steps, all->err);
    }
    all->step++;
    if (mine != NULL)
        drop_oldest(steps);
    return rc == 0 ? look(steps, all->err) : rc;
}

static void close_steps(struct pm_source *source)
{
    struct steps *steps = (struct steps *)(void *)source;
    pm_csv_close(&steps->passes);
    pm_csv_close(&steps->batches);
    for (unsigned o = 0; o < OPERATIONS; o++)
        pm_csv_close(&steps->operations[o].csv);
    free(steps);
}

int pm_source_steps(struct pm_source **ret_source, const char *dir, struct pm_error *err)
{
    struct steps *steps = calloc(1, sizeof(*steps));

    if (steps == NULL)
        return pm_error_set(err, -PM_ENOMEM, "out of memory");
    steps->source.write = write_next;
    steps->source.close = close_steps;
    int rc = pm_csv_open(&steps->passes, dir, "forward_pass_timing.csv", pass_columns,
                         sizeof(pass_columns) / sizeof(*pass_columns), P_FULL_MS, err);
    if (rc == 0 && steps->passes.number > 0 && steps->passes.places[P_FULL_MS] < 0 &&
        steps->passes.places[P_SIMPLE_MS] < 0)
        rc = pm_error_set(err, -PM_EFORMAT,
                          "%.300s, line 1: there is no column forward_time_ms or duration_ms, this "
                          "is no file of the profiler",
                          steps->passes.path);
    if (rc == 0)
        rc = pm_csv_open(&steps->batches, dir, "batch_utilization.csv", batch_columns,
                         sizeof(batch_columns) / sizeof(*batch_columns), B_MAX_REQUESTS, err);
    for (unsigned o = 0; rc == 0 && o < OPERATIONS; o++) {
        steps->operations[o].name = operation_names[o];
        rc = pm_csv_open(&steps->operations[o].csv, dir, "cpu_operations_timing.csv",
                         operation_columns, 3, 3, err);
        if (rc == 0)
            rc = next_operation(&steps->operations[o], err);
    }
    if (rc == 0)
        rc = next_pass(steps, err);
    if (rc >= 0)
        rc = next_batch(steps, err);
    if (rc >= 0)
        rc = look(steps, err);
    if (rc < 0) {
        close_steps(&steps->source);
        return rc;
    }
    *ret_source = &steps->source;
    return 0;
}
