/*
 * The device's own times of collective operations: a pair of events round each call that is counted
 * in a step, read back in later steps and recorded per step, group and operation. The half of the
 * probe collective that knows of events. GIL held, on the thread that runs the model.
 */
#ifndef PM_PROBE_COLLECTIVE_DEVICE_H
#define PM_PROBE_COLLECTIVE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "probe/worker_now.h"
#include "session/collective_facts.h"

#define PM_COLLECTIVE_NO_PAIR UINT32_MAX

/* A step of a worker begins. */
void pm_collective_device_step(const struct pm_worker_now *now);

/* A call begins: its pair, PM_COLLECTIVE_NO_PAIR where there is no event (no device events, a
 * capture, …). */
uint32_t pm_collective_device_begin(uint64_t now_ns);

/* … and has returned. */
void pm_collective_device_end(uint32_t pair, enum pm_collective_operation operation,
                              const char *group);

/* The step is over; times of steps that are complete are recorded when it is time to, or (all) all
 * of them. */
void pm_collective_device_step_end(bool all, uint64_t now_ns);

/* Forgets the names, which are a recorder's. */
void pm_collective_device_reset(void);

#endif
