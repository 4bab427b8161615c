/*
 * The installer: which attributes of which modules get a wrapper, puts them there, and keeps the
 * account of it. Called by the finder when a module has been executed and at the ways in, with the
 * GIL held; owns the table of hooks, which lives as long as the process.
 *
 * One hook per attribute, however many probes look at it. Where all probes of a hook are off the
 * original stays in place. Putting wrappers in place: patch.c. Switching: switch.c.
 */
#include "hook/table.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "hook/console.h"
#include "hook/control.h"
#include "hook/session.h"
#include "session/attrs.h"

#define KEY_MAX 320
#define MORE_MAX 64 /* targets that one probe makes from the settings */

struct pm_hook_table pm_hook_table;
#define table pm_hook_table

/* ---- the table ------------------------------------------------------------------------------- */

uint64_t pm_table_length_bit(size_t length)
{
    return 1ull << (length < 63 ? length : 63);
}

static struct pm_hook_row *find_hook(const struct pm_target *target)
{
    for (size_t i = 0; i < table.n_hooks; i++) {
        struct pm_hook_row *hook = &table.hooks[i];
        if (strcmp(hook->module, target->module) == 0 &&
            strcmp(hook->qualname, target->qualname) == 0 &&
            (hook->kind == PM_TARGET_MODULE) == (target->kind == PM_TARGET_MODULE))
            return hook;
    }
    return NULL;
}

int pm_table_add(struct pm_probe_state *probe, const struct pm_target *target, bool on)
{
    struct pm_hook_row *hook = find_hook(target);
    if (!hook) {
        hook = &table.hooks[table.n_hooks++];
        *hook = (struct pm_hook_row){.module = target->module,
                                     .qualname = target->qualname,
                                     .kind = target->kind,
                                     .state = HOOK_OFF};
    }
    struct pm_hook_target *entry = calloc(1, sizeof *entry);
    if (!entry)
        return -1;
    entry->probe = probe;
    entry->target = target;
    entry->on = on;
    struct pm_hook_target **last = &hook->targets;
    while (*last)
        last = &(*last)->next;
    *last = entry;
    if (on && hook->state == HOOK_OFF)
        hook->state = HOOK_WAITING;
    table.lengths |= pm_table_length_bit(strlen(target->module));
    return 0;
}

bool pm_table_is_on(const struct pm_hook_row *hook)
{
    const struct pm_hook_target *entry = hook->targets;
    while (entry && !entry->on)
        entry = entry->next;
    return entry != NULL;
}

int pm_table_ask(size_t p, const struct pm_settings *settings)
{
    const struct pm_probe *probe = pm_probes[p];
    size_t n_more = 0;
    if (table.asked[p] || !probe->more)
        return 0;
    table.asked[p] = true;
    const struct pm_target *more = probe->more(settings, &n_more);
    for (size_t t = 0; more && t < n_more && t < MORE_MAX; t++) {
        if (pm_table_add(&table.probes[p], &more[t], true) < 0)
            return -1;
    }
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
    table.asked = calloc(pm_probes_count, sizeof *table.asked);
    table.began_on = calloc(pm_probes_count, sizeof *table.began_on);
    if (!table.probes || !table.hooks || !table.announced || !table.asked || !table.began_on)
        return -1;
    for (size_t p = 0; p < pm_probes_count; p++) {
        const struct pm_probe *probe = pm_probes[p];
        bool on = !probe->enabled || (settings && probe->enabled(settings));
        table.probes[p] = (struct pm_probe_state)PM_PROBE_STATE(probe);
        table.probes[p].armed = on;
        table.began_on[p] = on;
        for (size_t t = 0; t < probe->n_targets; t++) {
            if (pm_table_add(&table.probes[p], &probe->targets[t], on) < 0)
                return -1;
        }
        if (on && pm_table_ask(p, settings) < 0)
            return -1;
    }
    table.lengths |= pm_table_length_bit(strlen("vllm.v1.engine.core")) |
                     pm_table_length_bit(strlen("vllm.v1.worker.worker_base"));
    pm_guard_on_fired(fired);
    table.owner = owner;
    return 0;
}

bool pm_install_wants(const char *module)
{
    if (!(table.lengths & pm_table_length_bit(strlen(module))))
        return false;
    for (size_t i = 0; i < table.n_hooks; i++) {
        if (pm_table_is_on(&table.hooks[i]) && strcmp(table.hooks[i].module, module) == 0)
            return true;
    }
    return pm_control_is_sign(module);
}

/* ---- the account ----------------------------------------------------------------------------- */

static const char *const state_words[] = {NULL, "patched", "missing", "refused", "off"};

void pm_table_tell(const struct pm_hook_row *hook)
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
        pm_table_tell(&table.hooks[i]);
    for (size_t p = 0; table.probes && p < pm_probes_count; p++) {
        char key[KEY_MAX];
        snprintf(key, sizeof key, PM_ATTR_PROBE_PREFIX "%s", pm_probes[p]->name);
        if (!table.probes[p].faults) /* a disarmed one has said so itself */
            pm_facts_attr(key, table.probes[p].armed ? "on" : "off");
    }
}

/* The seeds' line, with the first hook of a probe that is in place. The simple preset has the one
 * of seed 000 only. */
static void announce(const struct pm_hook_row *hook)
{
    static const char forward_pass[] = "GPUModelRunner.execute_model";
    bool simple = pm_facts_settings()->preset == PM_PRESET_SIMPLE;
    for (const struct pm_hook_target *target = hook->targets; target; target = target->next) {
        const char *component = target->probe->probe->component;
        size_t index = (size_t)(target->probe - table.probes);
        if (!component || !target->on || table.announced[index])
            continue;
        table.announced[index] = true;
        if (!simple)
            pm_console_once("[Instrumentation] ✅ Successfully patched %s", component);
        else if (strcmp(component, forward_pass) == 0)
            pm_console_once("[Simple Profiler] ✅ Successfully patched %s", component);
    }
}

/* ---- installing ------------------------------------------------------------------------------ */

static void call_ready(const struct pm_hook_row *hook, PyObject *module)
{
    for (const struct pm_hook_target *entry = hook->targets; entry; entry = entry->next) {
        if (!entry->on || !entry->target->ready)
            continue;
        entry->target->ready(module);
        if (PyErr_Occurred())
            pm_guard_fault(entry->probe, entry->target, "ready");
    }
}

static void install(struct pm_hook_row *hook, PyObject *module)
{
    bool first = hook->state != HOOK_PATCHED;
    if (hook->kind == PM_TARGET_MODULE) {
        call_ready(hook, module);
        hook->state = HOOK_PATCHED;
    } else {
        hook->state = pm_patch_put(hook, module, false);
    }
    if (hook->state == HOOK_PATCHED && first)
        announce(hook);
    if (pm_session_dir()[0])
        pm_table_tell(hook);
}

void pm_install_module(PyObject *module, const char *name)
{
    if (!table.owner)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pm_guard_mute();
    for (size_t i = 0; i < table.n_hooks; i++) {
        if (pm_table_is_on(&table.hooks[i]) && strcmp(table.hooks[i].module, name) == 0)
            install(&table.hooks[i], module);
    }
    if (pm_control_is_sign(name))
        pm_control_arm();
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
        const struct pm_hook_row *hook = &table.hooks[i];
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
