/* Rules of the profile itself: what it lost, what it cannot see, what disturbs it. */
#include "explain/rules.h"

#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

enum pm_verdict pm_rule_record_losses(const struct pm_looks *looks, struct pm_finding *finding,
                                      char *why)
{
    const struct pm_sums *sums = &looks->sums;
    const double share =
        pm_pct((double)sums->lost, (double)(sums->lost + sums->records + sums->recycled));
    bool disk_full = false;

    for (size_t i = 0; i < pm_session_process_count(looks->session); i++)
        disk_full = disk_full || (pm_process_info(pm_session_process(looks->session, i))->state &
                                  PM_STATE_DISK_FULL) != 0;
    if (sums->lost + sums->damaged == 0)
        return pm_because(why, PM_VERDICT_FINE, "no record of %llu was lost", LL(sums->records));
    pm_title(finding, "%llu records were lost: figures are too low", LL(sums->lost));
    if (sums->lost > 0)
        pm_say(finding, "%llu of %llu records (%.2f %%) found no room%s", LL(sums->lost),
               LL(sums->lost + sums->records + sums->recycled), share,
               disk_full ? ": the disk is full" : "");
    if (sums->damaged > 0)
        pm_say(finding, "%llu segments of record files are damaged: their rest was skipped",
               LL(sums->damaged));
    for (size_t i = 0; i < pm_session_note_count(looks->session) && i < 3; i++)
        pm_say(finding, "%.240s", pm_session_note(looks->session, i));
    pm_figure(finding, "lost", "records", (double)sums->lost);
    pm_figure(finding, "lost_pct", "%", share);
    pm_figure(finding, "damaged_segments", "", (double)sums->damaged);
    finding->severity = share >= 1 || sums->damaged > 0 ? PM_SEVERITY_HIGH : PM_SEVERITY_MEDIUM;
    finding->confidence = 1;
    pm_turn(finding, "VLLM_PROFILING_DIR", "set", NULL, "a faster disk with room");
    pm_recommend(finding, "%s",
                 disk_full ? "Make room on the disk, or send sessions to another one."
                           : "The disk or the processor could not keep up for a while: record on a "
                             "local disk, and leave the profiler's thread a core.");
    return PM_VERDICT_FOUND;
}

/* Probes that gave up, of all processes. */
static unsigned disarmed(const struct pm_looks *looks, struct pm_finding *finding)
{
    unsigned n = 0;
    for (size_t p = 0; p < pm_session_process_count(looks->session); p++) {
        const struct pm_process *process = pm_session_process(looks->session, p);
        for (size_t i = 0; i < pm_process_attr_count(process); i++) {
            const char *key, *value;
            pm_process_attr_at(process, i, &key, &value);
            if (strncmp(key, PM_ATTR_PROBE_PREFIX, strlen(PM_ATTR_PROBE_PREFIX)) != 0 ||
                strncmp(value, "disarmed", 8) != 0)
                continue;
            n++;
            pm_say(finding, "probe %.60s in process %u: %.160s", key + strlen(PM_ATTR_PROBE_PREFIX),
                   pm_process_info(process)->pid, value);
        }
    }
    return n;
}

enum pm_verdict pm_rule_record_coverage(const struct pm_looks *looks, struct pm_finding *finding,
                                        char *why)
{
    const struct pm_sums *sums = &looks->sums;
    const unsigned gone = disarmed(looks, finding);

    if (pm_session_span(looks->session) == NULL && sums->recycled > 0)
        pm_say(finding, "%llu older records made room for newer ones: the rules saw %llu",
               LL(sums->recycled), LL(sums->records));
    if (sums->faults > 0)
        pm_say(finding, "%llu faults inside the hooks, vLLM was not affected", LL(sums->faults));
    if (finding->n_evidence == 0)
        return pm_because(why, PM_VERDICT_FINE, "all records are held, no probe gave up");
    pm_title(finding, gone > 0 ? "A probe gave up: what it records is missing"
                      : sums->faults > 0
                          ? "The profiler had faults of its own"
                          : "Older detail had to go: findings are of the newest part");
    pm_figure(finding, "recycled", "records", (double)sums->recycled);
    pm_figure(finding, "held", "records", (double)sums->records);
    pm_figure(finding, "faults", "", (double)sums->faults);
    pm_figure(finding, "disarmed", "probes", gone);
    finding->severity = gone > 0 ? PM_SEVERITY_MEDIUM : PM_SEVERITY_INFO;
    finding->confidence = 1;
    if (sums->recycled > 0) {
        pm_turn(finding, "VLLM_PROFILING_MAX_MB", "raise",
                pm_session_attr(looks->session, PM_ATTR_SETTING_PREFIX "max_mb"), NULL);
        pm_recommend(finding, "Give the session more room on the disk if the whole run matters.");
    } else {
        pm_recommend(finding, "`profilemate doctor SESSION` says which hooks are missing and why.");
    }
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_launch_blocking(const struct pm_looks *looks, struct pm_finding *finding,
                                        char *why)
{
    static const char *const names[] = {"CUDA_LAUNCH_BLOCKING", "AMD_SERIALIZE_KERNEL",
                                        "HIP_LAUNCH_BLOCKING"};
    char key[64];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(key, sizeof(key), PM_ATTR_ENVIRON_PREFIX "%s", names[i]);
        const char *value = pm_session_attr(looks->session, i == 0 ? PM_ATTR_LAUNCH_BLOCKING : key);
        if (value == NULL || value[0] == '\0' || strcmp(value, "0") == 0)
            continue;
        const char *device = pm_session_attr(looks->session, PM_ATTR_DEVICE);
        if (device != NULL && strcmp(device, "cpu") == 0)
            return pm_because(why, PM_VERDICT_NOT_HERE, "%s is set, on a CPU", names[i]);
        pm_title(finding, "%s is set: every launch waits for its kernel", names[i]);
        pm_say(finding, "%s=%.20s in the environment of the server", names[i], value);
        finding->severity = PM_SEVERITY_HIGH;
        finding->confidence = 1;
        pm_turn(finding, names[i], "unset", value, NULL);
        pm_recommend(finding, "Nothing overlaps while it is set, and no figure here is that of a "
                              "normal run. Unset it and profile again.");
        return PM_VERDICT_FOUND;
    }
    return pm_because(why, PM_VERDICT_FINE, "not set");
}
