/*
 * What the files of hook/ share: the state of the one module that is in force in this process, and
 * what each of them offers to the others. GIL held everywhere, unless said otherwise.
 *
 * A process may load several copies of the extension (PYTHONPATH and an installed wheel). The first
 * one that comes is in force; the others find it through a capsule in `sys`, tell it where they
 * are, and pass calls of register() on to it.
 */
#ifndef PM_HOOK_HOOK_H
#define PM_HOOK_HOOK_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stddef.h>

#include "hook/wrapper.h"
#include "probe/probe.h"

/* The module's state; Python objects live here and nowhere else. */
struct pm_hook {
    bool in_force;                 /* the others are all unset where it is not */
    struct pm_wrapper_types types; /* of wrapper.c */
    PyObject *finder_type;         /* of finder.c */
    PyObject *exec_type, *loader_type;
    PyObject *finder;   /* the instance on sys.meta_path */
    PyObject *config;   /* ProfilingConfig, once asked for */
    PyObject *shadowed; /* the sitecustomize that ours shadows, once it has run */
};

/* The state in force, NULL before activation. */
struct pm_hook *pm_hook_current(void);

/* Makes the types, the table of hooks (all off) and the finder, where that has not been done. */
bool pm_hook_bring_up(void);

/* The interpreter's command line (sys.orig_argv) into words, at most `most`; how many. The texts
 * are the interpreter's own. */
#define PM_ARGUMENTS_MAX 1024
size_t pm_hook_arguments(const char **words, size_t most);

/* ---- place.c: where this copy of the extension lies ---- */

/* Its full path, "" if that cannot be found out. No GIL needed. */
const char *pm_place_file(void);

/* Whether a path of the extension lies in a folder named `simple`, which selects that preset. */
bool pm_place_is_simple(const char *file);

/* The program that belongs to the extension: writes its path to out, false if there is none. */
bool pm_place_program(char *out, size_t size);

/* ---- shadow.c ---- */

/* Runs the sitecustomize that module shadows, as an import would. 0 (with *ret_shadowed NULL where
 * there is none, or it failed as `site` tolerates), or -1 with an exception that `site` would not
 * have caught. */
int pm_shadow_run(PyObject *module, PyObject **ret_shadowed);

/* ---- config.c ---- */

/* The class ProfilingConfig, read from the environment of now: new reference or NULL. */
PyObject *pm_config_new(void);

/* ---- install.c ---- */

/* Makes the table of targets from the registry: once per process. Without settings (NULL: switched
 * off) only probes that no setting governs are on. -1 without memory. */
int pm_install_begin(struct pm_hook *hook, const struct pm_settings *settings);

/* Whether a module of this name has targets. */
bool pm_install_wants(const char *module);

/* Puts the wrappers into a module that has been executed. Never raises. */
void pm_install_module(PyObject *module, const char *name);

/* The same for all modules that are imported already and have not been done. */
void pm_install_loaded(void);

/* Calls reset of the probes in force: in a child of fork(). */
void pm_install_reset(void);

/* Writes hook.* and probe.* attributes of all targets and probes. */
void pm_install_attributes(void);

/* For the recorder: asks each probe in force. */
void pm_install_keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg);

/* Asks each probe in force for what it still holds. Python has gone. */
void pm_install_finish(struct pm_recorder *rec);

/* ---- finder.c ---- */

/* Makes the types and puts the finder first on sys.meta_path. -1 with an exception. */
int pm_finder_install(PyObject *module, struct pm_hook *hook);

#endif
