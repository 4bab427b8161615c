/*
 * KV connectors: what was looked up, loaded and saved, how often, and how long that took the
 * scheduler and one worker: kv_transfer_timing.csv, kv_transfer_summary.json, and their part of the
 * reports (transfer.c), from kv_transfer.
 */
#ifndef PM_VIEW_TRANSFER_H
#define PM_VIEW_TRANSFER_H

#include "session/transfer_facts.h"
#include "view/common.h"

/* A section of the text report, and "kv_transfers" of the JSON one: nothing, and null, where no
 * connector was seen. */
PM_MUST_USE int pm_transfer_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                        bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_transfer_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                        struct pm_json *json);

/* What one process told of one step: the scheduler's operations, or the worker's. Of several
 * connectors the greatest counts: a connector of connectors has what each of its own has. */
struct pm_transfer_step {
    uint64_t at_ns; /* the first of them began */
    uint64_t step;
    uint64_t calls[PM_TRANSFERS_COUNT], dur_ns[PM_TRANSFERS_COUNT];
    uint64_t tokens[PM_TRANSFERS_COUNT]; /* lookup: found; load: to be loaded */
};
typedef int (*pm_transfer_fn)(void *arg, const struct pm_transfer_step *step);

/* Tells of each step with such operations, the scheduler's first, then worker n's; what fn returns,
 * other than 0, ends it. */
PM_MUST_USE int pm_transfer_each(const struct pm_session *session, size_t engine, unsigned n,
                                 pm_transfer_fn fn, void *arg);

#endif
