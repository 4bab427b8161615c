/* See switch.h. Beside install.c and patch.c it is the third that works on the table of hooks. */
#include "hook/switch.h"

#include <stdio.h>
#include <string.h>

#include "hook/session.h"
#include "hook/table.h"
#include "session/attrs.h"

#define table pm_hook_table

/* The module of this name, if it has been executed: borrowed, NULL if not. */
static PyObject *loaded(const char *name)
{
    PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), name); /* borrowed */
    return module && PyModule_CheckExact(module) ? module : NULL;
}

/* What a probe is to be, by these settings. */
static bool wanted(size_t p, const struct pm_settings *settings, bool begin,
                   pm_switch_refused_fn refused, void *arg)
{
    const struct pm_probe *probe = pm_probes[p];
    const bool is_on = table.probes[p].armed;
    if (!probe->enabled)
        return true;
    if (!settings)
        return false;
    if ((probe->control & PM_PROBE_SPINE) && !begin)
        return is_on;
    bool on = probe->enabled(settings);
    if (on && !is_on && (probe->control & PM_PROBE_EARLY) &&
        (pm_facts_late() || (!begin && !table.began_on[p]))) {
        if (refused)
            refused(probe->name, probe->early, arg);
        return false;
    }
    return on;
}

static void set_targets(const struct pm_probe_state *state, bool on)
{
    for (size_t i = 0; i < table.n_hooks; i++) {
        for (struct pm_hook_target *entry = table.hooks[i].targets; entry; entry = entry->next)
            entry->on = entry->probe == state ? on : entry->on;
    }
}

static void tell_probe(const struct pm_probe_state *state)
{
    char key[96];
    snprintf(key, sizeof key, PM_ATTR_PROBE_PREFIX "%s", state->probe->name);
    if (!state->faults)
        pm_facts_attr(key, state->armed ? "on" : "off");
}

/* True: it was switched. A probe that disarmed itself stays so. */
static bool switch_probe(size_t p, const struct pm_settings *settings, bool begin, bool on)
{
    struct pm_probe_state *state = &table.probes[p];
    const struct pm_probe *probe = state->probe;
    if (begin && probe->reset)
        probe->reset();
    if (atomic_load(&state->armed) == on || atomic_load(&state->faults) >= PM_GUARD_BUDGET)
        return false;
    if (!on && probe->pause)
        probe->pause();
    if (on && !begin && probe->resume)
        probe->resume();
    else if (on && !begin && probe->reset && !(probe->control & PM_PROBE_EARLY))
        probe->reset();
    if (on)
        (void)pm_table_ask(p, settings);
    if (on && begin &&
        !pm_facts_late()) /* stood by, and was told to record before vLLM was there */
        table.began_on[p] = true;
    set_targets(state, on);
    atomic_store(&state->armed, on);
    if (!begin && settings)
        tell_probe(state);
    return true;
}

static void settle(struct pm_hook_row *hook, struct pm_switched *switched)
{
    PyObject *module = loaded(hook->module);
    Py_XINCREF(module);
    if (!pm_patch_take(hook, module))
        switched->covered++;
    if (!pm_table_is_on(hook)) {
        hook->state = HOOK_OFF;
    } else if (!module) {
        hook->state = HOOK_WAITING;
        switched->waiting++;
    } else {
        if (hook->kind != PM_TARGET_MODULE)
            hook->state = pm_patch_put(hook, module, true);
        else if (hook->state != HOOK_PATCHED)
            pm_install_module(module, hook->module);
        if (hook->state == HOOK_PATCHED)
            switched->patched++;
        else
            switched->missing++;
        if (pm_session_dir()[0])
            pm_table_tell(hook);
    }
    Py_XDECREF(module);
}

void pm_switch_to(const struct pm_settings *settings, bool begin, struct pm_switched *ret_switched,
                  pm_switch_refused_fn refused, void *arg)
{
    *ret_switched = (struct pm_switched){0};
    if (!table.owner)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pm_guard_mute();
    for (size_t p = 0; p < pm_probes_count; p++) {
        const bool on = wanted(p, settings, begin, refused, arg);
        (void)switch_probe(p, settings, begin, on);
        if (begin)
            table.announced[p] = true; /* the command that asked for it tells, not the console */
    }
    for (size_t i = 0; i < table.n_hooks; i++)
        settle(&table.hooks[i], ret_switched);
    pm_guard_unmute();
    PyErr_Restore(type, value, traceback);
}

bool pm_switch_follows(const struct pm_settings *settings, size_t offset)
{
    static struct pm_settings with, without; /* large */
    const int on = 1, off = 0;
    with = without = *settings;
    memcpy((char *)&with + offset, &on, sizeof on);
    memcpy((char *)&without + offset, &off, sizeof off);
    for (size_t p = 0; p < pm_probes_count; p++) {
        const struct pm_probe *probe = pm_probes[p];
        if (probe->enabled && !(probe->control & PM_PROBE_SPINE) &&
            probe->enabled(&with) != probe->enabled(&without))
            return true;
    }
    return false;
}

bool pm_switch_possible(const char *name)
{
    for (size_t p = 0; table.probes && p < pm_probes_count; p++) {
        if (strcmp(pm_probes[p]->name, name) == 0 && (pm_probes[p]->control & PM_PROBE_EARLY))
            return table.probes[p].armed || (table.began_on[p] && !pm_facts_late());
    }
    return true;
}

const char *pm_switch_stuck(void)
{
    for (size_t p = 0; table.probes && p < pm_probes_count; p++) {
        if (table.probes[p].armed && (pm_probes[p]->control & PM_PROBE_STAYS))
            return pm_probes[p]->name;
    }
    return NULL;
}
