/*
 * The other files of old: the KV cache, evictions, preemptions, requests. See parts.h.
 */
#include "convert/parts.h"

#include <stdlib.h>
#include <string.h>

#include "session/kv_facts.h"
#include "session/request_facts.h"
#include "session/step_facts.h"

/* All four are one CSV file each. */
struct single {
    struct pm_source source;
    struct pm_csv csv;
    uint32_t peak;         /* KV: most blocks so far */
    struct counts *counts; /* requests: how often each was preempted */
};

/* How often each request was preempted, by id. */
struct counts {
    struct counted {
        char *id;
        uint32_t n;
    } * rows;
    size_t n, size; /* size: a power of two, or 0 */
};

static void close_single(struct pm_source *source)
{
    struct single *single = (struct single *)(void *)source;
    pm_csv_close(&single->csv);
    if (single->counts != NULL) {
        for (size_t i = 0; i < single->counts->size; i++)
            free(single->counts->rows[i].id);
        free(single->counts->rows);
        free(single->counts);
    }
    free(single);
}

/* Reads on, and tells when. */
static int look(struct single *single, struct pm_error *err)
{
    int rc = pm_csv_next(&single->csv, err);
    single->source.at_end = rc == 0;
    if (rc == 1)
        rc = pm_csv_scaled(&single->csv, 0, 9, &single->source.at_ns, NULL, err);
    return rc;
}

static int open_single(struct single **ret_single, const char *dir, const char *name,
                       const char *const *columns, unsigned n, unsigned needed,
                       int (*write)(struct pm_source *source, struct pm_convert *all),
                       struct pm_error *err)
{
    struct single *single = calloc(1, sizeof(*single));

    if (single == NULL)
        return pm_error_set(err, -PM_ENOMEM, "out of memory");
    single->source.write = write;
    single->source.close = close_single;
    int rc = pm_csv_open(&single->csv, dir, name, columns, n, needed, err);
    if (rc != 0) {
        close_single(&single->source);
        return rc;
    }
    *ret_single = single;
    return 0;
}

static uint64_t newest_step(const struct pm_convert *all)
{
    return all->step > 0 ? all->step - 1 : 0;
}

/* ---- the KV cache ---- */

enum { K_AT, K_USED, K_TOTAL };

static int write_kv(struct pm_source *source, struct pm_convert *all)
{
    struct single *single = (struct single *)(void *)source;
    struct pm_kv_step *fact;
    uint32_t used, total;
    int rc = pm_csv_u32(&single->csv, K_USED, &used, all->err);

    if (rc == 0)
        rc = pm_csv_u32(&single->csv, K_TOTAL, &total, all->err);
    if (rc != 0)
        return rc;
    if (total == 0 || used > total) {
        all->result->kv_left_out++;
        return look(single, all->err);
    }
    rc = pm_convert_reserve(all, PM_CONVERT_KV_STEP, &fact);
    if (rc != 0)
        return rc;
    if (used > single->peak)
        single->peak = used;
    fact->step = newest_step(all);
    fact->at_ns = all->start_ns + source->at_ns;
    fact->total = total;
    fact->used = used;
    fact->peak = single->peak;
    pm_recorder_commit(all->rec, fact);
    all->result->kv_steps++;
    return look(single, all->err);
}

int pm_source_kv(struct pm_source **ret_source, const char *dir, struct pm_error *err)
{
    static const char *const columns[] = {"timestamp_sec", "num_blocks", "total_blocks"};
    struct single *single;
    int rc = open_single(&single, dir, "kv_cache_usage.csv", columns, 3, 3, write_kv, err);

    if (rc == 0 && (rc = look(single, err)) < 0)
        close_single(&single->source);
    if (rc >= 0)
        *ret_source = &single->source;
    return rc < 0 ? rc : 0;
}

enum { E_AT, E_LIFETIME, E_IDLE };

static int write_eviction(struct pm_source *source, struct pm_convert *all)
{
    struct single *single = (struct single *)(void *)source;
    struct pm_kv_eviction *fact;
    uint64_t lifetime_ns, idle_ns;
    int rc = pm_csv_scaled(&single->csv, E_LIFETIME, 9, &lifetime_ns, NULL, all->err);

    if (rc == 0)
        rc = pm_csv_scaled(&single->csv, E_IDLE, 9, &idle_ns, NULL, all->err);
    if (rc == 0)
        rc = pm_convert_reserve(all, PM_CONVERT_KV_EVICTION, &fact);
    if (rc != 0)
        return rc;
    fact->at_ns = all->start_ns + source->at_ns;
    fact->step = newest_step(all);
    fact->lifetime_ns = lifetime_ns;
    fact->idle_ns = idle_ns;
    pm_recorder_commit(all->rec, fact);
    all->result->evictions++;
    return look(single, all->err);
}

int pm_source_evictions(struct pm_source **ret_source, const char *dir, struct pm_error *err)
{
    static const char *const columns[] = {"timestamp_sec", "lifetime_sec", "idle_sec"};
    struct single *single;
    int rc =
        open_single(&single, dir, "kv_cache_evictions.csv", columns, 3, 3, write_eviction, err);

    if (rc == 0 && (rc = look(single, err)) < 0)
        close_single(&single->source);
    if (rc >= 0)
        *ret_source = &single->source;
    return rc < 0 ? rc : 0;
}

/* ---- preemptions ---- */

enum { V_AT, V_ID, V_EVENT, V_REASON };
static const char *const event_columns[] = {"timestamp_sec", "request_id", "event", "reason"};

static int write_event(struct pm_source *source, struct pm_convert *all)
{
    struct single *single = (struct single *)(void *)source;
    const char *word = pm_csv_text(&single->csv, V_EVENT), *id = pm_csv_text(&single->csv, V_ID);
    const unsigned event = strcmp(word, "started") == 0     ? PM_REQUEST_STARTED
                           : strcmp(word, "preempted") == 0 ? PM_REQUEST_PREEMPTED
                           : strcmp(word, "resumed") == 0   ? PM_REQUEST_RESUMED
                                                            : 0u;
    struct pm_step_request *fact;

    if (event == 0 || *id == '\0') /* `finished` comes with the request itself */
        return look(single, all->err);
    const uint32_t string = pm_recorder_string(all->rec, PM_STREAM_CORE, id, strlen(id));
    int rc = pm_convert_reserve(all, PM_CONVERT_REQUEST_EVENT, &fact);
    if (rc != 0)
        return rc;
    fact->step = newest_step(all);
    fact->at_ns = all->start_ns + source->at_ns;
    fact->request = string;
    fact->event = (uint8_t)event;
    if (event == PM_REQUEST_PREEMPTED)
        fact->reason = strcmp(pm_csv_text(&single->csv, V_REASON), "cache_reset") == 0
                           ? PM_PREEMPT_RESET
                           : PM_PREEMPT_EXHAUSTED;
    else
        fact->phase = PM_PHASE_PREFILL;
    pm_recorder_commit(all->rec, fact);
    pm_recorder_string_drop(all->rec, PM_STREAM_CORE, string);
    all->result->events++;
    return look(single, all->err);
}

int pm_source_events(struct pm_source **ret_source, const char *dir, struct pm_error *err)
{
    struct single *single;
    int rc =
        open_single(&single, dir, "preemption_events.csv", event_columns, 4, 3, write_event, err);

    if (rc == 0 && (rc = look(single, err)) < 0)
        close_single(&single->source);
    if (rc >= 0)
        *ret_source = &single->source;
    return rc < 0 ? rc : 0;
}

/* ---- requests ---- */

static struct counted *slot_of(const struct counts *counts, const char *id)
{
    uint64_t hash = 14695981039346656037ull;
    for (const char *c = id; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211ull;
    size_t at = (size_t)(hash ^ hash >> 29) & (counts->size - 1);
    while (counts->rows[at].id != NULL && strcmp(counts->rows[at].id, id) != 0)
        at = (at + 1) & (counts->size - 1);
    return &counts->rows[at];
}

static int count(struct counts *counts, const char *id)
{
    if (2 * counts->n >= counts->size) {
        struct counts grown = {.n = counts->n, .size = counts->size != 0 ? 2 * counts->size : 64};
        grown.rows = calloc(grown.size, sizeof(*grown.rows));
        if (grown.rows == NULL)
            return -PM_ENOMEM;
        for (size_t i = 0; i < counts->size; i++)
            if (counts->rows[i].id != NULL)
                *slot_of(&grown, counts->rows[i].id) = counts->rows[i];
        free(counts->rows);
        *counts = grown;
    }
    struct counted *slot = slot_of(counts, id);
    if (slot->id == NULL) {
        slot->id = strdup(id);
        if (slot->id == NULL)
            return -PM_ENOMEM;
        counts->n++;
    }
    slot->n++;
    return 0;
}

/* The preemptions of each request, from a walk of their own through the file. */
static int count_preemptions(struct counts *counts, const char *dir, struct pm_error *err)
{
    struct pm_csv csv;
    int rc = pm_csv_open(&csv, dir, "preemption_events.csv", event_columns, 4, 3, err);

    if (rc != 0)
        return rc;
    while ((rc = pm_csv_next(&csv, err)) == 1)
        if (strcmp(pm_csv_text(&csv, V_EVENT), "preempted") == 0 &&
            count(counts, pm_csv_text(&csv, V_ID)) != 0) {
            rc = pm_error_set(err, -PM_ENOMEM, "out of memory");
            break;
        }
    pm_csv_close(&csv);
    return rc;
}

enum { R_ID, R_STARTED, R_PREEMPTED, R_RESUMED, R_FINISHED, R_DELAY };

static int read_request(const struct single *single, struct pm_convert *all,
                        struct pm_request_fact *fact)
{
    const struct pm_csv *csv = &single->csv;
    const struct {
        unsigned column;
        uint64_t *value;
    } moments[] = {
        {R_STARTED, &fact->started_ns},
        {R_PREEMPTED, &fact->first_preempted_ns},
        {R_RESUMED, &fact->resumed_ns},
        {R_FINISHED, &fact->finished_ns},
    };
    bool present;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(moments) / sizeof(*moments); i++) {
        rc = pm_csv_scaled(csv, moments[i].column, 9, moments[i].value, &present, all->err);
        if (present)
            *moments[i].value += all->start_ns;
    }
    if (rc == 0)
        rc = pm_csv_scaled(csv, R_DELAY, 9, &fact->away_ns, NULL, all->err);
    fact->preempted_ns = fact->first_preempted_ns;
    return rc;
}

static int write_request(struct pm_source *source, struct pm_convert *all)
{
    struct single *single = (struct single *)(void *)source;
    const char *id = pm_csv_text(&single->csv, R_ID);
    struct pm_request_fact read = {0}, *fact;
    int rc = read_request(single, all, &read);

    if (rc != 0)
        return rc;
    /* One without an end was still there: only what it went through is known, by its events. */
    if (read.finished_ns != 0 && read.started_ns != 0 && *id != '\0') {
        const struct counted *counted =
            single->counts->size != 0 ? slot_of(single->counts, id) : NULL;
        read.preemptions = counted != NULL && counted->id != NULL ? counted->n
                           : read.first_preempted_ns != 0         ? 1
                                                                  : 0;
        read.state = PM_REQUEST_STATE_FINISHED;
        read.reason = PM_FINISH_OTHER;
        read.turns = 1;
        read.step = newest_step(all);
        read.request = pm_recorder_string(all->rec, PM_STREAM_CORE, id, strlen(id));
        rc = pm_convert_reserve(all, PM_CONVERT_REQUEST, &fact);
        if (rc != 0)
            return rc;
        *fact = read;
        pm_recorder_commit(all->rec, fact);
        pm_recorder_string_drop(all->rec, PM_STREAM_CORE, read.request);
        all->result->requests++;
    }
    rc = pm_csv_next(&single->csv, all->err);
    source->at_end = rc == 0;
    return rc < 0 ? rc : 0;
}

int pm_source_requests(struct pm_source **ret_source, const char *dir, struct pm_error *err)
{
    static const char *const columns[] = {"request_id",  "started_sec",  "preempted_sec",
                                          "resumed_sec", "finished_sec", "preemption_delay_sec"};
    struct single *single;
    int rc = open_single(&single, dir, "request_lifecycle.csv", columns, 6, 2, write_request, err);

    if (rc != 0)
        return rc;
    single->counts = calloc(1, sizeof(*single->counts));
    rc = single->counts == NULL ? pm_error_set(err, -PM_ENOMEM, "out of memory")
                                : count_preemptions(single->counts, dir, err);
    if (rc == 0)
        rc = pm_csv_next(&single->csv, err);
    if (rc < 0) {
        close_single(&single->source);
        return rc;
    }
    single->source.at_end = rc == 0;
    single->source.at_ns = UINT64_MAX; /* behind everything else */
    *ret_source = &single->source;
    return 0;
}
