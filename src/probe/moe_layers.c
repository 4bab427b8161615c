/*
 * The table of MoE layers, their counters and their records (see moe_layers.h). No Python; GIL
 * held.
 */
#include "probe/moe_layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

unsigned (*pm_moe_schema)(const struct pm_schema *schema);

static struct pm_moe_slot *slots; /* PM_MOE_LAYERS_MAX of them, once there is one */
static size_t n_slots;            /* places ever used */
static uint32_t n_handles; /* ever given: the upper part of a handle, its place is the lower */
static struct {
    uint16_t instance;
    bool used;
    uint32_t pair_cells;
    uint16_t layers;
} models[PM_MOE_MODELS_MAX];

/* ---- the table ---- */

static void free_layers_of(uint16_t instance)
{
    for (size_t i = 0; i < n_slots; i++) {
        struct pm_moe_slot *slot = &slots[i];
        if (slot->handle == 0 || slot->fact.instance != instance)
            continue;
        free(slot->cells[0].n);
        free(slot->cells[1].n);
        memset(slot, 0, sizeof *slot);
    }
}

void pm_moe_model(uint16_t instance)
{
    size_t place = 0;
    for (size_t m = 0; m < PM_MOE_MODELS_MAX; m++) {
        if (!models[m].used || models[m].instance == instance) {
            place = m;
            break;
        }
        if (models[m].instance < models[place].instance)
            place = m;
    }
    if (models[place].used)
        free_layers_of(models[place].instance);
    models[place].used = true;
    models[place].instance = instance;
    models[place].pair_cells = 0;
    models[place].layers = 0;
}

/* Counters and what was told of them, in one block. */
static bool make_cells(struct pm_moe_cells *cells, uint32_t count)
{
    cells->n = calloc(count, 2 * sizeof *cells->n);
    if (cells->n == NULL)
        return false;
    cells->told = cells->n + count;
    cells->count = count;
    return true;
}

struct pm_moe_slot *pm_moe_add(const struct pm_moe_layer *fact, const char *name,
                               const void *router)
{
    size_t model = 0, place = 0;
    while (model < PM_MOE_MODELS_MAX &&
           !(models[model].used && models[model].instance == fact->instance))
        model++;
    if (model == PM_MOE_MODELS_MAX || fact->experts > PM_MOE_EXPERTS_MAX)
        return NULL;
    if (slots == NULL && (slots = calloc(PM_MOE_LAYERS_MAX, sizeof *slots)) == NULL)
        return NULL;
    while (place < n_slots && slots[place].handle != 0)
        place++;
    if (place == PM_MOE_LAYERS_MAX)
        return NULL;
    struct pm_moe_slot *slot = &slots[place];
    memset(slot, 0, sizeof *slot);
    slot->fact = *fact;
    if (fact->seen != PM_MOE_UNSEEN && !make_cells(&slot->cells[PM_MOE_SELECTIONS], fact->experts))
        return NULL;
    const uint32_t pairs = pm_moe_pairs(fact->experts);
    if (fact->seen != PM_MOE_UNSEEN && fact->experts <= PM_MOE_PAIR_EXPERTS && fact->top_k > 1 &&
        pairs <= PM_MOE_PAIR_CELLS - models[model].pair_cells &&
        make_cells(&slot->cells[PM_MOE_PAIRS], pairs))
        models[model].pair_cells += pairs;
    slot->fact.pairs = slot->cells[PM_MOE_PAIRS].count > 0;
    slot->fact.slot = models[model].layers++;
    slot->router = router;
    (void)snprintf(slot->name, sizeof slot->name, "%s", name);
    slot->handle = ++n_handles * PM_MOE_LAYERS_MAX | (uint32_t)place;
    if (place == n_slots)
        n_slots++;
    return slot;
}

struct pm_moe_slot *pm_moe_find(uint64_t handle)
{
    const size_t place = (size_t)(handle % PM_MOE_LAYERS_MAX);
    return handle != 0 && place < n_slots && slots[place].handle == handle ? &slots[place] : NULL;
}

struct pm_moe_slot *pm_moe_of_router(const void *router)
{
    for (size_t i = 0; i < n_slots; i++) {
        if (slots[i].handle != 0 && slots[i].router == router)
            return &slots[i];
    }
    return NULL;
}

struct pm_moe_slot *pm_moe_at(uint16_t instance, unsigned n)
{
    for (size_t i = 0; i < n_slots; i++) {
        if (slots[i].handle != 0 && slots[i].fact.instance == instance && slots[i].fact.slot == n)
            return &slots[i];
    }
    return NULL;
}

/* ---- counting ---- */

static int64_t id_at(const struct pm_moe_ids *ids, int64_t row, int64_t column)
{
    const unsigned char *at =
        (const unsigned char *)ids->data +
        (row * ids->row_stride + column * ids->column_stride) * (int64_t)ids->item_bytes;
    int64_t wide;
    int32_t id;
    int16_t narrow;
    switch (ids->item_bytes) {
    case 8:
        memcpy(&wide, at, sizeof wide);
        return wide;
    case 4:
        memcpy(&id, at, sizeof id);
        return id;
    case 2:
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    default:
        return *at;
    }
}

#define COLUMNS_MAX 64 /* of which pairs are made */

void pm_moe_count(struct pm_moe_slot *slot, const struct pm_moe_ids *ids, int64_t first,
                  int64_t count)
{
    uint64_t *n = slot->cells[PM_MOE_SELECTIONS].n, *pairs = slot->cells[PM_MOE_PAIRS].n;
    const uint32_t experts = slot->fact.experts;
    uint32_t chosen[COLUMNS_MAX];

    for (int64_t row = first; row < first + count; row++) {
        unsigned n_chosen = 0;
        for (int64_t column = 0; column < ids->columns; column++) {
            const int64_t id = id_at(ids, row, column);
            if (id < 0 || id >= (int64_t)experts)
                continue;
            n[id]++;
            if (n_chosen < COLUMNS_MAX)
                chosen[n_chosen++] = (uint32_t)id;
        }
        for (unsigned i = 0; pairs != NULL && i < n_chosen; i++) {
            for (unsigned j = i + 1; j < n_chosen; j++) {
                const uint32_t a = chosen[i], b = chosen[j];
                if (a != b)
                    pairs[a < b ? pm_moe_pair(experts, a, b) : pm_moe_pair(experts, b, a)]++;
            }
        }
    }
}

/* ---- records ---- */

static void record_layer(struct pm_recorder *rec, const struct pm_moe_slot *slot)
{
    const uint32_t name = pm_recorder_string(rec, PM_STREAM_CORE, slot->name, strlen(slot->name));
    struct pm_moe_layer *record = pm_recorder_reserve(rec, pm_moe_schema(&pm_moe_layer_schema));
    if (record == NULL)
        return;
    *record = slot->fact;
    record->name = name;
    pm_recorder_commit(rec, record);
}

void pm_moe_record_layers(struct pm_recorder *rec, uint16_t instance)
{
    const struct pm_moe_slot *slot;
    for (unsigned n = 0; (slot = pm_moe_at(instance, n)) != NULL; n++)
        record_layer(rec, slot);
}

/* The differences of one kind of cells. A record that found no room leaves its cells as they were,
 * for the next flush. `told` is brought up to date after the reserve: that may have begun a
 * segment, whose head tells what was told before. */
static void flush_cells(struct pm_recorder *rec, unsigned schema, const struct pm_moe_slot *slot,
                        enum pm_moe_what what, uint64_t now_ns)
{
    const struct pm_moe_cells *cells = &slot->cells[what];
    for (uint32_t first = 0; first < cells->count; first += PM_MOE_DELTAS) {
        const uint32_t left = cells->count - first;
        const uint32_t count = left < PM_MOE_DELTAS ? left : PM_MOE_DELTAS;
        if (memcmp(cells->n + first, cells->told + first, count * sizeof *cells->n) == 0)
            continue;
        struct pm_moe_counts *record = pm_recorder_reserve(rec, schema);
        if (record == NULL)
            return;
        record->at_ns = now_ns;
        record->first = first;
        record->instance = slot->fact.instance;
        record->slot = slot->fact.slot;
        record->what = (uint8_t)what;
        for (uint32_t i = 0; i < count; i++) {
            const uint64_t more = cells->n[first + i] - cells->told[first + i];
            record->n[i] = more < UINT32_MAX ? (uint32_t)more : UINT32_MAX;
            cells->told[first + i] += record->n[i];
        }
        pm_recorder_commit(rec, record);
    }
}

void pm_moe_flush(struct pm_recorder *rec, uint64_t now_ns, bool pairs)
{
    if (n_slots == 0)
        return;
    const unsigned schema = pm_moe_schema(&pm_moe_counts_schema);
    for (size_t i = 0; i < n_slots; i++) {
        if (slots[i].handle == 0)
            continue;
        flush_cells(rec, schema, &slots[i], PM_MOE_SELECTIONS, now_ns);
        if (pairs)
            flush_cells(rec, schema, &slots[i], PM_MOE_PAIRS, now_ns);
    }
}

static void tell_totals(struct pm_recorder *rec, unsigned schema, const struct pm_moe_slot *slot,
                        enum pm_moe_what what, uint64_t now_ns)
{
    static const uint64_t none[PM_MOE_TOTALS];
    const struct pm_moe_cells *cells = &slot->cells[what];
    for (uint32_t first = 0; first < cells->count; first += PM_MOE_TOTALS) {
        const uint32_t left = cells->count - first;
        const uint32_t count = left < PM_MOE_TOTALS ? left : PM_MOE_TOTALS;
        if (memcmp(cells->told + first, none, count * sizeof *none) == 0)
            continue;
        struct pm_moe_totals *record = pm_recorder_reserve(rec, schema);
        if (record == NULL)
            return;
        record->at_ns = now_ns;
        record->first = first;
        record->instance = slot->fact.instance;
        record->slot = slot->fact.slot;
        record->what = (uint8_t)what;
        memcpy(record->n, cells->told + first, count * sizeof *record->n);
        pm_recorder_commit(rec, record);
    }
}

void pm_moe_keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    if (stream != PM_STREAM_CORE || n_slots == 0)
        return;
    const unsigned schema = pm_moe_schema(&pm_moe_totals_schema);
    const uint64_t now_ns = pm_clock_now_ns();
    for (size_t i = 0; i < n_slots; i++) {
        if (slots[i].handle == 0)
            continue;
        record_layer(rec, &slots[i]);
        tell_totals(rec, schema, &slots[i], PM_MOE_SELECTIONS, now_ns);
        tell_totals(rec, schema, &slots[i], PM_MOE_PAIRS, now_ns);
    }
}

uint64_t pm_moe_unread(void)
{
    uint64_t unread = 0;
    for (size_t i = 0; i < n_slots; i++)
        unread += slots[i].unread;
    return unread;
}

void pm_moe_reset(void)
{
    for (size_t m = 0; m < PM_MOE_MODELS_MAX; m++) {
        if (models[m].used)
            free_layers_of(models[m].instance);
    }
    memset(models, 0, sizeof models);
    n_slots = 0;
}
