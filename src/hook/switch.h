/*
 * Switching probes while the process runs: which of them follow which settings, what is put in
 * place and what is taken out. Called by control.c from the interpreter's main thread, with the GIL
 * held and no half of a hooked call under way in any thread.
 */
#ifndef PM_HOOK_SWITCH_H
#define PM_HOOK_SWITCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/settings.h"

/* What came of it: hooks of probes that are on now. */
struct pm_switched {
    size_t patched; /* in place */
    size_t missing; /* this vLLM has no such thing, or a probe refused it */
    size_t waiting; /* of modules that are not imported here (yet) */
    size_t covered; /* taken out, but somebody has wrapped ours since: passes calls through */
};

/* Told of each probe that settings ask for and that cannot be had: its name, which is also the
 * setting's, and why. */
typedef void (*pm_switch_refused_fn)(const char *probe, const char *why, void *arg);

/* Brings every probe that may be switched live to what settings say; NULL: every probe is taken
 * out (but what keeps vLLM from warning of our variables). begin: a session begins, so that those
 * that are never switched within one are switched too. */
void pm_switch_to(const struct pm_settings *settings, bool begin, struct pm_switched *ret_switched,
                  pm_switch_refused_fn refused, void *arg);

/* Whether any probe that may be switched follows this setting (a number of settings.def). */
bool pm_switch_follows(const struct pm_settings *settings, size_t offset);

/* Whether the probe of this name, if there is one, could be on now. */
bool pm_switch_possible(const char *probe);

/* Whether a probe that cannot be taken out is on; its name, NULL where there is none. */
const char *pm_switch_stuck(void);

#endif
