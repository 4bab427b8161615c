/*
 * Strings, each kept once and known by a small number. Number 0 is the empty string. Used by the
 * trace parser and the analyses; one thread at a time. Owns copies.
 *
 * The hash is seeded anew in every table, so that a hostile trace cannot choose its collisions.
 */
#ifndef PM_TRACE_INTERN_H
#define PM_TRACE_INTERN_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_INTERN_MAX_BYTES (1ull << 32) /* of all strings together */

struct pm_intern_entry {
    uint64_t at; /* in the bytes */
    uint32_t len;
    uint32_t hash; /* the low half */
};

struct pm_intern {
    uint8_t *bytes; /* strings one after another, each with a NUL behind it */
    size_t used, size;
    struct pm_intern_entry *entries;
    uint32_t n, room;
    uint32_t *table; /* open addressing: entry + 1, 0 is free */
    uint32_t mask;
    uint64_t seed;
};

/* 0 or -PM_ENOMEM. A released or zeroed table holds nothing and may be released. */
PM_MUST_USE int pm_intern_init(struct pm_intern *intern);
void pm_intern_release(struct pm_intern *intern);

/* The number of the string, which is added if it is new. 0, -PM_ENOMEM or -PM_ELIMIT. */
PM_MUST_USE int pm_intern_add(struct pm_intern *intern, const void *bytes, size_t n,
                              uint32_t *ret_id);

/* The number of the string, or UINT32_MAX when it is not there. */
uint32_t pm_intern_find(const struct pm_intern *intern, const void *bytes, size_t n);

/* NUL-terminated (it may also hold NULs); valid until the next addition. */
static inline const char *pm_intern_text(const struct pm_intern *intern, uint32_t id)
{
    return (const char *)intern->bytes + intern->entries[id].at;
}
static inline uint32_t pm_intern_len(const struct pm_intern *intern, uint32_t id)
{
    return intern->entries[id].len;
}

#endif
