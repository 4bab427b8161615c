/*
 * Fields of a record by their names, for views of one schema: a file whose schema lacks one gives
 * 0.
 */
#ifndef PM_VIEW_COLUMNS_H
#define PM_VIEW_COLUMNS_H

#include <string.h>

#include "session/schema.h"

/* NULL where the schema does not have it. */
static inline const struct pm_field *pm_column(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

static inline uint64_t pm_column_get(const struct pm_field *field, const void *payload)
{
    return field != NULL ? pm_field_get(field, payload) : 0;
}

#endif
