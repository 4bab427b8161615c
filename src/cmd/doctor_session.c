/*
 * doctor, a session: what its processes said about their hooks, what was lost, and how they ended.
 */
#include "cmd/doctor.h"
#include "cmd/complete.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"

/* ---- hooks ----------------------------------------------------------------------------------- */

/* The session's own version of vLLM, "" where no process knew it. */
static const char *vllm_version(const struct pm_session *session)
{
    const char *version = pm_session_attr(session, PM_ATTR_VLLM);
    return version != NULL ? version : "";
}

static void one_hook(struct pm_findings *findings, const struct pm_hook_row *row,
                     const struct pm_hook_state *state, const char *version, bool has_steps)
{
    const char *target = row->target;
    if (state == NULL) {
        pm_find(findings, PM_MARK_NOTE, "hook", NULL, "%s: no process imported its module%s%s",
                target, row->quiet_when != NULL ? "; normal where " : "",
                row->quiet_when != NULL ? row->quiet_when : "");
        return;
    }
    if (state->fired > 0) {
        pm_find(findings, PM_MARK_FINE, "hook", NULL, "%s: called in %u process%s", target,
                state->fired, state->fired == 1 ? "" : "es");
        return;
    }
    if (state->patched == 0 && state->off > 0) {
        pm_find(findings, PM_MARK_NOTE, "hook", NULL, "%s: its probe %s was off", target,
                row->probe);
        return;
    }
    if (state->patched == 0) {
        if (version[0] != '\0' && pm_version_compare(version, row->versions) < 0)
            pm_find(findings, PM_MARK_NOTE, "hook", NULL, "%s: vLLM has it in %s, this was %s",
                    target, row->versions, version);
        else if (row->optional)
            pm_find(findings, PM_MARK_NOTE, "hook", NULL,
                    "%s: this vLLM does not have it, ProfileMate does without it", target);
        else
            pm_find(findings, PM_MARK_PROBLEM, "hook",
                    "look for a newer ProfileMate that knows this vLLM, or tell its makers",
                    "%s: this vLLM (%s) does not have it, the probe %s missed what it needs",
                    target, version[0] != '\0' ? version : "unknown", row->probe);
        return;
    }
    if (row->quiet_when != NULL)
        pm_find(findings, PM_MARK_NOTE, "hook", NULL, "%s: in place, never called; normal where %s",
                target, row->quiet_when);
    else if (!has_steps)
        pm_find(findings, PM_MARK_NOTE, "hook", NULL,
                "%s: in place, never called; no engine has started yet", target);
    else
        pm_find(findings, PM_MARK_PROBLEM, "hook",
                "something replaced it after ProfileMate did: look for another patch of vLLM or a "
                "plug-in with a class of its own",
                "%s: in place, never called, though steps were recorded", target);
}

static bool has_core_facts(const struct pm_session *session)
{
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        if (pm_process_info(pm_session_process(session, i))->records[PM_STREAM_CORE] > 0)
            return true;
    return false;
}

static int check_hooks(struct pm_findings *findings, const struct pm_session *session)
{
    struct pm_hook_state *states;
    size_t count;
    int error = pm_hooks_collect(session, &states, &count);
    if (error != 0)
        return error;
    findings->section = "Hooks";
    bool steps = has_core_facts(session);
    for (size_t i = 0; count > 0 && i < pm_hook_rows_count; i++) {
        const struct pm_hook_state *state = NULL;
        if (pm_hook_row_repeats(i))
            continue;
        for (size_t k = 0; k < count && state == NULL; k++)
            if (strcmp(states[k].target, pm_hook_rows[i].target) == 0)
                state = &states[k];
        one_hook(findings, &pm_hook_rows[i], state, vllm_version(session), steps);
    }
    if (count == 0)
        pm_find(findings, PM_MARK_PROBLEM, "hooks-none",
                "start the server again with VLLM_PROFILING_VERBOSE=1, and see `profilemate doctor "
                "-- COMMAND`",
                "no process says that it patched anything: vLLM was not imported, or by a process "
                "that ProfileMate is not in");
    pm_doctor_custom_session(findings, session, states, count);
    free(states);
    return 0;
}

/* ---- processes ------------------------------------------------------------------------------- */

static void one_process(struct pm_findings *findings, const struct pm_process *process)
{
    static const char *const streams[PM_STREAM_COUNT] = {
        "attributes and totals", "steps and requests", "KV blocks", "custom hooks"};
    const struct pm_process_info *info = pm_process_info(process);
    char roles[64], who[128];
    pm_roles_name(info->roles, roles, sizeof(roles));
    snprintf(who, sizeof(who), "process %u (%s)", info->pid, roles);
    if (info->life == PM_LIFE_KILLED)
        pm_find(findings, PM_MARK_NOTE, "process", NULL,
                "%s was killed, or ended without a word; what it recorded until then is whole",
                who);
    else
        pm_find(findings, PM_MARK_FINE, "process", NULL, "%s %s", who,
                info->life == PM_LIFE_RUNNING ? "is running" : "ended by itself");
    for (int s = 0; s < PM_STREAM_COUNT; s++) {
        if (info->lost[s] > 0)
            pm_find(findings, PM_MARK_PROBLEM, "lost",
                    info->state & PM_STATE_DISK_FULL
                        ? "free some space where sessions go"
                        : "give the session more room (VLLM_PROFILING_MAX_MB) or a faster disk",
                    "%s lost %llu records of %s", who, (unsigned long long)info->lost[s],
                    streams[s]);
        if (info->recycled[s] > 0)
            pm_find(
                findings, PM_MARK_NOTE, "recycled",
                "raise VLLM_PROFILING_MAX_MB to keep more of the detail",
                "%s gave up its oldest %llu records of %s for newer ones; totals and histograms "
                "are exact",
                who, (unsigned long long)info->recycled[s], streams[s]);
    }
    if (info->state & PM_STATE_DISK_FULL)
        pm_find(findings, PM_MARK_PROBLEM, "disk-full", "free some space where sessions go",
                "%s found the disk full", who);
    if (info->state & PM_STATE_MONOTONIC)
        pm_find(findings, PM_MARK_NOTE, "clock", NULL,
                "%s gave the processor's counter up for CLOCK_MONOTONIC: it did not run evenly",
                who);
    if (info->faults > 0)
        pm_find(findings, PM_MARK_PROBLEM, "faults",
                "tell ProfileMate's makers, with this output and the version of vLLM",
                "%s: ProfileMate's own hooks failed %llu times; vLLM was not affected", who,
                (unsigned long long)info->faults);
    if (info->damaged_segments > 0)
        pm_find(findings, PM_MARK_PROBLEM, "damage", "check the disk; the rest was read",
                "%s: %llu damaged segments in records/%s", who,
                (unsigned long long)info->damaged_segments, info->file);
}

/* Attributes that are worth a line: probes that disarmed themselves, other profilers, notes. */
static void check_attributes(struct pm_findings *findings, const struct pm_process *process)
{
    const struct pm_process_info *info = pm_process_info(process);
    for (size_t i = 0; i < pm_process_attr_count(process); i++) {
        const char *key, *value;
        pm_process_attr_at(process, i, &key, &value);
        size_t probe = strlen(PM_ATTR_PROBE_PREFIX);
        if (strncmp(key, PM_ATTR_PROBE_PREFIX, probe) == 0 && strncmp(value, "disarmed", 8) == 0)
            pm_find(findings, PM_MARK_PROBLEM, "probe-disarmed",
                    "tell ProfileMate's makers, with this output and the version of vLLM",
                    "process %u: the probe %s %s", info->pid, key + probe, value);
        if (strncmp(key, "rival.", 6) == 0)
            pm_find(findings, PM_MARK_NOTE, "rival", NULL,
                    "process %u: another profiler or patcher is loaded, %s", info->pid, key + 6);
        if (strncmp(key, PM_ATTR_NOTE_PREFIX, strlen(PM_ATTR_NOTE_PREFIX)) == 0)
            pm_find(findings, PM_MARK_NOTE, "note", NULL, "process %u: %s", info->pid, value);
    }
}

static void check_cost(struct pm_findings *findings, const struct pm_session *session)
{
    uint64_t calls = 0, ns = 0;
    for (size_t i = 0; i < pm_session_process_count(session); i++) {
        const struct pm_process_info *info = pm_process_info(pm_session_process(session, i));
        calls += info->hook_calls;
        ns += info->hook_ns;
    }
    if (calls > 0 && ns > 0) /* every 64th call is timed: few calls give no figure */
        pm_find(findings, PM_MARK_FINE, "cost", NULL,
                "ProfileMate's own time: %.3f ms in %llu hooked calls (%.2f µs each)",
                (double)ns / 1e6, (unsigned long long)calls, (double)ns / (double)calls / 1e3);
}

static void say_what_ran(struct pm_findings *findings, const struct pm_session *session,
                         const struct pm_place *place)
{
    const char *version = pm_session_attr(session, PM_ATTR_VLLM);
    const char *python = pm_session_attr(session, PM_ATTR_PYTHON);
    const char *entry = pm_session_attr(session, PM_ATTR_ENTRY);
    const char *extension = pm_session_attr(session, PM_ATTR_EXTENSION);
    findings->section = "Session";
    pm_find(findings, PM_MARK_FINE, "session", NULL, "%s is %s", place->path,
            pm_session_state(session));
    if (version != NULL || python != NULL)
        pm_find(findings, PM_MARK_FINE, "versions", NULL, "vLLM %s, Python %s",
                version != NULL ? version : "unknown", python != NULL ? python : "unknown");
    if (entry != NULL)
        pm_find(findings, PM_MARK_FINE, "way", NULL, "the extension came in by %s%s%s",
                strcmp(entry, "pth") == 0      ? "the installed package (.pth)"
                : strcmp(entry, "plugin") == 0 ? "vLLM's plug-in entry point"
                                               : "PYTHONPATH",
                extension != NULL ? ", from " : "", extension != NULL ? extension : "");
    if (pm_session_process_count(session) == 0)
        pm_find(findings, PM_MARK_PROBLEM, "processes-none",
                "see `profilemate doctor -- COMMAND`, and whether the server got as far as its "
                "engine",
                "no process has written into this session");
    else if (!has_core_facts(session))
        pm_find(findings, PM_MARK_NOTE, "steps-none", "send it a request",
                "no step was recorded: no request has come yet");
}

/* A front end that recorded and no engine: what vLLM started did not load the extension. */
static void check_engine(struct pm_findings *findings, const struct pm_session *session)
{
    bool front = false, engine = false, runs = false;
    for (size_t i = 0; i < pm_session_process_count(session); i++) {
        const struct pm_process_info *info = pm_process_info(pm_session_process(session, i));
        front |= (info->roles & PM_ROLE_FRONTEND) != 0;
        engine |= (info->roles & (PM_ROLE_ENGINE | PM_ROLE_WORKER)) != 0;
        runs |= info->life == PM_LIFE_RUNNING;
    }
    if (!front || engine)
        return;
    if (runs)
        pm_find(findings, PM_MARK_NOTE, "engine-none", NULL,
                "only the front end has recorded so far: an engine says so when it has started");
    else
        pm_find(findings, PM_MARK_PROBLEM, "engine-none",
                "see that PYTHONPATH reaches what vLLM starts (a wrapper or a container may clear "
                "it), or install the package; where the engine runs on another machine, its part "
                "of the session is there",
                "the front end recorded and no engine core or worker did: the extension was not "
                "loaded in the processes that vLLM started");
}

int pm_doctor_session(struct pm_findings *findings, const struct pm_place *place,
                      struct pm_error *err)
{
    struct pm_session *session;
    int error = pm_complete_open(place, &session, err);
    if (error != 0)
        return error;
    size_t count = pm_session_process_count(session);
    say_what_ran(findings, session, place);
    error = check_hooks(findings, session);
    if (error != 0) {
        pm_session_close(session);
        return pm_error_set(err, error, "cannot look at the hooks of %s, %s", place->path,
                            pm_strerror(error));
    }
    findings->section = "Processes";
    for (size_t i = 0; i < count; i++) {
        one_process(findings, pm_session_process(session, i));
        check_attributes(findings, pm_session_process(session, i));
    }
    check_engine(findings, session);
    check_cost(findings, session);
    if (pm_session_note_count(session) > 0)
        findings->section = "Damage";
    for (size_t i = 0; i < pm_session_note_count(session); i++)
        pm_find(findings, PM_MARK_PROBLEM, "damage", NULL, "%s", pm_session_note(session, i));
    pm_session_close(session);
    return 0;
}
