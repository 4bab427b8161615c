/*
 * The schemas of the CUDA graph facts (session/graph_facts.h). Pure C: the probe cuda_graph records
 * by them, tests make sessions by them.
 */
#ifndef PM_PROBE_GRAPH_SCHEMA_H
#define PM_PROBE_GRAPH_SCHEMA_H

#include "session/graph_facts.h"
#include "session/schema.h"

extern const struct pm_schema pm_graph_capture_schema, pm_graph_pass_schema, pm_graph_usage_schema;

#endif
