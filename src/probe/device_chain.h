/*
 * Device events of what lies inside a step, for the probes `layer` and `collective`: chains of them
 * (gpu/chain.h), on torch's current stream, while the probe `device` has a driver. GIL held, on the
 * thread that runs the model.
 *
 * Without device events (a CPU, lightweight mode, an error of the driver before) nothing is open,
 * and nothing is called. What could not be recorded is a device_miss, one per chain.
 */
#ifndef PM_PROBE_DEVICE_CHAIN_H
#define PM_PROBE_DEVICE_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu/chain.h"
#include "session/device_facts.h"

/* A step's chain begins; told is called with its times, in a later step. False: there are no device
 * events at this moment, and nothing is open. */
bool pm_device_chain_begin(enum pm_device_miss_what what, const struct pm_chain_of *of,
                           pm_chains_tell told);

/* Whether one is open. */
bool pm_device_chain_is_open(enum pm_device_miss_what what);

/* As pm_chains_mark, on torch's current stream. one_stream: not where that is another one than the
 * chain began on, which is no loss (PM_EVENT_NONE). */
enum pm_event_outcome pm_device_chain_mark(enum pm_device_miss_what what, bool one_stream,
                                           uint32_t from, uint32_t tag, uint32_t *ret_mark);

void pm_device_chain_end(enum pm_device_miss_what what);
void pm_device_chain_lose(enum pm_device_miss_what what);

/* Tells the times that are there, when it is time to, or all that are complete. Called when the
 * device has just been given work, or has none. */
void pm_device_chain_read(enum pm_device_miss_what what, bool all, uint64_t now_ns);

/* ---- the probe device's ---- */

/* The worker goes: what is complete is told, and the events are destroyed. */
void pm_device_chains_finish(void);

/* Destroys the events. */
void pm_device_chains_close(void);

/* Forgets them without a driver call: after an error, and in a child of fork(). */
void pm_device_chains_abandon(void);

#endif
