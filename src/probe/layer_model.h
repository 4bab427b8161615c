/*
 * Which modules of a worker's model are timed, and as what (layer_model.c). GIL held, inside a
 * hook's half or a switch. Keeps a weak reference to the model, nothing else of vLLM's.
 *
 *   model.layers.3                  layer 3, other: what the ones below leave of it
 *   model.layers.3.self_attn        layer 3, attention
 *   model.layers.3.self_attn.q_norm layer 3, norm
 *   model.layers.3.mlp              layer 3, mlp; moe where it has experts
 *   model.norm                      of no layer, norm
 *   the model itself                of no layer, other: embedding, and what lies between
 */
#ifndef PM_PROBE_LAYER_MODEL_H
#define PM_PROBE_LAYER_MODEL_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

#include "session/layer_facts.h"

enum pm_layer_install {
    PM_LAYER_INSTALLED,
    PM_LAYER_COMPILED, /* torch.compile traces the modules: they are left alone */
    PM_LAYER_UNKNOWN,  /* there is no model that could be looked at */
};

/* What a module is, by its place ("self_attn", the last part of its name) and its class; experts:
 * it has a child of this name. PM_LAYER_OTHER: nothing that is told apart. Pure C. */
enum pm_layer_kind pm_layer_kind_of(const char *place, const char *class_name, bool experts);

/* The number in "model.layers.3.mlp": the first part that is one; PM_LAYER_OUTSIDE: none. Pure C.
 */
int32_t pm_layer_number_in(const char *name);

/* The model that the worker runs at this moment, only to be compared; NULL: none. */
const void *pm_layer_model_of(PyObject *worker);

/* Puts the timers in, after taking out those of an earlier model. */
enum pm_layer_install pm_layer_install(PyObject *worker, unsigned *ret_modules,
                                       unsigned *ret_layers);

/* Takes all of them out again. */
void pm_layer_remove(void);

/* Drops what is kept without touching any module: in a child of fork(). */
void pm_layer_forget(void);

#endif
