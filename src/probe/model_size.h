/*
 * The sizes of the model, from its own configuration: what bytes and operations of a step are
 * computed from when a session is read. Called by the probe session with the engine's
 * configuration, a few times in a process's life, under the GIL.
 */
#ifndef PM_PROBE_MODEL_SIZE_H
#define PM_PROBE_MODEL_SIZE_H

#include "hook/compat.h"

/* Tells them as attributes model_size.<name>; what is not there is left out. */
void pm_model_size_tell(PyObject *vllm_config);

/* Tells the name that torch has for the device of this worker (PM_ATTR_DEVICE_NAME), on CUDA and
 * ROCm; once per worker, when it runs its first step. */
void pm_device_name_tell(PyObject *worker);

#endif
