/*
 * CUDA graphs in the reports: how many steps ran from a graph, why the others did not, what padding
 * cost, and whether one graph dominates. Called by report_text.c and report_json.c.
 */
#include "view/graph.h"

#include <string.h>

#include "session/attrs.h"

#define GRAPHS_SHOWN 5   /* in the text */
#define GRAPHS_LISTED 50 /* in the JSON */

static const char *const words[PM_GRAPH_OUTCOMES_COUNT] = {
#define PM_GRAPH_OUTCOME_WORD(name, word, sentence) [PM_GRAPH_##name] = word,
    PM_GRAPH_OUTCOMES(PM_GRAPH_OUTCOME_WORD)
#undef PM_GRAPH_OUTCOME_WORD
};
static const char *const sentences[PM_GRAPH_OUTCOMES_COUNT] = {
#define PM_GRAPH_OUTCOME_SENTENCE(name, word, sentence) [PM_GRAPH_##name] = sentence,
    PM_GRAPH_OUTCOMES(PM_GRAPH_OUTCOME_SENTENCE)
#undef PM_GRAPH_OUTCOME_SENTENCE
};

/* Steps with tokens, and of them those whose model was replayed. */
static uint64_t replayed_of(const struct pm_graph_sums *sums)
{
    return sums->passes[PM_GRAPH_FULL] + sums->passes[PM_GRAPH_PIECEWISE];
}

static uint64_t steps_of(const struct pm_graph_sums *sums)
{
    uint64_t steps = 0;
    for (unsigned i = 0; i < PM_GRAPH_OUTCOMES_COUNT; i++)
        steps += i != PM_GRAPH_ASIDE ? sums->passes[i] : 0;
    return steps;
}

static double share(uint64_t part, uint64_t whole)
{
    return whole != 0 ? 100.0 * (double)part / (double)whole : 0.0;
}

/* How many of the most replayed graphs have this share of the replays. */
static size_t graphs_with(const struct pm_graph_sums *sums, unsigned pct)
{
    uint64_t replays = 0;
    size_t count = 0;
    while (count < sums->n_rows && replays * 100 < sums->replays * pct)
        replays += sums->rows[count++].replays;
    return count;
}

static size_t graphs_replayed(const struct pm_graph_sums *sums)
{
    size_t count = 0;
    while (count < sums->n_rows && sums->rows[count].replays > 0)
        count++;
    return count;
}

/* ---- text ---- */

static void put_steps(struct pm_buf *buf, const struct pm_graph_sums *sums)
{
    const uint64_t steps = steps_of(sums), replayed = replayed_of(sums);

    (void)pm_buf_printf(buf, "  %-12s%.1f %% of %llu from a graph: %llu whole, %llu in pieces\n",
                        "steps", share(replayed, steps), (unsigned long long)steps,
                        (unsigned long long)sums->passes[PM_GRAPH_FULL],
                        (unsigned long long)sums->passes[PM_GRAPH_PIECEWISE]);
    if (sums->passes[PM_GRAPH_CAPTURED] > 0)
        (void)pm_buf_printf(buf, "  %-12s%llu waited for a capture at run time\n", "",
                            (unsigned long long)sums->passes[PM_GRAPH_CAPTURED]);
    for (unsigned i = PM_GRAPH_EAGER; i < PM_GRAPH_OUTCOMES_COUNT; i++)
        if (sums->passes[i] > 0)
            (void)pm_buf_printf(buf, "  %-12s%llu: %s\n", "eager",
                                (unsigned long long)sums->passes[i], sentences[i]);
}

static void put_padding(struct pm_buf *buf, const struct pm_graph_sums *sums)
{
    const uint64_t padding = sums->padding[PM_GRAPH_FULL] + sums->padding[PM_GRAPH_PIECEWISE];
    const uint64_t computed =
        padding + sums->tokens[PM_GRAPH_FULL] + sums->tokens[PM_GRAPH_PIECEWISE];

    if (computed > 0)
        (void)pm_buf_printf(buf, "  %-12s%llu of %llu tokens in graphs for nothing (%.1f %%)\n",
                            "padding", (unsigned long long)padding, (unsigned long long)computed,
                            share(padding, computed));
}

static void put_graphs(struct pm_buf *buf, const struct pm_graph_sums *sums)
{
    const size_t used = graphs_replayed(sums);

    if (sums->replays == 0)
        return;
    if (graphs_with(sums, 50) == 1)
        (void)pm_buf_printf(buf, "  %-12s%zu of %zu were replayed; one has most of the replays\n",
                            "graphs", used, sums->n_rows);
    else
        (void)pm_buf_printf(buf, "  %-12s%zu of %zu were replayed; %zu have 90 %% of the replays\n",
                            "graphs", used, sums->n_rows, graphs_with(sums, 90));
    for (size_t i = 0; i < used && i < GRAPHS_SHOWN; i++) {
        char text[PM_GRAPH_TEXT_MAX];
        *pm_graph_put_desc(text, &sums->rows[i].desc, '|') = '\0';
        (void)pm_buf_printf(buf, "  %-12s%-36s%12llu%8.1f %%\n", "", text,
                            (unsigned long long)sums->rows[i].replays,
                            share(sums->rows[i].replays, sums->replays));
    }
}

static bool has_data(const struct pm_graph_sums *sums)
{
    return sums->n_rows > 0 || steps_of(sums) > 0;
}

int pm_graph_report_text(const struct pm_session *session, size_t engine, unsigned n, bool colour,
                         struct pm_buf *buf)
{
    const char *mode = pm_session_attr(session, PM_ATTR_CONFIG_PREFIX "cudagraph_mode");
    struct pm_graph_sums sums;
    const int rc = pm_graph_walk(session, engine, n, NULL, NULL, &sums);

    if (rc == 0 && has_data(&sums)) {
        pm_graph_sort(&sums);
        (void)pm_buf_printf(buf, "\n%sCUDA graphs (%s)%s\n", colour ? "\033[1m" : "",
                            mode != NULL ? mode : "mode not known", colour ? "\033[0m" : "");
        (void)pm_buf_printf(buf, "  %-12s%llu in %.2f s", "captured",
                            (unsigned long long)sums.captures, (double)sums.capture_ns / 1e9);
        if (sums.captures_at_runtime > 0)
            (void)pm_buf_printf(buf, ", %llu of them at run time",
                                (unsigned long long)sums.captures_at_runtime);
        (void)pm_buf_add_char(buf, '\n');
        if (steps_of(&sums) > 0)
            put_steps(buf, &sums);
        put_padding(buf, &sums);
        put_graphs(buf, &sums);
        if (sums.recycled && !sums.from_totals)
            (void)pm_buf_add_text(buf, "  Older steps had to go: these are the ones left; replays "
                                       "are counted since the start.\n");
    }
    pm_graph_sums_release(&sums);
    return rc != 0 ? rc : pm_buf_status(buf);
}

/* ---- JSON ---- */

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_ratio(struct pm_json *json, const char *key, uint64_t part, uint64_t whole)
{
    pm_json_key(json, key);
    if (whole != 0)
        pm_json_ratio(json, part, 100, whole, 2);
    else
        pm_json_null(json);
}

static void put_rows(struct pm_json *json, const struct pm_graph_sums *sums)
{
    static const char *const holders[PM_GRAPH_HOLDERS_COUNT] = {
#define PM_GRAPH_HOLDER_TEXT(name, text) [PM_GRAPH_HOLDER_##name] = text,
        PM_GRAPH_HOLDERS(PM_GRAPH_HOLDER_TEXT)
#undef PM_GRAPH_HOLDER_TEXT
    };
    pm_json_key(json, "most_replayed");
    pm_json_array(json);
    for (size_t i = 0; i < sums->n_rows && i < GRAPHS_LISTED; i++) {
        const struct pm_graph_row *row = &sums->rows[i];
        char text[PM_GRAPH_TEXT_MAX];
        *pm_graph_put_desc(text, &row->desc, '|') = '\0';
        pm_json_object(json);
        pm_json_key(json, "descriptor");
        pm_json_text(json, text);
        pm_json_key(json, "holder");
        pm_json_text(json, holders[row->desc.holder % PM_GRAPH_HOLDERS_COUNT]);
        put_u64(json, "pieces", row->pieces);
        put_u64(json, "replays", row->replays);
        put_u64(json, "captured_at_run_time", row->at_runtime);
        pm_json_key(json, "capture_ms");
        pm_json_ms3(json, row->capture_ns);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_outcomes(struct pm_json *json, const struct pm_graph_sums *sums)
{
    pm_json_key(json, "outcomes");
    pm_json_object(json);
    for (unsigned i = 0; i < PM_GRAPH_OUTCOMES_COUNT; i++)
        put_u64(json, words[i], sums->passes[i]);
    pm_json_end(json);
}

int pm_graph_report_json(const struct pm_session *session, size_t engine, unsigned n,
                         struct pm_json *json)
{
    struct pm_graph_sums sums;
    const int rc = pm_graph_walk(session, engine, n, NULL, NULL, &sums);

    if (rc == 0 && has_data(&sums)) {
        const uint64_t padding = sums.padding[PM_GRAPH_FULL] + sums.padding[PM_GRAPH_PIECEWISE];
        const uint64_t tokens = sums.tokens[PM_GRAPH_FULL] + sums.tokens[PM_GRAPH_PIECEWISE];
        pm_graph_sort(&sums);
        pm_json_object(json);
        put_u64(json, "graphs", sums.n_rows);
        put_u64(json, "captures", sums.captures);
        put_u64(json, "captures_at_run_time", sums.captures_at_runtime);
        pm_json_key(json, "capture_ms");
        pm_json_ms3(json, sums.capture_ns);
        put_u64(json, "steps", steps_of(&sums));
        put_u64(json, "replays", sums.replays);
        put_ratio(json, "hit_rate_pct", replayed_of(&sums), steps_of(&sums));
        put_u64(json, "tokens", tokens);
        put_u64(json, "padding_tokens", padding);
        put_ratio(json, "padding_pct", padding, tokens + padding);
        put_outcomes(json, &sums);
        put_rows(json, &sums);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_graph_sums_release(&sums);
    return rc;
}
