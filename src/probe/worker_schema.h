/* What the records of the probe worker_step look like (session/step_facts.h says what they mean).
 */
#ifndef PM_PROBE_WORKER_SCHEMA_H
#define PM_PROBE_WORKER_SCHEMA_H

#include "session/schema.h"

extern const struct pm_schema pm_worker_step_schema, pm_worker_sync_schema;

#endif
