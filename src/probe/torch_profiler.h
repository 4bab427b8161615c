/*
 * What the probe torch_profiler tells the probe environ. GIL held.
 */
#ifndef PM_PROBE_TORCH_PROFILER_H
#define PM_PROBE_TORCH_PROFILER_H

#include "probe/probe.h"

/* Whether an environment variable is one that ProfileMate sees to where vLLM does not know it, in
 * a process where it does. */
bool pm_torch_profiler_honours(const char *env_name);

#endif
