/*
 * What other probes and the console ask of the probe device (device.c). GIL held.
 */
#ifndef PM_PROBE_DEVICE_H
#define PM_PROBE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu/calls.h"
#include "session/device_facts.h"

/* The driver library that tests put in the place of a real one; NULL: none. */
const char *pm_device_stand_in(void);

/* The driver whose events are recorded; NULL: none is, or no longer. */
const struct pm_driver *pm_device_driver(void);

/* A graph is being captured somewhere in the process: the driver is not to be called. */
bool pm_device_captures(void);

/* torch's current stream of the device in use; false where torch does not tell it. */
bool pm_device_stream(void **ret_stream);

/* Why there is no time, as device_miss has it. */
enum pm_device_miss_why pm_device_why(enum pm_event_outcome outcome);

/* The driver gave an error (what: a sentence of pm_chains_failed): said once, and no probe calls it
 * again. */
void pm_device_turn_off(const char *what, uint64_t step);

#endif
