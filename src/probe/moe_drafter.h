/*
 * Which MoE layers belong to a drafter (EAGLE, MTP, a draft model): vLLM keeps them by name among
 * those of the model. Used by moe_model.c when a model has been loaded, under the GIL.
 */
#ifndef PM_PROBE_MOE_DRAFTER_H
#define PM_PROBE_MOE_DRAFTER_H

#include "hook/compat.h"

#include <stdbool.h>

/* The modules of the worker's drafter as a list, a new reference; NULL where it has no model. */
PyObject *pm_moe_drafter_modules(PyObject *worker);

/* Whether a layer is one of these modules (which may be NULL). */
bool pm_moe_drafter_has(PyObject *modules, const PyObject *layer);

#endif
