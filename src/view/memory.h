/*
 * Memory of one worker: memory_usage.csv, memory_summary.json, and its part of the reports
 * (memory.c), from memory_sample.
 */
#ifndef PM_VIEW_MEMORY_H
#define PM_VIEW_MEMORY_H

#include "session/memory_facts.h"
#include "view/common.h"

/* Tells each reading of worker n of an engine, in order; ends with what tell returns, unless it is
 * 0. */
typedef int (*pm_memory_tell)(void *arg, const struct pm_memory_sample *sample);
PM_MUST_USE int pm_memory_each(const struct pm_session *session, size_t engine, unsigned n,
                               pm_memory_tell tell, void *arg);

/* A section of the text report, and "memory" of the JSON one: nothing, and null, where nothing was
 * recorded. */
PM_MUST_USE int pm_memory_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                      bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_memory_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                      struct pm_json *json);

#endif
