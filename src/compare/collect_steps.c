/*
 * The steps of one engine, joined by number with what else is known of them: update_from_output,
 * the KV cache, CUDA graphs. All walks go forward once, side by side.
 */
#include "compare/collect_parts.h"

#include <stdlib.h>
#include <string.h>

#include "reader/engine_facts.h"
#include "reader/kv_facts.h"
#include "session/attrs.h"
#include "session/graph_facts.h"
#include "view/columns.h"
#include "view/common.h"

#define UPDATES 64u /* read ahead of the step that they belong to; a power of two */

/* What stands beside the steps, each walked up to the step at hand. */
struct beside {
    struct pm_engine_facts *updates;
    struct pm_update_step update; /* the next one, not used yet */
    bool has_update;
    struct pm_update_step done[UPDATES]; /* the newest, by number */
    struct pm_kv_facts *kv;
    struct pm_kv_step kv_step;
    bool has_kv;
    uint64_t block_tokens;
    struct pm_cursor *graphs; /* NULL: nothing to read */
    int schema;
    unsigned instance;
    const struct pm_field *step, *tokens, *padding, *outcome, *which;
    uint64_t pass_step, pass_tokens, pass_padding;
    unsigned pass_outcome;
    bool has_pass;
};

static int next_update(struct beside *all)
{
    int rc;
    do
        rc = pm_engine_facts_next(all->updates, &all->update);
    while (rc == 1 && (all->update.flags & PM_UPDATE_UNKNOWN_STEP) != 0);
    all->has_update = rc == 1;
    return rc < 0 ? rc : 0;
}

static int next_kv(struct beside *all)
{
    const int rc = pm_kv_steps_next(all->kv, &all->kv_step);
    all->has_kv = rc == 1;
    return rc < 0 ? rc : 0;
}

static int next_pass(struct beside *all)
{
    struct pm_record record;
    int rc = 0;

    all->has_pass = false;
    while (all->graphs != NULL && (rc = pm_cursor_next(all->graphs, &record)) == 1) {
        if ((int)record.schema != all->schema || record.keyframe ||
            pm_column_get(all->which, record.payload) != all->instance)
            continue;
        all->pass_outcome = (unsigned)pm_column_get(all->outcome, record.payload);
        if (all->pass_outcome == PM_GRAPH_ASIDE)
            continue;
        all->pass_step = pm_column_get(all->step, record.payload);
        all->pass_tokens = pm_column_get(all->tokens, record.payload);
        all->pass_padding = pm_column_get(all->padding, record.payload);
        all->has_pass = true;
        return 0;
    }
    return rc < 0 ? rc : 0;
}

static void close_beside(struct beside *all)
{
    if (all->updates != NULL)
        pm_engine_facts_close(all->updates);
    pm_kv_facts_close(all->kv);
    pm_cursor_close(all->graphs);
}

static int open_graphs(struct beside *all, const struct pm_session *session, size_t engine,
                       unsigned worker)
{
    const struct pm_process *process;
    int rank;

    if (pm_engine_worker(session, engine, worker, &process, &all->instance, &rank) != 0)
        return 0;
    all->schema = pm_process_schema_find(process, "graph_pass");
    if (all->schema < 0)
        return 0;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)all->schema);
    all->step = pm_column(schema, "step");
    all->tokens = pm_column(schema, "tokens");
    all->padding = pm_column(schema, "padding");
    all->outcome = pm_column(schema, "outcome");
    all->which = pm_column(schema, "instance");
    int rc = pm_cursor_open(&all->graphs, process, schema->stream);
    return rc == 0 ? next_pass(all) : rc;
}

static int open_beside(struct beside *all, const struct pm_session *session, size_t engine,
                       unsigned worker)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    const char *block =
        which->process != NULL ? pm_process_attr(which->process, "config.block_size") : NULL;

    all->block_tokens = block != NULL ? strtoull(block, NULL, 10) : 0;
    if (all->block_tokens == 0 || all->block_tokens > 65536)
        all->block_tokens = 16; /* vLLM's usual one */
    int rc = pm_engine_facts_open(&all->updates, session, engine, PM_ENGINE_UPDATE);
    if (rc == 0)
        rc = next_update(all);
    if (rc == 0)
        rc = pm_kv_steps_open(&all->kv, session, engine);
    if (rc == 0)
        rc = next_kv(all);
    return rc == 0 ? open_graphs(all, session, engine, worker) : rc;
}

/* Walks the others up to this step and tells what they say of it. */
static int look_beside(struct beside *all, const struct pm_step *step, uint64_t last_end_ns,
                       struct pm_step_beside *ret_beside)
{
    int rc = 0;

    memset(ret_beside, 0, sizeof(*ret_beside));
    while (rc == 0 && all->has_update && all->update.step <= step->step) {
        all->done[all->update.step % UPDATES] = all->update;
        rc = next_update(all);
    }
    while (rc == 0 && all->has_kv && all->kv_step.step < step->step)
        rc = next_kv(all);
    while (rc == 0 && all->has_pass && all->pass_step < step->step)
        rc = next_pass(all);
    if (rc != 0)
        return rc;
    const struct pm_update_step *update = &all->done[step->step % UPDATES];
    if (update->start_ns != 0 && update->step == step->step) {
        ret_beside->has_update = true;
        ret_beside->update_start_ns = update->start_ns;
        ret_beside->update_ns = update->dur_ns;
        ret_beside->gap_ns = update->gap_ns;
        ret_beside->outputs = update->outputs;
        ret_beside->continued = update->continued;
        ret_beside->drafted = update->drafted;
        ret_beside->accepted = update->accepted;
    }
    /* In the gap before this step runs the update of the step before or, where steps overlap, of
     * the one before that. */
    for (uint64_t back = 1; back <= 2 && back <= step->step; back++) {
        update = &all->done[(step->step - back) % UPDATES];
        if (update->start_ns == 0 || update->step != step->step - back ||
            update->start_ns < last_end_ns || update->start_ns > step->worker_start_ns)
            continue;
        ret_beside->has_update_before = true;
        ret_beside->before_start_ns = update->start_ns;
        ret_beside->before_ns = update->dur_ns;
        break;
    }
    if (all->has_kv && all->kv_step.step == step->step) {
        ret_beside->has_kv = true;
        ret_beside->kv_used = all->kv_step.used;
        ret_beside->kv_total = all->kv_step.total;
        ret_beside->kv_queried = all->kv_step.queried_tokens;
        ret_beside->kv_hits = all->kv_step.hit_tokens;
        ret_beside->block_tokens = all->block_tokens;
    }
    if (all->has_pass && all->pass_step == step->step) {
        ret_beside->has_pass = true;
        ret_beside->eager = all->pass_outcome >= PM_GRAPH_EAGER;
        ret_beside->graph_tokens = all->pass_tokens;
        ret_beside->padding = all->pass_padding;
    }
    return 0;
}

static int walk(struct pm_steps *steps, struct beside *all, const struct pm_known *known,
                struct pm_levels *levels, struct pm_collected *collected)
{
    struct pm_step_walk walk = {0};
    struct pm_step_beside beside;
    struct pm_observation seen;
    struct pm_step step;
    uint64_t first_ns = 0;
    int rc;

    while ((rc = pm_steps_next(steps, &step)) == 1) {
        if (step.has_sched)
            pm_levels_add(levels, step.sched_start_ns, (double)step.running + step.waiting,
                          (double)step.prefill_tokens + step.recompute_tokens);
        if (!step.has_worker || step.tokens == 0)
            continue;
        if (step.failed || (step.has_sched && !step.matched) || (known->sched && !step.has_sched)) {
            collected->left_out++;
            continue;
        }
        rc = look_beside(all, &step, walk.last_end_ns, &beside);
        if (rc != 0)
            return rc;
        pm_step_observe(&walk, known, &step, &beside, &seen);
        if (first_ns == 0)
            first_ns = step.worker_start_ns;
        collected->clocks[step.forward_clock & 3]++;
        rc = pm_tally_add(&collected->steps, &seen);
        if (rc != 0)
            return rc;
    }
    if (first_ns != 0 && walk.last_end_ns > first_ns)
        collected->span_ns = walk.last_end_ns - first_ns;
    return rc;
}

int pm_collect_steps(const struct pm_session *session, size_t engine, const struct pm_known *known,
                     struct pm_levels *levels, struct pm_collected *collected)
{
    const unsigned worker = pm_engine_sampler(session, engine);
    struct beside all = {.schema = -1};
    struct pm_steps *steps = NULL;

    int rc = pm_steps_open(&steps, session, engine, worker);
    if (rc == 0)
        rc = open_beside(&all, session, engine, worker);
    if (rc == 0)
        rc = walk(steps, &all, known, levels, collected);
    close_beside(&all);
    pm_steps_close(steps);
    return rc;
}

int pm_collect_known(const struct pm_session *session, size_t engine, struct pm_known *ret_known)
{
    const struct pm_process *process = pm_session_engine(session, engine)->process;
    struct pm_known known = {.detail = true};
    struct pm_engine_facts *facts;
    struct pm_sched_step step;
    struct pm_kv_facts *kv;
    struct pm_kv_step level;

    int rc = pm_engine_facts_open(&facts, session, engine, PM_ENGINE_SCHED);
    if (rc != 0)
        return rc;
    rc = pm_engine_facts_next(facts, &step);
    known.sched = rc == 1;
    known.detail =
        process == NULL || pm_process_attr(process, PM_ATTR_NOTE_PREFIX "converted") == NULL;
    pm_engine_facts_close(facts);
    if (rc < 0)
        return rc;
    rc = pm_kv_steps_open(&kv, session, engine);
    if (rc != 0)
        return rc;
    rc = pm_kv_steps_next(kv, &level);
    /* Blocks say how many tokens they hold only with their size, which files of old do not have. */
    known.kv =
        rc == 1 && level.total > 0 &&
        (known.detail || pm_process_attr(process, PM_ATTR_CONFIG_PREFIX "block_size") != NULL);
    pm_kv_facts_close(kv);
    if (rc < 0)
        return rc;
    *ret_known = known;
    return 0;
}
