/*
 * A comparison as text for a terminal of 96 columns.
 */
#include <string.h>

#include "compare/show.h"

struct printer {
    struct pm_buf *buf;
    const struct pm_comparison *all;
    const struct pm_compare_style *style;
};

static const char *paint(const struct printer *printer, const char *escape)
{
    return printer->style->colour ? escape : "";
}
#define BOLD(p) paint(p, "\033[1m")
#define DIM(p) paint(p, "\033[2m")
#define PLAIN(p) paint(p, "\033[0m")

static const char *tint(const struct printer *printer, const struct pm_change *change)
{
    return change->verdict == PM_CHANGE_SLOWER   ? paint(printer, "\033[31m")
           : change->verdict == PM_CHANGE_FASTER ? paint(printer, "\033[32m")
                                                 : "";
}

static void heading(const struct printer *printer, const char *text)
{
    (void)pm_buf_printf(printer->buf, "\n%s%s%s\n", BOLD(printer), text, PLAIN(printer));
}

static const char *mark(const struct pm_change *change)
{
    return change->verdict == PM_CHANGE_SLOWER   ? "slower"
           : change->verdict == PM_CHANGE_FASTER ? "faster"
           : change->verdict == PM_CHANGE_SLIGHT ? "slight"
                                                 : "";
}

static void put_row(const struct printer *printer, const char *kind, const char *words,
                    const char *before, const char *after, const struct pm_change *change)
{
    char by[PM_SHOWN_MAX], interval[PM_SHOWN_MAX];
    (void)pm_buf_printf(printer->buf, "  %-8s %-16s %12s %12s %s%10s  %-20s %s%s\n", kind, words,
                        before, after, tint(printer, change), pm_show_change(change, by),
                        pm_show_interval(change, interval), mark(change), PLAIN(printer));
}

static void put_time_row(const struct printer *printer, const char *kind, const char *words,
                         const struct pm_change *change)
{
    char before[PM_SHOWN_MAX], after[PM_SHOWN_MAX];
    put_row(printer, kind, words, pm_show_time(change->before, before),
            pm_show_time(change->after, after), change);
}

static void put_named(const struct printer *printer, enum pm_change_verdict verdict,
                      const char *title)
{
    struct pm_named_change named[PM_NAMED_MAX];
    const unsigned n = pm_compare_named(printer->all, verdict, named);

    if (n == 0)
        return;
    heading(printer, title);
    for (unsigned i = 0; i < n; i++) {
        const struct pm_change *change = named[i].change;
        char a[PM_SHOWN_MAX], b[PM_SHOWN_MAX], by[PM_SHOWN_MAX], interval[PM_SHOWN_MAX],
            cost[PM_SHOWN_MAX];
        const char *kind = named[i].kind >= 0 ? pm_work_name((unsigned)named[i].kind) : "request";
        (void)pm_buf_printf(printer->buf, "  %-8s %-16s %s%s%s (%s), %s to %s", kind,
                            named[i].words, tint(printer, change), pm_show_change(change, by),
                            PLAIN(printer), pm_show_interval(change, interval),
                            pm_show_time(change->before, a), pm_show_time(change->after, b));
        if (named[i].kind >= 0)
            (void)pm_buf_printf(
                printer->buf, "; %s %s in all, %.1f %% of these steps",
                change->cost_ns > 0 ? "costs" : "saves",
                pm_show_time(change->cost_ns > 0 ? change->cost_ns : -change->cost_ns, cost),
                100 * (change->share > 0 ? change->share : -change->share));
        (void)pm_buf_add_char(printer->buf, '\n');
    }
}

static void put_steps(const struct printer *printer)
{
    bool any = false;

    for (unsigned kind = 0; kind < PM_WORK_KINDS; kind++)
        for (unsigned v = 0; v < PM_STEP_VALUES; v++) {
            const char *words;
            bool part;
            (void)pm_step_value_name(v, &words, &part);
            if (!pm_show_part(printer->all, kind, v, printer->style->all))
                continue;
            if (!any) {
                heading(printer, "Steps of the same composition");
                (void)pm_buf_printf(printer->buf, "%s  %-8s %-16s %12s %12s %10s  %-20s%s\n",
                                    DIM(printer), "", "mean of", "before", "after", "change",
                                    "95 % interval", PLAIN(printer));
            }
            any = true;
            put_time_row(printer, v == PM_STEP_STEP ? pm_work_name(kind) : "", words,
                         &printer->all->steps[kind][v]);
        }
    if (any && printer->all->whole.known)
        put_time_row(printer, "all", "whole step", &printer->all->whole);
}

static void put_tail(const struct printer *printer, const char *of, unsigned tail,
                     const struct pm_change *change)
{
    char words[PM_SHOWN_MAX];
    if (!change->known || (tail != PM_TAIL_P99 && !printer->style->all))
        return;
    snprintf(words, sizeof(words), "%s %s", of, pm_tail_rows[tail].key);
    put_time_row(printer, "", words, change);
}

static void put_requests(const struct printer *printer)
{
    bool any = false;

    for (unsigned raw = 0; raw < 2; raw++) {
        bool headed = false;
        for (unsigned v = 0; v < PM_REQUEST_VALUES; v++) {
            const struct pm_change *change =
                raw ? &printer->all->requests_raw[v] : &printer->all->requests[v];
            const char *words;
            (void)pm_request_value_name(v, &words);
            if (!change->known)
                continue;
            if (!headed)
                heading(printer, raw ? "Requests as they were, whatever the load"
                                     : "Requests of the same size in the same crowd");
            headed = any = true;
            put_time_row(printer, "", words, change);
            for (unsigned t = 0; raw && t < PM_TAILS; t++)
                put_tail(printer, words, t, &printer->all->tails[v][t]);
        }
    }
    (void)any;
}

static void put_ratios(const struct printer *printer)
{
    bool any = false;

    for (unsigned r = 0; r < PM_RATIOS + PM_REQUEST_RATIOS; r++) {
        const bool of_steps = r < PM_RATIOS;
        const struct pm_ratio_row *row =
            of_steps ? &pm_ratio_rows[r] : &pm_request_ratio_rows[r - PM_RATIOS];
        const struct pm_change *change =
            of_steps ? &printer->all->ratios[r] : &printer->all->request_ratios[r - PM_RATIOS];
        char a[PM_SHOWN_MAX], b[PM_SHOWN_MAX], by[PM_SHOWN_MAX], interval[PM_SHOWN_MAX];
        if (!change->known || (change->before == 0 && change->after == 0 && !printer->style->all))
            continue;
        if (!any)
            heading(printer, "Load and state, as they were");
        any = true;
        (void)pm_buf_printf(printer->buf, "  %-25s %12s %12s %10s  %s\n", row->words,
                            pm_show_ratio(row, change->before, a),
                            pm_show_ratio(row, change->after, b),
                            change->relative ? pm_show_change(change, by) : "",
                            change->relative ? pm_show_interval(change, interval) : "");
    }
}

static void put_wrapped(const struct printer *printer, const char *text)
{
    size_t column = 2;
    (void)pm_buf_add_text(printer->buf, "  ");
    while (*text != '\0') {
        const size_t word = strcspn(text, " ");
        if (column > 2 && column + 1 + word > 95) {
            (void)pm_buf_add_text(printer->buf, "\n    ");
            column = 4;
        } else if (column > 2) {
            (void)pm_buf_add_char(printer->buf, ' ');
            column++;
        }
        (void)pm_buf_add(printer->buf, text, word);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    (void)pm_buf_add_char(printer->buf, '\n');
}

void pm_compare_text(struct pm_buf *buf, const struct pm_comparison *comparison,
                     const struct pm_compare_style *style)
{
    const struct printer printer = {buf, comparison, style};
    static const char *const sides[2] = {"before", "after"};
    char lines[8][256], line[1024];

    for (unsigned s = 0; s < 2; s++)
        for (unsigned i = 0; i < comparison->n_sessions[s]; i++) {
            pm_show_session(&comparison->sessions[s][i], line, sizeof(line));
            (void)pm_buf_printf(buf, "%-6s  %s\n", i == 0 ? sides[s] : "", line);
        }
    pm_compare_verdict(comparison, line, sizeof(line));
    (void)pm_buf_printf(buf, "\n%s%s%s\n", BOLD(&printer), line, PLAIN(&printer));
    put_named(&printer, PM_CHANGE_SLOWER, "What takes longer, costliest first");
    put_named(&printer, PM_CHANGE_FASTER, "What takes less");
    put_steps(&printer);
    put_requests(&printer);
    put_ratios(&printer);
    heading(&printer, "What this rests on");
    const unsigned n = pm_show_matched(comparison, lines);
    for (unsigned i = 0; i < n; i++)
        put_wrapped(&printer, lines[i]);
    for (unsigned i = 0; i < comparison->n_notes; i++) {
        snprintf(line, sizeof(line), "Note: %s.", comparison->notes[i]);
        put_wrapped(&printer, line);
    }
    pm_show_method(comparison, line, sizeof(line));
    put_wrapped(&printer, line);
}
