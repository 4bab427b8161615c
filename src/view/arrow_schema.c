/*
 * The schema of a native table as Arrow's C data interface wants it (arrow_view.h). Each struct
 * owns its strings, so that a consumer may take a child away and release the rest.
 */
#include "view/arrow_view.h"

#include <stdlib.h>
#include <string.h>

static const char *const formats[] = {
    [PM_CELL_BOOL] = "b", [PM_CELL_U8] = "C",  [PM_CELL_U16] = "S", [PM_CELL_U32] = "I",
    [PM_CELL_U64] = "L",  [PM_CELL_I32] = "i", [PM_CELL_I64] = "l", [PM_CELL_F64] = "g",
    [PM_CELL_TEXT] = "u", [PM_CELL_SEC] = "g",
};

static const char *const kinds[PM_KIND_COUNT_] = {
    [PM_KIND_ID] = "id",       [PM_KIND_TIME] = "time",   [PM_KIND_DURATION] = "duration",
    [PM_KIND_COUNT] = "count", [PM_KIND_GAUGE] = "gauge", [PM_KIND_FLAGS] = "flags",
};

struct pair {
    const char *key, *value;
};

static void release_schema(struct ArrowSchema *schema)
{
    for (int64_t i = 0; i < schema->n_children; i++) {
        struct ArrowSchema *child = schema->children[i];
        if (child != NULL && child->release != NULL)
            child->release(child);
        free(child);
    }
    free(schema->children);
    free(schema->private_data); /* name and metadata lie in it */
    schema->release = NULL;
}

static char *add_i32(char *out, size_t value)
{
    const int32_t number = (int32_t)value;
    memcpy(out, &number, sizeof(number));
    return out + sizeof(number);
}

static char *add_text(char *out, const char *text)
{
    const size_t bytes = strlen(text);
    out = add_i32(out, bytes);
    memcpy(out, text, bytes);
    return out + bytes;
}

/* One schema without children: its name and metadata in one block. */
static int fill(struct ArrowSchema *schema, const char *format, const char *name,
                const struct pair *pairs, size_t n_pairs)
{
    const size_t name_bytes = strlen(name) + 1;
    size_t bytes = name_bytes + sizeof(int32_t);
    for (size_t i = 0; i < n_pairs; i++)
        bytes += 2 * sizeof(int32_t) + strlen(pairs[i].key) + strlen(pairs[i].value);
    char *block = malloc(bytes);
    if (block == NULL)
        return -PM_ENOMEM;
    memcpy(block, name, name_bytes);
    char *out = add_i32(block + name_bytes, n_pairs);
    for (size_t i = 0; i < n_pairs; i++)
        out = add_text(add_text(out, pairs[i].key), pairs[i].value);
    *schema = (struct ArrowSchema){
        .format = format,
        .name = block,
        .metadata = block + name_bytes,
        .release = release_schema,
        .private_data = block,
    };
    return 0;
}

static int fill_child(struct ArrowSchema *schema, const struct pm_table_column *column)
{
    const struct pair pairs[] = {
        {"unit", column->unit},
        {"kind", kinds[(unsigned)column->kind % PM_KIND_COUNT_]},
        {"description", column->doc},
    };
    int rc = fill(schema, formats[column->type], column->name, pairs, 3);
    if (rc == 0)
        schema->flags = ARROW_FLAG_NULLABLE;
    return rc;
}

int pm_arrow_schema(const struct pm_table *table, struct ArrowSchema *ret_schema)
{
    const struct pm_session_info *info = pm_session_info(table->session);
    struct ArrowSchema schema;
    char real[32], mono[32];

    snprintf(real, sizeof(real), "%llu", (unsigned long long)info->start_real_ns);
    snprintf(mono, sizeof(mono), "%llu", (unsigned long long)info->start_mono_ns);
    const struct pair pairs[] = {
        {"profilemate.table", table->name},  {"profilemate.description", table->doc},
        {"profilemate.session", info->name}, {"profilemate.start_real_ns", real},
        {"profilemate.start_mono_ns", mono},
    };
    if (fill(&schema, "+s", "", pairs, sizeof(pairs) / sizeof(pairs[0])) != 0)
        return -PM_ENOMEM;
    const size_t n = pm_arrow_columns(table);
    schema.children = calloc(n, sizeof(struct ArrowSchema *));
    if (schema.children == NULL)
        goto no_memory;
    schema.n_children = (int64_t)n;
    for (size_t i = 0; i < n; i++) {
        const struct pm_table_column *column = &table->columns[pm_arrow_column(table, i)];
        schema.children[i] = calloc(1, sizeof(struct ArrowSchema));
        if (schema.children[i] == NULL || fill_child(schema.children[i], column) != 0)
            goto no_memory;
    }
    *ret_schema = schema;
    return 0;
no_memory:
    release_schema(&schema);
    return -PM_ENOMEM;
}
