/* The table of graphs (see graph_table.h). Called by the probe cuda_graph, under the GIL. */
#include "probe/graph_table.h"

#include <stdlib.h>
#include <string.h>

#define INDEX_MIN 64u

static uint32_t mix(uint64_t value)
{
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    return (uint32_t)value;
}

static uint32_t hash_of(const struct pm_graph_desc *desc, uint16_t instance)
{
    uint64_t words[2];
    memcpy(words, desc, sizeof words);
    return mix(words[0] * 31 + words[1] + instance);
}

void pm_graphs_clear(struct pm_graphs *graphs)
{
    for (uint32_t i = 0; i < graphs->n_entries; i++)
        free(graphs->entries[i].chain);
    free(graphs->entries);
    free(graphs->index);
    free(graphs->objects);
    memset(graphs, 0, sizeof *graphs);
}

static bool is_entry(const struct pm_graph_entry *entry, const struct pm_graph_desc *desc,
                     uint16_t instance)
{
    return entry->instance == instance && memcmp(&entry->desc, desc, sizeof *desc) == 0;
}

/* Where a descriptor stands in the index, or where it would go. */
static uint32_t *index_place(const struct pm_graphs *graphs, const struct pm_graph_desc *desc,
                             uint16_t instance)
{
    const uint32_t mask = graphs->index_size - 1;
    uint32_t at = hash_of(desc, instance) & mask;
    while (graphs->index[at] != 0 &&
           !is_entry(&graphs->entries[graphs->index[at] - 1], desc, instance))
        at = (at + 1) & mask;
    return &graphs->index[at];
}

static bool grow_entries(struct pm_graphs *graphs)
{
    const uint32_t size = graphs->index_size > 0 ? graphs->index_size * 2 : INDEX_MIN;
    struct pm_graph_entry *entries =
        realloc(graphs->entries, (size_t)(size / 2) * sizeof *graphs->entries);
    if (entries == NULL)
        return false;
    graphs->entries = entries;
    uint32_t *index = calloc(size, sizeof *index);
    if (index == NULL)
        return false;
    free(graphs->index);
    graphs->index = index;
    graphs->index_size = size;
    graphs->capacity = size / 2;
    for (uint32_t i = 0; i < graphs->n_entries; i++)
        *index_place(graphs, &entries[i].desc, entries[i].instance) = i + 1;
    return true;
}

uint32_t pm_graphs_entry(struct pm_graphs *graphs, const struct pm_graph_desc *desc,
                         uint16_t instance)
{
    if (graphs->index_size > 0) {
        const uint32_t *place = index_place(graphs, desc, instance);
        if (*place != 0)
            return *place - 1;
    }
    if (graphs->n_entries == PM_GRAPHS_MAX)
        return PM_GRAPH_NONE;
    if (graphs->n_entries == graphs->capacity && !grow_entries(graphs))
        return PM_GRAPH_NONE;
    uint32_t *place = index_place(graphs, desc, instance);
    graphs->entries[graphs->n_entries] =
        (struct pm_graph_entry){.desc = *desc, .instance = instance, .told = true};
    *place = ++graphs->n_entries;
    return *place - 1;
}

static struct pm_graph_object *object_place(const struct pm_graphs *graphs, const void *address)
{
    const uint32_t mask = graphs->objects_size - 1;
    uint32_t at = mix((uint64_t)(uintptr_t)address) & mask;
    while (graphs->objects[at].address != NULL && graphs->objects[at].address != address)
        at = (at + 1) & mask;
    return &graphs->objects[at];
}

static bool grow_objects(struct pm_graphs *graphs)
{
    const struct pm_graphs old = *graphs;
    const uint32_t size = old.objects_size > 0 ? old.objects_size * 2 : INDEX_MIN;
    if (size > 2 * PM_GRAPH_OBJECTS_MAX)
        return false;
    struct pm_graph_object *objects = calloc(size, sizeof *objects);
    if (objects == NULL)
        return false;
    graphs->objects = objects;
    graphs->objects_size = size;
    for (uint32_t i = 0; i < old.objects_size; i++)
        if (old.objects[i].address != NULL)
            *object_place(graphs, old.objects[i].address) = old.objects[i];
    free(old.objects);
    return true;
}

/* Where piece 0 is captured anew the chain begins anew. */
static void chain_up(struct pm_graph_entry *entry, const void *address, uint32_t piece)
{
    if (piece > entry->chained)
        return; /* one before it is missing */
    if (piece == entry->chain_room) {
        const uint32_t room = piece > 0 ? 2 * piece : 8;
        const void **more = realloc(entry->chain, room * sizeof *more);
        if (more == NULL)
            return;
        entry->chain = more;
        entry->chain_room = room;
    }
    entry->chain[piece] = address;
    entry->chained = piece + 1;
}

void pm_graphs_learn(struct pm_graphs *graphs, const void *address, uint32_t entry, uint32_t piece)
{
    if (address == NULL)
        return;
    struct pm_graph_object *object =
        graphs->objects_size > 0 ? object_place(graphs, address) : NULL;
    if (object == NULL || object->address == NULL) {
        if (graphs->n_objects >= graphs->objects_size / 2 && !grow_objects(graphs))
            return;
        object = object_place(graphs, address);
        graphs->n_objects++;
    }
    *object = (struct pm_graph_object){.address = address, .entry = entry, .piece = piece};
    if (entry < graphs->n_entries)
        chain_up(&graphs->entries[entry], address, piece);
}

const struct pm_graph_object *pm_graphs_object(const struct pm_graphs *graphs, const void *address)
{
    if (graphs->objects_size == 0)
        return NULL;
    const struct pm_graph_object *object = object_place(graphs, address);
    return object->address != NULL ? object : NULL;
}

void pm_graphs_largest(const struct pm_graphs *graphs, uint16_t instance, uint32_t *ret_any,
                       uint32_t *ret_mixed)
{
    uint32_t any = 0, mixed = 0;
    for (uint32_t i = 0; i < graphs->n_entries; i++) {
        const struct pm_graph_entry *entry = &graphs->entries[i];
        if (entry->instance != instance || !pm_graph_is_models(&entry->desc))
            continue;
        if (entry->desc.num_tokens > any)
            any = entry->desc.num_tokens;
        if (!entry->desc.uniform && entry->desc.num_tokens > mixed)
            mixed = entry->desc.num_tokens;
    }
    *ret_any = any;
    *ret_mixed = mixed;
}
