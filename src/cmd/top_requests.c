/* The requests' table of `profilemate top`, and its short numbers (see top.h). */
#include "cmd/top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pm_top_span(double ns, char *out, size_t size)
{
    if (ns < 999.5)
        snprintf(out, size, "%.0f ns", ns);
    else if (ns < 999500)
        snprintf(out, size, ns < 99950 ? "%.1f µs" : "%.0f µs", ns / 1e3);
    else if (ns < 999.5e6)
        snprintf(out, size, ns < 99.95e6 ? "%.1f ms" : "%.0f ms", ns / 1e6);
    else
        snprintf(out, size, ns < 99.95e9 ? "%.1f s" : "%.0f s", ns / 1e9);
}

void pm_top_age(uint64_t ns, char *out, size_t size)
{
    const uint64_t sec = ns / 1000000000u;
    if (sec < 60)
        snprintf(out, size, "%.1fs", (double)ns / 1e9);
    else if (sec < 3600)
        snprintf(out, size, "%um%02us", (unsigned)(sec / 60), (unsigned)(sec % 60));
    else if (sec < 86400)
        snprintf(out, size, "%uh%02um", (unsigned)(sec / 3600), (unsigned)(sec / 60 % 60));
    else
        snprintf(out, size, "%ud%02uh", (unsigned)(sec / 86400), (unsigned)(sec / 3600 % 24));
}

void pm_top_count(double value, char *out, size_t size)
{
    if (value < 999.95)
        snprintf(out, size, "%.1f", value);
    else if (value < 99999.5)
        snprintf(out, size, "%.0f", value);
    else if (value < 999.5e3)
        snprintf(out, size, "%.0fk", value / 1e3);
    else if (value < 99.95e6)
        snprintf(out, size, "%.1fM", value / 1e6);
    else
        snprintf(out, size, "%.0fM", value / 1e6);
}

void pm_top_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"B", "K", "M", "G", "T"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, size, unit == 0 || value >= 99.95 ? "%.0f%s" : "%.1f%s", value, units[unit]);
}

/* ---- the order ---- */

struct key {
    double value; /* greater comes first */
    uint32_t place;
};

static double key_of(enum pm_top_sort sort, const struct pm_live_request *request)
{
    switch (sort) {
    case PM_TOP_SORT_PHASE: /* what waits comes first */
        return strcmp(request->phase, "preempted") == 0 ? 4
               : strcmp(request->phase, "waiting") == 0 ? 3
               : strcmp(request->phase, "prefill") == 0 ? 2
                                                        : 1;
    case PM_TOP_SORT_PROMPT:
        return request->prompt_tokens;
    case PM_TOP_SORT_OUTPUT:
        return request->output_tokens;
    case PM_TOP_SORT_PREEMPTED:
        return request->preemptions;
    case PM_TOP_SORT_TTFT:
        return (double)request->ttft_ns;
    case PM_TOP_SORT_GAP:
        return (double)request->gap_ns;
    default:
        return (double)request->age_ns;
    }
}

static int by_key(const void *left, const void *right)
{
    const struct key *a = left, *b = right;
    if (a->value != b->value)
        return a->value > b->value ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

uint32_t *pm_top_order(const struct pm_top *top, const struct pm_live_engine *engine,
                       size_t *ret_count)
{
    struct key *keys = malloc((engine->n_requests + 1) * sizeof(*keys));
    uint32_t *order = malloc((engine->n_requests + 1) * sizeof(*order));
    size_t count = 0;
    *ret_count = 0;
    if (keys == NULL || order == NULL) {
        free(keys);
        free(order);
        return NULL;
    }
    for (size_t i = 0; i < engine->n_requests; i++) {
        const struct pm_live_request *request = &engine->requests[i];
        if (top->filter[0] != '\0' && strstr(request->id, top->filter) == NULL &&
            strstr(request->phase, top->filter) == NULL)
            continue;
        const double value = key_of(top->sort, request);
        keys[count++] = (struct key){.value = top->reverse ? -value : value, .place = (uint32_t)i};
    }
    qsort(keys, count, sizeof(*keys), by_key);
    for (size_t i = 0; i < count; i++)
        order[i] = keys[i].place;
    free(keys);
    *ret_count = count;
    return order;
}

/* ---- the table ---- */

static enum pm_ink phase_ink(const struct pm_live_request *request)
{
    return strcmp(request->phase, "decode") == 0      ? PM_INK_GOOD
           : strcmp(request->phase, "preempted") == 0 ? PM_INK_BAD
           : strcmp(request->phase, "waiting") == 0   ? PM_INK_WARN
                                                      : PM_INK_COOL;
}

static void number(struct pm_canvas *canvas, int row, int end, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    pm_canvas_right(canvas, row, end, value > 0 ? PM_INK_PLAIN : PM_INK_DIM, text);
}

static void span(struct pm_canvas *canvas, int row, int end, uint64_t ns)
{
    char text[24] = "-";
    if (ns > 0)
        pm_top_span((double)ns, text, sizeof(text));
    pm_canvas_right(canvas, row, end, ns > 0 ? PM_INK_PLAIN : PM_INK_DIM, text);
}

#define FIGURES 58 /* columns of the figures beside the request's name */

void pm_top_draw_requests(struct pm_canvas *canvas, struct pm_top *top,
                          const struct pm_live_engine *engine, int row, int end)
{
    const struct {
        enum pm_top_sort sort;
        const char *text;
        int end;
    } heads[] = {
        {PM_TOP_SORT_AGE, "AGE", 8},        {PM_TOP_SORT_PHASE, "PHASE", 18},
        {PM_TOP_SORT_PROMPT, "PROMPT", 26}, {PM_TOP_SORT_OUTPUT, "OUT", 33},
        {PM_TOP_SORT_PREEMPTED, "PRE", 38}, {PM_TOP_SORT_TTFT, "TTFT", 48},
        {PM_TOP_SORT_GAP, "GAP", 57},
    };
    size_t count;
    const int name_columns = canvas->width - FIGURES > 8 ? canvas->width - FIGURES : 8;
    const int at = name_columns;
    uint32_t *order = pm_top_order(top, engine, &count);
    const size_t rows = end > row + 1 ? (size_t)(end - row - 1) : 0;

    if (row >= end) {
        free(order);
        return;
    }
    if (count <= rows)
        top->scroll = 0;
    else if (top->scroll > count - rows)
        top->scroll = count - rows;
    pm_canvas_ink(canvas, row, 0, canvas->width, PM_INK_HEAD);
    char title[96];
    if (top->filter[0] != '\0')
        snprintf(title, sizeof(title), "REQUESTS %zu of %zu", count, engine->n_requests);
    else
        snprintf(title, sizeof(title), "REQUESTS %zu", count);
    pm_canvas_cut(canvas, row, 0, name_columns, PM_INK_HEAD, title);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        const bool chosen = heads[i].sort == top->sort;
        char text[16];
        snprintf(text, sizeof(text), "%s%s", chosen ? (top->reverse ? "^" : "v") : "",
                 heads[i].text);
        pm_canvas_right(canvas, row, at + heads[i].end, PM_INK_HEAD, text);
    }
    for (size_t i = 0; i < rows && top->scroll + i < count; i++) {
        const struct pm_live_request *request = &engine->requests[order[top->scroll + i]];
        const int line = row + 1 + (int)i;
        char age[24] = "-"; /* it came before the first record */
        if (request->age_ns > 0)
            pm_top_age(request->age_ns, age, sizeof(age));
        pm_canvas_cut_middle(canvas, line, 0, name_columns - 1, PM_INK_PLAIN, request->id);
        pm_canvas_right(canvas, line, at + 8, PM_INK_PLAIN, age);
        pm_canvas_right(canvas, line, at + 18, phase_ink(request), request->phase);
        number(canvas, line, at + 26, request->prompt_tokens);
        number(canvas, line, at + 33, request->output_tokens);
        number(canvas, line, at + 38, request->preemptions);
        span(canvas, line, at + 48, request->ttft_ns);
        span(canvas, line, at + 57, request->gap_ns);
    }
    if (count == 0 && rows > 0)
        pm_canvas_text(canvas, row + 1, 0, PM_INK_DIM,
                       engine->n_requests > 0 ? "no request passes the filter"
                                              : "no request is under way");
    free(order);
}
