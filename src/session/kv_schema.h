/* What the records of the probe kv_cache look like (session/kv_facts.h says what they mean). */
#ifndef PM_SESSION_KV_SCHEMA_H
#define PM_SESSION_KV_SCHEMA_H

#include "session/schema.h"

extern const struct pm_schema pm_kv_step_schema, pm_kv_eviction_schema;

#endif
