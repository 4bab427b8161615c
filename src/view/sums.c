/*
 * Sums over the processes of a session and over the walks through its steps, for metadata.json and
 * the reports. Pure.
 */
#include "view/common.h"

#include "session/attrs.h"

#include <string.h>

uint64_t pm_process_end_ns(const struct pm_process *process)
{
    const struct pm_process_info *info = pm_process_info(process);
    uint64_t end = info->opened_mono_ns;
    if (info->closed_ns != 0)
        return info->closed_ns;
    if (info->last_ns > end)
        end = info->last_ns;
    /* A heartbeat is no fact, but the process was there. */
    return info->heartbeat_ns > end ? info->heartbeat_ns : end;
}

bool pm_engine_died(const struct pm_session *session)
{
    bool killed = false, seen = false;
    for (size_t i = 0; i < pm_session_process_count(session); i++) {
        const struct pm_process *process = pm_session_process(session, i);
        const struct pm_process_info *info = pm_process_info(process);
        killed = killed || ((info->roles & PM_ROLE_ENGINE) && info->life == PM_LIFE_KILLED);
        seen = seen || pm_process_attr(process, PM_ATTR_ENGINE_DIED) != NULL;
    }
    return killed && seen;
}

void pm_session_sums(const struct pm_session *session, struct pm_sums *ret_sums)
{
    struct pm_sums sums = {0};

    for (size_t i = 0; i < pm_session_process_count(session); i++) {
        const struct pm_process *process = pm_session_process(session, i);
        const struct pm_process_info *info = pm_process_info(process);
        const uint64_t end = pm_process_end_ns(process);
        for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
            sums.records += info->records[s];
            sums.lost += info->lost[s];
            sums.recycled += info->recycled[s];
        }
        sums.damaged += info->damaged_segments;
        sums.faults += info->faults;
        sums.hook_calls += info->hook_calls;
        sums.hook_ns += info->hook_ns;
        if (end > info->opened_mono_ns)
            sums.observed_ns += end - info->opened_mono_ns;
        if (end > sums.end_ns)
            sums.end_ns = end;
        sums.running += info->life == PM_LIFE_RUNNING;
        sums.closed += info->life == PM_LIFE_CLOSED;
        sums.killed += info->life == PM_LIFE_KILLED;
        if (info->roles & PM_ROLE_FRONTEND) {
            sums.front_closed += info->life == PM_LIFE_CLOSED;
            sums.front_killed += info->life == PM_LIFE_KILLED;
        }
    }
    sums.engine_died = pm_engine_died(session);
    *ret_sums = sums;
}

const char *pm_session_state_name(const struct pm_sums *sums)
{
    if (sums->running > 0)
        return "running";
    /* vLLM stops its own engines and workers by SIGKILL: where every front end came to its end, so
     * did the server, unless it told that an engine had gone before. */
    if (sums->killed > 0 &&
        (sums->front_closed == 0 || sums->front_killed > 0 || sums->engine_died))
        return "killed";
    return sums->closed > 0 ? "ended" : "empty";
}

const char *pm_session_state(const struct pm_session *session)
{
    struct pm_sums sums;
    pm_session_sums(session, &sums);
    return pm_session_state_name(&sums);
}

void pm_account_add(struct pm_account *account, const struct pm_forward *forward,
                    const char *source)
{
    account->passes += forward->rows;
    account->untimed += forward->untimed;
    account->guessed += forward->guessed;
    account->matched += forward->matched;
    account->mismatched += forward->mismatched;
    account->sched_only += forward->sched_only;
    account->worker_only += forward->worker_only;
    for (unsigned c = 0; c < 4; c++)
        account->clocks[c] += forward->clocks[c];
    if (account->percentiles == NULL || strcmp(account->percentiles, "exact") == 0 ||
        strcmp(source, "held") == 0)
        account->percentiles = source;
}

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

void pm_sums_records_json(const struct pm_sums *sums, struct pm_json *json)
{
    pm_json_key(json, "records");
    pm_json_object(json);
    put_u64(json, "readable", sums->records);
    put_u64(json, "lost", sums->lost);
    put_u64(json, "recycled", sums->recycled);
    put_u64(json, "damaged_segments", sums->damaged);
    pm_json_end(json);
}

void pm_sums_cost_json(const struct pm_sums *sums, struct pm_json *json)
{
    pm_json_key(json, "own_cost");
    pm_json_object(json);
    put_u64(json, "hook_calls", sums->hook_calls);
    pm_json_key(json, "hook_ms");
    pm_json_ms3(json, sums->hook_ns);
    pm_json_key(json, "share_pct");
    pm_json_ratio(json, sums->hook_ns, 100, sums->observed_ns, 4);
    put_u64(json, "faults", sums->faults);
    pm_json_end(json);
}
