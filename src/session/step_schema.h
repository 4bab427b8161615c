/*
 * What the records of steps look like on disk (step_facts.h and request_facts.h say what they
 * mean): written by the probes sched_step, worker_step and update_step. Constant data.
 */
#ifndef PM_SESSION_STEP_SCHEMA_H
#define PM_SESSION_STEP_SCHEMA_H

#include "session/schema.h"

extern const struct pm_schema pm_sched_step_schema, pm_step_request_schema;
extern const struct pm_schema pm_worker_step_schema, pm_worker_sync_schema;
extern const struct pm_schema pm_update_step_schema;

#endif
