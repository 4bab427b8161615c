/*
 * Requests by the hash of their id, in a table that does not grow: sets of a few entries, the one
 * that was touched longest ago gives way. For look_stall.c, one thread; owns its memory.
 */
#ifndef PM_EXPLAIN_STALL_TABLE_H
#define PM_EXPLAIN_STALL_TABLE_H

#include "explain/look.h"

struct pm_stall_entry {
    uint64_t key;    /* 0: free */
    uint64_t newest; /* step that touched it last */
    double seconds, base_s;
    uint64_t tokens, steps;
};

struct pm_stall_table;

/* named: entries keep the text of their id. NULL without memory. */
struct pm_stall_table *pm_stall_table_make(bool named);
void pm_stall_table_free(struct pm_stall_table *table);

/* Never 0. */
uint64_t pm_stall_key(const char *id);

/* The entry of a key; else a free one of its set, or its oldest, whose key is another's. */
struct pm_stall_entry *pm_stall_find(struct pm_stall_table *table, uint64_t key);

/* The entry of a key, made where there is none; one that gives way is ranked first. *ret_place:
 * for pm_stall_at. */
struct pm_stall_entry *pm_stall_make(struct pm_stall_table *table, uint64_t key, const char *id,
                                     uint64_t step, uint32_t *ret_place, struct pm_worst *worst);
struct pm_stall_entry *pm_stall_at(struct pm_stall_table *table, uint32_t place);

/* Puts all entries into the list of the worst by their seconds. */
void pm_stall_rank(struct pm_stall_table *table, struct pm_worst *worst);

#endif
