/*
 * The probe moe's callables inside a forward pass (see moe_capture.h): reads the ids that a router
 * chose from the tensor's own memory, which costs a few attribute reads and one pass over the ids.
 * Borrows everything.
 */
#include "probe/moe_capture.h"

#include <string.h>

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "probe/moe_layers.h"
#include "probe/probe.h"

struct pm_moe_now pm_moe_now;

static struct pm_name n_is_cpu = PM_NAME("is_cpu");
static struct pm_name n_data_ptr = PM_NAME("data_ptr");
static struct pm_name n_element_size = PM_NAME("element_size");
static struct pm_name n_shape = PM_NAME("shape");
static struct pm_name n_stride = PM_NAME("stride");
static struct pm_name n_forward_context = PM_NAME("_forward_context");
static struct pm_name n_dp_metadata = PM_NAME("dp_metadata");
static struct pm_name n_across = PM_NAME("num_tokens_across_dp_cpu");

/* ---- reading a tensor ------------------------------------------------------------------------ */

/* object.name(), new reference or NULL without an exception. */
static PyObject *call_method(PyObject *object, struct pm_name *name)
{
    PyObject *method = pm_read_attr(object, name);
    PyObject *value = method != NULL ? pm_vectorcall(method, NULL, 0, NULL) : NULL;
    Py_XDECREF(method);
    if (method != NULL && value == NULL)
        pm_guard_discard();
    return value;
}

static bool call_u64(PyObject *object, struct pm_name *name, uint64_t *ret_value)
{
    PyObject *value = call_method(object, name);
    const bool good = pm_u64(value, ret_value);
    Py_XDECREF(value);
    return good;
}

/* A tuple of one or two whole numbers; takes the reference. How many, 0: something else. */
static unsigned take_pair(PyObject *tuple, int64_t out[2])
{
    unsigned count = 0;
    if (tuple != NULL && PyTuple_Check(tuple)) {
        const Py_ssize_t size = PyTuple_Size(tuple);
        uint64_t value;
        for (Py_ssize_t i = 0; i < size && size <= 2; i++) {
            if (!pm_u64(PyTuple_GetItem(tuple, i), &value) || value > INT64_MAX) {
                count = 0;
                break;
            }
            out[i] = (int64_t)value;
            count++;
        }
    }
    Py_XDECREF(tuple);
    return count;
}

/* The memory of a tensor of one or two dimensions on the host. */
static bool read_tensor(PyObject *tensor, struct pm_moe_ids *ret_ids)
{
    bool is_cpu = false;
    uint64_t address = 0, item_bytes = 0;
    int64_t shape[2] = {0, 0}, stride[2] = {0, 0};

    if (!pm_read_bool(tensor, &n_is_cpu, &is_cpu) || !is_cpu ||
        !call_u64(tensor, &n_element_size, &item_bytes))
        return false;
    const unsigned dimensions = take_pair(pm_read_attr(tensor, &n_shape), shape);
    if (dimensions == 0 || take_pair(call_method(tensor, &n_stride), stride) != dimensions ||
        (item_bytes != 8 && item_bytes != 4 && item_bytes != 2 && item_bytes != 1) ||
        !call_u64(tensor, &n_data_ptr, &address) ||
        (address == 0 && shape[0] > 0 && (dimensions == 1 || shape[1] > 0)))
        return false;
    *ret_ids = (struct pm_moe_ids){
        .data = (const void *)(uintptr_t)address,
        .rows = shape[0],
        .columns = dimensions == 2 ? shape[1] : 1,
        .row_stride = stride[0],
        .column_stride = dimensions == 2 ? stride[1] : 0,
        .item_bytes = (unsigned)item_bytes,
    };
    return true;
}

/* ---- which rows ------------------------------------------------------------------------------ */

/* The row of n at which this rank's tokens begin, where a router sees those of all data-parallel
 * ranks one after another (vLLM's forward context says how many each has, padding included). */
static bool find_first(int64_t rows, int64_t *ret_first)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed, as is the module */
    PyObject *module =
        modules != NULL ? PyDict_GetItemString(modules, "vllm.forward_context") : NULL;
    PyObject *context = module != NULL ? pm_read_attr(module, &n_forward_context) : NULL;
    PyObject *metadata = context != NULL ? pm_read_attr(context, &n_dp_metadata) : NULL;
    PyObject *across = metadata != NULL ? pm_read_attr(metadata, &n_across) : NULL;
    struct pm_moe_ids tokens;
    bool good = false;

    if (across != NULL && read_tensor(across, &tokens) && tokens.item_bytes == 4 &&
        tokens.columns == 1 && tokens.rows > (int64_t)pm_moe_now.dp_rank) {
        int64_t before = 0, own = 0, all = 0;
        for (int64_t rank = 0; rank < tokens.rows; rank++) {
            int32_t n;
            memcpy(&n, (const char *)tokens.data + rank * tokens.row_stride * 4, sizeof n);
            before += rank < (int64_t)pm_moe_now.dp_rank ? n : 0;
            own = rank == (int64_t)pm_moe_now.dp_rank ? n : own;
            all += n;
        }
        good = rows == all || rows == own;
        *ret_first = rows == all ? before : 0;
    }
    Py_XDECREF(across);
    Py_XDECREF(metadata);
    Py_XDECREF(context);
    return good;
}

static void count(uint64_t handle, PyObject *topk_ids)
{
    struct pm_moe_slot *slot = pm_moe_find(handle);
    struct pm_moe_ids ids;
    int64_t first = 0;

    if (slot == NULL || slot->cells[PM_MOE_SELECTIONS].count == 0 ||
        slot->fact.instance != pm_moe_now.instance)
        return;
    if (!read_tensor(topk_ids, &ids) ||
        (pm_moe_now.dp_size > 1 && ids.rows != (int64_t)pm_moe_now.tokens &&
         !find_first(ids.rows, &first))) {
        slot->unread++;
        return;
    }
    const int64_t left = ids.rows - first, tokens = pm_moe_now.tokens;
    pm_moe_count(slot, &ids, first, left < tokens ? left : tokens); /* the rest is padding */
}

/* ---- our halves under the guard's rules ------------------------------------------------------ */

static uint64_t n_calls;

static uint64_t half_begin(void)
{
    pm_guard_here.inside++;
    return ++n_calls % PM_GUARD_SAMPLE == 0 ? pm_clock_now_ns() : 0;
}

static void half_end(uint64_t began_ns)
{
    if (PyErr_Occurred() != NULL)
        pm_guard_discard();
    pm_guard_here.inside--;
    if (began_ns != 0)
        pm_guard_count(PM_GUARD_SAMPLE, (pm_clock_now_ns() - began_ns) * PM_GUARD_SAMPLE);
}

/* ---- the callables --------------------------------------------------------------------------- */

/* self of them is a tuple (handle, what was there before). */
static PyObject *self_new(uint32_t handle, PyObject *other)
{
    return Py_BuildValue("(kO)", (unsigned long)handle, other != NULL ? other : Py_None);
}

static PyObject *self_other(PyObject *self, uint64_t *ret_handle)
{
    if (!pm_u64(PyTuple_GetItem(self, 0), ret_handle))
        *ret_handle = 0;
    return PyTuple_GetItem(self, 1);
}

static PyObject *capture(PyObject *self, PyObject *topk_ids)
{
    static uint64_t busy; /* the layer that is being captured: one that chains to us chains once */
    uint64_t handle = 0;
    PyObject *previous = self_other(self, &handle);

    if (previous != Py_None) {
        const uint64_t outer = busy;
        busy = handle;
        PyObject *result = pm_vectorcall(previous, &topk_ids, 1, NULL);
        busy = outer;
        if (result == NULL)
            return NULL;
        Py_DECREF(result);
    }
    if (pm_moe_now.counting && busy != handle) {
        const uint64_t began_ns = half_begin();
        count(handle, topk_ids);
        half_end(began_ns);
    }
    Py_RETURN_NONE;
}

static PyObject *operation(PyObject *self, PyObject *args)
{
    (void)self;
    if (pm_moe_now.counting && PyTuple_Size(args) == 2) {
        const uint64_t began_ns = half_begin();
        struct pm_moe_ids handle;
        int64_t value = 0;
        if (read_tensor(PyTuple_GetItem(args, 1), &handle) && handle.item_bytes == sizeof value &&
            handle.rows > 0)
            memcpy(&value, handle.data, sizeof value);
        count((uint64_t)value, PyTuple_GetItem(args, 0));
        half_end(began_ns);
    }
    if (PyErr_Occurred() != NULL)
        pm_guard_discard();
    Py_RETURN_NONE;
}

static void record_time(uint64_t handle, uint64_t start_ns, uint64_t end_ns)
{
    const struct pm_moe_slot *slot = pm_moe_find(handle);
    struct pm_recorder *rec = slot != NULL ? pm_facts() : NULL;
    struct pm_moe_time *record =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&pm_moe_time_schema)) : NULL;
    const uint64_t dur_ns = end_ns > start_ns ? end_ns - start_ns : 0;
    if (record == NULL)
        return;
    record->at_ns = start_ns;
    record->dur_ns = dur_ns < UINT32_MAX ? (uint32_t)dur_ns : UINT32_MAX;
    record->tokens = pm_moe_now.tokens;
    record->instance = slot->fact.instance;
    record->slot = slot->fact.slot;
    pm_recorder_commit(rec, record);
}

/* (*args, **kwargs), given on as they are. */
static PyObject *timer(PyObject *self, PyObject *args, PyObject *kwargs)
{
    uint64_t handle = 0;
    PyObject *original = self_other(self, &handle);
    const bool counting = pm_moe_now.counting;
    const uint64_t start_ns = counting ? pm_clock_now_ns() : 0;
    PyObject *result = PyObject_Call(original, args, kwargs);
    if (counting && result != NULL) {
        const uint64_t end_ns = pm_clock_now_ns();
        const uint64_t began_ns = half_begin();
        record_time(handle, start_ns, end_ns);
        half_end(began_ns);
    }
    return result;
}

static PyMethodDef capture_def = {"profilemate_capture", capture, METH_O,
                                  "Counts the experts that a router chose."};
static PyMethodDef operation_def = {"profilemate_count", operation, METH_VARARGS,
                                    "Counts the experts that a compiled router chose."};
static PyMethodDef timer_def = {"profilemate_timer", (PyCFunction)(void (*)(void))timer,
                                METH_VARARGS | METH_KEYWORDS, "Times a layer."};

static PyObject *function_new(PyMethodDef *def, uint32_t handle, PyObject *other)
{
    PyObject *self = self_new(handle, other);
    PyObject *function = self != NULL ? PyCFunction_NewEx(def, self, NULL) : NULL;
    Py_XDECREF(self);
    return function;
}

PyObject *pm_moe_capture_new(uint32_t handle, PyObject *previous)
{
    return function_new(&capture_def, handle, previous);
}

PyObject *pm_moe_operation_new(void)
{
    return PyCFunction_NewEx(&operation_def, NULL, NULL);
}

PyObject *pm_moe_timer_new(uint32_t handle, PyObject *original)
{
    return function_new(&timer_def, handle, original);
}
