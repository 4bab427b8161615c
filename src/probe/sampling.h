/*
 * Which sampling settings the requests of a step ask for. Called by step_count.c, engine core,
 * under the GIL, and only where a step's batch is not the last one's.
 */
#ifndef PM_PROBE_SAMPLING_H
#define PM_PROBE_SAMPLING_H

#include "probe/step_count.h"

/* The members are those of this step, in order[]. Records the mix where it has changed; reads the
 * settings of requests that it has not met. Nothing where the setting `sampling` is off. */
void pm_sampling_count(const struct pm_counting *counting);

#endif
