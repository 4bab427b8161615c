/* All probes, in the order of probes.def. Used by hook/install.c and hook/session.c. */
#ifndef PM_PROBE_REGISTRY_H
#define PM_PROBE_REGISTRY_H

#include "probe/probe.h"

extern const struct pm_probe *const pm_probes[];
extern const size_t pm_probes_count;

#endif
