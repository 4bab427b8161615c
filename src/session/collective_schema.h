/*
 * The schemas of the facts of collective_facts.h. For the probe, and for tests that make sessions.
 */
#ifndef PM_SESSION_COLLECTIVE_SCHEMA_H
#define PM_SESSION_COLLECTIVE_SCHEMA_H

#include "session/schema.h"

extern const struct pm_schema pm_collective_step_schema;
extern const struct pm_schema pm_collective_device_schema;
extern const struct pm_schema pm_collective_capture_schema;

#endif
