/*
 * Which prefill held up whose next token, and by how much. Called by explain.c.
 *
 * All requests of a step get their outputs when its update returns, so that the time between two
 * outputs of a decoding request is the time between two updates. A step without prefills takes what
 * decodes of that number take (the median over the session, by powers of two of the decodes); what
 * a step with prefills takes beyond that is what its prefills cost each of the requests that
 * waited, shared among the prefills by their tokens in the step.
 *
 * Two walks over the engine core's records: the first learns what decodes take, the second, where
 * there are such steps at all, attributes. Steps in flight (asynchronous scheduling) are kept in a
 * ring, by their number.
 */
#include "explain/look.h"

#include <stdlib.h>
#include <string.h>

#include "explain/stall_table.h"
#include "reader/facts.h"
#include "reader/steps.h"

#define RING 256u   /* steps between schedule() and update; a power of two */
#define MEMBERS 64u /* prefills of a step that are told apart */
#define BEGINS 256u /* requests whose first output a step gives */

struct in_flight {
    uint64_t step;
    bool known;
    uint32_t decodes, prefill_tokens; /* recomputed ones included */
    unsigned n_prefills, n_begins;
    struct {
        uint32_t place; /* in the table of prefills */
        uint32_t tokens;
        uint64_t key;
    } prefills[MEMBERS];
    uint64_t begins[BEGINS]; /* keys of requests */
};

struct base {
    double sum_ns[PM_LOOK_BINS][PM_HIST_BUCKETS];
};

struct walk {
    struct pm_look *look;
    bool attribute; /* the second walk */
    struct pm_fact_map sched, member, update;
    int request; /* schema of requests that are over */
    const struct pm_field *request_id, *request_instance;
    struct pm_cursor *cursor;
    struct in_flight *ring;
    struct base *base;
    struct pm_stall_table *prefills, *decodes;
    double delayed_s; /* of one request that has decoded all the time */
    uint64_t delayed_steps;
    uint64_t asked; /* key of the request that was asked for; 0: none */
};

static struct in_flight *slot_of(struct walk *walk, uint64_t step)
{
    struct in_flight *slot = &walk->ring[step % RING];
    if (!slot->known || slot->step != step) {
        slot->step = step;
        slot->known = true;
        slot->decodes = slot->prefill_tokens = 0;
        slot->n_prefills = slot->n_begins = 0;
    }
    return slot;
}

static unsigned bin_of(uint32_t decodes)
{
    const unsigned bin = decodes > 1 ? 32u - (unsigned)__builtin_clz(decodes - 1) : 0;
    return bin < PM_LOOK_BINS ? bin : PM_LOOK_BINS - 1;
}

/* ---- what decodes take ---- */

/* The median: the mean of the bucket that holds it. */
static double median_s(const struct pm_hist *hist, const double sum_ns[PM_HIST_BUCKETS])
{
    const uint64_t count = pm_hist_count(hist);
    uint64_t seen = 0;
    for (unsigned i = 0; i < PM_HIST_BUCKETS; i++) {
        seen += hist->buckets[i];
        if (hist->buckets[i] > 0 && seen * 2 >= count)
            return sum_ns[i] / (double)hist->buckets[i] / 1e9;
    }
    return 0;
}

static void settle_base(struct pm_look_stall *stall, const struct base *base)
{
    struct pm_hist all = {{0}};
    double sums[PM_HIST_BUCKETS] = {0};

    for (unsigned bin = 0; bin < PM_LOOK_BINS; bin++) {
        stall->base_s[bin] = median_s(&stall->base[bin], base->sum_ns[bin]);
        pm_hist_merge(&all, &stall->base[bin]);
        for (unsigned i = 0; i < PM_HIST_BUCKETS; i++)
            sums[i] += base->sum_ns[bin][i];
    }
    stall->base_all_s = median_s(&all, sums);
}

/* Of the nearest number of decodes that was seen. */
static double base_of(const struct pm_look_stall *stall, uint32_t decodes)
{
    const unsigned bin = bin_of(decodes);
    for (unsigned off = 0; off < PM_LOOK_BINS; off++) {
        if (bin >= off && stall->base_s[bin - off] > 0)
            return stall->base_s[bin - off];
        if (bin + off < PM_LOOK_BINS && stall->base_s[bin + off] > 0)
            return stall->base_s[bin + off];
    }
    return 0;
}

/* ---- records ---- */

static void on_sched(struct walk *walk, const struct pm_sched_step *fact)
{
    struct in_flight *slot = slot_of(walk, fact->step);
    slot->decodes = fact->decode_requests;
    slot->prefill_tokens = fact->prefill_tokens + fact->recompute_tokens;
}

/* A request that decodes no longer: what it has waited for prefills. */
static void decode_ends(struct walk *walk, const char *id)
{
    struct pm_look_stall *stall = &walk->look->stall;
    const uint64_t key = pm_stall_key(id);
    struct pm_stall_entry *entry = pm_stall_find(walk->decodes, key);

    if (entry == NULL || entry->key != key)
        return;
    const double waited_s = entry->seconds > 0 ? walk->delayed_s - entry->base_s : 0;
    if (entry->seconds > 0 && waited_s > 0) {
        pm_worst_add(&stall->victims, id, waited_s, walk->delayed_steps - entry->steps, 0);
        stall->n_victims++;
        if (key == walk->asked)
            stall->one_s += waited_s;
    }
    entry->key = 0;
}

static void on_member(struct walk *walk, const struct pm_step_request *fact)
{
    const char *id = pm_cursor_string(walk->cursor, fact->request);

    if (fact->event == PM_REQUEST_LEFT || fact->event == PM_REQUEST_PREEMPTED) {
        decode_ends(walk, id);
        return;
    }
    if (fact->event == PM_REQUEST_TURN || fact->event == PM_REQUEST_PRESENT)
        return;
    struct in_flight *slot = slot_of(walk, fact->step);
    const uint64_t key = pm_stall_key(id);
    if (fact->phase == PM_PHASE_PREFILL && slot->n_prefills < MEMBERS) {
        uint32_t place;
        struct pm_stall_entry *entry =
            pm_stall_make(walk->prefills, key, id, fact->step, &place, &walk->look->stall.culprits);
        if (entry != NULL) {
            slot->prefills[slot->n_prefills].place = place;
            slot->prefills[slot->n_prefills].key = key;
            slot->prefills[slot->n_prefills++].tokens = fact->tokens;
        }
    }
    if ((fact->flags & PM_REQUEST_GIVES) != 0 && slot->n_begins < BEGINS)
        slot->begins[slot->n_begins++] = key;
}

/* A step with prefills that others waited for. */
static void attribute(struct walk *walk, const struct in_flight *slot,
                      const struct pm_update_step *fact, double gap_s)
{
    struct pm_look_stall *stall = &walk->look->stall;
    const double base_s = base_of(stall, slot->decodes);
    const double delay_s = gap_s > base_s ? gap_s - base_s : 0;
    const uint64_t at_ns = fact->start_ns + fact->dur_ns;
    uint64_t tokens = 0;

    if (base_s <= 0)
        return;
    stall->mixed++;
    stall->stalled_outputs += fact->continued;
    stall->delay_s += delay_s * fact->continued;
    stall->from_ns = stall->from_ns != 0 ? stall->from_ns : at_ns;
    stall->to_ns = at_ns;
    pm_times_add(&stall->gap, fact->gap_ns);
    if (slot->prefill_tokens > stall->tokens_max)
        stall->tokens_max = slot->prefill_tokens;
    if ((uint64_t)(delay_s * 1e9) > stall->max_delay_ns) {
        stall->max_delay_ns = (uint64_t)(delay_s * 1e9);
        stall->max_step = slot->step;
        stall->max_delay_at_ns = at_ns;
    }
    walk->delayed_s += delay_s;
    walk->delayed_steps += delay_s > 0;
    for (unsigned i = 0; i < slot->n_prefills; i++)
        tokens += slot->prefills[i].tokens;
    for (unsigned i = 0; i < slot->n_prefills; i++) {
        struct pm_stall_entry *entry = pm_stall_at(walk->prefills, slot->prefills[i].place);
        if (entry->key != slot->prefills[i].key || tokens == 0)
            continue;
        stall->n_culprits += entry->steps == 0;
        entry->seconds += delay_s * fact->continued * slot->prefills[i].tokens / (double)tokens;
        entry->tokens += slot->prefills[i].tokens;
        entry->steps++;
    }
}

static void on_update(struct walk *walk, const struct pm_update_step *fact)
{
    struct pm_look_stall *stall = &walk->look->stall;
    struct in_flight *slot = &walk->ring[fact->step % RING];
    const double gap_s = (double)fact->gap_ns / 1e9;

    if ((fact->flags & (PM_UPDATE_UNKNOWN_STEP | PM_UPDATE_FAILED)) != 0)
        return;
    if (!walk->attribute) {
        walk->look->steps.part_ns[PM_HOST_UPDATE] += fact->dur_ns;
        walk->look->steps.updates++;
        walk->look->steps.drafted += fact->drafted;
        walk->look->steps.accepted += fact->accepted;
        stall->gaps_s += gap_s * fact->continued;
    }
    if (!slot->known || slot->step != fact->step)
        return;
    if (fact->continued > 0 && fact->gap_ns != 0) {
        if (walk->attribute && slot->prefill_tokens > 0) {
            attribute(walk, slot, fact, gap_s);
        } else if (!walk->attribute && slot->prefill_tokens == 0) {
            const unsigned bin = bin_of(slot->decodes);
            const unsigned bucket = pm_hist_bucket(fact->gap_ns);
            stall->decode_only++;
            stall->base[bin].buckets[bucket]++;
            walk->base->sum_ns[bin][bucket] += (double)fact->gap_ns;
        } else if (!walk->attribute) {
            stall->mixed++;
        }
    }
    /* These have their first output now: from here on they wait with the others. */
    for (unsigned i = 0; walk->attribute && i < slot->n_begins; i++) {
        struct pm_stall_entry *entry = pm_stall_find(walk->decodes, slot->begins[i]);
        if (entry == NULL || entry->key == slot->begins[i])
            continue;
        *entry = (struct pm_stall_entry){.key = slot->begins[i],
                                         .seconds = 1, /* it decodes */
                                         .base_s = walk->delayed_s,
                                         .steps = walk->delayed_steps,
                                         .newest = fact->step};
    }
    slot->known = false;
}

static void on_record(struct walk *walk, const struct pm_record *record)
{
    const int schema = (int)record->schema;
    const unsigned instance = pm_session_engine(walk->look->session, walk->look->engine)->instance;

    if (record->keyframe)
        return;
    if (schema == walk->sched.schema) {
        struct pm_sched_step fact;
        pm_fact_take(&walk->sched, record->payload, &fact);
        if (fact.instance == instance)
            on_sched(walk, &fact);
    } else if (schema == walk->update.schema) {
        struct pm_update_step fact;
        pm_fact_take(&walk->update, record->payload, &fact);
        if (fact.instance == instance)
            on_update(walk, &fact);
    } else if (walk->attribute && schema == walk->member.schema) {
        struct pm_step_request fact;
        pm_fact_take(&walk->member, record->payload, &fact);
        if (fact.instance == instance)
            on_member(walk, &fact);
    } else if (walk->attribute && schema == walk->request && walk->request_id != NULL) {
        if (walk->request_instance == NULL ||
            pm_field_get(walk->request_instance, record->payload) == instance)
            decode_ends(
                walk, pm_cursor_string(walk->cursor,
                                       (uint32_t)pm_field_get(walk->request_id, record->payload)));
    }
}

static int read_through(struct walk *walk)
{
    struct pm_record record;
    int rc = pm_cursor_open(&walk->cursor, walk->look->process, PM_STREAM_CORE);

    if (rc != 0)
        return rc;
    memset(walk->ring, 0, RING * sizeof(*walk->ring));
    while ((rc = pm_cursor_next(walk->cursor, &record)) == 1)
        on_record(walk, &record);
    pm_cursor_close(walk->cursor);
    return rc;
}

static void find_request(struct walk *walk)
{
    walk->request = pm_process_schema_find(walk->look->process, "request");
    if (walk->request < 0)
        return;
    const struct pm_schema *schema = pm_process_schema(walk->look->process, (size_t)walk->request);
    for (size_t i = 0; i < schema->n_fields; i++) {
        if (strcmp(schema->fields[i].name, "request") == 0)
            walk->request_id = &schema->fields[i];
        if (strcmp(schema->fields[i].name, "instance") == 0)
            walk->request_instance = &schema->fields[i];
    }
}

int pm_look_take_stall(struct pm_look *look)
{
    struct walk walk = {.look = look};
    struct pm_look_stall *stall = &look->stall;
    int rc;

    if (look->process == NULL)
        return 0;
    pm_fact_map_sched(&walk.sched, look->process);
    pm_fact_map_member(&walk.member, look->process);
    pm_fact_map_update(&walk.update, look->process);
    find_request(&walk);
    if (walk.sched.schema < 0 || walk.update.schema < 0)
        return 0;
    if (look->window != NULL && look->window->request[0] != '\0')
        walk.asked = pm_stall_key(look->window->request);
    walk.ring = calloc(RING, sizeof(*walk.ring));
    walk.base = calloc(1, sizeof(*walk.base));
    rc = walk.ring != NULL && walk.base != NULL ? read_through(&walk) : -PM_ENOMEM;
    settle_base(stall, walk.base != NULL ? walk.base : &(struct base){{{0}}});
    if (rc == 0 && stall->mixed > 0 && stall->base_all_s > 0) {
        stall->mixed = 0;
        walk.attribute = true;
        walk.prefills = pm_stall_table_make(true);
        walk.decodes = pm_stall_table_make(false);
        rc = walk.prefills != NULL && walk.decodes != NULL ? read_through(&walk) : -PM_ENOMEM;
        if (rc == 0)
            pm_stall_rank(walk.prefills, &stall->culprits);
    }
    pm_stall_table_free(walk.prefills);
    pm_stall_table_free(walk.decodes);
    free(walk.base);
    free(walk.ring);
    return rc;
}
