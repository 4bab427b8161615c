/* What the records of the probe moe look like (session/moe_facts.h says what they mean). */
#ifndef PM_SESSION_MOE_SCHEMA_H
#define PM_SESSION_MOE_SCHEMA_H

#include "session/schema.h"

extern const struct pm_schema pm_moe_layer_schema, pm_moe_counts_schema, pm_moe_totals_schema,
    pm_moe_time_schema;

#endif
