/*
 * The sheet of `profilemate top`, but for the requests' table: servers, engines, meters, times,
 * processes. Pure: figures in, cells out (see top.h).
 */
#include "cmd/top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"
#include "session/step_facts.h"

static enum pm_ink health_ink(enum pm_live_health health)
{
    switch (health) {
    case PM_LIVE_SERVING:
    case PM_LIVE_IDLE:
        return PM_INK_GOOD;
    case PM_LIVE_STARTING:
    case PM_LIVE_ENDED_WELL:
        return PM_INK_WARN;
    default:
        return PM_INK_BAD;
    }
}

static double window_sec(const struct pm_live_view *view)
{
    return (double)(view->now_ns - view->window_from_ns) / 1e9;
}

static double rate(const struct pm_live_view *view, uint64_t count)
{
    const double sec = window_sec(view);
    return sec > 0 ? (double)count / sec : 0;
}

static const char *model_of(const struct pm_live_view *view)
{
    const char *model = pm_session_attr(view->session, PM_ATTR_MODEL);
    if (model == NULL)
        return "-";
    const char *slash = model[0] == '/' ? strrchr(model, '/') : NULL;
    return slash != NULL && slash[1] != '\0' ? slash + 1 : model;
}

/* ---- first lines ---- */

static void draw_title(struct pm_canvas *canvas, const struct pm_top *top,
                       const struct pm_live_view *view)
{
    char right[96] = "", up[24];
    pm_canvas_ink(canvas, 0, 0, canvas->width, PM_INK_TITLE);
    int at = pm_canvas_text(canvas, 0, 1, PM_INK_TITLE, "profilemate top");
    if (view != NULL) {
        const char *vllm = pm_session_attr(view->session, PM_ATTR_VLLM);
        pm_top_age(view->now_ns - view->info->start_mono_ns, up, sizeof(up));
        snprintf(right, sizeof(right), "%s  up %s%s%s ", pm_live_health_text(view->health), up,
                 top->clock[0] != '\0' ? "  " : "", top->clock);
        const int room = canvas->width - at - (int)strlen(right) - 4;
        char left[512];
        snprintf(left, sizeof(left), "%s  %s%s%s", model_of(view), view->info->name,
                 vllm != NULL ? "  vLLM " : "", vllm != NULL ? vllm : "");
        if (room > 8)
            pm_canvas_cut(canvas, 0, at + 2, room, PM_INK_TITLE, left);
    } else {
        snprintf(right, sizeof(right), "%s ", top->clock);
    }
    pm_canvas_right(canvas, 0, canvas->width, PM_INK_TITLE, right);
}

static void add_engines(const struct pm_live_view *view, struct pm_live_engine *ret_sum)
{
    struct pm_live_engine sum = {0};
    for (size_t e = 0; e < view->n_engines; e++) {
        const struct pm_live_engine *engine = &view->engines[e];
        sum.running += engine->running;
        sum.waiting += engine->waiting;
        sum.kv_used += engine->kv_used;
        sum.kv_total += engine->kv_total;
        sum.window.output_tokens += engine->window.output_tokens;
        sum.window.prefill_tokens += engine->window.prefill_tokens;
        sum.window.steps += engine->window.steps;
        if (engine->window_quantiles[PM_LIVE_ttft].p95 > sum.window_quantiles[PM_LIVE_ttft].p95)
            sum.window_quantiles[PM_LIVE_ttft] = engine->window_quantiles[PM_LIVE_ttft];
    }
    *ret_sum = sum;
}

static void draw_row_figures(struct pm_canvas *canvas, int row, int at, enum pm_ink ink,
                             const struct pm_live_view *view, const struct pm_live_engine *engine)
{
    char text[32];
    snprintf(text, sizeof(text), "%u", engine->running);
    pm_canvas_right(canvas, row, at + 5, ink, text);
    snprintf(text, sizeof(text), "%u", engine->waiting);
    pm_canvas_right(canvas, row, at + 11, ink, text);
    if (engine->kv_total > 0)
        snprintf(text, sizeof(text), "%.1f%%", 100.0 * engine->kv_used / engine->kv_total);
    else
        snprintf(text, sizeof(text), "-");
    pm_canvas_right(canvas, row, at + 18, ink, text);
    pm_top_count(rate(view, engine->window.prefill_tokens), text, sizeof(text));
    pm_canvas_right(canvas, row, at + 26, ink, text);
    pm_top_count(rate(view, engine->window.output_tokens), text, sizeof(text));
    pm_canvas_right(canvas, row, at + 34, ink, text);
    pm_top_count(rate(view, engine->window.steps), text, sizeof(text));
    pm_canvas_right(canvas, row, at + 42, ink, text);
    snprintf(text, sizeof(text), "-");
    if (engine->window_quantiles[PM_LIVE_ttft].count > 0)
        pm_top_span(engine->window_quantiles[PM_LIVE_ttft].p95, text, sizeof(text));
    pm_canvas_right(canvas, row, at + 52, ink, text);
}

#define ROW_FIGURES 53

static void draw_row_heads(struct pm_canvas *canvas, int row, const char *title)
{
    static const struct {
        const char *text;
        int end;
    } heads[] = {{"RUN", 5},    {"WAIT", 11},   {"KV", 18},      {"IN/s", 26},
                 {"OUT/s", 34}, {"STEP/s", 42}, {"TTFT p95", 52}};
    const int at = canvas->width - ROW_FIGURES;
    pm_canvas_ink(canvas, row, 0, canvas->width, PM_INK_HEAD);
    pm_canvas_text(canvas, row, 0, PM_INK_HEAD, title);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        pm_canvas_right(canvas, row, at + heads[i].end, PM_INK_HEAD, heads[i].text);
}

static int draw_servers(struct pm_canvas *canvas, const struct pm_top *top, int row)
{
    const int at = canvas->width - ROW_FIGURES;
    const size_t most = canvas->height > 30 ? 10 : 4;
    if (top->n_servers < 2)
        return row;
    const size_t first = top->selected >= most ? top->selected - most + 1 : 0;
    draw_row_heads(canvas, row++, "SERVERS");
    for (size_t i = first; i < top->n_servers && i < first + most; i++, row++) {
        const struct pm_live_view *view = pm_live_view(top->servers[i].live);
        const enum pm_ink ink = i == top->selected ? PM_INK_SELECT : PM_INK_PLAIN;
        struct pm_live_engine sum;
        char text[512];
        add_engines(view, &sum);
        pm_canvas_ink(canvas, row, 0, canvas->width, ink);
        snprintf(text, sizeof(text), "%s  %s", model_of(view), view->info->name);
        pm_canvas_cut(canvas, row, 0, at - 9, ink, text);
        pm_canvas_cut(canvas, row, at - 8, 8, i == top->selected ? ink : health_ink(view->health),
                      pm_live_health_text(view->health));
        draw_row_figures(canvas, row, at, ink, view, &sum);
    }
    return row;
}

static int draw_alert(struct pm_canvas *canvas, const struct pm_live_view *view, int row)
{
    const char *text = view->sentence;
    char ended[160];
    if (text[0] == '\0' && !view->running) {
        snprintf(ended, sizeof(ended),
                 view->health == PM_LIVE_KILLED
                     ? "The server is gone: `profilemate postmortem` tells what it was in. The "
                       "figures are those before its end"
                     : "The server has ended. The figures are those before its end");
        text = ended;
    }
    while (*text != '\0' && row < canvas->height - 12) {
        size_t cut = strlen(text);
        if (cut > (size_t)canvas->width - 2) {
            cut = (size_t)canvas->width - 2;
            while (cut > 20 && text[cut] != ' ')
                cut--;
        }
        char line[4096];
        snprintf(line, sizeof(line), " %.*s", (int)cut, text);
        pm_canvas_ink(canvas, row, 0, canvas->width, PM_INK_ALERT);
        pm_canvas_text(canvas, row++, 0, PM_INK_ALERT, line);
        text += cut;
        text += *text == ' ';
    }
    return row;
}

static int draw_engines(struct pm_canvas *canvas, const struct pm_top *top,
                        const struct pm_live_view *view, int row)
{
    const size_t most = canvas->height > 30 ? 8 : 3;
    if (view->n_engines < 2)
        return row;
    const size_t first = top->engine >= most ? top->engine - most + 1 : 0;
    draw_row_heads(canvas, row++, "ENGINES");
    for (size_t e = first; e < view->n_engines && e < first + most; e++, row++) {
        const struct pm_live_engine *engine = &view->engines[e];
        const enum pm_ink ink = e == top->engine ? PM_INK_SELECT : PM_INK_PLAIN;
        pm_canvas_ink(canvas, row, 0, canvas->width, ink);
        pm_canvas_printf(canvas, row, 0, ink, "engine %u  %zu rank%s", engine->number,
                         engine->n_ranks, engine->n_ranks == 1 ? "" : "s");
        draw_row_figures(canvas, row, canvas->width - ROW_FIGURES, ink, view, engine);
    }
    return row;
}

/* ---- one engine ---- */

static void draw_rate(struct pm_canvas *canvas, int row, int columns, const char *name,
                      const char *unit, double value, const double *history)
{
    char text[32];
    pm_top_count(value, text, sizeof(text));
    pm_canvas_text(canvas, row, 0, PM_INK_COOL, name);
    pm_canvas_right(canvas, row, 13, PM_INK_BOLD, text);
    pm_canvas_text(canvas, row, 14, PM_INK_DIM, unit);
    pm_canvas_spark(canvas, row, 20, columns - 22, history, PM_LIVE_HISTORY, 0, PM_INK_GOOD);
}

static enum pm_ink level_ink(double share)
{
    return share > 0.95 ? PM_INK_BAD : share > 0.8 ? PM_INK_WARN : PM_INK_GOOD;
}

static int draw_meters(struct pm_canvas *canvas, const struct pm_live_view *view,
                       const struct pm_live_engine *engine, int row)
{
    double in[PM_LIVE_HISTORY], out[PM_LIVE_HISTORY], steps[PM_LIVE_HISTORY];
    const int half = canvas->width / 2, columns = canvas->width - half - 6;
    char label[48];
    for (int i = 0; i < PM_LIVE_HISTORY; i++) {
        in[i] = engine->seconds[i].in_tokens;
        out[i] = engine->seconds[i].out_tokens;
        steps[i] = engine->seconds[i].steps;
    }
    draw_rate(canvas, row, half, "Out", "tok/s", rate(view, engine->window.output_tokens), out);
    draw_rate(canvas, row + 1, half, "In", "tok/s", rate(view, engine->window.prefill_tokens), in);
    draw_rate(canvas, row + 2, half, "Steps", "/s", rate(view, engine->window.steps), steps);

    const double most = engine->max_requests > 0 ? engine->max_requests : 1;
    snprintf(label, sizeof(label), "%u/%u", engine->running, engine->max_requests);
    pm_canvas_text(canvas, row, half, PM_INK_COOL, "Batch");
    pm_canvas_meter(canvas, row, half + 6, columns, engine->running / most,
                    level_ink(engine->running / most), label);
    snprintf(label, sizeof(label), "%u", engine->waiting);
    pm_canvas_text(canvas, row + 1, half, PM_INK_COOL, "Queue");
    pm_canvas_meter(canvas, row + 1, half + 6, columns, engine->waiting / most,
                    engine->waiting > 0 ? PM_INK_WARN : PM_INK_GOOD, label);
    pm_canvas_text(canvas, row + 2, half, PM_INK_COOL, "KV");
    const double kv = engine->kv_total > 0 ? (double)engine->kv_used / engine->kv_total : 0;
    if (engine->has_kv)
        snprintf(label, sizeof(label), "%.1f%% of %u blocks", kv * 100, engine->kv_total);
    else
        snprintf(label, sizeof(label), "not recorded");
    pm_canvas_meter(canvas, row + 2, half + 6, columns, kv, level_ink(kv), label);
    return row + 3;
}

static int put_share(struct pm_canvas *canvas, int row, int at, const char *name, double share)
{
    const bool wide = canvas->width >= 100;
    if (at + (int)strlen(name) + 4 > canvas->width)
        return at;
    at = pm_canvas_text(canvas, row, at, PM_INK_DIM, name);
    at = pm_canvas_printf(canvas, row, at + 1, PM_INK_PLAIN, wide ? "%.1f%%" : "%.0f%%",
                          share * 100);
    return at + (wide ? 2 : 1);
}

static int put_number(struct pm_canvas *canvas, int row, int at, const char *name, uint64_t value,
                      enum pm_ink ink)
{
    if (at + (int)strlen(name) + 6 > canvas->width)
        return at;
    at = pm_canvas_text(canvas, row, at, PM_INK_DIM, name);
    at = pm_canvas_printf(canvas, row, at + 1, value > 0 ? ink : PM_INK_PLAIN, "%llu",
                          (unsigned long long)value);
    return at + 2;
}

/* What the model, the host and nobody did in the last seconds; and what went to waste. */
static int draw_use(struct pm_canvas *canvas, const struct pm_live_view *view,
                    const struct pm_live_engine *engine, int row)
{
    const double window_ns = (double)(view->now_ns - view->window_from_ns);
    const struct pm_live_sums *sums = &engine->window;
    static const char *const names[4] = {"model", "model", "model to sync", "model on device"};
    unsigned clock = 0;
    double busy = 0, none = window_ns > 0 ? (double)engine->no_work_ns / window_ns : 0;
    uint64_t replayed = 0, eager = 0;
    if (engine->n_ranks > 0 && window_ns > 0) {
        busy = (double)engine->ranks[0].window.forward_ns / window_ns;
        clock = engine->ranks[0].forward_clock;
        replayed = engine->ranks[0].window.replayed;
        eager = engine->ranks[0].window.eager;
    }
    busy = busy > 1 ? 1 : busy;
    none = none > 1 - busy ? 1 - busy : none;
    int at = pm_canvas_text(canvas, row, 0, PM_INK_COOL, "Use");
    at = put_share(canvas, row, at + 4, names[clock & 3], busy);
    at = put_share(canvas, row, at, "host", 1 - busy - none);
    at = put_share(canvas, row, at, "no work", none);
    if (replayed + eager > 0)
        at = put_share(canvas, row, at, "graphs", (double)replayed / (double)(replayed + eager));
    if (sums->queried_tokens > 0)
        at = put_share(canvas, row, at, "prefix hits",
                       (double)sums->hit_tokens / (double)sums->queried_tokens);
    if (sums->drafted_tokens > 0)
        at = put_share(canvas, row, at, "drafts kept",
                       (double)sums->accepted_tokens / (double)sums->drafted_tokens);
    row++;
    at = pm_canvas_text(canvas, row, 0, PM_INK_COOL, "10 s");
    at = put_number(canvas, row, at + 3, "ended", sums->finished, PM_INK_PLAIN);
    at = put_number(canvas, row, at, "aborted", engine->aborted, PM_INK_WARN);
    at = put_number(canvas, row, at, "preempted", sums->preemptions, PM_INK_BAD);
    at = put_number(canvas, row, at, "recomputed tok", sums->recompute_tokens, PM_INK_WARN);
    put_number(canvas, row, at, "evicted", sums->evicted_blocks, PM_INK_WARN);
    return row + 1;
}

/* How the time with work was spent, step by step, on the first rank. */
static int draw_split(struct pm_canvas *canvas, const struct pm_live_view *view,
                      const struct pm_live_engine *engine, int row)
{
    const double window_ns = (double)(view->now_ns - view->window_from_ns);
    const double worked_ns = window_ns - (double)engine->no_work_ns;
    static const struct pm_live_rank_sums none;
    const struct pm_live_rank_sums *rank = engine->n_ranks > 0 ? &engine->ranks[0].window : &none;
    const double parts[] = {(double)engine->window.sched_ns, (double)rank->pre_ns,
                            (double)rank->model_ns,          (double)rank->post_ns,
                            (double)rank->sample_ns,         (double)engine->window.update_ns};
    static const char *const names[] = {"sched", "prep", "model", "post", "sample", "output"};
    double sum = 0;
    char text[32];
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        sum += parts[i];
    int at = pm_canvas_text(canvas, row, 0, PM_INK_COOL, "Step");
    if (engine->window.steps == 0 || worked_ns <= 0) {
        pm_canvas_text(canvas, row, at + 3, PM_INK_DIM, "none in the last 10 s");
        return row + 1;
    }
    pm_top_span(worked_ns / (double)engine->window.steps, text, sizeof(text));
    at = pm_canvas_text(canvas, row, at + 3, PM_INK_BOLD, text) + 2;
    const double whole = sum > worked_ns ? sum : worked_ns;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        at = put_share(canvas, row, at, names[i], parts[i] / whole);
    put_share(canvas, row, at, "rest", (whole - sum) / whole);
    return row + 1;
}

static void put_quantiles(struct pm_canvas *canvas, int row, int at, int columns,
                          const struct pm_live_quantiles *quantiles)
{
    const double values[] = {quantiles->p50, quantiles->p95, quantiles->p99};
    char text[32] = "-";
    for (int i = 0; i < 3; i++) {
        if (quantiles->count > 0)
            pm_top_span(values[i], text, sizeof(text));
        pm_canvas_right(canvas, row, at + columns * (i + 1), PM_INK_PLAIN, text);
    }
    snprintf(text, sizeof(text), "%llu", (unsigned long long)quantiles->count);
    pm_canvas_right(canvas, row, at + columns * 3 + 7, PM_INK_DIM, text);
}

static int draw_times(struct pm_canvas *canvas, const struct pm_live_engine *engine, int row)
{
    static const struct {
        enum pm_live_metric metric;
        const char *name;
    } rows[] = {{PM_LIVE_ttft, "TTFT"},
                {PM_LIVE_tpot, "TPOT"},
                {PM_LIVE_itl, "ITL"},
                {PM_LIVE_queue, "Queue"},
                {PM_LIVE_e2e, "Whole"}};
    const int columns = 9, second = 8 + columns * 3 + 9;
    static const char *const heads[2][4] = {{"10 s p50", "p95", "p99", "n"},
                                            {"total p50", "p95", "p99", "n"}};
    pm_canvas_ink(canvas, row, 0, canvas->width, PM_INK_HEAD);
    pm_canvas_text(canvas, row, 0, PM_INK_HEAD, "TIMES");
    for (int k = 0; k < 2; k++) {
        const int at = k == 0 ? 8 : second;
        for (int i = 0; i < 3; i++)
            pm_canvas_right(canvas, row, at + columns * (i + 1), PM_INK_HEAD, heads[k][i]);
        pm_canvas_right(canvas, row, at + columns * 3 + 7, PM_INK_HEAD, heads[k][3]);
    }
    row++;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++, row++) {
        pm_canvas_text(canvas, row, 0, PM_INK_COOL, rows[i].name);
        put_quantiles(canvas, row, 8, columns, &engine->window_quantiles[rows[i].metric]);
        if (rows[i].metric != PM_LIVE_itl)
            put_quantiles(canvas, row, second, columns, &engine->total_quantiles[rows[i].metric]);
    }
    return row;
}

/* ---- processes ---- */

static void process_name(const struct pm_live_view *view, size_t i, char *out, size_t size)
{
    const struct pm_process_info *info = &view->processes[i].info;
    const char *role = "process";
    if (info->roles & PM_ROLE_ENGINE)
        role = info->roles & PM_ROLE_WORKER ? "engine+worker" : "engine";
    else if (info->roles & PM_ROLE_WORKER)
        role = "worker";
    else if (info->roles & PM_ROLE_FRONTEND)
        role = "front end";
    snprintf(out, size, "%s", role);
    for (size_t e = 0; e < view->n_engines; e++) {
        if (view->engines[e].process == (int)i && view->n_engines > 1)
            snprintf(out, size, "engine %u", view->engines[e].number);
        for (size_t n = 0; n < view->engines[e].n_ranks; n++)
            if (view->engines[e].ranks[n].process == i &&
                (view->n_engines > 1 || view->engines[e].n_ranks > 1))
                snprintf(out, size, "%s %u.%d", info->roles & PM_ROLE_ENGINE ? "engine" : role,
                         view->engines[e].number, view->engines[e].ranks[n].rank);
    }
}

static int draw_processes(struct pm_canvas *canvas, const struct pm_live_view *view, int row)
{
    const size_t most = canvas->height > 40 ? 16 : canvas->height > 30 ? 8 : 3;
    size_t shown = 0;
    pm_canvas_ink(canvas, row, 0, canvas->width, PM_INK_HEAD);
    pm_canvas_text(canvas, row++, 0, PM_INK_HEAD,
                   "PROCESS              PID S   CPU%    MEM  IT IS");
    for (size_t i = 0; i < view->n_processes; i++) {
        const struct pm_live_process *process = &view->processes[i];
        const struct pm_thread_state *thread = pm_live_main_thread(process);
        char name[64], text[160], since[24];
        if (view->running && process->info.life != PM_LIFE_RUNNING && process->info.roles == 0)
            continue;
        if (shown++ == most) {
            pm_canvas_printf(canvas, row - 1, 0, PM_INK_DIM, "%s and %zu more processes",
                             canvas->ascii ? "..." : "…", view->n_processes - i + 1);
            pm_canvas_ink(canvas, row - 1, 0, canvas->width, PM_INK_DIM);
            break;
        }
        process_name(view, i, name, sizeof(name));
        pm_canvas_cut(canvas, row, 0, 16, PM_INK_PLAIN, name);
        snprintf(text, sizeof(text), "%u",
                 process->visible ? process->proc.pid : process->info.pid);
        pm_canvas_right(canvas, row, 24, PM_INK_PLAIN, text);
        const char state[2] = {process->visible ? process->proc.state : '-', '\0'};
        pm_canvas_text(canvas, row, 25,
                       strchr("DTtZX", state[0]) != NULL ? PM_INK_BAD : PM_INK_PLAIN, state);
        if (process->cpu >= 0) {
            snprintf(text, sizeof(text), "%.1f", process->cpu * 100);
            pm_canvas_right(canvas, row, 33, PM_INK_PLAIN, text);
        }
        if (process->visible) {
            pm_top_bytes(process->proc.rss_bytes, text, sizeof(text));
            pm_canvas_right(canvas, row, 40, PM_INK_PLAIN, text);
        }
        if (process->info.life != PM_LIFE_RUNNING) {
            pm_canvas_text(canvas, row++, 42,
                           process->info.life == PM_LIFE_KILLED ? PM_INK_BAD : PM_INK_DIM,
                           process->info.life == PM_LIFE_KILLED ? "gone: killed, or ended mutely"
                                                                : "gone: ended by itself");
            continue;
        }
        if (thread != NULL) {
            pm_top_age(view->now_ns > thread->since_ns ? view->now_ns - thread->since_ns : 0, since,
                       sizeof(since));
            snprintf(text, sizeof(text), "%s%s, %s", pm_live_doing_text(thread->doing),
                     thread->raised ? " (raised)" : "", since);
            pm_canvas_cut(canvas, row, 42, canvas->width - 42, PM_INK_PLAIN, text);
        }
        row++;
    }
    return row;
}

/* ---- the whole ---- */

static const char *const help_lines[] = {
    "Up, Down, PgUp, PgDn   scroll the requests",
    "Left, Right, Tab       another server",
    "e                      another engine of this server",
    "s, S                   sort the requests by the next, the previous column",
    "r                      reverse the order",
    "/                      filter: a part of a request's id, or a phase; Enter ends it",
    "Esc                    no filter",
    "p, Space               pause: the figures stand still",
    "+, -                   refresh more often, less often",
    "f                      follow: when this server ends, show the next one",
    "h, F1, ?               this help",
    "q                      leave",
    "",
    "TTFT: arrival to first output, as the engine core sees it. TPOT: first to last",
    "output by the output tokens but one. ITL: between two outputs of a request.",
    "Use: of the last 10 s the model ran, the host alone worked, no request was there.",
    "Step: the time with work by the steps in it, and what it went into on rank 0.",
    "In: prompt tokens computed. Totals are since each engine's process began.",
};

static void draw_help(struct pm_canvas *canvas, int row)
{
    for (size_t i = 0; i < sizeof(help_lines) / sizeof(help_lines[0]); i++)
        pm_canvas_text(canvas, row + 1 + (int)i, 2, PM_INK_PLAIN, help_lines[i]);
}

static void draw_footer(struct pm_canvas *canvas, const struct pm_top *top)
{
    const int row = canvas->height - 1;
    pm_canvas_ink(canvas, row, 0, canvas->width, PM_INK_TITLE);
    if (top->typing || top->filter[0] != '\0') {
        pm_canvas_printf(canvas, row, 1, PM_INK_TITLE, "filter: %s%s", top->filter,
                         top->typing ? "_" : "  (Esc: none)");
    } else if (top->note[0] != '\0') {
        pm_canvas_cut(canvas, row, 1, canvas->width - 2, PM_INK_TITLE, top->note);
    } else {
        pm_canvas_text(canvas, row, 1, PM_INK_TITLE,
                       "h help  s sort  / filter  p pause  e engine  Tab server  q leave");
    }
    char right[64];
    snprintf(right, sizeof(right), "%s%.1f s ", top->paused ? "PAUSED  " : "",
             top->interval_ms / 1000.0);
    pm_canvas_right(canvas, row, canvas->width, PM_INK_TITLE, right);
}

void pm_top_draw(struct pm_canvas *canvas, struct pm_top *top)
{
    const struct pm_live_view *view = pm_top_view(top);
    pm_canvas_clear(canvas);
    draw_title(canvas, top, view);
    int row = 1;
    if (top->help) {
        draw_help(canvas, row);
    } else if (view == NULL) {
        pm_canvas_text(canvas, 2, 2, PM_INK_PLAIN, "No server with ProfileMate runs on this host.");
        pm_canvas_text(canvas, 3, 2, PM_INK_DIM,
                       "Start one with `profilemate run -- vllm serve …`: it is shown here.");
    } else {
        if (top->engine >= view->n_engines)
            top->engine = 0;
        row = draw_servers(canvas, top, row);
        row = draw_alert(canvas, view, row);
        row = draw_engines(canvas, top, view, row);
        if (view->n_engines > 0) {
            const struct pm_live_engine *engine = &view->engines[top->engine];
            row = draw_meters(canvas, view, engine, row);
            row = draw_use(canvas, view, engine, row);
            row = draw_split(canvas, view, engine, row);
            row = draw_times(canvas, engine, row);
            row = draw_processes(canvas, view, row);
            pm_top_draw_requests(canvas, top, engine, row, canvas->height - 1);
        } else {
            pm_canvas_text(canvas, row + 1, 2, PM_INK_DIM, "No engine has started yet.");
            draw_processes(canvas, view, row + 3);
        }
    }
    draw_footer(canvas, top);
}
