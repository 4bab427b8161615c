/*
 * The step that a worker executes at this moment, for probes that hook something inside it: the
 * numbering is the probe worker_step's (worker_step.c), which must be on for them. GIL held.
 */
#ifndef PM_PROBE_WORKER_NOW_H
#define PM_PROBE_WORKER_NOW_H

#include <stdbool.h>
#include <stdint.h>

struct pm_worker_now {
    uint64_t step;
    uint32_t requests, tokens;
    uint16_t instance;
    uint8_t phase; /* enum pm_phase_class as far as the worker can tell */
    bool device;   /* it runs on a device: host times are launches */
};

/* From the enter of Worker.execute_model to the end of the step. False: no step is under way. */
bool pm_worker_now(struct pm_worker_now *ret_now);

/* Sets a flag (enum pm_worker_flags) of the fact of the step under way, or takes it back. */
void pm_worker_flag(uint32_t flag, bool on);

/* The worker that was made last in this process, 0 before the first. */
uint16_t pm_worker_newest(void);

#endif
