/*
 * The engine core's and the worker's operations (see cpu.h): scheduling, batch_prep,
 * model_execution, sampling, bookkeeping, drafting, output_processing. Steps without tokens have
 * none.
 */
#include "view/cpu.h"

#include <stdlib.h>

#include "reader/engine_facts.h"

static void tag_step(struct pm_cpu_op *op, uint64_t step, const char *first, uint64_t first_value,
                     const char *second, uint64_t second_value)
{
    op->tags[0].key = "step";
    op->tags[0].value = step;
    op->tags[1].key = first;
    op->tags[1].value = first_value;
    op->tags[2].key = second;
    op->tags[2].value = second_value;
}

/* ---- scheduling and output_processing: facts of the engine core ---- */

struct engine_source {
    struct pm_cpu_source base;
    struct pm_engine_facts *facts;
};

static void engine_close(struct pm_cpu_source *base)
{
    struct engine_source *source = (struct engine_source *)base;
    pm_engine_facts_close(source->facts);
    free(source);
}

static int scheduling_next(struct pm_cpu_source *base, struct pm_cpu_op *ret_op)
{
    struct engine_source *source = (struct engine_source *)base;
    struct pm_sched_step step;
    int rc;

    while ((rc = pm_engine_facts_next(source->facts, &step)) == 1) {
        if (step.tokens == 0)
            continue;
        ret_op->operation = "scheduling";
        ret_op->at_ns = step.start_ns;
        ret_op->dur_ns = step.dur_ns;
        tag_step(ret_op, step.step, "num_seqs", step.requests, "num_tokens", step.tokens);
        return 1;
    }
    return rc;
}

static int output_next(struct pm_cpu_source *base, struct pm_cpu_op *ret_op)
{
    struct engine_source *source = (struct engine_source *)base;
    struct pm_update_step update;
    int rc;

    while ((rc = pm_engine_facts_next(source->facts, &update)) == 1) {
        if (update.outputs == 0 && update.gap_ns == 0) /* of a step without tokens */
            continue;
        ret_op->operation = "output_processing";
        ret_op->at_ns = update.start_ns;
        ret_op->dur_ns = update.dur_ns;
        tag_step(ret_op, update.step, "outputs", update.outputs, "output_tokens",
                 update.output_tokens);
        return 1;
    }
    return rc;
}

static int engine_open(struct pm_cpu_source **ret_source, const struct pm_session *session,
                       size_t engine, bool sampler, enum pm_engine_fact kind,
                       int (*next)(struct pm_cpu_source *, struct pm_cpu_op *))
{
    *ret_source = NULL;
    if (!sampler || engine >= pm_session_engine_count(session))
        return 0;
    struct engine_source *source = calloc(1, sizeof(*source));
    if (source == NULL)
        return -PM_ENOMEM;
    int rc = pm_engine_facts_open(&source->facts, session, engine, kind);
    if (rc != 0) {
        free(source);
        return rc;
    }
    source->base = (struct pm_cpu_source){.next = next, .close = engine_close};
    *ret_source = &source->base;
    return 0;
}

int pm_cpu_open_scheduling(struct pm_cpu_source **ret_source, const struct pm_session *session,
                           size_t engine, unsigned n, bool sampler)
{
    (void)n;
    return engine_open(ret_source, session, engine, sampler, PM_ENGINE_SCHED, scheduling_next);
}

int pm_cpu_open_output(struct pm_cpu_source **ret_source, const struct pm_session *session,
                       size_t engine, unsigned n, bool sampler)
{
    (void)n;
    return engine_open(ret_source, session, engine, sampler, PM_ENGINE_UPDATE, output_next);
}

/* ---- the worker's ---- */

#define PARTS_MAX 5

struct worker_source {
    struct pm_cpu_source base;
    struct pm_steps *steps;
    struct pm_cpu_op parts[PARTS_MAX]; /* of the step at hand, in order of time */
    unsigned n_parts, given;
};

static void worker_close(struct pm_cpu_source *base)
{
    struct worker_source *source = (struct worker_source *)base;
    pm_steps_close(source->steps);
    free(source);
}

static void add_part(struct worker_source *source, const struct pm_step *step, const char *name,
                     uint64_t at_ns, uint64_t dur_ns)
{
    if (dur_ns == 0)
        return;
    unsigned at = source->n_parts++;
    for (; at > 0 && source->parts[at - 1].at_ns > at_ns; at--)
        source->parts[at] = source->parts[at - 1];
    struct pm_cpu_op *part = &source->parts[at];
    part->operation = name;
    part->at_ns = at_ns;
    part->dur_ns = dur_ns;
    tag_step(part, step->step, "num_seqs", step->requests, "num_tokens", step->tokens);
}

static void split(struct worker_source *source, const struct pm_step *step)
{
    const uint64_t start_ns = step->worker_start_ns;
    source->n_parts = source->given = 0;
    add_part(source, step, "batch_prep", start_ns, step->pre_ns);
    add_part(source, step, "model_execution", start_ns + step->pre_ns, step->model_ns);
    if (step->sampler_ns != 0)
        add_part(source, step, "sampling", start_ns + step->sampler_at_ns, step->sampler_ns);
    else /* only the whole of sample_tokens was seen */
        add_part(source, step, "sampling",
                 start_ns +
                     (step->total_ns > step->sample_ns ? step->total_ns - step->sample_ns : 0),
                 step->sample_ns);
    add_part(source, step, "bookkeeping", start_ns + step->bookkeep_at_ns, step->bookkeep_ns);
    add_part(source, step, "drafting", start_ns + step->draft_at_ns, step->draft_ns);
}

static int worker_next(struct pm_cpu_source *base, struct pm_cpu_op *ret_op)
{
    struct worker_source *source = (struct worker_source *)base;
    struct pm_step step;
    int rc;

    while (source->given == source->n_parts) {
        rc = pm_steps_next(source->steps, &step);
        if (rc != 1)
            return rc;
        if (step.has_worker && step.tokens > 0)
            split(source, &step);
    }
    *ret_op = source->parts[source->given++];
    return 1;
}

int pm_cpu_open_worker(struct pm_cpu_source **ret_source, const struct pm_session *session,
                       size_t engine, unsigned n, bool sampler)
{
    (void)sampler;
    *ret_source = NULL;
    if (engine >= pm_session_engine_count(session))
        return 0;
    struct worker_source *source = calloc(1, sizeof(*source));
    if (source == NULL)
        return -PM_ENOMEM;
    int rc = pm_steps_open(&source->steps, session, engine, n);
    if (rc != 0) {
        free(source);
        return rc;
    }
    source->base = (struct pm_cpu_source){.next = worker_next, .close = worker_close};
    *ret_source = &source->base;
    return 0;
}
