/* See wasted.h. One walk through the steps, and beside it through the updates and the graphs. */
#include "view/wasted.h"

#include <string.h>

#include "base/number.h"
#include "reader/engine_facts.h"
#include "session/graph_facts.h"
#include "view/columns.h"
#include "view/seed.h"

/* Updates that are read ahead of their step: more than steps are in flight. */
#define UPDATES 64u

struct walk {
    struct pm_engine_facts *updates; /* NULL: none, or read to the end */
    struct pm_update_step update;    /* read, not used yet */
    bool has_update;
    struct pm_cursor *graphs; /* NULL: none */
    const struct pm_field *step, *padding, *outcome, *which;
    int schema;
    unsigned instance;
    uint64_t pass_step, pass_padding; /* read, not used yet */
    bool has_pass;
};

static const char *const cause_names[PM_WASTED_CAUSES] = {"rejected_drafts", "graph_padding",
                                                          "recomputed_tokens"};
static const char *const cause_words[PM_WASTED_CAUSES] = {"rejected drafts", "graph padding",
                                                          "computed again"};

/* The next update whose step is known. */
static int next_update(struct walk *walk)
{
    int rc = 0;
    walk->has_update = false;
    while (walk->updates != NULL && !walk->has_update &&
           (rc = pm_engine_facts_next(walk->updates, &walk->update)) == 1)
        walk->has_update = (walk->update.flags & PM_UPDATE_UNKNOWN_STEP) == 0;
    return rc < 0 ? rc : 0;
}

/* The next pass of this worker's model from a graph. */
static int next_pass(struct walk *walk)
{
    struct pm_record record;
    int rc = 0;

    walk->has_pass = false;
    while (walk->graphs != NULL && (rc = pm_cursor_next(walk->graphs, &record)) == 1) {
        if (record.keyframe || (int)record.schema != walk->schema ||
            pm_column_get(walk->which, record.payload) != walk->instance)
            continue;
        const uint64_t outcome = pm_column_get(walk->outcome, record.payload);
        if (outcome != PM_GRAPH_FULL && outcome != PM_GRAPH_PIECEWISE)
            continue; /* what an eager pass is padded with is not known to be computed */
        walk->pass_step = pm_column_get(walk->step, record.payload);
        walk->pass_padding = pm_column_get(walk->padding, record.payload);
        walk->has_pass = true;
        return 0;
    }
    return rc < 0 ? rc : 0;
}

static int open_walk(struct walk *walk, const struct pm_session *session, size_t engine, unsigned n)
{
    const struct pm_process *process;
    int rank;
    int rc = pm_engine_facts_open(&walk->updates, session, engine, PM_ENGINE_UPDATE);

    if (rc == 0)
        rc = next_update(walk);
    if (rc != 0 || pm_engine_worker(session, engine, n, &process, &walk->instance, &rank) != 0)
        return rc;
    walk->schema = pm_process_schema_find(process, "graph_pass");
    if (walk->schema < 0)
        return 0;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)walk->schema);
    walk->step = pm_column(schema, "step");
    walk->padding = pm_column(schema, "padding");
    walk->outcome = pm_column(schema, "outcome");
    walk->which = pm_column(schema, "instance");
    rc = pm_cursor_open(&walk->graphs, process, schema->stream);
    return rc == 0 ? next_pass(walk) : rc;
}

static void close_walk(struct walk *walk)
{
    pm_engine_facts_close(walk->updates);
    pm_cursor_close(walk->graphs);
}

static int put_row(struct pm_outfile *file, const struct pm_update_step *update, uint64_t start_ns)
{
    char *out = pm_buf_reserve(&file->buf, 4 * (PM_NUMBER_MAX + 1));
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(update->start_ns - start_ns));
    *out++ = ',';
    out = pm_number_u64(out, update->drafted);
    *out++ = ',';
    out = pm_number_u64(out, update->accepted);
    *out++ = ',';
    out = pm_number_u64(out, update->drafted > update->accepted ? update->drafted - update->accepted
                                                                : 0);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

/* An update counts whatever is known of its step; a row is written for each with drafts. */
static int take_update(struct pm_wasted *wasted, const struct pm_update_step *update,
                       struct pm_outfile *file, uint64_t start_ns)
{
    if (update->drafted == 0)
        return 0;
    wasted->spec_steps++;
    wasted->drafted += update->drafted;
    wasted->accepted += update->accepted;
    if (update->drafted > update->accepted)
        wasted->cause_tokens[PM_WASTED_DRAFTS] += update->drafted - update->accepted;
    wasted->rows++;
    return file != NULL ? put_row(file, update, start_ns) : 0;
}

static void add_step(struct pm_wasted *wasted, const struct pm_step *step, uint64_t rejected,
                     uint64_t padding)
{
    const uint64_t computed = step->tokens + padding;

    wasted->passes++;
    wasted->tokens += computed;
    wasted->draft_ns += step->draft_ns;
    wasted->cause_tokens[PM_WASTED_PADDING] += padding;
    wasted->cause_tokens[PM_WASTED_RECOMPUTED] += step->recompute_tokens;
    wasted->clocks[step->forward_clock & 3]++;
    if (step->forward_ns == 0)
        return;
    const double token_ns = (double)step->forward_ns / (double)computed;
    wasted->timed++;
    wasted->forward_ns += step->forward_ns;
    wasted->cause_ns[PM_WASTED_DRAFTS] += (double)rejected * token_ns;
    wasted->cause_ns[PM_WASTED_PADDING] += (double)padding * token_ns;
    wasted->cause_ns[PM_WASTED_RECOMPUTED] += (double)step->recompute_tokens * token_ns;
}

static int walk_steps(struct walk *walk, struct pm_steps *steps, struct pm_outfile *file,
                      uint64_t start_ns, struct pm_wasted *wasted)
{
    struct pm_update_step done[UPDATES];
    struct pm_step step;
    int rc, error = 0;

    memset(done, 0, sizeof(done));
    while (error == 0 && (rc = pm_steps_next(steps, &step)) == 1) {
        while (error == 0 && walk->has_update && walk->update.step <= step.step) {
            done[walk->update.step % UPDATES] = walk->update;
            error = take_update(wasted, &walk->update, file, start_ns);
            if (error == 0)
                error = next_update(walk);
        }
        while (error == 0 && walk->has_pass && walk->pass_step < step.step)
            error = next_pass(walk);
        if (error != 0 || step.tokens == 0 || step.failed || !step.has_worker)
            continue;
        const struct pm_update_step *update = &done[step.step % UPDATES];
        const bool known = update->start_ns != 0 && update->step == step.step;
        const uint64_t rejected =
            known && update->drafted > update->accepted ? update->drafted - update->accepted : 0;
        add_step(wasted, &step, rejected,
                 walk->has_pass && walk->pass_step == step.step ? walk->pass_padding : 0);
    }
    while (error == 0 && rc == 0 && walk->has_update) {
        error = take_update(wasted, &walk->update, file, start_ns);
        if (error == 0)
            error = next_update(walk);
    }
    return error != 0 ? error : rc;
}

int pm_wasted_walk(const struct pm_session *session, size_t engine, unsigned n,
                   struct pm_outfile *file, struct pm_wasted *ret_wasted)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    const struct pm_process *process;
    struct pm_wasted wasted = {0};
    struct walk walk = {0};
    struct pm_steps *steps;
    unsigned instance;
    int rank, rc = 0;

    if (file != NULL)
        rc = pm_buf_add_text(&file->buf, "timestamp_sec,drafted,accepted,rejected\n");
    *ret_wasted = wasted;
    if (rc != 0 || engine >= pm_session_engine_count(session))
        return rc;
    rc = pm_steps_open(&steps, session, engine, n);
    if (rc != 0)
        return rc;
    if (pm_engine_worker(session, engine, n, &process, &instance, &rank) == 0)
        wasted.recycled = pm_process_info(process)->first_fact[PM_STREAM_CORE] > 0;
    rc = open_walk(&walk, session, engine, n);
    if (rc == 0)
        rc = walk_steps(&walk, steps, file, start_ns, &wasted);
    close_walk(&walk);
    pm_steps_close(steps);
    if (rc == 0)
        *ret_wasted = wasted;
    return rc;
}

/* ---- what is said of it --------------------------------------------------------------------- */

static double pct(double part, double whole)
{
    return whole > 0 ? 100.0 * part / whole : 0.0;
}

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_pct(struct pm_json *json, const char *key, double part, double whole)
{
    pm_json_key(json, key);
    whole > 0 ? pm_json_double(json, pct(part, whole), 2) : pm_json_null(json);
}

static void put_waste(struct pm_json *json, const char *key, uint64_t tokens, double ns,
                      const struct pm_wasted *wasted)
{
    pm_json_key(json, key);
    pm_json_object(json);
    put_u64(json, "tokens", tokens);
    put_pct(json, "tokens_pct", (double)tokens, (double)wasted->tokens);
    pm_json_ms_double(json, "time_ms", ns, wasted->timed);
    put_pct(json, "time_pct", ns, (double)wasted->forward_ns);
    pm_json_end(json);
}

/* All causes together. */
static uint64_t all_of(const struct pm_wasted *wasted, double *ret_ns)
{
    uint64_t tokens = 0;
    *ret_ns = 0;
    for (unsigned i = 0; i < PM_WASTED_CAUSES; i++) {
        tokens += wasted->cause_tokens[i];
        *ret_ns += wasted->cause_ns[i];
    }
    return tokens;
}

/* What most times are. */
static const char *clock_of(const struct pm_wasted *wasted)
{
    struct pm_forward forward = {0};
    memcpy(forward.clocks, wasted->clocks, sizeof(forward.clocks));
    return pm_forward_clock(&forward);
}

void pm_wasted_summary(struct pm_json *json, const struct pm_wasted *wasted)
{
    double ns;
    const uint64_t tokens = all_of(wasted, &ns);

    pm_json_object(json);
    put_u64(json, "passes", wasted->passes);
    put_u64(json, "computed_tokens", wasted->tokens);
    pm_json_ms_double(json, "forward_time_ms", (double)wasted->forward_ns, wasted->timed);
    pm_json_key(json, "forward_clock");
    pm_json_text(json, clock_of(wasted));
    pm_json_key(json, "causes");
    pm_json_object(json);
    for (unsigned i = 0; i < PM_WASTED_CAUSES; i++)
        put_waste(json, cause_names[i], wasted->cause_tokens[i], wasted->cause_ns[i], wasted);
    pm_json_end(json);
    put_waste(json, "total", tokens, ns, wasted);
    pm_json_key(json, "drafts");
    pm_json_object(json);
    put_u64(json, "steps", wasted->spec_steps);
    put_u64(json, "drafted", wasted->drafted);
    put_u64(json, "accepted", wasted->accepted);
    put_u64(json, "rejected", wasted->cause_tokens[PM_WASTED_DRAFTS]);
    put_pct(json, "acceptance_pct", (double)wasted->accepted, (double)wasted->drafted);
    pm_json_ms_double(json, "proposing_host_ms", (double)wasted->draft_ns, wasted->spec_steps);
    pm_json_end(json);
    if (wasted->recycled) {
        pm_json_key(json, "detail");
        pm_json_text(json, "held");
    }
    pm_json_end(json);
}

static void put_row_text(struct pm_buf *buf, const char *name, uint64_t tokens, double ns,
                         const struct pm_wasted *wasted)
{
    (void)pm_buf_printf(buf, "  %-19s%12llu%9.2f %%%14.3f%9.2f %%\n", name,
                        (unsigned long long)tokens, pct((double)tokens, (double)wasted->tokens),
                        ns / 1e6, pct(ns, (double)wasted->forward_ns));
}

int pm_wasted_report_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                          struct pm_buf *buf)
{
    struct pm_wasted wasted;
    double ns;
    int rc = pm_wasted_walk(session, engine, n, NULL, &wasted);

    if (rc != 0 || (all_of(&wasted, &ns) == 0 && wasted.drafted == 0))
        return rc;
    (void)pm_buf_printf(buf, "\n%sWork that produced nothing%s\n", colour ? "\033[1m" : "",
                        colour ? "\033[0m" : "");
    (void)pm_buf_printf(buf, "  %-19s%12s%11s%14s%11s\n", "", "tokens", "of all", "ms",
                        "of forward");
    for (unsigned i = 0; i < PM_WASTED_CAUSES; i++)
        put_row_text(buf, cause_words[i], wasted.cause_tokens[i], wasted.cause_ns[i], &wasted);
    const uint64_t tokens = all_of(&wasted, &ns);
    put_row_text(buf, "together", tokens, ns, &wasted);
    if (wasted.drafted > 0)
        (void)pm_buf_printf(buf, "  drafts: %llu of %llu accepted (%.1f %%) in %llu steps\n",
                            (unsigned long long)wasted.accepted, (unsigned long long)wasted.drafted,
                            pct((double)wasted.accepted, (double)wasted.drafted),
                            (unsigned long long)wasted.spec_steps);
    (void)pm_buf_add_text(buf,
                          "  ms: a pass's time by the share of its tokens, as if each cost the "
                          "same.\n");
    if (wasted.recycled)
        (void)pm_buf_add_text(buf, "  Older steps had to go: this is of those held.\n");
    return pm_buf_status(buf);
}

int pm_wasted_report_json(const struct pm_session *session, size_t engine, unsigned n,
                          struct pm_json *json)
{
    struct pm_wasted wasted;
    const int rc = pm_wasted_walk(session, engine, n, NULL, &wasted);

    if (rc == 0) {
        pm_json_key(json, "wasted_work");
        pm_wasted_summary(json, &wasted);
    }
    return rc;
}

int pm_seed_wasted(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_wasted wasted;
    struct pm_outfile file;
    struct pm_json json;
    int rc = pm_seed_begin(seed, dir_fd, "spec_decode.csv", &file);

    if (rc != 0)
        return rc;
    rc = pm_wasted_walk(seed->session, engine, n, &file, &wasted);
    rc = pm_seed_finish(seed, &file, rc);
    if (rc != 0)
        return rc;
    seed->result.rows += wasted.rows;
    rc = pm_seed_begin(seed, dir_fd, "wasted_work.json", &file);
    if (rc != 0)
        return rc;
    pm_json_init(&json, &file.buf, 2);
    pm_wasted_summary(&json, &wasted);
    return pm_seed_finish(seed, &file, pm_json_finish(&json));
}
