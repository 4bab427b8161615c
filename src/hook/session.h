/*
 * The session in this process: reserved in memory when the gate opens, born (directory, banner,
 * recorder) with the first engine configuration or the first fact, taken up afresh in a child of
 * fork(). The other half of its face, what probes see, is in probe/probe.h (pm_facts…).
 *
 * Everything is called with the GIL held but pm_session_finish, which runs when Python has gone.
 */
#ifndef PM_HOOK_SESSION_H
#define PM_HOOK_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/settings.h"
#include "hook/gate.h"
#include "recorder/birth.h"
#include "recorder/recorder.h"

/* Takes the settings from the environment and the session's name and token from the environment or
 * makes them up; puts the token where children find it. entry: "pythonpath", "pth" or "plugin".
 * Once per process; touches no file. */
void pm_session_begin(const struct pm_gate_verdict *verdict, const char *entry);

/* Begins a session in a process that ran without one, or has ended one: by whom and under which
 * name, birth says; settings are the environment's and what pm_session_ask was told. Touches no
 * file. */
void pm_session_begin_late(const struct pm_birth *birth);

/* Ends it: the recorder is closed, and children that are started from now on join nothing. */
void pm_session_end(void);

/* A value instead of the environment's from now on; NULL: the environment's again. False without
 * memory. */
bool pm_session_ask(const struct pm_setting_row *row, const char *value);

/* The settings in force become these. */
void pm_session_set(const struct pm_settings *settings);

/* The settings that the environment and the folder of this copy give. warn may be NULL. */
void pm_session_settings(struct pm_settings *ret_settings, pm_settings_warn_fn warn);

/* Whether pm_session_begin was called. */
bool pm_session_active(void);

/* A switch that was turned off after all: no session is born here any more. */
void pm_session_mute(void);

/* A copy of the extension in a folder `simple` was met: that preset is meant, unless one is named
 * or the session has been born. */
void pm_session_prefer_simple(void);

/* ---- attributes.c (and pm_facts_attr of probe/probe.h) ---- */

/* The recorder that attributes go to from now on, which is given all that were set before; NULL:
 * none. No GIL needed for NULL. */
void pm_attributes_attach(struct pm_recorder *rec);

/* pm_facts_attr with a format. */
void pm_attributes_set(const char *key, const char *format, ...) PM_PRINTF(2, 3);

/* Forgets those whose keys begin so: a later recorder is not given them. */
void pm_attributes_forget(const char *prefix);

/* What was last set for a key, NULL if nothing was. */
const char *pm_attributes_value(const char *key);

/* ---- session.c ---- */

/* "" before the birth. */
const char *pm_session_dir(void);
const struct pm_birth *pm_session_birth(void);

/* What this process was seen to do so far (enum pm_role bits). */
unsigned pm_session_roles(void);

/* The end of the process, from libc's exit: closes the recorder if Python has gone, and in the root
 * process starts the export. */
void pm_session_finish(bool python_has_gone);

/* ---- guide.c: variables that vLLM cannot take as its guides mean them ---- */

/* Moves them to names, and forms, that are understood. Before the settings are read. */
void pm_guide_take(void);

/* Sets an environment variable for Python, C and children; NULL: removes it. Never raises. */
void pm_guide_put(const char *name, const char *value);

/* ---- about.c: what a process says about itself ---- */

/* Sets the attributes that hold for the process as a whole. */
void pm_about_process(const char *entry);

/* Writes the first metadata.json into the session's folder. */
void pm_about_write_metadata(void);

/* ---- finish.c ---- */

/* Registers the end of the process with libc: once. */
void pm_finish_register(void);

/* Starts the export of a session whose root process ends here (see finish.c). */
void pm_finish_export(const char *session_dir);

#endif
