/*
 * Probe torch_profiler: keeps the promise of VLLM_TORCH_PROFILER_DIR and its companions on every
 * vLLM. Up to 0.15 vLLM reads them itself; later it knows nothing of them and wants
 * --profiler-config. Where the directory is set and vLLM does not know the variable, the
 * configuration that the command line would have given is put in its place, unless there is one:
 * into the parsed command line, which decides whether the server has /start_profile, and into the
 * engine's arguments, for an LLM() of one's own. The user asked for it by name; nothing else here
 * changes what vLLM does.
 *
 * Runs a few times in a process's life, in the process that configures the engine, under the GIL.
 * Records attributes only: what profiles, and where the traces go.
 */
#include "probe/torch_profiler.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hook/guard.h"
#include "hook/read.h"
#include "session/attrs.h"

/* How a variable's text becomes the field's value. */
enum kind { SWITCH, COUNT };

/* The variables of vLLM 0.11 to 0.15 (vllm/envs.py there) and the fields of ProfilerConfig
 * (vllm/config/profiler.py since 0.13) that took their place. A field that this vLLM does not have
 * is left out. */
static const struct {
    const char *env, *field;
    enum kind kind;
} rows[] = {
    {"VLLM_TORCH_PROFILER_RECORD_SHAPES", "torch_profiler_record_shapes", SWITCH},
    {"VLLM_TORCH_PROFILER_WITH_PROFILE_MEMORY", "torch_profiler_with_memory", SWITCH},
    {"VLLM_TORCH_PROFILER_WITH_STACK", "torch_profiler_with_stack", SWITCH},
    {"VLLM_TORCH_PROFILER_WITH_FLOPS", "torch_profiler_with_flops", SWITCH},
    {"VLLM_TORCH_PROFILER_USE_GZIP", "torch_profiler_use_gzip", SWITCH},
    {"VLLM_TORCH_PROFILER_DUMP_CUDA_TIME_TOTAL", "torch_profiler_dump_cuda_time_total", SWITCH},
    {"VLLM_TORCH_PROFILER_DISABLE_ASYNC_LLM", "ignore_frontend", SWITCH},
    {"VLLM_PROFILER_DELAY_ITERS", "delay_iterations", COUNT},
    {"VLLM_PROFILER_MAX_ITERS", "max_iterations", COUNT},
};

static bool looked; /* a hook of ours has run: the variables are seen to */

bool pm_torch_profiler_honours(const char *env_name)
{
    if (!looked)
        return false;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(env_name, rows[i].env) == 0)
            return true;
    return strcmp(env_name, "VLLM_TORCH_PROFILER_DIR") == 0;
}

static const char *directory(void)
{
    const char *dir = getenv("VLLM_TORCH_PROFILER_DIR");
    return dir && dir[0] ? dir : NULL;
}

/* Borrowed, NULL where the module was not imported. */
static PyObject *module_dict(const char *name)
{
    PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), name);
    return module && PyModule_Check(module) ? PyModule_GetDict(module) : NULL;
}

static bool vllm_reads_variables(void)
{
    PyObject *dict = module_dict("vllm.envs");
    PyObject *known = dict ? PyDict_GetItemString(dict, "environment_variables") : NULL;
    return known && PyDict_Check(known) && PyDict_GetItemString(known, "VLLM_TORCH_PROFILER_DIR");
}

/* The value of a row, new reference; NULL: not set, or nothing that can be understood. As vLLM
 * read them: a switch is on unless it is 0. */
static PyObject *value_of(size_t row)
{
    const char *text = getenv(rows[row].env);
    if (!text || !text[0])
        return NULL;
    if (rows[row].kind == COUNT) {
        char *end;
        long count = strtol(text, &end, 10);
        return *end == '\0' && count >= 0 ? PyLong_FromLong(count) : NULL;
    }
    bool on = strcmp(text, "0") != 0 && strcasecmp(text, "false") != 0 &&
              strcasecmp(text, "off") != 0 && strcasecmp(text, "no") != 0;
    return PyBool_FromLong(on);
}

/* What the variables say, as keyword arguments of the class; new reference or NULL. */
static PyObject *arguments(PyObject *fields)
{
    PyObject *kwargs = PyDict_New();
    PyObject *dir = PyUnicode_DecodeFSDefault(directory());
    PyObject *torch = PyUnicode_FromString("torch");
    bool fine = kwargs && dir && torch && PyDict_SetItemString(kwargs, "profiler", torch) == 0 &&
                PyDict_SetItemString(kwargs, "torch_profiler_dir", dir) == 0;
    for (size_t i = 0; fine && i < sizeof rows / sizeof rows[0]; i++) {
        if (!PyDict_GetItemString(fields, rows[i].field))
            continue;
        PyObject *value = value_of(i);
        if (value)
            fine = PyDict_SetItemString(kwargs, rows[i].field, value) == 0;
        Py_XDECREF(value);
    }
    Py_XDECREF(torch);
    Py_XDECREF(dir);
    if (!fine)
        Py_CLEAR(kwargs);
    return kwargs;
}

/* A ProfilerConfig as --profiler-config would have made it; new reference or NULL: this vLLM has
 * no such class (before 0.13), or did not want it. */
static PyObject *new_config(void)
{
    PyObject *dict = module_dict("vllm.config");
    PyObject *cls = dict ? PyDict_GetItemString(dict, "ProfilerConfig") : NULL; /* borrowed */
    PyObject *fields = cls ? PyObject_GetAttrString(cls, "__dataclass_fields__") : NULL;
    PyObject *kwargs = fields && PyDict_Check(fields) ? arguments(fields) : NULL;
    PyObject *none = kwargs ? PyTuple_New(0) : NULL;
    PyObject *config = none ? PyObject_Call(cls, none, kwargs) : NULL;
    if (kwargs && !config)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "torch_profiler",
                      "vLLM refused the profiler configuration that VLLM_TORCH_PROFILER_DIR and "
                      "its companions ask for, torch's profiler is not set up");
    Py_XDECREF(none);
    Py_XDECREF(kwargs);
    Py_XDECREF(fields);
    pm_guard_discard();
    return config;
}

/* Puts it into object.profiler_config, where there is none that profiles. */
static void fill(PyObject *object)
{
    static struct pm_name n_config = PM_NAME("profiler_config"), n_profiler = PM_NAME("profiler");
    looked = true;
    if (!object || object == Py_None || !directory() || vllm_reads_variables())
        return;
    PyObject *present = pm_read_attr(object, &n_config);
    PyObject *kind = present && present != Py_None ? pm_read_attr(present, &n_profiler) : NULL;
    bool profiles = kind && kind != Py_None;
    Py_XDECREF(kind);
    PyObject *config = present && !profiles ? new_config() : NULL;
    Py_XDECREF(present);
    PyObject *name = config ? pm_name_object(&n_config) : NULL; /* borrowed */
    if (name && PyObject_SetAttr(object, name, config) < 0)
        pm_guard_discard();
    Py_XDECREF(config);
}

/* EngineArgs.from_cli_args(cls, args): the namespace that the HTTP server looks at as well. */
static void from_args_enter(struct pm_call *call)
{
    static struct pm_name n_args = PM_NAME("args");
    fill(pm_call_arg(call, 1, &n_args));
}

/* EngineArgs.create_engine_config(self, …) -> VllmConfig */
static void make_config_enter(struct pm_call *call)
{
    fill(call->nargs > 0 ? call->args[0] : NULL);
}

static void make_config_leave(struct pm_call *call)
{
    static struct pm_name n_config = PM_NAME("profiler_config"), n_profiler = PM_NAME("profiler");
    static struct pm_name n_dir = PM_NAME("torch_profiler_dir");
    char text[1024];
    PyObject *config = call->result ? pm_read_attr(call->result, &n_config) : NULL;
    if (config && pm_read_text(config, &n_profiler, text, sizeof text, NULL))
        pm_facts_attr(PM_ATTR_TORCH_PROFILER, text);
    else if (directory() && vllm_reads_variables())
        pm_facts_attr(PM_ATTR_TORCH_PROFILER, "torch");
    if (config && pm_read_text(config, &n_dir, text, sizeof text, NULL) && text[0])
        pm_facts_attr(PM_ATTR_TORCH_PROFILER_DIR, text);
    else if (directory() && vllm_reads_variables())
        pm_facts_attr(PM_ATTR_TORCH_PROFILER_DIR, directory());
    Py_XDECREF(config);
}

#define T PM_TARGET_ROW
#define from_args_leave NULL
static const struct pm_target targets[] = {
#include "probe/torch_profiler.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    (void)settings;
    return true;
}

const struct pm_probe pm_probe_torch_profiler = {
    .name = "torch_profiler",
    .control = PM_PROBE_SPINE,
    .enabled = enabled,
    .targets = targets,
    .n_targets = sizeof targets / sizeof targets[0],
};
