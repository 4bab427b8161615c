/*
 * What was seen and what was not: processes, hooks, losses, own cost, for the page. Called by
 * page.c.
 */
#include "html/data.h"

#include <stdlib.h>
#include <string.h>

#include "view/caution.h"

static uint64_t sum_of(const uint64_t *values)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < PM_STREAM_COUNT; i++)
        sum += values[i];
    return sum;
}

static void put_process(struct pm_json *json, const struct pm_session *session,
                        const struct pm_process *process)
{
    const struct pm_process_info *info = pm_process_info(process);
    const uint64_t end_ns = pm_process_end_ns(process);
    char roles[64];

    pm_roles_name(info->roles, roles, sizeof(roles));
    pm_json_object(json);
    pm_put_text(json, "role", roles);
    pm_json_key(json, "engine");
    info->engine >= 0 ? pm_json_i64(json, info->engine) : pm_json_null(json);
    pm_json_key(json, "rank");
    info->rank >= 0 ? pm_json_i64(json, info->rank) : pm_json_null(json);
    pm_put_u64(json, "pid", info->pid);
    pm_put_text(json, "life", pm_life_name(info->life));
    pm_json_key(json, "from");
    pm_put_moment(json, session, info->opened_mono_ns);
    pm_json_key(json, "to");
    pm_put_moment(json, session, end_ns);
    pm_put_u64(json, "records", sum_of(info->records));
    pm_put_u64(json, "lost", sum_of(info->lost));
    pm_put_u64(json, "recycled", sum_of(info->recycled));
    pm_put_u64(json, "damaged", info->damaged_segments);
    pm_put_u64(json, "faults", info->faults);
    pm_put_u64(json, "hook_calls", info->hook_calls);
    pm_json_key(json, "hook_ms");
    pm_json_ms3(json, info->hook_ns);
    pm_json_key(json, "hook_pct");
    pm_json_ratio(json, info->hook_ns, 100,
                  end_ns > info->opened_mono_ns ? end_ns - info->opened_mono_ns : 0, 4);
    pm_json_end(json);
}

static int put_hooks(struct pm_json *json, const struct pm_session *session)
{
    struct pm_hook_state *hooks;
    size_t n;
    const int rc = pm_hooks_collect(session, &hooks, &n);

    if (rc != 0)
        return rc;
    pm_json_key(json, "hooks");
    pm_json_array(json);
    for (size_t i = 0; i < n; i++) {
        pm_json_object(json);
        pm_put_text(json, "target", hooks[i].target);
        pm_put_u64(json, "patched", hooks[i].patched);
        pm_put_u64(json, "missing", hooks[i].missing);
        pm_put_u64(json, "off", hooks[i].off);
        pm_put_u64(json, "fired", hooks[i].fired);
        pm_json_key(json, "first");
        pm_put_moment(json, session, hooks[i].first_fired_ns);
        pm_json_end(json);
    }
    pm_json_end(json);
    free(hooks);
    return 0;
}

int pm_data_about(struct pm_json *json, const struct pm_session *session)
{
    pm_json_key(json, "processes");
    pm_json_array(json);
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        put_process(json, session, pm_session_process(session, i));
    pm_json_end(json);
    const int rc = put_hooks(json, session);
    if (rc != 0)
        return rc;
    pm_json_key(json, "notes");
    pm_json_array(json);
    for (size_t i = 0; i < pm_session_note_count(session); i++)
        pm_json_text(json, pm_session_note(session, i));
    pm_put_cautions(json, session);
    pm_json_end(json);
    return 0;
}
