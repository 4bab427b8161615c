/*
 * Which group of files (engine and rank) the facts of a process belong to where they are of the
 * process as a whole: its worker's, its scheduler's (with the rank that samples), and all others,
 * front ends for one, with the first engine's. Used by views of such facts; one thread.
 */
#ifndef PM_VIEW_GROUP_H
#define PM_VIEW_GROUP_H

#include <stdbool.h>

#include "reader/steps.h"

/* Whether the process's facts go into the files of worker n of an engine. */
bool pm_group_has(const struct pm_session *session, size_t engine, unsigned n,
                  const struct pm_process *process);

#endif
