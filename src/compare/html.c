/*
 * A comparison as one page that needs nothing else: no script, no font, no image from anywhere.
 * Light and dark, prints well; intervals are drawn as bars on one scale a table.
 */
#include <math.h>
#include <string.h>

#include "compare/show.h"

static const char style_sheet[] =
    ":root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--dim:#636c76;--line:#d8dee4;"
    "--slow:#c4342b;--fast:#1f7f3a;--unsure:#8b949e;--zero:#afb8c1;--box:#f6f8fa}\n"
    "@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--dim:#9198a1;"
    "--line:#30363d;--slow:#ff7b72;--fast:#56d364;--unsure:#7d8590;--zero:#484f58;--box:#161b22}}\n"
    "*{box-sizing:border-box}body{margin:0 auto;max-width:66rem;padding:1.5rem 1rem 4rem;"
    "font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg)}\n"
    "h1{font-size:1.35rem;margin:0 0 1rem}h2{font-size:1.05rem;margin:2.2rem 0 .5rem}\n"
    ".verdict{font-size:1.1rem;font-weight:600;padding:.8rem 1rem;border-left:4px solid "
    "var(--unsure);background:var(--box)}.verdict.slower{border-color:var(--slow)}"
    ".verdict.faster{border-color:var(--fast)}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:"
    "tabular-nums}th,td{padding:.28rem .6rem;text-align:right;border-bottom:1px solid var(--line);"
    "white-space:nowrap}th{font-weight:600;color:var(--dim);font-size:.85rem}"
    "th:first-child,td:first-child,td.t,th.t{text-align:left}"
    "tr.whole td{font-weight:600}tr.slower .c,b.slower{color:var(--slow)}"
    "tr.faster .c,b.faster{color:var(--fast)}tr.slower td,tr.faster td{background:var(--box)}\n"
    "svg{display:block}.slower .i{fill:var(--slow)}.faster .i{fill:var(--fast)}"
    ".i{fill:var(--unsure)}.d{fill:var(--fg)}.z{stroke:var(--zero)}\n"
    ".dim,li{color:var(--dim)}ul{padding-left:1.2rem}code{overflow-wrap:anywhere}\n"
    "@media print{body{max-width:none;font-size:11px}.verdict,tr td{background:none!important}"
    "h2{break-after:avoid}tr{break-inside:avoid}}\n";

static void put(struct pm_buf *buf, const char *text)
{
    (void)pm_buf_add_text(buf, text);
}

/* Text from a session: markup and control characters become harmless. */
static void put_clean(struct pm_buf *buf, const char *text)
{
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '<')
            put(buf, "&lt;");
        else if (c == '>')
            put(buf, "&gt;");
        else if (c == '&')
            put(buf, "&amp;");
        else if (c == '"')
            put(buf, "&quot;");
        else
            (void)pm_buf_add_char(buf, c < 32 || c == 127 ? '?' : (char)c);
    }
}

static const char *class_of(const struct pm_change *change)
{
    return change->verdict == PM_CHANGE_SLOWER   ? "slower"
           : change->verdict == PM_CHANGE_FASTER ? "faster"
                                                 : "";
}

/* ---- intervals ---- */

#define BAR_WIDTH 180.0

static bool drawn(const struct pm_change *change)
{
    return change->known && change->relative && change->verdict > PM_CHANGE_LITTLE &&
           isfinite(change->low) && isfinite(change->high);
}

/* The scale that most intervals fit into: twice the third quartile would do as well, but one wide
 * interval must not squeeze the rest, so at most 50 %. */
static void widen(double *scale, const struct pm_change *change)
{
    const double most =
        fabs(change->low) > fabs(change->high) ? fabs(change->low) : fabs(change->high);
    if (drawn(change) && most > *scale)
        *scale = most > 0.5 ? 0.5 : most;
}

static double place(double share, double scale)
{
    const double at = BAR_WIDTH / 2 * (1 + share / scale);
    return at < 1 ? 1 : at > BAR_WIDTH - 1 ? BAR_WIDTH - 1 : at;
}

static void put_bar(struct pm_buf *buf, const struct pm_change *change, double scale)
{
    char interval[PM_SHOWN_MAX];
    if (!drawn(change))
        return;
    const double low = place(change->low, scale), high = place(change->high, scale);
    (void)pm_buf_printf(buf,
                        "<svg width=\"%.0f\" height=\"14\" role=\"img\" aria-label=\"95 %% "
                        "interval %s\"><line class=\"z\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" "
                        "y2=\"14\"/><rect class=\"i\" x=\"%.1f\" y=\"4\" width=\"%.1f\" "
                        "height=\"6\" rx=\"2\"/><rect class=\"d\" x=\"%.1f\" y=\"1\" width=\"2\" "
                        "height=\"12\"/></svg>",
                        BAR_WIDTH, pm_show_interval(change, interval), BAR_WIDTH / 2, BAR_WIDTH / 2,
                        low, high - low < 1 ? 1 : high - low, place(change->change, scale) - 1);
}

/* ---- tables ---- */

static void open_table(struct pm_buf *buf, const char *title, const char *first, double scale)
{
    put(buf, "<h2>");
    put(buf, title);
    put(buf, "</h2><div class=\"scroll\"><table><thead><tr><th>");
    put(buf, first);
    (void)pm_buf_printf(buf,
                        "</th><th>before</th><th>after</th><th>change</th><th>95&nbsp;%% "
                        "interval</th><th class=\"t\">&minus;%.3g&nbsp;%% &hellip; "
                        "+%.3g&nbsp;%%</th></tr></thead><tbody>\n",
                        100 * scale, 100 * scale);
}

static void close_table(struct pm_buf *buf)
{
    put(buf, "</tbody></table></div>\n");
}

static void put_row(struct pm_buf *buf, const char *name, const char *words, const char *before,
                    const char *after, const struct pm_change *change, double scale, bool whole)
{
    char by[PM_SHOWN_MAX], interval[PM_SHOWN_MAX];
    (void)pm_buf_printf(buf, "<tr class=\"%s%s\"><td>%s%s%s</td><td>%s</td><td>%s</td>",
                        class_of(change), whole ? " whole" : "", name,
                        name[0] != '\0' && words[0] != '\0' ? ", " : "", words, before, after);
    (void)pm_buf_printf(buf, "<td class=\"c\">%s</td><td>%s</td><td class=\"t\">",
                        pm_show_change(change, by), pm_show_interval(change, interval));
    put_bar(buf, change, scale);
    put(buf, "</td></tr>\n");
}

static void put_time_row(struct pm_buf *buf, const char *name, const char *words,
                         const struct pm_change *change, double scale, bool whole)
{
    char before[PM_SHOWN_MAX], after[PM_SHOWN_MAX];
    put_row(buf, name, words, pm_show_time(change->before, before),
            pm_show_time(change->after, after), change, scale, whole);
}

static void put_steps(struct pm_buf *buf, const struct pm_comparison *all)
{
    double scale = 0.02;
    bool any = false;

    for (unsigned kind = 0; kind < PM_WORK_KINDS; kind++)
        for (unsigned v = 0; v < PM_STEP_VALUES; v++)
            if (pm_show_part(all, kind, v, false)) {
                widen(&scale, &all->steps[kind][v]);
                any = true;
            }
    if (!any)
        return;
    open_table(buf, "Steps of the same composition", "mean of", scale);
    if (all->whole.known)
        put_time_row(buf, "all steps", "", &all->whole, scale, true);
    for (unsigned kind = 0; kind < PM_WORK_KINDS; kind++)
        for (unsigned v = 0; v < PM_STEP_VALUES; v++) {
            const char *words;
            bool part;
            (void)pm_step_value_name(v, &words, &part);
            if (pm_show_part(all, kind, v, false))
                put_time_row(buf, pm_work_name(kind), words, &all->steps[kind][v], scale, !part);
        }
    close_table(buf);
}

static void put_requests(struct pm_buf *buf, const struct pm_comparison *all)
{
    for (unsigned raw = 0; raw < 2; raw++) {
        const struct pm_change *changes = raw ? all->requests_raw : all->requests;
        double scale = 0.02;
        bool any = false;
        for (unsigned v = 0; v < PM_REQUEST_VALUES; v++) {
            widen(&scale, &changes[v]);
            for (unsigned t = 0; raw && t < PM_TAILS; t++)
                widen(&scale, &all->tails[v][t]);
            any = any || changes[v].known;
        }
        if (!any)
            continue;
        open_table(buf,
                   raw ? "Requests as they were, whatever the load"
                       : "Requests of the same size in the same crowd",
                   "mean of", scale);
        for (unsigned v = 0; v < PM_REQUEST_VALUES; v++) {
            const char *words;
            (void)pm_request_value_name(v, &words);
            if (changes[v].known)
                put_time_row(buf, words, "", &changes[v], scale, false);
            for (unsigned t = 0; raw && t < PM_TAILS; t++)
                if (all->tails[v][t].known)
                    put_time_row(buf, words, pm_tail_rows[t].key, &all->tails[v][t], scale, false);
        }
        close_table(buf);
    }
}

static void put_ratios(struct pm_buf *buf, const struct pm_comparison *all)
{
    double scale = 0.02;

    for (unsigned r = 0; r < PM_RATIOS; r++)
        widen(&scale, &all->ratios[r]);
    for (unsigned r = 0; r < PM_REQUEST_RATIOS; r++)
        widen(&scale, &all->request_ratios[r]);
    open_table(buf, "Load and state, as they were", "", scale);
    for (unsigned r = 0; r < PM_RATIOS + PM_REQUEST_RATIOS; r++) {
        const bool of_steps = r < PM_RATIOS;
        const struct pm_ratio_row *row =
            of_steps ? &pm_ratio_rows[r] : &pm_request_ratio_rows[r - PM_RATIOS];
        struct pm_change change = of_steps ? all->ratios[r] : all->request_ratios[r - PM_RATIOS];
        char before[PM_SHOWN_MAX], after[PM_SHOWN_MAX];
        if (!change.known || (change.before == 0 && change.after == 0))
            continue;
        if (!change.relative) /* a difference in the ratio's own unit: before and after say it */
            change.verdict = PM_CHANGE_UNSEEN, change.known = false;
        put_row(buf, row->words, "", pm_show_ratio(row, change.before, before),
                pm_show_ratio(row, change.after, after), &change, scale, false);
    }
    close_table(buf);
}

static void put_named(struct pm_buf *buf, const struct pm_comparison *all,
                      enum pm_change_verdict verdict, const char *title)
{
    struct pm_named_change named[PM_NAMED_MAX];
    const unsigned n = pm_compare_named(all, verdict, named);

    if (n == 0)
        return;
    (void)pm_buf_printf(buf, "<h2>%s</h2><ol>\n", title);
    for (unsigned i = 0; i < n; i++) {
        const struct pm_change *change = named[i].change;
        char a[PM_SHOWN_MAX], b[PM_SHOWN_MAX], by[PM_SHOWN_MAX], interval[PM_SHOWN_MAX];
        (void)pm_buf_printf(buf, "<li>%s, %s: <b class=\"%s\">%s</b> (%s), %s to %s",
                            named[i].kind >= 0 ? pm_work_name((unsigned)named[i].kind) : "requests",
                            named[i].words, class_of(change), pm_show_change(change, by),
                            pm_show_interval(change, interval), pm_show_time(change->before, a),
                            pm_show_time(change->after, b));
        if (named[i].kind >= 0)
            (void)pm_buf_printf(buf, "; %s %s in all, %.1f&nbsp;%% of these steps",
                                change->cost_ns > 0 ? "costs" : "saves",
                                pm_show_time(fabs(change->cost_ns), a), 100 * fabs(change->share));
        put(buf, "</li>\n");
    }
    put(buf, "</ol>\n");
}

static void put_sessions(struct pm_buf *buf, const struct pm_comparison *all)
{
    static const char *const sides[2] = {"before", "after"};
    char line[1024];

    put(buf, "<ul>\n");
    for (unsigned s = 0; s < 2; s++)
        for (unsigned i = 0; i < all->n_sessions[s]; i++) {
            pm_show_session(&all->sessions[s][i], line, sizeof(line));
            (void)pm_buf_printf(buf, "<li><b>%s</b> ", sides[s]);
            put_clean(buf, line);
            put(buf, "</li>\n");
        }
    put(buf, "</ul>\n");
}

void pm_compare_html(struct pm_buf *buf, const struct pm_comparison *comparison,
                     const struct pm_compare_style *style)
{
    char lines[8][256], line[1024];
    const char *tone = comparison->slower > 0 ? "slower" : comparison->faster > 0 ? "faster" : "";

    put(buf, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
             "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
             "<title>ProfileMate: two runs compared</title>\n<style>");
    put(buf, style_sheet);
    put(buf, "</style></head><body>\n<h1>Two runs compared</h1>\n");
    pm_compare_verdict(comparison, line, sizeof(line));
    (void)pm_buf_printf(buf, "<p class=\"verdict %s\">%s", tone, line);
    if (style->fail_over >= 0)
        (void)pm_buf_printf(buf, " Limit: %g&nbsp;%%, %s.", 100 * style->fail_over,
                            pm_compare_worst(comparison) > style->fail_over ? "exceeded" : "kept");
    put(buf, "</p>\n");
    put_sessions(buf, comparison);
    put_named(buf, comparison, PM_CHANGE_SLOWER, "What takes longer, costliest first");
    put_named(buf, comparison, PM_CHANGE_FASTER, "What takes less");
    put_steps(buf, comparison);
    put_requests(buf, comparison);
    put_ratios(buf, comparison);
    put(buf, "<h2>What this rests on</h2><ul>\n");
    const unsigned n = pm_show_matched(comparison, lines);
    for (unsigned i = 0; i < n; i++)
        (void)pm_buf_printf(buf, "<li>%s</li>\n", lines[i]);
    for (unsigned i = 0; i < comparison->n_notes; i++) {
        put(buf, "<li>");
        put_clean(buf, comparison->notes[i]);
        put(buf, ".</li>\n");
    }
    pm_show_method(comparison, line, sizeof(line));
    (void)pm_buf_printf(buf, "<li>%s</li></ul>\n</body></html>\n", line);
}
