/*
 * What the probe moe does when a model has been loaded: which of its layers have experts, how
 * their selections can be seen, and what is installed for that (moe_model.c). GIL held, inside a
 * hook's half.
 */
#ifndef PM_PROBE_MOE_MODEL_H
#define PM_PROBE_MOE_MODEL_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

/* What a loaded model came to. */
struct pm_moe_model_state {
    uint16_t instance; /* of its worker */
    bool any;          /* some layer is seen or timed */
    bool device;       /* some layer is counted on its device */
    uint32_t dp_size, dp_rank;
};

/* Fills the table of layers (moe_layers.h) from a worker whose model is loaded and not compiled
 * yet, installs what sees them, and says in the process's attributes what cannot be seen, and
 * what enters a graph. */
void pm_moe_model_loaded(PyObject *worker, uint16_t instance, uint64_t now_ns,
                         struct pm_moe_model_state *ret_state);

/* Somebody else has given a router of ours its capture function: ours goes around it. */
void pm_moe_model_rebind(PyObject *router);

#endif
