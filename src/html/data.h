/*
 * The parts of the page's data (web/DATA.md tells its shape), one function per part: each walks
 * what it needs once and writes one value, or members of the open object. Called by page.c.
 */
#ifndef PM_HTML_DATA_H
#define PM_HTML_DATA_H

#include "base/json.h"
#include "html/page.h"
#include "view/common.h"

static inline void pm_put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static inline void pm_put_text(struct pm_json *json, const char *key, const char *text)
{
    pm_json_key(json, key);
    pm_json_text(json, text);
}

/* A moment as microseconds since the session's start, null for 0. */
static inline void pm_put_moment(struct pm_json *json, const struct pm_session *session,
                                 uint64_t at_ns)
{
    if (at_ns == 0)
        pm_json_null(json);
    else
        pm_json_i64(json, (int64_t)(at_ns - pm_session_info(session)->start_mono_ns) / 1000);
}

/* "ranks", "kinds" and the distributions of batch sizes of an engine (steps.c); "updates": what
 * came out (updates.c); "kv"; "requests", "preemptions" and "latency" (requests.c). Members. */
PM_MUST_USE int pm_data_steps(struct pm_json *json, const struct pm_session *session,
                              size_t engine);
PM_MUST_USE int pm_data_updates(struct pm_json *json, const struct pm_session *session,
                                size_t engine);
PM_MUST_USE int pm_data_kv(struct pm_json *json, const struct pm_session *session, size_t engine);
PM_MUST_USE int pm_data_requests(struct pm_json *json, const struct pm_session *session,
                                 size_t engine);
/* "graphs", "moe", "encoder": of worker n of an engine; null where there is nothing. Members. */
PM_MUST_USE int pm_data_models(struct pm_json *json, const struct pm_session *session,
                               size_t engine, unsigned n);
/* "device", "memory", "collectives", "kv_transfers", "layers": as `report --json` has them, of
 * worker n of an engine, null where there is nothing; "memory_series", "kv_transfer_series": over
 * time. Members. (machine.c) */
PM_MUST_USE int pm_data_machine(struct pm_json *json, const struct pm_session *session,
                                size_t engine, unsigned n);
/* "sampling" as `report --json` has it, null where nothing sampled; "sampling_series". Members. */
PM_MUST_USE int pm_data_sampling(struct pm_json *json, const struct pm_session *session,
                                 size_t engine, unsigned n);
/* "hooks", "notes", "processes": what was seen and what was not. Members. */
PM_MUST_USE int pm_data_about(struct pm_json *json, const struct pm_session *session);

#endif
