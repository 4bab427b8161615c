/* The table of probes.def as data. Read by the installer under the GIL; owns nothing. */
#include "probe/registry.h"

#define X(name) extern const struct pm_probe pm_probe_##name;
#include "probe/probes.def"
#undef X

const struct pm_probe *const pm_probes[] = {
#define X(name) &pm_probe_##name,
#include "probe/probes.def"
#undef X
};
const size_t pm_probes_count = sizeof pm_probes / sizeof pm_probes[0];
