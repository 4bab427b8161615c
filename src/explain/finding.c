/* What rules speak with, see rules.h; and what the figures are kept in, see look.h. */
#include "explain/rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct pm_limits pm_limits = {
#define PM_LIMIT(name, value, unit, sentence) .name = (value),
#include "explain/rules.def"
};

/* ---- figures ---- */

double pm_times_mean_s(const struct pm_times *times)
{
    return times->count != 0 ? (double)times->sum_ns / (double)times->count / 1e9 : 0;
}

double pm_times_quantile_s(const struct pm_times *times, double q)
{
    double value;
    if (!pm_hist_quantile(&times->hist, q, &value))
        return 0;
    return (value < (double)times->max_ns ? value : (double)times->max_ns) / 1e9;
}

void pm_worst_add(struct pm_worst *worst, const char *id, double weight, uint64_t a, uint64_t b)
{
    unsigned at = worst->n;

    if (weight <= 0 || (at == PM_LOOK_WORST && weight <= worst->rows[at - 1].weight))
        return;
    if (at == PM_LOOK_WORST)
        at--;
    else
        worst->n++;
    for (; at > 0 && worst->rows[at - 1].weight < weight; at--)
        worst->rows[at] = worst->rows[at - 1];
    snprintf(worst->rows[at].id, sizeof(worst->rows[at].id), "%s", id);
    worst->rows[at].weight = weight;
    worst->rows[at].a = a;
    worst->rows[at].b = b;
}

double pm_pct(double part, double whole)
{
    return whole > 0 ? 100.0 * part / whole : 0;
}

const char *pm_for_seconds(double seconds, char out[32])
{
    if (seconds >= 100)
        snprintf(out, 32, "%.0f s", seconds);
    else if (seconds >= 1)
        snprintf(out, 32, "%.2f s", seconds);
    else if (seconds >= 1e-3)
        snprintf(out, 32, "%.*f ms", seconds >= 0.1 ? 0 : 1, seconds * 1e3);
    else
        snprintf(out, 32, "%.0f us", seconds * 1e6);
    return out;
}

/* ---- filling ---- */

#define PRINT_INTO(array, format)                                                                  \
    do {                                                                                           \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        vsnprintf((array), sizeof(array), format, args);                                           \
        va_end(args);                                                                              \
    } while (0)

void pm_title(struct pm_finding *finding, const char *format, ...)
{
    PRINT_INTO(finding->title, format);
}

void pm_say(struct pm_finding *finding, const char *format, ...)
{
    if (finding->n_evidence == PM_FINDING_EVIDENCE)
        return;
    PRINT_INTO(finding->evidence[finding->n_evidence], format);
    finding->n_evidence++;
}

void pm_recommend(struct pm_finding *finding, const char *format, ...)
{
    PRINT_INTO(finding->advice, format);
}

void pm_figure(struct pm_finding *finding, const char *name, const char *unit, double value)
{
    if (finding->n_numbers == PM_FINDING_NUMBERS)
        return;
    finding->numbers[finding->n_numbers++] =
        (struct pm_finding_number){.name = name, .unit = unit, .value = value};
}

void pm_turn(struct pm_finding *finding, const char *flag, const char *direction, const char *now,
             const char *value, ...)
{
    if (finding->n_changes == PM_FINDING_CHANGES)
        return;
    struct pm_finding_change *change = &finding->changes[finding->n_changes++];
    *change = (struct pm_finding_change){.flag = flag, .direction = direction};
    snprintf(change->now, sizeof(change->now), "%s", now != NULL ? now : "");
    if (value != NULL)
        PRINT_INTO(change->value, value);
}

void pm_name_request(struct pm_finding *finding, const char *id)
{
    if (finding->n_named == PM_FINDING_REQUESTS)
        return;
    snprintf(finding->requests[finding->n_named], sizeof(finding->requests[0]), "%s", id);
    finding->n_named++;
}

void pm_name_worst(struct pm_finding *finding, const struct pm_worst *worst)
{
    for (unsigned i = 0; i < worst->n; i++)
        pm_name_request(finding, worst->rows[i].id);
}

void pm_cost(struct pm_finding *finding, double seconds, const char *of, double share)
{
    finding->has_cost_s = true;
    finding->cost_s = seconds;
    finding->cost_of = of;
    finding->share = share;
}

enum pm_severity pm_severity_of(double share)
{
    return share * 100 >= pm_limits.share_high     ? PM_SEVERITY_HIGH
           : share * 100 >= pm_limits.share_medium ? PM_SEVERITY_MEDIUM
                                                   : PM_SEVERITY_LOW;
}

enum pm_verdict pm_because(char *why, enum pm_verdict verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, PM_WHY_MAX, format, args);
    va_end(args);
    return verdict;
}

bool pm_enough(const struct pm_look *look, char *why)
{
    const double busy_s = (double)look->steps.busy_ns / 1e9;
    if ((double)look->steps.n >= pm_limits.min_steps && busy_s >= pm_limits.min_busy_s)
        return true;
    (void)pm_because(
        why, PM_VERDICT_LITTLE, "%llu steps and %.2f s of work: it takes %.0f and %.0f s",
        (unsigned long long)look->steps.n, busy_s, pm_limits.min_steps, pm_limits.min_busy_s);
    return false;
}
