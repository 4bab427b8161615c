/* See stall_table.h. */
#include "explain/stall_table.h"

#include <stdlib.h>
#include <string.h>

#define SETS 2048u /* a power of two */
#define WAYS 8u

struct pm_stall_table {
    struct pm_stall_entry entries[SETS * WAYS];
    char (*names)[PM_REQUEST_ID_MAX]; /* NULL: not kept */
};

struct pm_stall_table *pm_stall_table_make(bool named)
{
    struct pm_stall_table *table = calloc(1, sizeof(*table));
    if (table == NULL || !named)
        return table;
    table->names = calloc(SETS * WAYS, sizeof(*table->names));
    if (table->names == NULL) {
        free(table);
        return NULL;
    }
    return table;
}

void pm_stall_table_free(struct pm_stall_table *table)
{
    if (table == NULL)
        return;
    free(table->names);
    free(table);
}

/* FNV-1a, mixed once more: ids often differ in their last letters alone. */
uint64_t pm_stall_key(const char *id)
{
    uint64_t key = 0xcbf29ce484222325u;
    for (; *id != '\0'; id++)
        key = (key ^ (unsigned char)*id) * 0x100000001b3u;
    key ^= key >> 32;
    key *= 0x9e3779b97f4a7c15u;
    return key != 0 ? key : 1;
}

struct pm_stall_entry *pm_stall_find(struct pm_stall_table *table, uint64_t key)
{
    struct pm_stall_entry *set = &table->entries[(key >> 40) % SETS * WAYS], *oldest = set;
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].key == key)
            return &set[i];
        if (oldest->key != 0 && (set[i].key == 0 || set[i].newest < oldest->newest))
            oldest = &set[i];
    }
    return oldest;
}

static void rank(struct pm_stall_table *table, uint32_t place, struct pm_worst *worst)
{
    const struct pm_stall_entry *entry = &table->entries[place];
    if (entry->key != 0 && entry->seconds > 0 && table->names != NULL)
        pm_worst_add(worst, table->names[place], entry->seconds, entry->tokens, entry->steps);
}

struct pm_stall_entry *pm_stall_make(struct pm_stall_table *table, uint64_t key, const char *id,
                                     uint64_t step, uint32_t *ret_place, struct pm_worst *worst)
{
    struct pm_stall_entry *entry = pm_stall_find(table, key);
    const uint32_t place = (uint32_t)(entry - table->entries);

    if (entry->key != key) {
        rank(table, place, worst);
        *entry = (struct pm_stall_entry){.key = key};
        if (table->names != NULL) {
            const size_t bytes = strnlen(id, PM_REQUEST_ID_MAX - 1);
            memcpy(table->names[place], id, bytes);
            table->names[place][bytes] = '\0';
        }
    }
    entry->newest = step;
    *ret_place = place;
    return entry;
}

struct pm_stall_entry *pm_stall_at(struct pm_stall_table *table, uint32_t place)
{
    return &table->entries[place];
}

void pm_stall_rank(struct pm_stall_table *table, struct pm_worst *worst)
{
    for (uint32_t place = 0; place < SETS * WAYS; place++)
        rank(table, place, worst);
}
