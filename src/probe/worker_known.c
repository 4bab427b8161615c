/*
 * The workers of this process (see worker_known.h). Owns their table; called by the probe
 * worker_step, under the GIL.
 */
#include "probe/worker_known.h"

#include <string.h>

#include "hook/read.h"
#include "probe/device.h"
#include "probe/model_size.h"
#include "probe/probe.h"
#include "probe/scheduler.h"
#include "probe/worker_now.h"
#include "session/attrs.h"

#define WORKERS_MAX 4 /* live at a time in one process; the oldest makes room */

static struct {
    struct pm_worker workers[WORKERS_MAX];
    uint16_t n_instances;
} known;

static struct pm_name n_device_config = PM_NAME("device_config");
static struct pm_name n_device_type = PM_NAME("device_type");
static struct pm_name n_model_runner = PM_NAME("model_runner");
static struct pm_name n_class = PM_NAME("__class__");
static struct pm_name n_module = PM_NAME("__module__");

struct pm_worker *pm_workers_add(const PyObject *self)
{
    struct pm_worker *place = &known.workers[0];
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        struct pm_worker *each = &known.workers[i];
        if (each->self == self || each->self == NULL) {
            place = each;
            break;
        }
        if (each->instance < place->instance)
            place = each;
    }
    *place = (struct pm_worker){.self = self, .instance = known.n_instances++};
    return place;
}

struct pm_worker *pm_workers_of(const PyObject *self)
{
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        if (known.workers[i].self == self)
            return &known.workers[i];
    }
    struct pm_worker *worker = pm_workers_add(self);
    worker->unsynced = pm_facts_late();
    return worker;
}

bool pm_worker_sync(struct pm_worker *worker, const PyObject *output)
{
    bool beside = false;
    struct pm_scheduler *scheduler;
    for (size_t i = 0; (scheduler = pm_scheduler_at(i)) != NULL; i++) {
        const struct pm_flight *flight =
            scheduler->self != NULL ? pm_flight_of(scheduler, output) : NULL;
        beside = beside || scheduler->self != NULL;
        if (flight != NULL) {
            worker->step = flight->step;
            worker->unsynced = false;
            return true;
        }
    }
    worker->unsynced = beside;
    return !beside;
}

uint16_t pm_worker_newest(void)
{
    return known.n_instances > 0 ? (uint16_t)(known.n_instances - 1) : 0;
}

/* Whether the worker's tensors live on a device, so that host clocks see launches only. */
static bool runs_on_device(PyObject *self)
{
    char type[32];
    PyObject *config = pm_read_attr(self, &n_device_config);
    bool told = config != NULL && pm_read_text(config, &n_device_type, type, sizeof type, NULL);
    Py_XDECREF(config);
    return told && strcmp(type, "cpu") != 0;
}

void pm_worker_describe(PyObject *self, struct pm_worker *worker)
{
    char module[128];
    PyObject *runner = pm_read_attr(self, &n_model_runner);
    PyObject *type = runner != NULL ? pm_read_attr(runner, &n_class) : NULL;
    if (type != NULL && pm_read_text(type, &n_module, module, sizeof module, NULL))
        pm_facts_attr(PM_ATTR_RUNNER, module);
    Py_XDECREF(type);
    Py_XDECREF(runner);
    worker->device = runs_on_device(self) || pm_device_stand_in() != NULL;
    pm_facts_attr(PM_ATTR_FORWARD_CLOCK, worker->device ? "sync" : "wall");
    pm_device_name_tell(self);
}

void pm_workers_reset(void)
{
    memset(&known, 0, sizeof known);
}
