/*
 * metadata.json: what the extension wrote at the session's birth, completed by what the record
 * files tell. Called by seed_export.c and by the program; the members of the first writing keep
 * their names and places, members that nobody here knows are kept as they are.
 */
#include "view/caution.h"
#include "view/common.h"

#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "session/attrs.h"
#include "session/hist.h"

static void put_text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value != NULL && *value != '\0' ? value : NULL);
}

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_time(struct pm_json *json, const char *key, const struct pm_session *session,
                     uint64_t mono_ns)
{
    char text[64];
    pm_json_key(json, key);
    if (mono_ns == 0) {
        pm_json_null(json);
        return;
    }
    pm_iso_time(pm_session_real_ns(session, mono_ns), text, sizeof(text));
    pm_json_text(json, text);
}

/* A value of text as what it is: number, yes or no, or text. */
static void put_value(struct pm_json *json, const char *name, const char *value)
{
    /* Booleans among the attributes are told as 0 or 1 (session/attrs.h). */
    static const char *const flags[] = {"enforce_eager", "async_scheduling", "expert"};
    bool flag = strncmp(name, "enable_", 7) == 0;
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        flag = flag || strcmp(name, flags[i]) == 0;
    if (flag && (strcmp(value, "0") == 0 || strcmp(value, "1") == 0)) {
        pm_json_bool(json, value[0] == '1');
        return;
    }
    size_t len = strlen(value), digits = strspn(value, "0123456789");
    size_t rest = value[digits] == '.' ? 1 + strspn(value + digits + 1, "0123456789") : 0;

    if (strcmp(value, "True") == 0 || strcmp(value, "False") == 0)
        pm_json_bool(json, value[0] == 'T');
    else if (strcmp(value, "None") == 0)
        pm_json_null(json);
    else if (len > 0 && len < 18 && digits > 0 && digits + rest == len && rest != 1 &&
             (value[0] != '0' || digits == 1))
        pm_json_raw(json, value, len);
    else
        pm_json_text(json, value);
}

/* All attributes of a prefix as one object; the first process that has one answers. */
static void put_prefix(struct pm_json *json, const char *key, const struct pm_session *session,
                       const char *prefix)
{
    const size_t bytes = strlen(prefix);

    pm_json_key(json, key);
    pm_json_object(json);
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        for (size_t i = 0; i < pm_process_attr_count(process); i++) {
            const char *name, *value;
            pm_process_attr_at(process, i, &name, &value);
            /* Only where this very pair is the one that the session answers with. */
            if (strncmp(name, prefix, bytes) != 0 || pm_session_attr(session, name) != value)
                continue;
            pm_json_key(json, name + bytes);
            put_value(json, name + bytes, value);
        }
    }
    pm_json_end(json);
}

static void put_settings(struct pm_json *json, const struct pm_session *session)
{
    pm_json_key(json, "profilers");
    pm_json_object(json);
    for (size_t i = 0; i < pm_setting_rows_count; i++) {
        const struct pm_setting_row *row = &pm_setting_rows[i];
        if (strncmp(row->env, "ENABLE_", 7) != 0)
            continue;
        pm_json_key(json, row->field);
        pm_json_bool(json, pm_session_setting_on(session, row->field, strcmp(row->def, "0") != 0));
    }
    pm_json_end(json);
    pm_json_key(json, "settings");
    pm_json_object(json);
    for (size_t i = 0; i < pm_setting_rows_count; i++) {
        const struct pm_setting_row *row = &pm_setting_rows[i];
        char key[96];
        snprintf(key, sizeof(key), PM_ATTR_SETTING_PREFIX "%s", row->field);
        const char *value = pm_session_attr(session, key);
        pm_json_key(json, row->field);
        if (value == NULL)
            pm_json_null(json);
        else if (strcmp(row->type, "BOOL") == 0)
            pm_json_bool(json, strcmp(value, "0") != 0);
        else if (strcmp(row->type, "INT") == 0)
            pm_json_i64(json, strtoll(value, NULL, 10));
        else
            pm_json_text(json, value);
    }
    pm_json_end(json);
}

static void put_processes(struct pm_json *json, const struct pm_session *session)
{
    pm_json_key(json, "processes");
    pm_json_array(json);
    for (size_t i = 0; i < pm_session_process_count(session); i++) {
        const struct pm_process *process = pm_session_process(session, i);
        const struct pm_process_info *info = pm_process_info(process);
        uint64_t records = 0, lost = 0, recycled = 0;
        char roles[64];
        for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
            records += info->records[s];
            lost += info->lost[s];
            recycled += info->recycled[s];
        }
        pm_roles_name(info->roles, roles, sizeof(roles));
        pm_json_object(json);
        put_text(json, "role", roles);
        pm_json_key(json, "engine");
        info->engine >= 0 ? pm_json_i64(json, info->engine) : pm_json_null(json);
        pm_json_key(json, "rank");
        info->rank >= 0 ? pm_json_i64(json, info->rank) : pm_json_null(json);
        put_u64(json, "pid", info->pid);
        put_u64(json, "ppid", info->ppid);
        put_text(json, "ended", pm_life_name(info->life));
        put_time(json, "start", session, info->opened_mono_ns);
        put_time(json, "end", session,
                 info->life == PM_LIFE_RUNNING ? 0 : pm_process_end_ns(process));
        put_u64(json, "records", records);
        put_u64(json, "records_lost", lost);
        put_u64(json, "records_recycled", recycled);
        put_u64(json, "damaged_segments", info->damaged_segments);
        put_u64(json, "faults", info->faults);
        pm_json_key(json, "disk_full");
        pm_json_bool(json, (info->state & PM_STATE_DISK_FULL) != 0);
        put_text(json, "file", info->file);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static int put_hooks(struct pm_json *json, const struct pm_session *session)
{
    struct pm_hook_state *hooks;
    size_t count;
    int rc = pm_hooks_collect(session, &hooks, &count);

    if (rc != 0)
        return rc;
    pm_json_key(json, "hooks");
    pm_json_object(json);
    for (size_t i = 0; i < count; i++) {
        const struct pm_hook_state *hook = &hooks[i];
        pm_json_key(json, hook->target);
        pm_json_object(json);
        put_text(json, "state",
                 hook->patched > 0   ? "patched"
                 : hook->missing > 0 ? "missing"
                 : hook->off > 0     ? "off"
                                     : "unknown");
        pm_json_key(json, "fired");
        pm_json_bool(json, hook->fired > 0);
        put_time(json, "first_fired", session, hook->first_fired_ns);
        pm_json_end(json);
    }
    pm_json_end(json);
    free(hooks);
    return 0;
}

static void put_account(struct pm_json *json, const struct pm_sums *sums,
                        const struct pm_account *account)
{
    pm_sums_records_json(sums, json);

    pm_json_key(json, "steps");
    pm_json_object(json);
    put_u64(json, "forward_passes", account->passes);
    put_u64(json, "without_time", account->untimed);
    put_u64(json, "by_device_events", account->clocks[3]);
    put_u64(json, "to_synchronisation", account->clocks[2]);
    put_u64(json, "by_wall_clock", account->clocks[1]);
    put_u64(json, "phase_from_worker_only", account->guessed);
    put_u64(json, "matched", account->matched);
    put_u64(json, "mismatched", account->mismatched);
    put_u64(json, "scheduler_only", account->sched_only);
    put_u64(json, "worker_only", account->worker_only);
    pm_json_end(json);

    put_text(json, "percentiles", account->percentiles != NULL ? account->percentiles : "exact");
    if (account->percentiles != NULL && strcmp(account->percentiles, "histogram") == 0) {
        pm_json_key(json, "percentiles_error_pct");
        pm_json_double(json, 100.0 * PM_HIST_QUANTILE_ERROR + 0.005, 2);
    }

    pm_sums_cost_json(sums, json);
}

static void put_notes(struct pm_json *json, const struct pm_session *session)
{
    pm_json_key(json, "notes");
    pm_json_array(json);
    for (size_t i = 0; i < pm_session_note_count(session); i++)
        pm_json_text(json, pm_session_note(session, i));
    pm_put_cautions(json, session);
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        for (size_t i = 0; i < pm_process_attr_count(process); i++) {
            const char *key, *value;
            pm_process_attr_at(process, i, &key, &value);
            if (strncmp(key, PM_ATTR_NOTE_PREFIX, strlen(PM_ATTR_NOTE_PREFIX)) == 0)
                pm_json_text(json, value);
        }
    }
    pm_json_end(json);
}

/* Members of ours, in order of writing: those of an older file that are not among them are kept. */
static const char *const known[] = {
    "session_id", "state",         "start",
    "end",        "duration_sec",  "host",
    "command",    "versions",      "model",
    "device",     "clock",         "forward_clock",
    "runner",     "instance_id",   "device_events",
    "preset",     "engine_config", "parallel",
    "engines",    "profilers",     "settings",
    "processes",  "hooks",         "records",
    "steps",      "percentiles",   "percentiles_error_pct",
    "own_cost",   "notes",
};

static void keep_unknown(const char *key, size_t key_bytes, const char *value, size_t value_bytes,
                         void *arg)
{
    struct pm_json *json = arg;
    char name[256];

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strlen(known[i]) == key_bytes && memcmp(known[i], key, key_bytes) == 0)
            return;
    /* A key with escapes would have to be read first; ours and the extension's have none. */
    if (key_bytes >= sizeof(name) || memchr(key, '\\', key_bytes) != NULL)
        return;
    memcpy(name, key, key_bytes);
    name[key_bytes] = '\0';
    pm_json_key(json, name);
    pm_json_raw(json, value, value_bytes);
}

static void ignore(const char *key, size_t key_bytes, const char *value, size_t value_bytes,
                   void *arg)
{
    (void)key, (void)key_bytes, (void)value, (void)value_bytes, (void)arg;
}

/* What most forward times are; before the first one the processes' own word. */
static const char *forward_clock(const struct pm_session *session, const struct pm_account *account)
{
    static const char *const names[4] = {NULL, "wall", "sync", "events"};
    const char *told = pm_session_attr(session, PM_ATTR_FORWARD_CLOCK);
    unsigned most = 0;
    for (unsigned c = 1; c < 4; c++)
        if (account->clocks[c] > 0 && (most == 0 || account->clocks[c] > account->clocks[most]))
            most = c;
    return most != 0 ? names[most] : told;
}

static void put_head(struct pm_json *json, const struct pm_session *session,
                     const struct pm_sums *sums, const struct pm_account *account)
{
    const struct pm_session_info *info = pm_session_info(session);
    const bool over = sums->running == 0 && sums->end_ns > 0;

    put_text(json, "session_id", info->name);
    put_text(json, "state", pm_session_state_name(sums));
    put_time(json, "start", session, info->start_mono_ns);
    put_time(json, "end", session, over ? sums->end_ns : 0);
    pm_json_key(json, "duration_sec");
    if (sums->end_ns > info->start_mono_ns)
        pm_json_sec6(json, sums->end_ns - info->start_mono_ns);
    else
        pm_json_null(json);
    put_text(json, "host", pm_session_attr(session, PM_ATTR_HOST));
    put_text(json, "command", pm_session_attr(session, PM_ATTR_COMMAND));
    pm_json_key(json, "versions");
    pm_json_object(json);
    put_text(json, "profilemate", pm_session_attr(session, PM_ATTR_PROFILEMATE));
    put_text(json, "python", pm_session_attr(session, PM_ATTR_PYTHON));
    put_text(json, "torch", pm_session_attr(session, PM_ATTR_TORCH));
    put_text(json, "vllm", pm_session_attr(session, PM_ATTR_VLLM));
    pm_json_end(json);
    put_text(json, "model", pm_session_attr(session, PM_ATTR_MODEL));
    put_text(json, "device", pm_session_attr(session, PM_ATTR_DEVICE));
    if (pm_session_attr(session, PM_ATTR_DEVICE_NAME) != NULL)
        put_text(json, "device_name", pm_session_attr(session, PM_ATTR_DEVICE_NAME));
    put_text(json, "clock", pm_session_attr(session, PM_ATTR_CLOCK));
    put_text(json, "forward_clock", forward_clock(session, account));
    put_text(json, "device_events", pm_session_attr(session, PM_ATTR_DEVICE_EVENTS));
    if (pm_session_attr(session, PM_ATTR_LAYERS) != NULL)
        put_text(json, "layers", pm_session_attr(session, PM_ATTR_LAYERS));
    if (pm_session_attr(session, PM_ATTR_LAYER_CLOCK) != NULL)
        put_text(json, "layer_clock", pm_session_attr(session, PM_ATTR_LAYER_CLOCK));
    if (pm_session_attr(session, PM_ATTR_COLLECTIVE_CLOCK) != NULL)
        put_text(json, "collective_clock", pm_session_attr(session, PM_ATTR_COLLECTIVE_CLOCK));
    put_text(json, "runner", pm_session_attr(session, PM_ATTR_RUNNER));
    put_text(json, "instance_id", pm_session_attr(session, PM_ATTR_INSTANCE_ID));
    put_text(json, "preset", pm_session_preset(session) == PM_PRESET_SIMPLE ? "simple" : "full");
}

int pm_metadata_write(const struct pm_session *session, const struct pm_account *account,
                      const char *old, size_t old_bytes, struct pm_buf *buf)
{
    struct pm_sums sums;
    struct pm_json json;

    pm_session_sums(session, &sums);
    pm_json_init(&json, buf, 2);
    pm_json_object(&json);
    put_head(&json, session, &sums, account);
    put_prefix(&json, "engine_config", session, PM_ATTR_CONFIG_PREFIX);
    put_prefix(&json, "parallel", session, PM_ATTR_PARALLEL_PREFIX);
    put_prefix(&json, "model_size", session, PM_ATTR_SIZE_PREFIX);
    put_u64(&json, "engines", pm_session_engine_count(session));
    put_settings(&json, session);
    put_processes(&json, session);
    int rc = put_hooks(&json, session);
    if (rc != 0)
        return rc;
    put_account(&json, &sums, account);
    put_notes(&json, session);
    /* Only from a file that is whole: half of one would give a member twice or cut. */
    if (old != NULL && pm_json_members(old, old_bytes, ignore, NULL) == 0 &&
        pm_json_members(old, old_bytes, keep_unknown, &json) != 0)
        return -PM_EINVALID;
    pm_json_end(&json);
    return pm_json_finish(&json);
}

int pm_view_metadata(const struct pm_session *session, FILE *out, struct pm_error *err)
{
    struct pm_account account = {0};
    struct pm_buf buf;
    int rc = 0;

    pm_buf_init(&buf, PM_VIEW_TEXT_MAX);
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0; e++) {
        const unsigned n_ranks = pm_session_engine(session, e)->n_ranks;
        for (unsigned n = 0; n < n_ranks && rc == 0; n++) {
            struct pm_forward forward;
            struct pm_stats stats[PM_FORWARD_PHASES];
            const char *source = "exact";
            pm_forward_init(&forward);
            rc = pm_forward_walk(session, e, n, PM_PRESET_FULL, NULL, &forward);
            if (rc == 0)
                rc = pm_forward_stats(session, e, n, &forward, stats, &source);
            pm_account_add(&account, &forward, source);
            pm_forward_release(&forward);
        }
    }
    if (rc == 0)
        rc = pm_metadata_write(session, &account, NULL, 0, &buf);
    if (rc != 0)
        rc = pm_error_set(err, rc, "metadata.json: %s", pm_strerror(rc));
    else if (fwrite(buf.data, 1, buf.used, out) != buf.used)
        rc = pm_error_set(err, -PM_EIO, "metadata.json: cannot be written");
    pm_buf_release(&buf);
    return rc;
}
