/*
 * Findings as text of 80 columns, see explain.h. Names that come from the session (requests' ids,
 * attributes) are cleaned of what could drive a terminal.
 */
#include "explain/explain.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "explain/rules.h"

#define WIDTH 80

struct page {
    struct pm_buf *buf;
    bool colour;
    uint64_t start_ns;
};

static void style(struct page *page, const char *escape)
{
    if (page->colour)
        (void)pm_buf_add_text(page->buf, escape);
}

static void put_clean(struct page *page, const char *text, size_t left)
{
    while (left > 0) {
        size_t bytes = pm_utf8_length(text, left);
        const unsigned char c = (unsigned char)text[0];
        /* U+0080 to U+009F are control characters as well. */
        if (bytes == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[1] < 0xa0)) {
            (void)pm_buf_add_char(page->buf, '?');
            bytes = bytes == 0 ? 1 : bytes;
        } else {
            (void)pm_buf_add(page->buf, text, bytes);
        }
        text += bytes;
        left -= bytes;
    }
}

/* Broken at blanks; `first` stands before the first line, whose text begins at column `indent`. */
static void put_wrapped(struct page *page, const char *first, unsigned indent, const char *text)
{
    unsigned column = indent;

    (void)pm_buf_printf(page->buf, "%-*s", (int)indent, first);
    while (*text != '\0') {
        const size_t bytes = strcspn(text, " ");
        if (column > indent && column + 1 + bytes > WIDTH) {
            (void)pm_buf_printf(page->buf, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            (void)pm_buf_add_char(page->buf, ' ');
            column++;
        }
        put_clean(page, text, bytes);
        column += (unsigned)bytes;
        text += bytes;
        text += strspn(text, " ");
    }
    (void)pm_buf_add_char(page->buf, '\n');
}

static const char *colour_of(enum pm_severity severity)
{
    return severity == PM_SEVERITY_HIGH     ? "\033[31m"
           : severity == PM_SEVERITY_MEDIUM ? "\033[33m"
           : severity == PM_SEVERITY_LOW    ? "\033[36m"
                                            : "\033[2m";
}

static void put_title(struct page *page, const struct pm_finding *finding)
{
    (void)pm_buf_add_text(page->buf, "  ");
    style(page, colour_of(finding->severity));
    (void)pm_buf_printf(page->buf, "%-8s", pm_severity_name(finding->severity));
    style(page, "\033[0m");
    style(page, "\033[1m");
    /* The title hangs behind the word. */
    unsigned column = 10;
    const char *text = finding->title;
    while (*text != '\0') {
        const size_t bytes = strcspn(text, " ");
        if (column > 10 && column + 1 + bytes > WIDTH) {
            (void)pm_buf_printf(page->buf, "\n%*s", 10, "");
            column = 10;
        } else if (column > 10) {
            (void)pm_buf_add_char(page->buf, ' ');
            column++;
        }
        put_clean(page, text, bytes);
        column += (unsigned)bytes;
        text += bytes;
        text += strspn(text, " ");
    }
    style(page, "\033[0m");
    (void)pm_buf_add_char(page->buf, '\n');
}

static void put_cost(struct page *page, const struct pm_finding *finding)
{
    char line[256] = "", cell[32];
    size_t used = 0;

    if (finding->has_cost_s && finding->cost_s > 0)
        used += (size_t)snprintf(line, sizeof(line), "%s %s", pm_for_seconds(finding->cost_s, cell),
                                 finding->cost_of);
    if (finding->has_cost_tokens && used < sizeof(line))
        used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%.0f tokens",
                                 used > 0 ? ", " : "", finding->cost_tokens);
    if (used > 0)
        put_wrapped(page, "            cost:", 20, line);
}

static void put_change(struct page *page, const struct pm_finding_change *change)
{
    char line[320];
    int used = snprintf(line, sizeof(line), "%s %s", change->direction, change->flag);
    if (change->value[0] != '\0')
        used += snprintf(line + used, sizeof(line) - (size_t)used, " to %s", change->value);
    if (change->now[0] != '\0')
        snprintf(line + used, sizeof(line) - (size_t)used, " (now %s)", change->now);
    put_wrapped(page, "            try:", 20, line);
}

static void put_where(struct page *page, const struct pm_finding *finding)
{
    char line[200] = "";
    size_t used = 0;

    if (finding->engine >= 0)
        used += (size_t)snprintf(line, sizeof(line), "engine %d, ", finding->engine);
    if (finding->from_ns != 0 && finding->to_ns >= finding->from_ns)
        used += (size_t)snprintf(line + used, sizeof(line) - used, "%.1f to %.1f s, ",
                                 (double)(int64_t)(finding->from_ns - page->start_ns) / 1e9,
                                 (double)(int64_t)(finding->to_ns - page->start_ns) / 1e9);
    if (finding->n_requests > 0)
        used += (size_t)snprintf(line + used, sizeof(line) - used, "%llu request%s, ",
                                 (unsigned long long)finding->n_requests,
                                 finding->n_requests == 1 ? "" : "s");
    snprintf(line + used, sizeof(line) - used, "%s; rule %s",
             pm_confidence_name(finding->confidence), finding->rule);
    style(page, "\033[2m");
    put_wrapped(page, "", 12, line);
    style(page, "\033[0m");
}

static void put_finding(struct page *page, const struct pm_finding *finding, bool brief)
{
    put_title(page, finding);
    if (!brief)
        for (unsigned i = 0; i < finding->n_evidence; i++)
            put_wrapped(page, "          -", 12, finding->evidence[i]);
    if (!brief)
        put_cost(page, finding);
    for (unsigned i = 0; i < finding->n_changes && (!brief || i < 1); i++)
        put_change(page, &finding->changes[i]);
    if (!brief && finding->advice[0] != '\0')
        put_wrapped(page, "", 12, finding->advice);
    if (!brief)
        put_where(page, finding);
}

static void put_rules(struct page *page, const struct pm_findings *findings)
{
    style(page, "\033[1m");
    (void)pm_buf_add_text(page->buf, "\nRules\n");
    style(page, "\033[0m");
    for (size_t i = 0; i < findings->n_results; i++) {
        const struct pm_rule_result *result = &findings->results[i];
        char first[48], line[256];
        snprintf(first, sizeof(first), "  %s", result->rule);
        snprintf(line, sizeof(line), "%s: %s", pm_verdict_name(result->verdict), result->why);
        put_wrapped(page, first, 27, line);
    }
}

/* Findings that are no more than good to know do not stand in the way of "nothing to say". */
static size_t weighty(const struct pm_findings *findings)
{
    size_t n = 0;
    for (size_t i = 0; i < findings->count; i++)
        n += findings->rows[i].severity > PM_SEVERITY_INFO;
    return n;
}

void pm_findings_text(struct pm_buf *buf, const struct pm_findings *findings,
                      const struct pm_findings_style *how, uint64_t start_ns)
{
    struct page page = {.buf = buf, .colour = how->colour, .start_ns = start_ns};
    const size_t limit = how->limit != 0 ? how->limit : findings->count;
    size_t little = 0, unseen = 0;

    style(&page, "\033[1m");
    (void)pm_buf_add_text(buf, "\nFindings\n");
    style(&page, "\033[0m");
    for (size_t i = 0; i < findings->n_results; i++) {
        little += findings->results[i].verdict == PM_VERDICT_LITTLE;
        unseen += findings->results[i].verdict == PM_VERDICT_UNSEEN;
    }
    if (weighty(findings) == 0) {
        char line[256];
        snprintf(line, sizeof(line),
                 "Nothing to say: %zu rules looked at %llu steps and %llu requests of %.1f s%s",
                 findings->n_results, (unsigned long long)findings->steps,
                 (unsigned long long)findings->requests, findings->seconds,
                 little + unseen > 0 ? ";" : ".");
        put_wrapped(&page, "", 2, line);
        if (little + unseen > 0) {
            snprintf(line, sizeof(line),
                     "%zu of them had too little to go by, %zu lack what they need%s.", little,
                     unseen, how->rules ? "" : " (profilemate explain --rules)");
            put_wrapped(&page, "", 2, line);
        }
    }
    for (size_t i = 0; i < findings->count && i < limit; i++)
        put_finding(&page, &findings->rows[i], how->brief);
    if (findings->count > limit)
        (void)pm_buf_printf(buf, "  … and %zu more: profilemate explain\n",
                            findings->count - limit);
    if (how->rules)
        put_rules(&page, findings);
}
