/*
 * Figures and sentences as all printers show them. See show.h.
 */
#include "compare/show.h"

#include <math.h>
#include <string.h>

const char *pm_show_time(double ns, char out[PM_SHOWN_MAX])
{
    const double size = fabs(ns);
    if (size < 999.5)
        snprintf(out, PM_SHOWN_MAX, "%.0f ns", ns);
    else if (size < 999950)
        snprintf(out, PM_SHOWN_MAX, "%.1f us", ns / 1e3);
    else if (size < 999.9995e6)
        snprintf(out, PM_SHOWN_MAX, "%.3f ms", ns / 1e6);
    else
        snprintf(out, PM_SHOWN_MAX, "%.3f s", ns / 1e9);
    return out;
}

const char *pm_show_count(uint64_t n, char out[PM_SHOWN_MAX])
{
    char digits[24];
    size_t used = 0;
    const int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

const char *pm_show_ratio(const struct pm_ratio_row *row, double value, char out[PM_SHOWN_MAX])
{
    const double most = 1e15;
    snprintf(out, PM_SHOWN_MAX, "%.*f%s%s", (int)row->decimals,
             value > most    ? most
             : value < -most ? -most
                             : value,
             row->unit[0] != '\0' ? " " : "", row->unit);
    return out;
}

/* One decimal where that tells anything. */
static int decimals_of(double percent)
{
    return fabs(percent) < 100 ? 1 : 0;
}

const char *pm_show_change(const struct pm_change *change, char out[PM_SHOWN_MAX])
{
    char text[PM_SHOWN_MAX];
    const double percent = 100 * change->change;
    if (!change->known)
        out[0] = '\0';
    else if (change->relative && fabs(percent) < 1e6)
        snprintf(out, PM_SHOWN_MAX, "%+.*f %%", decimals_of(percent),
                 fabs(percent) < 0.05 ? 0.0 : percent);
    else if (change->relative)
        snprintf(out, PM_SHOWN_MAX, "x%.3g", 1 + change->change);
    else if (change->before == change->after)
        snprintf(out, PM_SHOWN_MAX, "=");
    else
        snprintf(out, PM_SHOWN_MAX, "%s%.30s", change->change > 0 ? "+" : "",
                 pm_show_time(change->change, text));
    return out;
}

const char *pm_show_interval(const struct pm_change *change, char out[PM_SHOWN_MAX])
{
    char text[2][PM_SHOWN_MAX];
    const double low = 100 * change->low, high = 100 * change->high;
    if (!change->known || change->verdict <= PM_CHANGE_LITTLE || !isfinite(low) ||
        !isfinite(high) || fabs(high) >= 1e6)
        snprintf(out, PM_SHOWN_MAX, "%s", change->verdict == PM_CHANGE_LITTLE ? "too few" : "");
    else if (change->relative && high > 300)
        snprintf(out, PM_SHOWN_MAX, "wide");
    else if (change->relative)
        snprintf(out, PM_SHOWN_MAX, "%+.*f to %+.*f %%", decimals_of(low),
                 fabs(low) < 0.05 ? 0.0 : low, decimals_of(high), fabs(high) < 0.05 ? 0.0 : high);
    else if (change->before == change->after)
        out[0] = '\0';
    else
        snprintf(out, PM_SHOWN_MAX, "%.20s to %.20s", pm_show_time(change->low, text[0]),
                 pm_show_time(change->high, text[1]));
    return out;
}

bool pm_show_part(const struct pm_comparison *comparison, unsigned kind, unsigned value, bool all)
{
    const struct pm_change *change = &comparison->steps[kind][value];
    const struct pm_change *whole = &comparison->steps[kind][PM_STEP_STEP];
    const double most = change->before > change->after ? change->before : change->after;
    if (!change->known || !whole->known)
        return false;
    return all || value == PM_STEP_STEP || change->verdict >= PM_CHANGE_FASTER ||
           most >= 0.01 * whole->before;
}

void pm_show_session(const struct pm_compared_session *session, char *out, size_t size)
{
    char steps[PM_SHOWN_MAX], requests[PM_SHOWN_MAX], about[600] = "", span[PM_SHOWN_MAX];
    snprintf(about, sizeof(about), "%s%.60s%s%.60s%s%.200s",
             session->vllm[0] != '\0' ? "vLLM " : "", session->vllm,
             session->device[0] != '\0' ? ", " : "", session->device,
             session->model[0] != '\0' ? ", " : "", session->model);
    const char *shown = strncmp(about, ", ", 2) == 0 ? about + 2 : about;
    snprintf(out, size, "%s: %s steps, %s requests, %s%s%s%s", session->name,
             pm_show_count(session->steps, steps), pm_show_count(session->requests, requests),
             pm_show_time((double)session->span_ns, span), shown[0] != '\0' ? " (" : "", shown,
             shown[0] != '\0' ? ")" : "");
}

unsigned pm_show_matched(const struct pm_comparison *comparison, char lines[8][256])
{
    static const char *const sides[2] = {"before", "after"};
    unsigned n = 0;

    if (comparison->n_steps[0] == 0 || comparison->n_steps[1] == 0)
        return 0;
    snprintf(lines[n++], sizeof(lines[0]),
             "Steps with a match on the other side: %.1f %% of before's time, %.1f %% of after's.",
             100 * comparison->matched_share[0], 100 * comparison->matched_share[1]);
    for (unsigned s = 0; s < 2; s++) {
        char text[256] = "";
        size_t used = 0;
        double named = 0;
        if (comparison->matched_share[s] > 0.99)
            continue;
        for (unsigned i = 0; i < comparison->n_unmatched[s]; i++) {
            char words[96], count[PM_SHOWN_MAX];
            const struct pm_unmatched *row = &comparison->unmatched[s][i];
            if (i == 3)
                break;
            pm_composition_words(row->class_number, words, sizeof(words));
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s (%s)",
                                     i > 0 ? ", " : "", words, pm_show_count(row->n, count));
            named += (double)row->n;
            if (used >= sizeof(text) - 80)
                break;
        }
        if (named > 0)
            snprintf(lines[n++], sizeof(lines[0]), "Without one, %s only: %.200s%s.", sides[s],
                     text, comparison->n_unmatched[s] > 3 ? ", …" : "");
    }
    if (comparison->n_requests[0] > 0 && comparison->n_requests[1] > 0) {
        char a[PM_SHOWN_MAX], b[PM_SHOWN_MAX], c[PM_SHOWN_MAX], d[PM_SHOWN_MAX];
        snprintf(lines[n++], sizeof(lines[0]),
                 "Requests with a match: %s of before's %s, %s of after's %s.",
                 pm_show_count(comparison->matched_requests[0], a),
                 pm_show_count(comparison->n_requests[0], b),
                 pm_show_count(comparison->matched_requests[1], c),
                 pm_show_count(comparison->n_requests[1], d));
    }
    return n;
}

void pm_show_method(const struct pm_comparison *comparison, char *out, size_t size)
{
    const bool groups = comparison->n_sessions[0] > 1 || comparison->n_sessions[1] > 1;
    snprintf(
        out, size,
        "95 %% intervals by circular block bootstrap%s: %u resamples, seed %llu, %.0f and %.0f "
        "independent stretches.%s",
        groups ? " over sessions and stretches of time" : "", comparison->options.resamples,
        (unsigned long long)comparison->options.seed, floor(comparison->blocks[0]),
        floor(comparison->blocks[1]),
        groups ? "" : " One session a side: how runs differ from each other is not in them.");
}
