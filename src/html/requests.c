/*
 * The requests of an engine for the page: those that are shown, when requests were preempted, and
 * how the latencies of all were spread. One walk. Called by page.c.
 */
#include "html/data.h"

#include <stdlib.h>
#include <string.h>

#include "html/chosen.h"
#include "html/spread.h"
#include "html/thin.h"
#include "reader/requests.h"

#define PREEMPTIONS_HELD 5000u
#define AWAY_MAX 64u /* intervals shown of one request */

enum latency { TTFT, TPOT, ITL, QUEUE, E2E, LATENCIES };
static const char *const latency_names[LATENCIES] = {"ttft", "tpot", "itl", "queue", "e2e"};

/* A request that was preempted and is not over. */
struct gone {
    struct gone *next;
    char *id;
    uint32_t n;
    struct pm_away away[AWAY_MAX];
};

enum preemption_column { LOST, BLOCKS, RESET, PREEMPTION_COLUMNS };
static const struct pm_thin_column preemption_columns[PREEMPTION_COLUMNS] = {
    [LOST] = {"lost", PM_THIN_ROW | PM_THIN_SUM},
    [BLOCKS] = {"blocks", PM_THIN_ROW | PM_THIN_SUM},
    [RESET] = {"reset", PM_THIN_ROW | PM_THIN_SUM},
};

struct walk {
    struct gone *gone[1024]; /* chains */
    struct pm_chosen chosen;
    struct pm_spread spreads[LATENCIES];
    struct pm_thin preemptions;
    uint64_t finished[PM_FINISH_COUNT];
    uint64_t prompt, cached, output, recomputed, lost, aborted_output, open, never_ran, preempted;
};

static struct gone **find(struct walk *walk, const char *id)
{
    uint32_t hash = 2166136261u;
    for (const char *c = id; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    struct gone **place = &walk->gone[hash % 1024];
    while (*place != NULL && strcmp((*place)->id, id) != 0)
        place = &(*place)->next;
    return place;
}

static void forget(struct gone **place)
{
    struct gone *gone = *place;
    *place = gone->next;
    free(gone->id);
    free(gone);
}

static int on_moment(const struct pm_request_moment *moment, void *arg)
{
    struct walk *walk = arg;
    struct gone **place;

    if (moment->kind == PM_MOMENT_RESUMED) {
        place = find(walk, moment->request->id);
        if (*place != NULL && (*place)->n > 0 && (*place)->away[(*place)->n - 1].to_ns == 0)
            (*place)->away[(*place)->n - 1].to_ns = moment->at_ns;
    }
    if (moment->kind != PM_MOMENT_PREEMPTED)
        return 0;
    place = find(walk, moment->request->id);
    if (*place == NULL) {
        struct gone *gone = calloc(1, sizeof(*gone));
        char *id = strdup(moment->request->id);
        if (gone == NULL || id == NULL) {
            free(gone);
            free(id);
            return -PM_ENOMEM;
        }
        gone->id = id;
        *place = gone;
    }
    if ((*place)->n < AWAY_MAX)
        (*place)->away[(*place)->n++] = (struct pm_away){.from_ns = moment->at_ns};
    const uint64_t values[PREEMPTION_COLUMNS] = {
        [LOST] = moment->tokens,
        [BLOCKS] = moment->blocks,
        [RESET] = moment->reason == PM_PREEMPT_RESET,
    };
    return pm_thin_add(&walk->preemptions, moment->at_ns, values);
}

static int on_gap(uint64_t gap_ns, uint32_t count, void *arg)
{
    return pm_spread_add(&((struct walk *)arg)->spreads[ITL], gap_ns, count);
}

/* The conditions are those of view/life.c: both reports say the same. */
static int count(struct walk *walk, const struct pm_request *request)
{
    const struct pm_request_fact *fact = &request->fact;
    const bool over = fact->state == PM_REQUEST_STATE_FINISHED;
    const unsigned reason = fact->reason == PM_FINISH_IGNORED ? PM_FINISH_LENGTH : fact->reason;
    int rc = 0;

    walk->open += !over;
    walk->never_ran += fact->started_ns == 0;
    walk->finished[reason < PM_FINISH_COUNT ? reason : PM_FINISH_OTHER] += over;
    walk->prompt += fact->prompt_tokens;
    walk->cached += fact->cached_tokens;
    walk->output += fact->output_tokens;
    walk->recomputed += fact->recomputed_tokens;
    walk->lost += fact->lost_tokens;
    walk->preempted += fact->preemptions > 0;
    if (over && fact->reason == PM_FINISH_ABORT)
        walk->aborted_output += fact->output_tokens;
    if (fact->started_ns != 0 && fact->queued_ns != 0)
        rc = pm_spread_add(&walk->spreads[QUEUE], fact->queue_ns, 1);
    if (rc == 0 && fact->first_token_ns != 0 && (fact->arrived_ns | fact->queued_ns) != 0)
        rc = pm_spread_add(&walk->spreads[TTFT], fact->ttft_ns, 1);
    if (rc == 0 && fact->output_tokens > 1 && fact->tpot_ns != 0)
        rc = pm_spread_add(&walk->spreads[TPOT], fact->tpot_ns, 1);
    if (rc == 0 && over && fact->reason != PM_FINISH_ABORT && fact->e2e_ns != 0)
        rc = pm_spread_add(&walk->spreads[E2E], fact->e2e_ns, 1);
    return rc;
}

static int go(struct walk *walk, const struct pm_session *session, size_t engine)
{
    const struct pm_request_watch watch = {.moment = on_moment, .gap = on_gap, .arg = walk};
    struct pm_requests *requests;
    struct pm_request request;
    int rc = pm_requests_open(&requests, session, engine, &watch);

    if (rc != 0)
        return rc;
    while ((rc = pm_requests_next(requests, &request)) == 1) {
        struct gone **place = find(walk, request.id);
        rc = count(walk, &request);
        if (rc == 0)
            rc = pm_chosen_add(&walk->chosen, &request, *place != NULL ? (*place)->away : NULL,
                               *place != NULL ? (*place)->n : 0);
        if (*place != NULL)
            forget(place);
        if (rc != 0)
            break;
    }
    pm_requests_close(requests);
    return rc;
}

/* ---- JSON ---- */

/* The moment from which a request's others are counted. */
static uint64_t begin_of(const struct pm_request_fact *fact)
{
    return fact->arrived_ns != 0   ? fact->arrived_ns
           : fact->queued_ns != 0  ? fact->queued_ns
           : fact->started_ns != 0 ? fact->started_ns
                                   : fact->first_token_ns;
}

static void put_since(struct pm_json *json, uint64_t begin_ns, uint64_t at_ns)
{
    if (at_ns == 0)
        pm_json_null(json);
    else
        pm_json_i64(json, (int64_t)(at_ns - begin_ns) / 1000);
}

static void put_row_value(struct pm_json *json, const struct pm_session *session,
                          const struct pm_chosen_row *row, unsigned column)
{
    static const char *const states[] = {"", "waiting", "running", "preempted", "finished"};
    const struct pm_request_fact *fact = &row->fact;
    const uint64_t begin = begin_of(fact);
    const uint64_t times[] = {fact->queued_ns, fact->started_ns, fact->first_token_ns,
                              fact->last_token_ns, fact->finished_ns};
    const uint64_t spans[] = {fact->ttft_ns,        fact->output_tokens > 1 ? fact->tpot_ns : 0,
                              fact->longest_gap_ns, fact->queue_ns,
                              fact->e2e_ns,         fact->away_ns};
    const uint64_t counts[] = {fact->prompt_tokens,     fact->cached_tokens, fact->output_tokens,
                               fact->recomputed_tokens, fact->lost_tokens,   fact->preemptions};

    if (column == 0)
        pm_json_text(json, row->id);
    else if (column == 1)
        pm_put_moment(json, session, begin);
    else if (column < 7)
        put_since(json, begin, times[column - 2]);
    else if (column < 13)
        spans[column - 7] != 0 || (column == 10 && fact->started_ns != 0)
            ? pm_json_u64(json, (spans[column - 7] + 500) / 1000)
            : pm_json_null(json);
    else if (column < 19)
        pm_json_u64(json, counts[column - 13]);
    else if (fact->state == PM_REQUEST_STATE_FINISHED)
        pm_json_text(json, fact->reason != 0 ? pm_finish_reason_text(fact->reason) : "finished");
    else
        pm_json_text(json, states[fact->state < 5 ? fact->state : 0]);
}

static void put_away(struct pm_json *json, struct pm_chosen_row *const *rows, size_t n)
{
    pm_json_key(json, "away");
    pm_json_object(json);
    for (size_t i = 0; i < n; i++) {
        char key[24];
        if (rows[i]->n_away == 0)
            continue;
        snprintf(key, sizeof(key), "%zu", i);
        pm_json_key(json, key);
        pm_json_array(json);
        for (uint32_t k = 0; k < rows[i]->n_away; k++) {
            pm_json_array(json);
            put_since(json, begin_of(&rows[i]->fact), rows[i]->away[k].from_ns);
            put_since(json, begin_of(&rows[i]->fact), rows[i]->away[k].to_ns);
            pm_json_end(json);
        }
        pm_json_end(json);
    }
    pm_json_end(json);
}

static int put_requests(struct pm_json *json, const struct pm_session *session,
                        const struct walk *walk)
{
    static const char *const names[] = {"id",    "at",         "queued", "started",     "first",
                                        "last",  "end",        "ttft",   "tpot",        "gap",
                                        "queue", "e2e",        "gone",   "prompt",      "cached",
                                        "out",   "recomputed", "lost",   "preemptions", "state"};
    struct pm_chosen_row **rows;
    size_t n;
    int rc = pm_chosen_list(&walk->chosen, &rows, &n);

    if (rc != 0)
        return rc;
    pm_json_key(json, "requests");
    pm_json_object(json);
    pm_put_u64(json, "total", walk->chosen.seen);
    pm_json_key(json, "exact");
    pm_json_bool(json, n == walk->chosen.seen);
    pm_put_u64(json, "every", walk->chosen.stride);
    pm_put_u64(json, "worst", PM_CHOSEN_WORST);
    pm_put_u64(json, "not_over", walk->open);
    pm_put_u64(json, "never_ran", walk->never_ran);
    pm_put_u64(json, "preempted", walk->preempted);
    pm_put_u64(json, "prompt_tokens", walk->prompt);
    pm_put_u64(json, "cached_tokens", walk->cached);
    pm_put_u64(json, "output_tokens", walk->output);
    pm_put_u64(json, "recomputed_tokens", walk->recomputed);
    pm_put_u64(json, "lost_tokens", walk->lost);
    pm_put_u64(json, "aborted_tokens", walk->aborted_output);
    pm_json_key(json, "finished");
    pm_json_object(json);
    for (unsigned i = 0; i < PM_FINISH_COUNT; i++)
        if (walk->finished[i] > 0 && i != PM_FINISH_IGNORED)
            pm_put_u64(json, i != 0 ? pm_finish_reason_text(i) : "unknown", walk->finished[i]);
    pm_json_end(json);
    pm_json_key(json, "cols");
    pm_json_object(json);
    for (unsigned c = 0; c < sizeof(names) / sizeof(names[0]); c++) {
        pm_json_key(json, names[c]);
        pm_json_array(json);
        for (size_t i = 0; i < n; i++)
            put_row_value(json, session, rows[i], c);
        pm_json_end(json);
    }
    pm_json_end(json);
    put_away(json, rows, n);
    pm_json_end(json);
    free(rows);
    return 0;
}

int pm_data_requests(struct pm_json *json, const struct pm_session *session, size_t engine)
{
    struct walk *walk = calloc(1, sizeof(*walk));
    int rc;

    if (walk == NULL)
        return -PM_ENOMEM;
    for (unsigned i = 0; i < LATENCIES; i++)
        pm_spread_init(&walk->spreads[i]);
    pm_thin_init(&walk->preemptions, preemption_columns, PREEMPTION_COLUMNS, -1,
                 pm_session_info(session)->start_mono_ns, PREEMPTIONS_HELD);
    rc = go(walk, session, engine);
    if (rc == 0)
        rc = put_requests(json, session, walk);
    if (rc == 0) {
        pm_json_key(json, "preemptions");
        pm_thin_json(json, &walk->preemptions);
        pm_json_key(json, "latency");
        pm_json_object(json);
        for (unsigned i = 0; i < LATENCIES; i++) {
            pm_json_key(json, latency_names[i]);
            pm_spread_json(json, &walk->spreads[i]);
        }
        pm_json_end(json);
    }
    for (unsigned i = 0; i < 1024; i++)
        while (walk->gone[i] != NULL)
            forget(&walk->gone[i]);
    for (unsigned i = 0; i < LATENCIES; i++)
        pm_spread_release(&walk->spreads[i]);
    pm_thin_release(&walk->preemptions);
    pm_chosen_release(&walk->chosen);
    free(walk);
    return rc;
}
