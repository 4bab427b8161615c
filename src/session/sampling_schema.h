/*
 * The schemas of the facts of sampling_facts.h. For the probe, and for tests that make sessions.
 */
#ifndef PM_SESSION_SAMPLING_SCHEMA_H
#define PM_SESSION_SAMPLING_SCHEMA_H

#include "session/schema.h"

extern const struct pm_schema pm_sampling_mix_schema;
extern const struct pm_schema pm_grammar_bitmask_schema;

#endif
