/*
 * Small things that several views say in the same words (declared in view.h and common.h).
 */
#include "view/common.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/settings.h"
#include "session/attrs.h"

const char *pm_life_name(enum pm_life life)
{
    switch (life) {
    case PM_LIFE_RUNNING:
        return "running";
    case PM_LIFE_CLOSED:
        return "closed";
    case PM_LIFE_KILLED:
        return "killed";
    }
    return "unknown";
}

void pm_roles_name(unsigned roles, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s%s%s%s", (roles & PM_ROLE_FRONTEND) != 0 ? "frontend" : "",
             (roles & PM_ROLE_FRONTEND) != 0 && (roles & PM_ROLE_ENGINE) != 0 ? "+" : "",
             (roles & PM_ROLE_ENGINE) != 0 ? "engine" : "",
             (roles & (PM_ROLE_FRONTEND | PM_ROLE_ENGINE)) != 0 && (roles & PM_ROLE_WORKER) != 0
                 ? "+"
                 : "",
             (roles & PM_ROLE_WORKER) != 0 ? "worker" : "",
             (roles & (PM_ROLE_FRONTEND | PM_ROLE_ENGINE | PM_ROLE_WORKER)) == 0 ? "none" : "");
}

void pm_iso_time(uint64_t real_ns, char *out, size_t size)
{
    struct tm tm;
    const time_t seconds = (time_t)(real_ns / 1000000000u);
    char date[32], zone[8];

    if (localtime_r(&seconds, &tm) == NULL ||
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0 ||
        strftime(zone, sizeof(zone), "%z", &tm) != 5) {
        snprintf(out, size, "unknown");
        return;
    }
    snprintf(out, size, "%s.%03u%.3s:%.2s", date, (unsigned)(real_ns / 1000000u % 1000u), zone,
             zone + 3);
}

uint64_t pm_session_real_ns(const struct pm_session *session, uint64_t mono_ns)
{
    const struct pm_session_info *info = pm_session_info(session);
    return info->start_real_ns + (mono_ns - info->start_mono_ns);
}

static const char *setting(const struct pm_session *session, const char *field)
{
    char key[96];
    snprintf(key, sizeof(key), PM_ATTR_SETTING_PREFIX "%s", field);
    return pm_session_attr(session, key);
}

bool pm_session_setting_on(const struct pm_session *session, const char *field, bool by_default)
{
    const char *value = setting(session, field);
    return value != NULL ? strcmp(value, "0") != 0 && value[0] != '\0' : by_default;
}

int pm_session_preset(const struct pm_session *session)
{
    const char *value = setting(session, "preset");
    /* As text, or as the number of the enum. */
    if (value != NULL && (strcmp(value, "simple") == 0 || strcmp(value, "0") == 0))
        return PM_PRESET_SIMPLE;
    return PM_PRESET_FULL;
}

uint32_t pm_session_file_mode(const struct pm_session *session)
{
    const char *value = setting(session, "mode");
    char *end;
    if (value == NULL || *value == '\0')
        return 0600;
    unsigned long mode = strtoul(value, &end, 8);
    return *end == '\0' && mode <= 0777 && (mode & 0600) == 0600 ? (uint32_t)mode : 0600;
}

static unsigned parallel(const struct pm_session *session, const char *name, const char *long_name)
{
    const char *value = pm_session_attr(session, name);
    if (value == NULL)
        value = pm_session_attr(session, long_name);
    long size = value != NULL ? strtol(value, NULL, 10) : 1;
    return size >= 1 && size <= 65536 ? (unsigned)size : 1;
}

unsigned pm_engine_sampler(const struct pm_session *session, size_t engine)
{
    /* vLLM's driver of the output: the first tensor-parallel rank of the last pipeline stage
     * (vllm/v1/executor/multiproc_executor.py, output_rank). */
    const unsigned tensor = parallel(session, PM_ATTR_PARALLEL_PREFIX "tensor",
                                     PM_ATTR_PARALLEL_PREFIX "tensor_parallel_size");
    const unsigned pipeline = parallel(session, PM_ATTR_PARALLEL_PREFIX "pipeline",
                                       PM_ATTR_PARALLEL_PREFIX "pipeline_parallel_size");
    const unsigned want = (pipeline - 1) * tensor;
    const struct pm_engine *which = pm_session_engine(session, engine);

    for (unsigned n = 0; which != NULL && n < which->n_ranks; n++) {
        const struct pm_process *process;
        unsigned instance;
        int rank;
        if (pm_engine_worker(session, engine, n, &process, &instance, &rank) == 0 &&
            rank == (int)want)
            return n;
    }
    return 0;
}

bool pm_series_find(const struct pm_process *process, const struct pm_totals *totals,
                    const char *schema_name, const char *field_name, unsigned class_value,
                    struct pm_series *ret_series)
{
    const int number = pm_process_schema_find(process, schema_name);
    uint32_t value, hist, n_sums = 0, n_hists = 0, sum_at = 0, hist_at = 0;
    bool found = field_name == NULL, has_hist = false;

    if (number < 0)
        return false;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)number);
    if (class_value >= schema->classes)
        return false;
    for (size_t i = 0; i < schema->n_fields; i++) {
        const struct pm_field *field = &schema->fields[i];
        if ((field->agg & (PM_AGG_SUM | PM_AGG_HIST)) == 0)
            continue;
        if (field_name != NULL && strcmp(field->name, field_name) == 0) {
            found = true;
            has_hist = (field->agg & PM_AGG_HIST) != 0;
            sum_at = n_sums;
            hist_at = n_hists;
        }
        n_sums++;
        n_hists += (field->agg & PM_AGG_HIST) != 0;
    }
    if (!found)
        return false;
    pm_process_series(process, (size_t)number, &value, &hist);
    value += class_value * (1 + n_sums);
    hist += class_value * n_hists + hist_at;
    if (value + n_sums >= totals->n_values || (has_hist && hist >= totals->n_hists))
        return false;
    ret_series->count = totals->values[value];
    ret_series->sum = field_name != NULL ? totals->values[value + 1 + sum_at] : 0;
    ret_series->hist = has_hist ? &totals->hists[hist] : NULL;
    return true;
}
