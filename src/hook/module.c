/*
 * The module: PyInit_sitecustomize (found on PYTHONPATH) and PyInit__profilemate (imported by the
 * wheel's .pth line and by the vllm.general_plugins entry point) are the same code. Runs on the
 * thread that imports it, while the interpreter starts or, by the entry point, later.
 *
 * The first thing looked at is the running version, since one file is loaded by all of them: below
 * 3.10 the module does nothing, and on a free-threaded build, whose objects have another layout,
 * not even a module is made. Then the gate decides; where it is closed, nothing else happens here.
 *
 * Which copy is in force: see hook.h.
 */
#include "hook/hook.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/settings.h"
#include "hook/control.h"
#include "hook/gate.h"
#include "hook/read.h"
#include "hook/session.h"
#include "hook/switch.h"
#include "session/attrs.h"

#define CAPSULE_VERSION 1
static const char capsule_key[] = "_profilemate";
static const char capsule_name[] = "profilemate.copy";

/* What the copy in force offers to the others. The capsule's context is its module. */
struct copy {
    uint32_t version;
    const char *file;
    PyObject *(*enter)(PyObject *module, const char *entry); /* of the copy in force */
    void (*met)(const char *file);                           /* another copy lies there */
};

static struct pm_hook *current;

struct pm_hook *pm_hook_current(void)
{
    return current;
}

/* ---- activation ------------------------------------------------------------------------------ */

size_t pm_hook_arguments(const char **words, size_t most)
{
    PyObject *list = PySys_GetObject("orig_argv"); /* borrowed */
    Py_ssize_t count = list && PyList_Check(list) ? PyList_Size(list) : 0;
    size_t used = 0;
    for (Py_ssize_t i = 0; i < count && used < most; i++) {
        const char *text = PyUnicode_AsUTF8AndSize(PyList_GetItem(list, i), NULL);
        if (!text)
            PyErr_Clear(); /* bytes that are no text: no word that we know */
        words[used++] = text ? text : "?";
    }
    return used;
}

static struct pm_gate_verdict decide(void)
{
    const char *token = getenv(PM_SESSION_ENV);
    struct pm_birth birth;
    const char *words[PM_ARGUMENTS_MAX];
    struct pm_gate_input input = {
        .argc = pm_hook_arguments(words, PM_ARGUMENTS_MAX),
        .argv = words,
        .enable = pm_settings_enable(NULL, NULL, NULL, NULL),
        .session = token && pm_birth_parse(token, &birth) == 0,
    };
    return pm_gate_decide(&input);
}

/* The gate is open: takes up the session and watches imports. */
static bool activate(PyObject *module, const struct pm_gate_verdict *verdict, const char *entry)
{
    struct pm_hook *hook = PyModule_GetState(module);
    pm_session_begin(verdict, entry);
    hook->in_force = true;
    if (pm_wrapper_types_init(module, &hook->types) < 0 ||
        pm_install_begin(hook, pm_facts_settings()) < 0) {
        pm_session_mute();
        return false;
    }
    current = hook;
    return pm_finder_install(module, hook) == 0;
}

static bool bring_up(PyObject *module)
{
    if (current)
        return true;
    struct pm_hook *hook = PyModule_GetState(module);
    bool done = false;
    hook->in_force = true;
    if (pm_wrapper_types_init(module, &hook->types) == 0 && pm_install_begin(hook, NULL) == 0) {
        current = hook;
        done = pm_finder_install(module, hook) == 0;
    }
    PyErr_Clear();
    return done;
}

/* Switched off, in a command that starts a vLLM engine, or in a child of one: of all hooks only the
 * one on vLLM's check of environment names, so that the switch itself does not make vLLM warn, or
 * refuse to start; and the finder learns when vLLM is there, for `profilemate start`. */
static void stand_by(PyObject *module, bool late)
{
    const char *words[PM_ARGUMENTS_MAX];
    size_t n_words = pm_hook_arguments(words, PM_ARGUMENTS_MAX);
    const bool serves = pm_gate_command_serves(n_words, words);
    /* vLLM's own plug-ins show by themselves that it is there: no finder for that. */
    if (!current && (serves || (!late && getenv(PM_CONTROL_ENV))))
        (void)bring_up(module);
}

/* One of the ways in, in the copy in force; as often as there are ways. */
static PyObject *enter(PyObject *module, const char *entry)
{
    const bool late = strcmp(entry, "plugin") == 0;
    struct pm_gate_verdict verdict = decide();
    if (pm_session_active()) {
        if (verdict.reason == PM_GATE_SWITCH_OFF)
            pm_session_mute();
    } else if (verdict.reason == PM_GATE_SWITCH_OFF) {
        stand_by(module, late);
    } else if (!verdict.active) {
        if (getenv(PM_CONTROL_ENV))
            stand_by(module, late);
    } else if (current) { /* stood by, and is told to record after all */
        struct pm_switched switched;
        pm_session_begin(&verdict, entry);
        pm_switch_to(pm_facts_settings(), true, &switched, NULL, NULL);
    } else if (!activate(module, &verdict, entry)) {
        PyErr_Clear();
    }
    if (current)
        pm_install_loaded();
    if (late)
        pm_control_arm(); /* only vLLM's own processes load its plug-ins */
    Py_RETURN_NONE;
}

static void met(const char *file)
{
    if (!pm_session_active())
        return;
    if (pm_place_is_simple(file))
        pm_session_prefer_simple();
    pm_attributes_set(PM_ATTR_NOTE_PREFIX "copy",
                      "another copy of the extension was loaded from %s and left alone; this "
                      "process uses %s",
                      file, pm_place_file());
}

/* ---- copies ---------------------------------------------------------------------------------- */

static struct copy this_copy = {.version = CAPSULE_VERSION, .enter = enter, .met = met};

static void capsule_free(PyObject *capsule)
{
    PyObject *module = PyCapsule_GetContext(capsule);
    Py_XDECREF(module);
}

/* The copy in force and its module (borrowed). NULL without exception if there is none yet
 * (*ret_vacant), or one of another release that this one does not understand. */
static const struct copy *find_copy(PyObject **ret_module, bool *ret_vacant)
{
    PyObject *capsule = PySys_GetObject(capsule_key); /* borrowed */
    *ret_vacant = capsule == NULL;
    if (!capsule || !PyCapsule_IsValid(capsule, capsule_name))
        return NULL;
    const struct copy *copy = PyCapsule_GetPointer(capsule, capsule_name);
    *ret_module = PyCapsule_GetContext(capsule);
    if (!copy || copy->version != CAPSULE_VERSION || !*ret_module) {
        PyErr_Clear();
        return NULL;
    }
    return copy;
}

bool pm_hook_bring_up(void)
{
    PyObject *owner = NULL;
    bool vacant;
    const struct copy *copy = find_copy(&owner, &vacant);
    return current || (copy && copy->enter == this_copy.enter && bring_up(owner));
}

static int publish_copy(PyObject *module)
{
    this_copy.file = pm_place_file();
    PyObject *capsule = PyCapsule_New(&this_copy, capsule_name, capsule_free);
    if (!capsule)
        return -1;
    Py_INCREF(module);
    int status = PyCapsule_SetContext(capsule, module);
    if (status < 0)
        Py_DECREF(module);
    else
        status = PySys_SetObject(capsule_key, capsule);
    Py_DECREF(capsule);
    return status;
}

/* register(): the entry point of vllm.general_plugins, in each of vLLM's processes. */
static PyObject *register_plugin(PyObject *module, PyObject *unused)
{
    (void)unused;
    PyObject *owner = module;
    bool vacant;
    const struct copy *copy = find_copy(&owner, &vacant);
    if (copy)
        return copy->enter(owner, "plugin");
    Py_RETURN_NONE; /* another interpreter than the main one */
}

/* ---- the module's attributes ------------------------------------------------------------------
 */

/* __getattr__ (PEP 562): ProfilingConfig when it is asked for, and what the shadowed sitecustomize
 * offers. */
static PyObject *get_attribute(PyObject *module, PyObject *name)
{
    struct pm_hook *hook = PyModule_GetState(module);
    if (hook && PyUnicode_Check(name) &&
        PyUnicode_CompareWithASCIIString(name, "ProfilingConfig") == 0) {
        if (!hook->config)
            hook->config = pm_config_new();
        Py_XINCREF(hook->config);
        return hook->config;
    }
    if (hook && hook->shadowed)
        return PyObject_GetAttr(hook->shadowed, name);
    PyErr_Format(PyExc_AttributeError, "module '%s' has no attribute '%U'",
                 PyModule_GetName(module), name);
    return NULL;
}

static PyMethodDef methods[] = {
    {"register", register_plugin, METH_NOARGS,
     "Decides afresh whether this process is profiled, and hooks what is imported already."},
    {"__getattr__", get_attribute, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static bool is_named(PyObject *module, const char *name)
{
    const char *own = PyModule_GetName(module);
    if (!own)
        PyErr_Clear();
    return own && strcmp(own, name) == 0;
}

/* How this import came about: by name, or late and then from vLLM's plug-ins. */
static const char *entry_of(PyObject *module)
{
    if (is_named(module, "sitecustomize"))
        return "pythonpath";
    return PyDict_GetItemString(PyImport_GetModuleDict(), "vllm") ? "plugin" : "pth";
}

static int chain(PyObject *module)
{
    struct pm_hook *hook = PyModule_GetState(module);
    return is_named(module, "sitecustomize") ? pm_shadow_run(module, &hook->shadowed) : 0;
}

static int exec_module(PyObject *module)
{
    /* Hooks belong to the main interpreter; in others only the shadowed module runs. */
    if (PyInterpreterState_GetID(PyInterpreterState_Get()) == 0) {
        PyObject *owner = NULL, *done = NULL;
        bool vacant;
        const struct copy *copy = find_copy(&owner, &vacant);
        if (vacant && publish_copy(module) == 0)
            done = enter(module, entry_of(module));
        else if (copy && strcmp(copy->file, pm_place_file()) != 0)
            copy->met(pm_place_file());
        Py_XDECREF(done);
        PyErr_Clear(); /* a failure of ours is no failure of the import */
    }
    return chain(module);
}

/* ---- the module's life ------------------------------------------------------------------------
 */

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    struct pm_hook *hook = PyModule_GetState(module);
    if (!hook)
        return 0;
    Py_VISIT(hook->finder_type);
    Py_VISIT(hook->exec_type);
    Py_VISIT(hook->loader_type);
    Py_VISIT(hook->finder);
    Py_VISIT(hook->config);
    Py_VISIT(hook->shadowed);
    return hook->in_force ? pm_wrapper_types_visit(&hook->types, visit, arg) : 0;
}

static int clear(PyObject *module)
{
    struct pm_hook *hook = PyModule_GetState(module);
    if (!hook)
        return 0;
    if (current == hook)
        current = NULL;
    Py_CLEAR(hook->finder);
    Py_CLEAR(hook->finder_type);
    Py_CLEAR(hook->exec_type);
    Py_CLEAR(hook->loader_type);
    Py_CLEAR(hook->config);
    Py_CLEAR(hook->shadowed);
    if (hook->in_force)
        pm_wrapper_types_clear(&hook->types);
    return 0;
}

static void release(void *module)
{
    struct pm_hook *hook = PyModule_GetState(module);
    bool in_force = hook && hook->in_force;
    (void)clear(module);
    if (in_force)
        pm_names_reset();
}

/* Py_mod_multiple_interpreters, from 3.12; older versions refuse a slot that they do not know. */
#define SLOT_INTERPRETERS 3
#define PER_INTERPRETER_GIL ((void *)2)

static PyModuleDef_Slot slots_old[] = {{Py_mod_exec, chain}, {0, NULL}};
static PyModuleDef_Slot slots_310[] = {{Py_mod_exec, exec_module}, {0, NULL}};
static PyModuleDef_Slot slots_312[] = {
    {Py_mod_exec, exec_module},
    {SLOT_INTERPRETERS, PER_INTERPRETER_GIL},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "sitecustomize",
    .m_doc = "ProfileMate: records what a vLLM server does.",
    .m_size = sizeof(struct pm_hook),
    .m_methods = methods,
    .m_slots = slots_310,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};
static PyModuleDef_Slot *slots_of(long minor)
{
    return minor < 10 ? slots_old : minor < 12 ? slots_310 : slots_312;
}

static PyObject *init(void)
{
    const char *version =
        Py_GetVersion(); /* "3.13.0 (main, …", "3.13.0 experimental free-threading…" */
    char *rest;
    long major = strtol(version, &rest, 10);
    long minor = *rest == '.' ? strtol(rest + 1, NULL, 10) : 0;
    if (strstr(version, "free-threading")) {
        /* `site` passes over this one. No reference may be dropped here: it would be done in the
         * wrong place of the object. */
        PyErr_SetImportError(
            PyUnicode_FromString("ProfileMate does not support free-threaded Python"),
            PyUnicode_FromString("sitecustomize"), NULL);
        return NULL;
    }
    definition.m_slots = slots_of(major > 3 ? 99 : minor);
    return PyModuleDef_Init(&definition);
}

PyMODINIT_FUNC PyInit_sitecustomize(void);
PyMODINIT_FUNC PyInit_sitecustomize(void)
{
    return init();
}

PyMODINIT_FUNC PyInit__profilemate(void);
PyMODINIT_FUNC PyInit__profilemate(void)
{
    return init();
}
