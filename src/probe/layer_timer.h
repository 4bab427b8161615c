/*
 * What stands in a module's `forward` while layers are timed: a callable of ours in the instance's
 * own __dict__, which calls the method that was found there before. GIL held.
 *
 * It passes arguments, results and exceptions on as they are, and adds two readings of the clock.
 * Outside of a step, and for good after its epoch (layer_sums.h), it only passes on. It shows the
 * method's attributes, and a copy of the module (copy.deepcopy, pickle) gets the method itself.
 */
#ifndef PM_PROBE_LAYER_TIMER_H
#define PM_PROBE_LAYER_TIMER_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

/* Puts one into the module: its `forward` is timed as the cell's. root: it is the model. False,
 * with no exception set and nothing changed, where that cannot be. */
bool pm_layer_timer_put(PyObject *module, uint32_t cell, bool root);

/* Takes it out of the module again, where ours is still what lies there; what lay there before
 * comes back. True: it was there. */
bool pm_layer_timer_take(PyObject *module);

#endif
