/*
 * Sessions of old: folders with the CSV files of the public Python profiler (the same names and
 * headers as ours), made into sessions that every view can read. Called by `convert`, and by the
 * commands that are given such a folder; one thread.
 *
 * The new session is written by the real recorder, as one process that was engine and worker.
 *
 *   forward_pass_timing.csv      worker_step: batch, tokens, time of the model
 *   batch_utilization.csv        sched_step: requests, tokens, limits, queues
 *   cpu_operations_timing.csv    what schedule() took (operation scheduling), the whole of a step
 *                                (model_execution), batch_prep, sampling, output_processing
 *   kv_cache_usage.csv, kv_cache_evictions.csv    kv_step, kv_eviction
 *   preemption_events.csv, request_lifecycle.csv  step_request, request
 *
 * What the files do not have stays absent: arrivals and tokens of requests, so no TTFT or ITL; how
 * many of a step's requests were prefills. A "decode" with more tokens than requests is taken as a
 * prefill: the Python profiler called every step a decode.
 */
#ifndef PM_CONVERT_CONVERT_H
#define PM_CONVERT_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct pm_convert_result {
    char path[4096]; /* of the new session */
    uint64_t passes, schedules, requests, events, kv_steps, evictions;
    uint64_t unpaired;    /* passes whose schedule() was not found */
    uint64_t rephased;    /* "decodes" taken as prefills */
    uint64_t kv_left_out; /* rows without a total */
};

/* Whether the folder holds any such file, and is no session of ours. */
bool pm_convert_is_old(const char *dir);

/* Makes a session, named by its start, in a new folder of its own, which is named by a template as
 * for mkdtemp. 0, or -PM_E… with a sentence that names file and line; nothing is left behind then.
 */
PM_MUST_USE int pm_convert_old(const char *old_dir, char *folder_template,
                               struct pm_convert_result *ret_result, struct pm_error *err);

/* Removes that folder and all in it. */
void pm_convert_remove(const char *folder);

#endif
