/*
 * Putting a wrapper in the place of an attribute of vLLM's, and taking it out again. Called by the
 * installer and the switches, with the GIL held; a wrapper lives as long as its row of the table,
 * since calls under way, and copies of the attribute that somebody made, still go through it.
 */
#include "hook/table.h"

#include "hook/session.h"

#define table pm_hook_table

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

/* A target is asked for its original but once per module: it may have told why it refuses. */
static bool accepts(const struct pm_hook_target *entry, PyObject *owner, PyObject *original)
{
    const struct pm_probe *probe = entry->probe->probe;
    bool accepted = !probe->accepts || probe->accepts(entry->target, owner, original);
    if (PyErr_Occurred()) {
        pm_guard_fault(entry->probe, entry->target, "accepts");
        accepted = false;
    }
    return accepted;
}

/* Which of a hook's targets are to be on an attribute, a bit each. */
static uint64_t accepted_targets(const struct pm_hook_row *hook, PyObject *owner,
                                 PyObject *original)
{
    uint64_t accepted = 0, bit = 1;
    for (const struct pm_hook_target *entry = hook->targets; entry; entry = entry->next, bit <<= 1)
        accepted |= entry->on && accepts(entry, owner, original) ? bit : 0;
    return accepted;
}

static bool add_all(struct pm_hook_row *hook, PyObject *wrapper, uint64_t accepted)
{
    struct pm_wrapper_types *types = &table.owner->types;
    for (struct pm_hook_target *entry = hook->targets; entry; entry = entry->next, accepted >>= 1) {
        if (!(accepted & 1))
            continue;
        if (pm_wrapper_add(types, wrapper, entry->probe, entry->target) < 0)
            return false;
        entry->placed = true;
    }
    return true;
}

/* Slots keep their order, which is the registry's: whether these targets fit behind those that a
 * wrapper has. */
static bool fits(const struct pm_hook_row *hook, uint64_t accepted)
{
    bool lacking = false;
    for (const struct pm_hook_target *entry = hook->targets; entry;
         entry = entry->next, accepted >>= 1) {
        if (entry->placed && lacking)
            return false;
        lacking = lacking || ((accepted & 1) && !entry->placed);
    }
    return true;
}

static void keep(struct pm_hook_row *hook, PyObject *wrapper)
{
    Py_XINCREF(wrapper);
    Py_XDECREF(hook->wrapper);
    hook->wrapper = wrapper;
}

/* A new wrapper around original, with the accepted targets, in the attribute's place. */
static bool put_new(struct pm_hook_row *hook, PyObject *owner, PyObject *name, PyObject *original,
                    uint64_t accepted)
{
    PyObject *wrapper = pm_wrapper_new(&table.owner->types, original);
    for (struct pm_hook_target *entry = hook->targets; entry; entry = entry->next)
        entry->placed = false;
    bool done =
        wrapper && add_all(hook, wrapper, accepted) && PyObject_SetAttr(owner, name, wrapper) == 0;
    if (done)
        keep(hook, wrapper);
    Py_XDECREF(wrapper);
    return done;
}

enum pm_hook_state pm_patch_put(struct pm_hook_row *hook, PyObject *module, bool live)
{
    struct pm_wrapper_types *types = &table.owner->types;
    PyObject *owner, *name;
    if (!resolve(module, hook->qualname, &owner, &name))
        return HOOK_MISSING;
    PyObject *raw = raw_attribute(owner, name);
    PyObject *ours = raw && pm_wrapper_check(types, raw) ? raw : NULL;
    PyObject *before = live && hook->wrapper ? pm_wrapper_original(types, hook->wrapper) : NULL;
    PyObject *original = ours ? pm_wrapper_original(types, raw) : raw;
    /* Somebody has wrapped ours since: a second one would see each call twice. */
    bool below = raw && !ours && before && raw != before;
    uint64_t accepted = accepted_targets(hook, owner, below ? before : original);
    bool done = false;
    Py_XINCREF(original);
    if (raw && accepted && below) {
        done = add_all(hook, hook->wrapper, accepted);
    } else if (raw && accepted && ours && (!live || fits(hook, accepted))) {
        done = add_all(hook, raw, accepted); /* also: the same class under another module's name */
        keep(hook, raw);
    } else if (raw && accepted && ours) {
        done = put_new(hook, owner, name, original, accepted);
        if (done)
            (void)pm_wrapper_remove(types, ours, NULL);
    } else if (raw && accepted && before && fits(hook, accepted)) {
        done = add_all(hook, hook->wrapper, accepted) &&
               PyObject_SetAttr(owner, name, hook->wrapper) == 0;
    } else if (raw && accepted) {
        done = put_new(hook, owner, name, raw, accepted);
    }
    PyErr_Clear();
    Py_XDECREF(original);
    Py_XDECREF(raw);
    Py_DECREF(owner);
    Py_DECREF(name);
    return done ? HOOK_PATCHED : raw && !accepted ? HOOK_REFUSED : HOOK_MISSING;
}

bool pm_patch_take(struct pm_hook_row *hook, PyObject *module)
{
    struct pm_wrapper_types *types = &table.owner->types;
    PyObject *owner, *name;
    size_t left = 0;
    if (!hook->wrapper)
        return true;
    for (const struct pm_hook_target *entry = hook->targets; entry; entry = entry->next) {
        if (!entry->on)
            left = pm_wrapper_remove(types, hook->wrapper, entry->probe);
    }
    if (left > 0 || pm_table_is_on(hook))
        return true;
    bool back = false;
    PyObject *original = pm_wrapper_original(types, hook->wrapper);
    if (module && resolve(module, hook->qualname, &owner, &name)) {
        PyObject *raw = raw_attribute(owner, name);
        back = raw == original ||
               (raw == hook->wrapper && original && PyObject_SetAttr(owner, name, original) == 0);
        Py_XDECREF(raw);
        Py_DECREF(owner);
        Py_DECREF(name);
    }
    PyErr_Clear();
    return back;
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
    pm_table_tell(&(struct pm_hook_row){.module = target->module,
                                        .qualname = target->qualname,
                                        .state = done ? HOOK_PATCHED : HOOK_MISSING});
    return done;
}
