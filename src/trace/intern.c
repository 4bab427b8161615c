/*
 * Interned strings (see intern.h). One thread at a time.
 */
#include "trace/intern.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

static inline uint64_t load(const uint8_t *p, size_t n)
{
    uint64_t value = 0;
    memcpy(&value, p, n);
    return value;
}

/* Both halves of the product, folded. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* 16 bytes a step; the last step overlaps the one before, so there is no tail loop. */
static inline uint64_t hash_bytes(const uint8_t *p, size_t n, uint64_t seed)
{
    const uint64_t a = 0x9E3779B97F4A7C15ull, b = 0xD6E8FEB86659FD93ull;
    uint64_t h = seed ^ n * a;
    if (n >= 16) {
        for (size_t i = 0; i + 16 <= n; i += 16)
            h = fold(load(p + i, 8) ^ a, load(p + i + 8, 8) ^ h);
        h = fold(load(p + n - 16, 8) ^ b, load(p + n - 8, 8) ^ h);
    } else if (n >= 8) {
        h = fold(load(p, 8) ^ a, load(p + n - 8, 8) ^ h);
    } else if (n >= 4) {
        h = fold(load(p, 4) ^ a, load(p + n - 4, 4) ^ h);
    } else if (n > 0) {
        h = fold(((uint64_t)p[0] << 16 | (uint64_t)p[n / 2] << 8 | p[n - 1]) ^ a, h ^ b);
    }
    return fold(h ^ b, h ^ seed);
}

int pm_intern_init(struct pm_intern *intern)
{
    uint32_t id;
    *intern = (struct pm_intern){0};
    if (getrandom(&intern->seed, sizeof(intern->seed), GRND_NONBLOCK) != sizeof(intern->seed))
        intern->seed = pm_clock_tick() ^ (uint64_t)(uintptr_t)intern;
    intern->size = 4096;
    intern->room = 64;
    intern->mask = 255;
    intern->bytes = malloc(intern->size);
    intern->entries = malloc(intern->room * sizeof(*intern->entries));
    intern->table = calloc(intern->mask + 1, sizeof(*intern->table));
    if (intern->bytes == NULL || intern->entries == NULL || intern->table == NULL ||
        pm_intern_add(intern, "", 0, &id) != 0) {
        pm_intern_release(intern);
        return -PM_ENOMEM;
    }
    return 0;
}

void pm_intern_release(struct pm_intern *intern)
{
    free(intern->bytes);
    free(intern->entries);
    free(intern->table);
    *intern = (struct pm_intern){0};
}

static int grow_table(struct pm_intern *intern)
{
    uint32_t mask = intern->mask * 2 + 1;
    uint32_t *table = calloc((size_t)mask + 1, sizeof(*table));
    if (table == NULL)
        return -PM_ENOMEM;
    for (uint32_t i = 0; i < intern->n; i++) {
        uint32_t slot = intern->entries[i].hash & mask;
        while (table[slot] != 0)
            slot = (slot + 1) & mask;
        table[slot] = i + 1;
    }
    free(intern->table);
    intern->table = table;
    intern->mask = mask;
    return 0;
}

/* Room for one more string of n bytes. */
static int make_room(struct pm_intern *intern, size_t n)
{
    if (intern->used + n + 1 > PM_INTERN_MAX_BYTES || intern->n >= UINT32_MAX / 4)
        return -PM_ELIMIT;
    if (intern->used + n + 1 > intern->size) {
        size_t size = intern->size * 2;
        while (size < intern->used + n + 1)
            size *= 2;
        uint8_t *bytes = realloc(intern->bytes, size);
        if (bytes == NULL)
            return -PM_ENOMEM;
        intern->bytes = bytes;
        intern->size = size;
    }
    if (intern->n == intern->room) {
        struct pm_intern_entry *entries =
            realloc(intern->entries, (size_t)intern->room * 2 * sizeof(*entries));
        if (entries == NULL)
            return -PM_ENOMEM;
        intern->entries = entries;
        intern->room *= 2;
    }
    if (intern->n * 2ull > intern->mask)
        return grow_table(intern);
    return 0;
}

/* The slot that holds the string, or the free one where it belongs. */
static inline uint32_t find_slot(const struct pm_intern *intern, const uint8_t *bytes, size_t n,
                                 uint64_t hash)
{
    uint32_t slot = (uint32_t)hash & intern->mask;
    for (; intern->table[slot] != 0; slot = (slot + 1) & intern->mask) {
        const struct pm_intern_entry *entry = &intern->entries[intern->table[slot] - 1];
        if (entry->hash == (uint32_t)hash && entry->len == n &&
            memcmp(intern->bytes + entry->at, bytes, n) == 0)
            break;
    }
    return slot;
}

int pm_intern_add(struct pm_intern *intern, const void *bytes, size_t n, uint32_t *ret_id)
{
    uint64_t hash = hash_bytes(bytes, n, intern->seed);
    uint32_t slot = find_slot(intern, bytes, n, hash);
    if (intern->table[slot] == 0) {
        int err = make_room(intern, n);
        if (err != 0)
            return err;
        slot = find_slot(intern, bytes, n, hash); /* the table may have grown */
        intern->entries[intern->n] =
            (struct pm_intern_entry){intern->used, (uint32_t)n, (uint32_t)hash};
        memcpy(intern->bytes + intern->used, bytes, n);
        intern->bytes[intern->used + n] = '\0';
        intern->used += n + 1;
        intern->table[slot] = ++intern->n;
    }
    *ret_id = intern->table[slot] - 1;
    return 0;
}

uint32_t pm_intern_find(const struct pm_intern *intern, const void *bytes, size_t n)
{
    uint32_t slot = find_slot(intern, bytes, n, hash_bytes(bytes, n, intern->seed));
    return intern->table[slot] == 0 ? UINT32_MAX : intern->table[slot] - 1;
}
