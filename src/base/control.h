/*
 * What may be changed while a session is recorded (control.def), for the extension, which refuses
 * the rest, and the program, which says so first. Pure C.
 */
#ifndef PM_BASE_CONTROL_H
#define PM_BASE_CONTROL_H

#include "base/settings.h"

/* NULL: the setting may be changed; else why not, a sentence without its full stop. */
const char *pm_setting_fixed(const struct pm_setting_row *row);

/* The setting of this name: its field, its option, or either with - for _ and the reverse; also the
 * probe's name that `--list` shows (kv_cache). NULL: there is none. */
const struct pm_setting_row *pm_setting_named(const char *name);

#endif
