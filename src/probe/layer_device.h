/*
 * The device's own times of layers: an event at each border between modules (layer_sums.h), read
 * back in later steps and added to the cells. Used by the probe layer; GIL held, on the thread that
 * runs the model.
 */
#ifndef PM_PROBE_LAYER_DEVICE_H
#define PM_PROBE_LAYER_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "probe/worker_now.h"

/* A step with tokens begins: on a device its borders are marked. */
void pm_layer_device_step(const struct pm_worker_now *now);

/* Adds the times of passes that are complete to their cells, when it is time to, or all of them. */
void pm_layer_device_read(bool all, uint64_t now_ns);

/* Timers are taken out: the pass under way, if any, will not be complete. */
void pm_layer_device_stop(void);

/* What is under way is nobody's any more: the cells go. */
void pm_layer_device_forget(void);

#endif
