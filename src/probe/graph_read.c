/*
 * Reads descriptors and the forward context (see graph_read.h).
 *
 * BatchDescriptor (the forward context's): num_tokens always; uniform_decode 0.11.0 to 0.11.2,
 * uniform and num_reqs 0.12+; has_lora 0.11.2+; num_active_loras 0.16+.
 * BatchExecutionDescriptor (the newer runner's): cg_mode, num_tokens, num_reqs,
 * uniform_token_count 0.18.1+; num_active_loras 0.24+.
 */
#include "probe/graph_read.h"

#include <string.h>

#include "hook/read.h"

static struct pm_name n_module = PM_NAME("vllm.forward_context");
static struct pm_name n_context = PM_NAME("_forward_context");
static struct pm_name n_runtime_mode = PM_NAME("cudagraph_runtime_mode");
static struct pm_name n_batch_descriptor = PM_NAME("batch_descriptor");
static struct pm_name n_skip_compiled = PM_NAME("skip_compiled");
static struct pm_name n_value = PM_NAME("_value_");
static struct pm_name n_num_tokens = PM_NAME("num_tokens");
static struct pm_name n_num_reqs = PM_NAME("num_reqs");
static struct pm_name n_uniform = PM_NAME("uniform");
static struct pm_name n_uniform_decode = PM_NAME("uniform_decode");
static struct pm_name n_has_lora = PM_NAME("has_lora");
static struct pm_name n_num_active_loras = PM_NAME("num_active_loras");
static struct pm_name n_cg_mode = PM_NAME("cg_mode");
static struct pm_name n_uniform_token_count = PM_NAME("uniform_token_count");
static struct pm_name n_class = PM_NAME("__class__");
static struct pm_name n_name = PM_NAME("__name__");
static struct pm_name n_vllm_config = PM_NAME("vllm_config");
static struct pm_name n_compilation_config = PM_NAME("compilation_config");
static struct pm_name n_cudagraph_mode = PM_NAME("cudagraph_mode");
static struct pm_name n_enum_name = PM_NAME("_name_");

/* The context, borrowed; NULL where there is none. */
static PyObject *forward_context(void)
{
    PyObject *name = pm_name_object(&n_module);
    PyObject *module = name != NULL ? pm_dict_item(PyImport_GetModuleDict(), name) : NULL;
    if (module == NULL || !PyModule_Check(module))
        return NULL;
    name = pm_name_object(&n_context);
    PyObject *context = name != NULL ? pm_dict_item(PyModule_GetDict(module), name) : NULL;
    return context != Py_None ? context : NULL;
}

/* An enum member's value as a mode; NONE where it is none of the runtime's. */
static uint8_t read_mode(PyObject *object, struct pm_name *name)
{
    uint64_t value = PM_GRAPH_MODE_NONE;
    PyObject *mode = pm_read_attr(object, name);
    if (mode == NULL || !pm_read_u64(mode, &n_value, &value) || value > PM_GRAPH_MODE_FULL)
        value = PM_GRAPH_MODE_NONE;
    Py_XDECREF(mode);
    return (uint8_t)value;
}

static void read_counts(PyObject *object, struct pm_graph_desc *desc)
{
    uint64_t tokens = 0, loras = 0;
    int64_t requests = -1;
    (void)pm_read_u64(object, &n_num_tokens, &tokens);
    desc->num_tokens = tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
    if (!pm_read_i64(object, &n_num_reqs, &requests) || requests < 0 || requests > INT32_MAX)
        requests = -1;
    desc->num_reqs = (int32_t)requests;
    (void)pm_read_u64(object, &n_num_active_loras, &loras);
    desc->num_active_loras = loras < UINT16_MAX ? (uint16_t)loras : UINT16_MAX;
}

static void read_batch_descriptor(PyObject *object, struct pm_graph_desc *desc)
{
    bool flag = false;
    read_counts(object, desc);
    if (!pm_read_bool(object, &n_uniform, &flag))
        (void)pm_read_bool(object, &n_uniform_decode, &flag);
    desc->uniform = flag;
    flag = false;
    (void)pm_read_bool(object, &n_has_lora, &flag);
    desc->has_lora = flag;
}

bool pm_graph_read_context(struct pm_graph_dispatch *ret_dispatch)
{
    struct pm_graph_dispatch dispatch = {.desc = {.num_reqs = -1}};
    PyObject *context = forward_context();
    if (context == NULL)
        return false;
    Py_INCREF(context);
    dispatch.desc.mode = read_mode(context, &n_runtime_mode);
    (void)pm_read_bool(context, &n_skip_compiled, &dispatch.skip_compiled);
    PyObject *descriptor = pm_read_attr(context, &n_batch_descriptor);
    dispatch.has_desc = descriptor != NULL && descriptor != Py_None;
    if (dispatch.has_desc)
        read_batch_descriptor(descriptor, &dispatch.desc);
    Py_XDECREF(descriptor);
    Py_DECREF(context);
    *ret_dispatch = dispatch;
    return true;
}

bool pm_graph_read_key(PyObject *key, struct pm_graph_desc *ret_desc)
{
    struct pm_graph_desc desc = {.num_reqs = -1, .mode = PM_GRAPH_MODE_FULL};
    uint64_t count;
    if (pm_u64(key, &count)) {
        desc.num_tokens = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
        *ret_desc = desc;
        return true;
    }
    read_counts(key, &desc);
    if (desc.num_tokens == 0)
        return false;
    desc.mode = read_mode(key, &n_cg_mode);
    desc.uniform = pm_read_u64(key, &n_uniform_token_count, &count);
    desc.has_lora = desc.num_active_loras > 0;
    *ret_desc = desc;
    return true;
}

bool pm_graph_class_name(PyObject *object, char *out, size_t size)
{
    PyObject *type = pm_read_attr(object, &n_class);
    bool known = type != NULL && pm_read_text(type, &n_name, out, size, NULL);
    if (!known && size > 0)
        out[0] = '\0';
    Py_XDECREF(type);
    return known;
}

bool pm_graph_read_config(PyObject *worker, char *out, size_t size)
{
    PyObject *config = pm_read_attr(worker, &n_vllm_config);
    PyObject *compilation = config != NULL ? pm_read_attr(config, &n_compilation_config) : NULL;
    PyObject *mode = compilation != NULL ? pm_read_attr(compilation, &n_cudagraph_mode) : NULL;
    bool known = mode != NULL && pm_read_text(mode, &n_enum_name, out, size, NULL);
    Py_XDECREF(mode);
    Py_XDECREF(compilation);
    Py_XDECREF(config);
    return known;
}
