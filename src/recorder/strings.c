/*
 * The string table: texts that records name by number, per stream. Called by the hot side only (the
 * thread that holds the GIL); for the KEEP stream under keep_lock.
 *
 * Texts lie in cells of four sizes, cut from chunks of 16 KiB, and the two tables double as they
 * fill: so a new text costs a malloc only now and then. The hash is keyed with a random seed, since
 * clients choose request ids.
 */
#include "recorder/internal.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 16384u
#define FIRST_CAPACITY 256u

struct pm_rec_chunk {
    struct pm_rec_chunk *next;
    size_t used;
    unsigned char cells[CHUNK_BYTES];
};

static unsigned cell_class(size_t bytes)
{
    return bytes <= 32 ? 0 : bytes <= 64 ? 1 : bytes <= 128 ? 2 : 3;
}

static void *cell_take(struct pm_rec_strings *strings, size_t bytes)
{
    unsigned class = cell_class(bytes);
    void *cell = strings->free_cells[class];
    if (cell != NULL) {
        memcpy(&strings->free_cells[class], cell, sizeof(void *));
        return cell;
    }
    size_t size = (size_t)32 << class;
    struct pm_rec_chunk *chunk = strings->chunks;
    if (chunk == NULL || chunk->used + size > CHUNK_BYTES) {
        chunk = malloc(sizeof *chunk);
        if (chunk == NULL)
            return NULL;
        chunk->next = strings->chunks;
        chunk->used = 0;
        strings->chunks = chunk;
    }
    cell = chunk->cells + chunk->used;
    chunk->used += size;
    return cell;
}

static void cell_give(struct pm_rec_strings *strings, void *cell, size_t bytes)
{
    unsigned class = cell_class(bytes);
    memcpy(cell, &strings->free_cells[class], sizeof(void *));
    strings->free_cells[class] = cell;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Eight bytes at a time, folded by 64 x 64 -> 128 bit products. */
uint64_t pm_rec_strings_hash(const struct pm_rec_strings *strings, const char *text, size_t bytes)
{
    uint64_t hash = strings->seed ^ (uint64_t)bytes * 0x9e3779b97f4a7c15ull;
    while (bytes > 0) {
        uint64_t word = 0;
        size_t n = bytes < sizeof word ? bytes : sizeof word;
        memcpy(&word, text, n);
        hash = mix(hash ^ word ^ 0x2d358dccaa6c78a5ull, 0x8bb84b93962eacc9ull ^ strings->seed);
        text += n;
        bytes -= n;
    }
    return mix(hash, 0x9e3779b97f4a7c15ull);
}

static uint32_t mask_of(const struct pm_rec_strings *strings)
{
    return strings->capacity * 2 - 1;
}

static uint32_t home_by_text(const struct pm_rec_strings *strings, uint32_t place)
{
    return (uint32_t)strings->held[place - 1].hash & mask_of(strings);
}

static uint32_t home_by_id(const struct pm_rec_strings *strings, uint32_t place)
{
    return strings->held[place - 1].id & mask_of(strings);
}

typedef uint32_t (*home_fn)(const struct pm_rec_strings *strings, uint32_t place);

static void table_put(const struct pm_rec_strings *strings, uint32_t *table, home_fn home,
                      uint32_t place)
{
    uint32_t mask = mask_of(strings), at = home(strings, place);
    while (table[at] != 0)
        at = (at + 1) & mask;
    table[at] = place;
}

/* Where the table names this place of held; the place is in it. */
static uint32_t table_find(const struct pm_rec_strings *strings, const uint32_t *table,
                           home_fn home, uint32_t place)
{
    uint32_t mask = mask_of(strings), at = home(strings, place);
    while (table[at] != place)
        at = (at + 1) & mask;
    return at;
}

/* Empties one place of the table and moves up those that were put behind it. */
static void table_remove(const struct pm_rec_strings *strings, uint32_t *table, home_fn home,
                         uint32_t hole)
{
    uint32_t mask = mask_of(strings);
    for (uint32_t at = (hole + 1) & mask; table[at] != 0; at = (at + 1) & mask) {
        uint32_t way = (at - home(strings, table[at])) & mask; /* from its home to where it is */
        if (way >= ((at - hole) & mask)) {
            table[hole] = table[at];
            hole = at;
        }
    }
    table[hole] = 0;
}

static bool grow(struct pm_rec_strings *strings)
{
    uint32_t capacity = strings->capacity == 0 ? FIRST_CAPACITY : strings->capacity * 2;
    struct pm_rec_string *held = malloc(capacity * sizeof *held);
    uint32_t *by_text = calloc((size_t)capacity * 2, sizeof *by_text);
    uint32_t *by_id = calloc((size_t)capacity * 2, sizeof *by_id);
    if (held == NULL || by_text == NULL || by_id == NULL) {
        free(held);
        free(by_text);
        free(by_id);
        return false;
    }
    if (strings->n > 0)
        memcpy(held, strings->held, strings->n * sizeof *held);
    free(strings->held);
    free(strings->by_text);
    free(strings->by_id);
    strings->held = held;
    strings->by_text = by_text;
    strings->by_id = by_id;
    strings->capacity = capacity;
    for (uint32_t place = 1; place <= strings->n; place++) {
        table_put(strings, by_text, home_by_text, place);
        table_put(strings, by_id, home_by_id, place);
    }
    return true;
}

struct pm_rec_string *pm_rec_strings_find(const struct pm_rec_strings *strings, const char *text,
                                          size_t bytes, uint64_t hash)
{
    if (strings->n == 0)
        return NULL;
    uint32_t mask = mask_of(strings);
    for (uint32_t at = (uint32_t)hash & mask; strings->by_text[at] != 0; at = (at + 1) & mask) {
        struct pm_rec_string *string = &strings->held[strings->by_text[at] - 1];
        if (string->hash == hash && string->bytes == bytes &&
            memcmp(string->text, text, bytes) == 0)
            return string;
    }
    return NULL;
}

struct pm_rec_string *pm_rec_strings_hold(struct pm_rec_strings *strings, const char *text,
                                          size_t bytes, uint64_t hash)
{
    if (strings->n >= PM_REC_STRINGS_MAX || strings->next_id == UINT32_MAX ||
        bytes > PM_REC_STRING_MAX)
        return NULL;
    if (strings->n == strings->capacity && !grow(strings))
        return NULL;
    char *copy = cell_take(strings, bytes);
    if (copy == NULL)
        return NULL;
    memcpy(copy, text, bytes);
    struct pm_rec_string *string = &strings->held[strings->n];
    *string = (struct pm_rec_string){
        .text = copy, .hash = hash, .id = ++strings->next_id, .bytes = (uint32_t)bytes};
    strings->n++;
    table_put(strings, strings->by_text, home_by_text, strings->n);
    table_put(strings, strings->by_id, home_by_id, strings->n);
    return string;
}

void pm_rec_strings_drop(struct pm_rec_strings *strings, uint32_t id)
{
    if (strings->n == 0 || id == 0)
        return;
    uint32_t mask = mask_of(strings), at = id & mask;
    while (strings->by_id[at] != 0 && strings->held[strings->by_id[at] - 1].id != id)
        at = (at + 1) & mask;
    uint32_t place = strings->by_id[at];
    if (place == 0)
        return;
    table_remove(strings, strings->by_text, home_by_text,
                 table_find(strings, strings->by_text, home_by_text, place));
    table_remove(strings, strings->by_id, home_by_id, at);
    struct pm_rec_string *string = &strings->held[place - 1];
    cell_give(strings, string->text, string->bytes);
    /* The last one takes the place that became free. */
    uint32_t last = strings->n;
    if (place != last) {
        uint32_t text_at = table_find(strings, strings->by_text, home_by_text, last);
        uint32_t id_at = table_find(strings, strings->by_id, home_by_id, last);
        *string = strings->held[last - 1];
        strings->by_text[text_at] = place;
        strings->by_id[id_at] = place;
    }
    strings->n--;
}

void pm_rec_strings_free(struct pm_rec_strings *strings)
{
    for (struct pm_rec_chunk *chunk = strings->chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(strings->held);
    free(strings->by_text);
    free(strings->by_id);
    memset(strings, 0, sizeof *strings);
}

size_t pm_rec_cut(const char *text, size_t bytes, size_t max)
{
    if (bytes <= max)
        return bytes;
    size_t cut = max;
    while (cut > 0 && max - cut < 4 && ((unsigned char)text[cut] & 0xc0u) == 0x80u)
        cut--;
    return ((unsigned char)text[cut] & 0xc0u) == 0x80u ? max : cut; /* not UTF-8: cut anywhere */
}
