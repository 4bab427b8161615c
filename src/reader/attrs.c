/*
 * The attributes of a process: key and value, the last one wins. A small open-addressing table, so
 * that a file full of attributes costs no more than its size. Called by process.c; owns its texts.
 */
#include "reader/internal.h"

#include <stdlib.h>
#include <string.h>

#define ATTR_VALUE_MAX (1u << 20)

static size_t hash_key(const char *key)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */
    for (; *key != '\0'; key++)
        hash = (hash ^ (uint8_t)*key) * 0x100000001b3ull;
    return (size_t)(hash ^ hash >> 29);
}

/* Where the key is, or the empty place where it belongs. The table is never full. */
static size_t find_place(const struct pm_attr_table *table, const char *key)
{
    size_t mask = table->index_size - 1;
    size_t place = hash_key(key) & mask;
    while (table->index[place] != 0 && strcmp(table->rows[table->index[place] - 1].key, key) != 0)
        place = (place + 1) & mask;
    return place;
}

static int grow(struct pm_attr_table *table)
{
    size_t capacity = table->capacity != 0 ? table->capacity * 2 : 64;
    struct pm_attr *rows = realloc(table->rows, capacity * sizeof(*rows));
    if (rows == NULL)
        return -PM_ENOMEM;
    table->rows = rows;
    uint32_t *index = calloc(capacity * 2, sizeof(*index));
    if (index == NULL)
        return -PM_ENOMEM;
    free(table->index);
    table->capacity = capacity;
    table->index = index;
    table->index_size = capacity * 2;
    for (size_t i = 0; i < table->count; i++)
        table->index[find_place(table, table->rows[i].key)] = (uint32_t)i + 1;
    return 0;
}

/* A text of a file as a C string: control characters, NUL among them, become spaces. */
static char *clean_text(const char *text, size_t bytes)
{
    char *out = malloc(bytes + 1);
    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        out[i] = c < 0x20 && c != '\n' && c != '\t' ? ' ' : (char)c;
    }
    out[bytes] = '\0';
    return out;
}

int pm_attrs_put(struct pm_attr_table *table, const char *key, size_t key_bytes, const char *value,
                 size_t value_bytes, uint64_t mono_ns)
{
    if (key_bytes == 0 || key_bytes > 1024 || value_bytes > ATTR_VALUE_MAX)
        return -PM_ELIMIT;
    if (table->count == table->capacity) {
        if (table->count >= PM_READER_MAX_ATTRS)
            return -PM_ELIMIT;
        int rc = grow(table);
        if (rc != 0)
            return rc;
    }
    char *key_text = clean_text(key, key_bytes);
    char *value_text = clean_text(value, value_bytes);
    if (key_text == NULL || value_text == NULL) {
        free(key_text);
        free(value_text);
        return -PM_ENOMEM;
    }
    size_t place = find_place(table, key_text);
    if (table->index[place] != 0) {
        struct pm_attr *row = &table->rows[table->index[place] - 1];
        free(key_text);
        free(row->value);
        row->value = value_text;
        row->mono_ns = mono_ns;
        return 0;
    }
    table->rows[table->count] =
        (struct pm_attr){.key = key_text, .value = value_text, .mono_ns = mono_ns};
    table->index[place] = (uint32_t)++table->count;
    return 0;
}

const struct pm_attr *pm_attrs_get(const struct pm_attr_table *table, const char *key)
{
    if (table->count == 0)
        return NULL;
    size_t place = find_place(table, key);
    return table->index[place] != 0 ? &table->rows[table->index[place] - 1] : NULL;
}

void pm_attrs_free(struct pm_attr_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        free(table->rows[i].key);
        free(table->rows[i].value);
    }
    free(table->rows);
    free(table->index);
    *table = (struct pm_attr_table){0};
}
