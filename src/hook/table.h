/*
 * The table of hooks, which install.c makes and keeps account of, patch.c puts into classes and
 * modules, and switch.c switches while the process runs. Internal to these three; GIL held.
 */
#ifndef PM_HOOK_TABLE_H
#define PM_HOOK_TABLE_H

#include "hook/hook.h"

#include "hook/guard.h"
#include "probe/registry.h"

enum pm_hook_state { HOOK_WAITING, HOOK_PATCHED, HOOK_MISSING, HOOK_REFUSED, HOOK_OFF };

struct pm_hook_target {
    struct pm_probe_state *probe;
    const struct pm_target *target;
    struct pm_hook_target *next; /* of the same hook */
    bool on;
    bool placed; /* has a slot in the hook's wrapper */
};

struct pm_hook_row {
    const char *module, *qualname;
    enum pm_target_kind kind;
    enum pm_hook_state state;
    struct pm_hook_target *targets; /* in the order of the registry */
    PyObject *wrapper;              /* what was put in place last; NULL: nothing */
};

struct pm_hook_table {
    struct pm_hook *owner; /* NULL: nothing is installed */
    struct pm_probe_state *probes;
    bool *announced; /* of each probe */
    bool *asked;     /* of each probe: its further targets are in the table */
    bool *began_on;  /* of each probe: on before anything of vLLM was imported */
    struct pm_hook_row *hooks;
    size_t n_hooks;
    uint64_t lengths; /* bit n: some module's name is n (or, for 63, at least 63) bytes long */
};
extern struct pm_hook_table pm_hook_table;

/* install.c */
uint64_t pm_table_length_bit(size_t length);
int pm_table_add(struct pm_probe_state *probe, const struct pm_target *target, bool on);
/* The further targets of a probe that is on, once. */
int pm_table_ask(size_t probe, const struct pm_settings *settings);
/* Whether any target of it is on. */
bool pm_table_is_on(const struct pm_hook_row *hook);
/* Writes the attribute hook.* of one. */
void pm_table_tell(const struct pm_hook_row *hook);

/* patch.c */
/* Puts the wrapper in place; how the hook stands afterwards. live: not because the module has just
 * been executed. */
enum pm_hook_state pm_patch_put(struct pm_hook_row *hook, PyObject *module, bool live);
/* Takes out what is not on, and puts the original back where nothing is left and ours is what lies
 * there. False: something else lies over ours, which passes calls through from now on. */
bool pm_patch_take(struct pm_hook_row *hook, PyObject *module);

#endif
