/*
 * Schemas as text and back, and adding payloads to their series. The recorder writes the text once
 * per file and accumulates on its helper thread; the reader parses it and accumulates over whole
 * sessions. Pure; the parser is total on any bytes.
 */
#include "session/schema.h"
#include "base/error.h"
#include "session/hist.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS_MAX 64
#define TEXT_MAX 65536 /* bytes of a schema's text */
#define NAME_MAX_BYTES 64

static const char *const type_names[] = {
#define PM_TYPE_NAME(name, bytes) #name,
    PM_TYPES(PM_TYPE_NAME)
#undef PM_TYPE_NAME
};
static const char *const kind_names[PM_KIND_COUNT_] = {
    [PM_KIND_ID] = "id",       [PM_KIND_TIME] = "time",   [PM_KIND_DURATION] = "duration",
    [PM_KIND_COUNT] = "count", [PM_KIND_GAUGE] = "gauge", [PM_KIND_FLAGS] = "flags",
};
static const char *const stream_names[PM_STREAM_COUNT] = {
    [PM_STREAM_KEEP] = "keep",
    [PM_STREAM_CORE] = "core",
    [PM_STREAM_BLOCKS] = "blocks",
    [PM_STREAM_CUSTOM] = "custom",
};
/* The words of enum pm_agg that are in use; "hist" includes the sum. */
static const struct {
    const char *name;
    unsigned bits;
} agg_names[] = {
    {"none", PM_AGG_NONE},
    {"sum", PM_AGG_SUM},
    {"hist", PM_AGG_HIST},
    {"class", PM_AGG_CLASS},
};
#define AGG_NAMES (sizeof agg_names / sizeof agg_names[0])

size_t pm_type_bytes(enum pm_type type)
{
    switch (type) {
#define PM_TYPE_CASE(name, bytes)                                                                  \
    case PM_TYPE_##name:                                                                           \
        return bytes;
        PM_TYPES(PM_TYPE_CASE)
#undef PM_TYPE_CASE
    case PM_TYPE_COUNT:
        break;
    }
    return 0;
}

/* ---- text out ---- */

/* What snprintf would do, piece by piece: counts everything, keeps what fits. */
struct sink {
    char *out;
    size_t size, used;
};

static void put_char(struct sink *sink, char c)
{
    if (sink->used + 1 < sink->size)
        sink->out[sink->used] = c;
    sink->used++;
}

/* A cell and what ends it; a control character inside would break the line, so it becomes a blank.
 */
static void put_cell(struct sink *sink, const char *text, char end)
{
    for (; *text != '\0'; text++)
        put_char(sink, (unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text);
    put_char(sink, end);
}

static void put_number(struct sink *sink, unsigned number, char end)
{
    char digits[12];
    snprintf(digits, sizeof digits, "%u", number);
    put_cell(sink, digits, end);
}

static const char *agg_name(unsigned agg)
{
    if ((agg & PM_AGG_CLASS) != 0)
        return "class";
    if ((agg & PM_AGG_HIST) != 0)
        return "hist";
    return (agg & PM_AGG_SUM) != 0 ? "sum" : "none";
}

size_t pm_schema_to_text(const struct pm_schema *schema, char *out, size_t size)
{
    struct sink sink = {out, size, 0};
    put_cell(&sink, "schema", '\t');
    put_cell(&sink, schema->name, '\t');
    put_cell(&sink, stream_names[schema->stream], '\t');
    put_number(&sink, schema->payload_bytes, '\t');
    put_number(&sink, schema->classes, '\t');
    put_cell(&sink, schema->doc, '\n');
    for (size_t i = 0; i < schema->n_fields; i++) {
        const struct pm_field *field = &schema->fields[i];
        put_cell(&sink, "field", '\t');
        put_cell(&sink, field->name, '\t');
        put_cell(&sink, type_names[field->type], '\t');
        put_number(&sink, field->offset, '\t');
        put_cell(&sink, field->unit, '\t');
        put_cell(&sink, kind_names[field->kind], '\t');
        put_cell(&sink, agg_name(field->agg), '\t');
        put_cell(&sink, field->doc, '\n');
    }
    if (size > 0)
        out[sink.used < size ? sink.used : size - 1] = '\0';
    return sink.used;
}

/* ---- text in ---- */

/* Takes the next cell of the line at *at, up to the given end mark, which becomes NUL. */
static bool take_cell(char **at, char end, const char **ret_cell)
{
    char *cell = *at;
    while (*cell != '\0' && *cell != '\t' && *cell != '\n')
        cell++;
    if (*cell != end)
        return false;
    *cell = '\0';
    *ret_cell = *at;
    *at = cell + 1;
    return true;
}

static bool take_word(char **at, const char *word)
{
    const char *cell;
    return take_cell(at, '\t', &cell) && strcmp(cell, word) == 0;
}

/* A name that can be a column: letters, digits and underlines. */
static bool take_name(char **at, const char **ret_name)
{
    const char *cell;
    if (!take_cell(at, '\t', &cell))
        return false;
    size_t bytes = strlen(cell);
    if (bytes == 0 || bytes > NAME_MAX_BYTES ||
        strspn(cell, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != bytes)
        return false;
    *ret_name = cell;
    return true;
}

static bool take_number(char **at, unsigned max, unsigned *ret_number)
{
    const char *cell;
    unsigned number = 0;
    if (!take_cell(at, '\t', &cell) || *cell == '\0' || strlen(cell) > 5)
        return false;
    for (; *cell != '\0'; cell++) {
        if (*cell < '0' || *cell > '9')
            return false;
        number = number * 10 + (unsigned)(*cell - '0');
    }
    if (number > max)
        return false;
    *ret_number = number;
    return true;
}

/* A word of a list, as its place in it. */
static bool take_choice(char **at, const char *const *names, size_t count, unsigned *ret_index)
{
    const char *cell;
    if (!take_cell(at, '\t', &cell))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (strcmp(cell, names[i]) == 0) {
            *ret_index = i;
            return true;
        }
    return false;
}

static bool take_agg(char **at, unsigned *ret_agg)
{
    const char *cell;
    if (!take_cell(at, '\t', &cell))
        return false;
    for (size_t i = 0; i < AGG_NAMES; i++)
        if (strcmp(cell, agg_names[i].name) == 0) {
            *ret_agg = agg_names[i].bits;
            return true;
        }
    return false;
}

/* One field line, checked against the payload and against the fields before it. */
static bool take_field(char **at, const struct pm_schema *schema, size_t index,
                       struct pm_field *ret_field)
{
    struct pm_field field = {0};
    unsigned type, offset, kind;

    if (!take_word(at, "field") || !take_name(at, &field.name) ||
        !take_choice(at, type_names, PM_TYPE_COUNT, &type) || !take_number(at, 65535, &offset) ||
        !take_cell(at, '\t', &field.unit) || !take_choice(at, kind_names, PM_KIND_COUNT_, &kind) ||
        !take_agg(at, &field.agg) || !take_cell(at, '\n', &field.doc))
        return false;
    field.type = (enum pm_type)type;
    field.kind = (enum pm_kind)kind;
    field.offset = (uint16_t)offset;
    if (offset + pm_type_bytes(field.type) > schema->payload_bytes)
        return false;
    if (field.agg == PM_AGG_CLASS && field.type != PM_TYPE_U8)
        return false;
    if ((field.agg & (PM_AGG_SUM | PM_AGG_HIST)) != 0 &&
        (field.type == PM_TYPE_F64 || field.type == PM_TYPE_STR))
        return false;
    for (size_t i = 0; i < index; i++)
        if (strcmp(schema->fields[i].name, field.name) == 0 ||
            (field.agg == PM_AGG_CLASS && schema->fields[i].agg == PM_AGG_CLASS))
            return false;
    *ret_field = field;
    return true;
}

/* Fills schema and fields from text, which it cuts into strings. */
static bool parse(char *text, struct pm_schema *schema, struct pm_field *fields, size_t n_fields)
{
    unsigned stream, payload_bytes, classes;
    bool has_class = false;

    if (!take_word(&text, "schema") || !take_name(&text, &schema->name) ||
        !take_choice(&text, stream_names, PM_STREAM_COUNT, &stream) ||
        !take_number(&text, 65535, &payload_bytes) || !take_number(&text, 255, &classes) ||
        !take_cell(&text, '\n', &schema->doc) || classes == 0)
        return false;
    schema->stream = (enum pm_stream)stream;
    schema->payload_bytes = (uint16_t)payload_bytes;
    schema->classes = (uint8_t)classes;
    schema->fields = fields;
    for (size_t i = 0; i < n_fields; i++) {
        if (!take_field(&text, schema, i, &fields[i]))
            return false;
        has_class = has_class || fields[i].agg == PM_AGG_CLASS;
    }
    schema->n_fields = n_fields;
    return has_class || classes == 1;
}

int pm_schema_from_text(const char *text, size_t bytes, struct pm_schema **ret_schema)
{
    size_t lines = 0;
    if (bytes == 0 || bytes > TEXT_MAX || text[bytes - 1] != '\n')
        return -PM_ECORRUPT;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n')
            lines++;
        else if ((c < 0x20 && c != '\t') || c == 0x7f)
            return -PM_ECORRUPT;
    }
    if (lines > FIELDS_MAX + 1)
        return -PM_ECORRUPT;

    /* one block: schema | fields | text; sizes are multiples of what follows needs */
    struct {
        struct pm_schema schema;
        struct pm_field fields[];
    } *block = malloc(sizeof *block + lines * sizeof(struct pm_field) + bytes + 1);
    if (block == NULL)
        return -PM_ENOMEM;
    char *copy = (char *)&block->fields[lines];
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    if (!parse(copy, &block->schema, block->fields, lines - 1)) {
        free(block);
        return -PM_ECORRUPT;
    }
    *ret_schema = &block->schema;
    return 0;
}

/* ---- series ---- */

/* How many fields have a sum, and how many a histogram. */
static void count_aggs(const struct pm_schema *schema, size_t *ret_sums, size_t *ret_hists)
{
    size_t sums = 0, hists = 0;
    for (size_t i = 0; i < schema->n_fields; i++) {
        sums += (schema->fields[i].agg & (PM_AGG_SUM | PM_AGG_HIST)) != 0;
        hists += (schema->fields[i].agg & PM_AGG_HIST) != 0;
    }
    *ret_sums = sums;
    *ret_hists = hists;
}

void pm_schema_series(const struct pm_schema *schema, uint32_t *ret_values, uint32_t *ret_hists)
{
    size_t sums, hists;
    count_aggs(schema, &sums, &hists);
    *ret_values = (uint32_t)(schema->classes * (1 + sums));
    *ret_hists = (uint32_t)(schema->classes * hists);
}

uint64_t pm_field_get(const struct pm_field *field, const void *payload)
{
    const char *at = (const char *)payload + field->offset;
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
    } value;
    switch (field->type) {
    case PM_TYPE_U8:
        memcpy(&value.u8, at, sizeof value.u8);
        return value.u8;
    case PM_TYPE_U16:
        memcpy(&value.u16, at, sizeof value.u16);
        return value.u16;
    case PM_TYPE_U32:
    case PM_TYPE_STR:
        memcpy(&value.u32, at, sizeof value.u32);
        return value.u32;
    case PM_TYPE_I32:
        memcpy(&value.i32, at, sizeof value.i32);
        return (uint64_t)(int64_t)value.i32;
    case PM_TYPE_U64:
    case PM_TYPE_I64:
    case PM_TYPE_F64:
        memcpy(&value.u64, at, sizeof value.u64);
        return value.u64;
    case PM_TYPE_COUNT:
        break;
    }
    return 0;
}

/* What a field counts as in a histogram: a negative number as 0. */
static uint64_t hist_value(const struct pm_field *field, uint64_t value)
{
    bool is_signed = field->type == PM_TYPE_I32 || field->type == PM_TYPE_I64;
    return is_signed && (int64_t)value < 0 ? 0 : value;
}

void pm_schema_accumulate(const struct pm_schema *schema, const void *payload, uint64_t *values,
                          struct pm_hist *hists)
{
    size_t n_sums, n_hists, class_value = 0;
    count_aggs(schema, &n_sums, &n_hists);
    if (schema->classes > 1)
        for (size_t i = 0; i < schema->n_fields; i++)
            if ((schema->fields[i].agg & PM_AGG_CLASS) != 0)
                class_value = pm_field_get(&schema->fields[i], payload);
    if (class_value >= schema->classes)
        class_value = schema->classes - 1u;

    values += class_value * (1 + n_sums);
    hists += class_value * n_hists;
    *values++ += 1;
    for (size_t i = 0; i < schema->n_fields; i++) {
        const struct pm_field *field = &schema->fields[i];
        if ((field->agg & (PM_AGG_SUM | PM_AGG_HIST)) == 0)
            continue;
        uint64_t value = pm_field_get(field, payload);
        *values++ += value;
        if ((field->agg & PM_AGG_HIST) != 0)
            pm_hist_add(hists++, hist_value(field, value));
    }
}
