/*
 * Outputs of steps that are known only later (see worker_output.h). Owns the few that are under
 * way; called by the probe worker_step, under the GIL.
 */
#include "probe/worker_output.h"

#include <string.h>

#include "hook/read.h"
#include "probe/probe.h"
#include "session/step_facts.h"
#include "session/step_schema.h"

#define PENDING_MAX 16 /* steps in flight; vLLM has two, or one per pipeline stage */

/* Handed out, and its get_output is still to come. output is compared, never followed. */
struct pending_output {
    const PyObject *output;
    uint64_t step;
    uint16_t instance;
};

static struct {
    struct pending_output pending[PENDING_MAX];
    uint32_t next;
    const PyTypeObject *type; /* compared, never followed; of outputs of this type … */
    bool waited_for;          /* … it is known whether they have get_output */
} state;

static struct pm_name n_get_output = PM_NAME("get_output");

/* An asynchronous output is one with get_output. Asked once per type: a missing attribute is dear.
 */
static bool is_waited_for(PyObject *output)
{
    if (Py_TYPE(output) != state.type) {
        PyObject *method = pm_read_attr(output, &n_get_output);
        state.type = Py_TYPE(output);
        state.waited_for = method != NULL;
        Py_XDECREF(method);
    }
    return state.waited_for;
}

bool pm_output_expect(PyObject *output, uint64_t step, uint16_t instance)
{
    if (!is_waited_for(output))
        return false;
    state.pending[state.next++ % PENDING_MAX] =
        (struct pending_output){.output = output, .step = step, .instance = instance};
    return true;
}

void pm_output_known(const PyObject *output, uint64_t at_ns)
{
    for (uint32_t i = 0; i < PENDING_MAX; i++) { /* the newest first: addresses come back */
        struct pending_output *pending = &state.pending[(state.next - 1 - i) % PENDING_MAX];
        if (pending->output != output)
            continue;
        pending->output = NULL;
        struct pm_recorder *rec = pm_facts();
        struct pm_worker_sync *fact =
            rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&pm_worker_sync_schema)) : NULL;
        if (fact != NULL) {
            fact->step = pending->step;
            fact->sync_at_ns = at_ns;
            fact->instance = pending->instance;
            pm_recorder_commit(rec, fact);
        }
        return;
    }
}

void pm_outputs_reset(void)
{
    memset(&state, 0, sizeof state);
}
