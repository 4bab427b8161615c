/*
 * The installer: which attributes of which modules get a wrapper, puts them there, and keeps the
 * account of it. Called by the finder when a module has been executed and at the ways in, with the
 * GIL held; owns the table of hooks, which lives as long as the process.
 *
 * One hook per attribute, however many probes look at it. A probe that the settings switch off has
 * no targets in the table: the original stays in place.
 */
#include "hook/hook.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "hook/console.h"
#include "hook/guard.h"
#include "hook/session.h"
#include "probe/registry.h"
#include "session/attrs.h"

#define KEY_MAX 320
#define MORE_MAX 64 /* targets that one probe makes from the settings */

enum hook_state { HOOK_WAITING, HOOK_PATCHED, HOOK_MISSING, HOOK_REFUSED, HOOK_OFF };

struct target {
    struct pm_probe_state *probe;
    const struct pm_target *target;
    struct target *next; /* of the same hook */
};

struct hook {
    const char *module, *qualname;
    enum pm_target_kind kind;
    enum hook_state state;
    struct target *targets; /* of probes that are on, in the order of the registry */
};

static struct {
    struct pm_hook *owner; /* NULL: nothing is installed */
    struct pm_probe_state *probes;
    bool *announced; /* of each probe */
    struct hook *hooks;
    size_t n_hooks;
    uint64_t lengths; /* bit n: some module's name is n (or, for 63, at least 63) bytes long */
} table;

/* ---- the table ------------------------------------------------------------------------------- */

static uint64_t length_bit(size_t length)
{
    return 1ull << (length < 63 ? length : 63);
}

static struct hook *find_hook(const struct pm_target *target)
{
    for (size_t i = 0; i < table.n_hooks; i++) {
        struct hook *hook = &table.hooks[i];
        if (strcmp(hook->module, target->module) == 0 &&
            strcmp(hook->qualname, target->qualname) == 0 &&
            (hook->kind == PM_TARGET_MODULE) == (target->kind == PM_TARGET_MODULE))
            return hook;
    }
    return NULL;
}

static int add_target(struct pm_probe_state *probe, const struct pm_target *target, bool on)
{
    struct hook *hook = find_hook(target);
    if (!hook) {
        hook = &table.hooks[table.n_hooks++];
        *hook = (struct hook){.module = target->module,
                              .qualname = target->qualname,
                              .kind = target->kind,
                              .state = HOOK_OFF};
    }
    if (!on)
        return 0;
    struct target *entry = calloc(1, sizeof *entry);
    if (!entry)
        return -1;
    entry->probe = probe;
    entry->target = target;
    struct target **last = &hook->targets;
    while (*last)
        last = &(*last)->next;
    *last = entry;
    hook->state = HOOK_WAITING;
    table.lengths |= length_bit(strlen(target->module));
    return 0;
}

static void fired(const struct pm_probe *probe, const struct pm_target *target, uint64_t start_ns)
{
    (void)probe;
    char key[KEY_MAX];
    snprintf(key, sizeof key, PM_ATTR_FIRED_PREFIX "%s:%s", target->module, target->qualname);
    pm_attributes_set(key, "%llu", (unsigned long long)start_ns);
}

int pm_install_begin(struct pm_hook *owner, const struct pm_settings *settings)
{
    size_t targets = 0;
    for (size_t p = 0; p < pm_probes_count; p++)
        targets += pm_probes[p]->n_targets + (pm_probes[p]->more ? MORE_MAX : 0);
    table.probes = calloc(pm_probes_count, sizeof *table.probes);
    table.hooks = calloc(targets, sizeof *table.hooks);
    table.announced = calloc(pm_probes_count, sizeof *table.announced);
    if (!table.probes || !table.hooks || !table.announced)
        return -1;
    for (size_t p = 0; p < pm_probes_count; p++) {
        const struct pm_probe *probe = pm_probes[p];
        bool on = !probe->enabled || (settings && probe->enabled(settings));
        table.probes[p] = (struct pm_probe_state)PM_PROBE_STATE(probe);
        table.probes[p].armed = on;
        for (size_t t = 0; t < probe->n_targets; t++) {
            if (add_target(&table.probes[p], &probe->targets[t], on) < 0)
                return -1;
        }
        size_t n_more = 0;
        const struct pm_target *more = on && probe->more ? probe->more(settings, &n_more) : NULL;
        for (size_t t = 0; t < n_more && t < MORE_MAX; t++) {
            if (add_target(&table.probes[p], &more[t], true) < 0)
                return -1;
        }
    }
    pm_guard_on_fired(fired);
    table.owner = owner;
    return 0;
}

bool pm_install_wants(const char *module)
{
    if (!(table.lengths & length_bit(strlen(module))))
        return false;
    for (size_t i = 0; i < table.n_hooks; i++) {
        if (table.hooks[i].targets && strcmp(table.hooks[i].module, module) == 0)
            return true;
    }
    return false;
}

/* ---- the account ----------------------------------------------------------------------------- */

static const char *const state_words[] = {NULL, "patched", "missing", "refused", "off"};

static void tell(const struct hook *hook)
{
    char key[KEY_MAX];
    if (!state_words[hook->state])
        return;
    snprintf(key, sizeof key, PM_ATTR_HOOK_PREFIX "%s:%s", hook->module, hook->qualname);
    pm_facts_attr(key, state_words[hook->state]);
}

void pm_install_attributes(void)
{
    for (size_t i = 0; i < table.n_hooks; i++)
        tell(&table.hooks[i]);
    for (size_t p = 0; table.probes && p < pm_probes_count; p++) {
        char key[KEY_MAX];
        snprintf(key, sizeof key, PM_ATTR_PROBE_PREFIX "%s", pm_probes[p]->name);
        if (!table.probes[p].faults) /* a disarmed one has said so itself */
            pm_facts_attr(key, table.probes[p].armed ? "on" : "off");
    }
}

/* The seeds' line, with the first hook of a probe that is in place. The simple preset has the one
 * of seed 000 only. */
static void announce(const struct hook *hook)
{
    static const char forward_pass[] = "GPUModelRunner.execute_model";
    bool simple = pm_facts_settings()->preset == PM_PRESET_SIMPLE;
    for (const struct target *target = hook->targets; target; target = target->next) {
        const char *component = target->probe->probe->component;
        size_t index = (size_t)(target->probe - table.probes);
        if (!component || table.announced[index])
            continue;
        table.announced[index] = true;
        if (!simple)
            pm_console_once("[Instrumentation] ✅ Successfully patched %s", component);
        else if (strcmp(component, forward_pass) == 0)
            pm_console_once("[Simple Profiler] ✅ Successfully patched %s", component);
    }
}

/* ---- patching -------------------------------------------------------------------------------- */

/* The attribute as it lies in owner's own __dict__, new reference; NULL without exception if it is
 * not there. A module's __getattr__, or a descriptor, is not asked: that could import things. */
static PyObject *raw_attribute(PyObject *owner, PyObject *name)
{
    PyObject *value = NULL;
    if (PyModule_Check(owner)) {
        value = PyDict_GetItemWithError(PyModule_GetDict(owner), name);
        Py_XINCREF(value);
    } else if (PyType_Check(owner)) {
        PyObject *dict = PyObject_GetAttrString(owner, "__dict__");
        value = dict ? PyObject_GetItem(dict, name) : NULL;
        Py_XDECREF(dict);
    }
    PyErr_Clear();
    return value;
}

/* Follows "Outer.Inner.method" up to the last part: the owner (new reference) and that part's name
 * (new reference). False without exception where something is missing. */
static bool resolve(PyObject *module, const char *qualname, PyObject **ret_owner,
                    PyObject **ret_name)
{
    PyObject *owner = module;
    Py_INCREF(owner);
    for (;;) {
        size_t bytes = strcspn(qualname, ".");
        PyObject *name = PyUnicode_FromStringAndSize(qualname, (Py_ssize_t)bytes);
        if (!name)
            break;
        if (!qualname[bytes]) {
            PyUnicode_InternInPlace(&name);
            *ret_owner = owner;
            *ret_name = name;
            return true;
        }
        PyObject *inner = raw_attribute(owner, name);
        Py_DECREF(name);
        if (!inner)
            break;
        Py_DECREF(owner);
        owner = inner;
        qualname += bytes + 1;
    }
    PyErr_Clear();
    Py_DECREF(owner);
    return false;
}

static bool accepts(const struct target *entry, PyObject *owner, PyObject *original)
{
    const struct pm_probe *probe = entry->probe->probe;
    bool accepted = !probe->accepts || probe->accepts(entry->target, owner, original);
    if (PyErr_Occurred()) {
        pm_guard_fault(entry->probe, entry->target, "accepts");
        accepted = false;
    }
    return accepted;
}

/* Which of a hook's targets may be put on an attribute, a bit each. */
static uint64_t accepted_targets(const struct hook *hook, PyObject *owner, PyObject *original)
{
    uint64_t accepted = 0, bit = 1;
    for (const struct target *entry = hook->targets; entry; entry = entry->next, bit <<= 1)
        accepted |= accepts(entry, owner, original) ? bit : 0;
    return accepted;
}

static bool add_all(const struct hook *hook, PyObject *wrapper, uint64_t accepted)
{
    struct pm_wrapper_types *types = &table.owner->types;
    for (const struct target *entry = hook->targets; entry; entry = entry->next, accepted >>= 1) {
        if ((accepted & 1) && pm_wrapper_add(types, wrapper, entry->probe, entry->target) < 0)
            return false;
    }
    return true;
}

/* Puts the wrapper in place; how the hook stands afterwards. */
static enum hook_state put_wrapper(const struct hook *hook, PyObject *module)
{
    struct pm_wrapper_types *types = &table.owner->types;
    PyObject *owner, *name;
    if (!resolve(module, hook->qualname, &owner, &name))
        return HOOK_MISSING;
    PyObject *raw = raw_attribute(owner, name);
    PyObject *original = raw ? pm_wrapper_original(types, raw) : NULL;
    uint64_t accepted = accepted_targets(hook, owner, original ? original : raw);
    enum hook_state state = raw && !accepted ? HOOK_REFUSED : HOOK_MISSING;
    if (raw && accepted && pm_wrapper_check(types, raw)) {
        /* the same class again, under another module's name */
        state = add_all(hook, raw, accepted) ? HOOK_PATCHED : HOOK_MISSING;
    } else if (raw && accepted) {
        PyObject *wrapper = pm_wrapper_new(types, raw);
        if (wrapper && add_all(hook, wrapper, accepted) &&
            PyObject_SetAttr(owner, name, wrapper) == 0)
            state = HOOK_PATCHED;
        Py_XDECREF(wrapper);
    }
    PyErr_Clear();
    Py_XDECREF(raw);
    Py_DECREF(owner);
    Py_DECREF(name);
    return state;
}

bool pm_facts_hook(PyObject *owner, const struct pm_probe *probe, const struct pm_target *target)
{
    size_t p = 0;
    while (p < pm_probes_count && pm_probes[p] != probe)
        p++;
    if (!table.owner || p == pm_probes_count || !table.probes[p].armed)
        return false;
    struct pm_wrapper_types *types = &table.owner->types;
    const char *last = strrchr(target->qualname, '.');
    PyObject *name = PyUnicode_InternFromString(last ? last + 1 : target->qualname);
    PyObject *raw = name ? raw_attribute(owner, name) : NULL, *wrapper = raw;
    if (raw && pm_wrapper_check(types, raw))
        Py_INCREF(wrapper);
    else
        wrapper = raw ? pm_wrapper_new(types, raw) : NULL;
    bool done = wrapper && pm_wrapper_add(types, wrapper, &table.probes[p], target) == 0 &&
                (wrapper == raw || PyObject_SetAttr(owner, name, wrapper) == 0);
    pm_guard_discard();
    Py_XDECREF(wrapper);
    Py_XDECREF(raw);
    Py_XDECREF(name);
    tell(&(struct hook){.module = target->module,
                        .qualname = target->qualname,
                        .state = done ? HOOK_PATCHED : HOOK_MISSING});
    return done;
}

static void call_ready(const struct hook *hook, PyObject *module)
{
    for (const struct target *entry = hook->targets; entry; entry = entry->next) {
        if (!entry->target->ready)
            continue;
        entry->target->ready(module);
        if (PyErr_Occurred())
            pm_guard_fault(entry->probe, entry->target, "ready");
    }
}

static void install(struct hook *hook, PyObject *module)
{
    bool first = hook->state != HOOK_PATCHED;
    if (hook->kind == PM_TARGET_MODULE) {
        call_ready(hook, module);
        hook->state = HOOK_PATCHED;
    } else {
        hook->state = put_wrapper(hook, module);
    }
    if (hook->state == HOOK_PATCHED && first)
        announce(hook);
    if (pm_session_dir()[0])
        tell(hook);
}

void pm_install_module(PyObject *module, const char *name)
{
    if (!table.owner)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pm_guard_mute();
    for (size_t i = 0; i < table.n_hooks; i++) {
        if (table.hooks[i].targets && strcmp(table.hooks[i].module, name) == 0)
            install(&table.hooks[i], module);
    }
    pm_guard_unmute();
    PyErr_Restore(type, value, traceback);
}

/* Whether a module in sys.modules is still being executed: then its classes may not be there. */
static bool is_initializing(PyObject *module)
{
    PyObject *spec = PyDict_GetItemString(PyModule_GetDict(module), "__spec__"); /* borrowed */
    PyObject *flag = spec ? PyObject_GetAttrString(spec, "_initializing") : NULL;
    bool initializing = flag && PyObject_IsTrue(flag) > 0;
    Py_XDECREF(flag);
    PyErr_Clear();
    return initializing;
}

void pm_install_loaded(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    for (size_t i = 0; i < table.n_hooks; i++) {
        const struct hook *hook = &table.hooks[i];
        if (hook->state != HOOK_WAITING)
            continue;
        PyObject *module = PyDict_GetItemString(modules, hook->module); /* borrowed */
        if (!module || !PyModule_CheckExact(module) || is_initializing(module))
            continue;
        Py_INCREF(module);
        pm_install_module(module, hook->module);
        Py_DECREF(module);
    }
    PyErr_Restore(type, value, traceback);
}

/* ---- for the recorder and after fork --------------------------------------------------------- */

void pm_install_reset(void)
{
    for (size_t p = 0; table.probes && p < pm_probes_count; p++) {
        if (table.probes[p].armed && pm_probes[p]->reset)
            pm_probes[p]->reset();
    }
}

void pm_install_finish(struct pm_recorder *rec)
{
    const uint64_t now_ns = pm_clock_now_ns();
    for (size_t p = 0; table.probes && p < pm_probes_count; p++) {
        if (table.probes[p].armed && pm_probes[p]->finish)
            pm_probes[p]->finish(rec, now_ns);
    }
}

void pm_install_keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    for (size_t p = 0; table.probes && p < pm_probes_count; p++) {
        if (table.probes[p].armed && pm_probes[p]->keyframe)
            pm_probes[p]->keyframe(rec, stream, NULL);
    }
}
