/*
 * Where the time of a forward pass goes: cells, one per layer and kind of module, and the modules
 * that are under way at this moment. What the timers (layer_timer.c) add to and the probe layer
 * records. No Python here; GIL held. Owns the cells.
 *
 *   model │ layer 0 │ norm │ layer 0 │ attention │ layer 0 │ …      host clock read at each border
 *
 * At each border the time since the last one goes to the module that was innermost, so that nothing
 * is counted twice and all together is the whole.
 */
#ifndef PM_PROBE_LAYER_SUMS_H
#define PM_PROBE_LAYER_SUMS_H

#include <stdbool.h>
#include <stdint.h>

#include "recorder/recorder.h"
#include "session/layer_facts.h"
#include "session/schema.h"

#define PM_LAYER_CELLS_MAX 16384u
#define PM_LAYER_DEPTH_MAX 32u   /* modules inside each other; deeper ones are part of these */
#define PM_LAYER_NONE UINT32_MAX /* no cell */
#define PM_LAYER_PHASES 2u       /* prefill, decode */
#define PM_LAYER_FLUSH_NS 1000000000ull /* between two flushes: what a kill loses */

extern const struct pm_schema pm_layer_time_schema, pm_layer_pass_schema;

/* The state that a timer looks at before all else. */
struct pm_layer_now {
    uint32_t epoch; /* timers of another one pass calls through */
    uint32_t depth; /* modules under way; 0: the model is not */
    bool in_step;   /* a step with tokens is under way: the model's call is to be timed */
};
extern struct pm_layer_now pm_layer_now;

/* Called at each border where there is somebody to tell (a device's events): from here on the time
 * is the cell's, of which a call begins, or goes on; PM_LAYER_NONE: the pass is over. Called with
 * no exception set. */
extern void (*pm_layer_border)(uint32_t cell, bool begins);

/* Finds or makes the cell of a layer and kind; PM_LAYER_NONE where no more are kept. */
uint32_t pm_layer_cell(int32_t layer, enum pm_layer_kind kind);

/* A step with tokens begins (phase: enum pm_phase_class) and ends. A step in which the model was
 * not called is counted. */
void pm_layer_step_begin(uint16_t instance, unsigned phase, bool on_device);
void pm_layer_step_end(void);

/* A module of the cell is called, and has returned or raised. root: the model itself, which begins
 * a pass. False: it is not timed, and there is nothing to leave. */
bool pm_layer_enter(uint32_t cell, bool root, uint64_t now_ns);
void pm_layer_leave(uint64_t now_ns);

/* A pass's times by the device, in the order in which they are read back: `calls` of the cell took
 * so long; and then the whole pass. */
void pm_layer_device(uint32_t cell, unsigned phase, uint64_t calls, uint64_t ns);
void pm_layer_device_pass(unsigned phase, uint64_t ns);

/* The phase of the step under way, as pm_layer_device wants it. */
unsigned pm_layer_phase(void);

/* Records what has grown since the last flush; all: everything that is not 0 (a new segment's
 * keyframe). schema: the recorder's numbers of the two. */
void pm_layer_flush(struct pm_recorder *rec, uint64_t now_ns, bool all,
                    unsigned (*schema)(const struct pm_schema *schema));

/* Forgets what is under way; timers that were made before pass calls through. Cells stay. */
void pm_layer_next_epoch(void);

/* Forgets everything. */
void pm_layer_sums_reset(void);

#endif
