/*
 * Controls while the process runs (`profilemate set`, `start`, `stop`): this side of the control
 * page (session/control.h).
 *
 * A process of vLLM arms itself once: a page, and one thread of ours that sleeps in the kernel
 * until somebody rings. It runs no Python and holds no lock; all it does is to ask the interpreter
 * for a pending call, which the main thread makes between two instructions of Python. There, with
 * the GIL held, control_do.c does what was asked. A process that is not one of vLLM's has neither
 * page nor thread; VLLM_PROFILING_CONTROL=0 has the same effect.
 */
#ifndef PM_HOOK_CONTROL_H
#define PM_HOOK_CONTROL_H

#include <stdbool.h>
#include <stddef.h>

#include "session/control.h"

/* Page and thread, once per process; again in a child of fork(), by itself. GIL held. What fails is
 * said in an attribute: the process runs on without controls. */
void pm_control_arm(void);

/* Whether importing this module shows that the process is one of vLLM's. */
bool pm_control_is_sign(const char *module);

/* Marks this process as the first of a server that does not record, for its children: or finds that
 * a parent did. True: the process belongs to such a server. */
bool pm_control_mark(bool first);

/* The status has changed: publishes it. GIL held. */
void pm_control_publish(void);

/* ---- control_do.c ---- */

/* Does one request and writes the answer. GIL held, main thread, no half under way. */
void pm_control_do(char *request, char *answer, size_t size);

/* What holds now, as session/control.h says. */
void pm_control_status(char *out, size_t size);

#endif
