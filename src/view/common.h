/*
 * What the views share among themselves, besides view.h.
 */
#ifndef PM_VIEW_COMMON_H
#define PM_VIEW_COMMON_H

#include "base/buf.h"
#include "base/json.h"
#include "view/samples.h"
#include "view/view.h"

#define PM_VIEW_TEXT_MAX (64u << 20) /* ceiling of a report or a metadata.json */

/* The mode that the session's files get: its setting `mode`, 0600 by default. */
uint32_t pm_session_file_mode(const struct pm_session *session);

/* Which worker of an engine (n of pm_engine_worker) samples; 0 where none does. */
unsigned pm_engine_sampler(const struct pm_session *session, size_t engine);

/* One series of the totals (session/layout.h): how many records of that class, the sum of a field
 * and its histogram (NULL where the field has none). field_name NULL: only the count. */
struct pm_series {
    uint64_t count, sum;
    const struct pm_hist *hist;
};
bool pm_series_find(const struct pm_process *process, const struct pm_totals *totals,
                    const char *schema_name, const char *field_name, unsigned class_value,
                    struct pm_series *ret_series);

/* ---- forward.c ---- */

#define PM_FORWARD_PHASES 3 /* by enum pm_phase_class */

/* The forward passes of one worker of one engine. */
struct pm_forward {
    struct pm_samples samples[PM_FORWARD_PHASES];
    uint64_t tokens[PM_FORWARD_PHASES], requests[PM_FORWARD_PHASES];
    uint64_t rows;    /* steps with tokens that were run */
    uint64_t untimed; /* of them, those whose time is not known */
    uint64_t guessed; /* of them, those whose phase only the worker tells */
    uint64_t clocks[4];
    uint64_t matched, mismatched, sched_only, worker_only;
    bool recycled; /* older steps had to go */
};

void pm_forward_init(struct pm_forward *ret_forward);
void pm_forward_release(struct pm_forward *forward);

/* Counts one step; false when it is no forward pass (no tokens, not run, failed). */
bool pm_forward_count(struct pm_forward *forward, const struct pm_step *step, int *ret_error);

/* Walks the steps of worker n of an engine; each forward pass also becomes a CSV row, in the
 * columns of the preset, where file is not NULL. */
struct pm_outfile;
PM_MUST_USE int pm_forward_walk(const struct pm_session *session, size_t engine, unsigned n,
                                int preset, struct pm_outfile *file,
                                struct pm_forward *ret_forward);

/* What most of the passes' times are: "wall", "sync", "events"; "none" where no pass has one. */
const char *pm_forward_clock(const struct pm_forward *forward);

/* What the summaries say, one per phase. *ret_source: "exact" (every sample), "histogram" (older
 * samples had to go: counts and means exact since the start, percentiles by buckets) or "held"
 * (they had to go, and this clock has no histogram: only what is held). */
PM_MUST_USE int pm_forward_stats(const struct pm_session *session, size_t engine, unsigned n,
                                 struct pm_forward *forward,
                                 struct pm_stats stats[PM_FORWARD_PHASES], const char **ret_source);

/* The summary file of a preset. */
void pm_forward_summary(struct pm_json *json, int preset,
                        const struct pm_stats stats[PM_FORWARD_PHASES], const char *source);

/* Nanoseconds as milliseconds with 3 decimals, null where count is 0. */
void pm_json_ms_double(struct pm_json *json, const char *key, double ns, uint64_t count);

/* ---- metadata.c ---- */

/* What the walks through a session's steps had to confess, over all engines and ranks. */
struct pm_account {
    uint64_t passes, untimed, guessed;
    uint64_t matched, mismatched, sched_only, worker_only;
    uint64_t clocks[4];      /* passes by pm_step.forward_clock */
    const char *percentiles; /* "exact", "histogram", "held": the least exact of them */
};
void pm_account_add(struct pm_account *account, const struct pm_forward *forward,
                    const char *source);

/* metadata.json into buf; old: what the file held before (NULL: nothing), whose unknown members are
 * kept. */
PM_MUST_USE int pm_metadata_write(const struct pm_session *session,
                                  const struct pm_account *account, const char *old,
                                  size_t old_bytes, struct pm_buf *buf);

/* Sums over the processes of a session. */
struct pm_sums {
    uint64_t records, lost, recycled, damaged;
    uint64_t faults, hook_calls, hook_ns;
    uint64_t observed_ns; /* how long each process was seen, added up */
    uint64_t end_ns;      /* newest moment of any process, CLOCK_MONOTONIC; 0: none */
    unsigned running, closed, killed;
    unsigned front_closed, front_killed; /* the front ends among closed and killed */
    bool engine_died; /* an engine core was killed, and not by the server's own end: pm_engine_died
                       */
};
void pm_session_sums(const struct pm_session *session, struct pm_sums *ret_sums);

/* The members "records" and "own_cost" of metadata.json and of the report. */
void pm_sums_records_json(const struct pm_sums *sums, struct pm_json *json);
void pm_sums_cost_json(const struct pm_sums *sums, struct pm_json *json);

/* The words of pm_session_state, from sums that are there already. */
const char *pm_session_state_name(const struct pm_sums *sums);

/* The newest moment known of a process. */
uint64_t pm_process_end_ns(const struct pm_process *process);

/* ---- top_level.c ---- */

/* Calls fn for each member of the JSON object in text, value being its own text. 0, or -PM_ECORRUPT
 * where the text is no object (members before the fault may have been told). */
PM_MUST_USE int pm_json_members(const char *text, size_t bytes,
                                void (*fn)(const char *key, size_t key_bytes, const char *value,
                                           size_t value_bytes, void *arg),
                                void *arg);

#endif
