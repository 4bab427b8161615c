/*
 * What was switched while the session was recorded (session/switch_facts.h), in sentences for every
 * report: so that nobody takes a pause for idleness.
 */
#ifndef PM_VIEW_SWITCHES_H
#define PM_VIEW_SWITCHES_H

#include "reader/reader.h"

/* Tells each, in the order of time, as the first engine core saw it (else the first process that
 * has any); at most PM_SWITCHES_TOLD, then how many more there are. */
#define PM_SWITCHES_TOLD 20
void pm_switches_tell(const struct pm_session *session,
                      void (*tell)(const char *sentence, void *arg), void *arg);

#endif
