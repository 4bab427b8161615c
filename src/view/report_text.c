/*
 * A report as text of 80 columns. Called by `report --text` and, in its brief form, at the end of
 * `run`. Names that come from the session are cleaned of control characters, for they reach a
 * terminal.
 */
#include "view/collective.h"
#include "view/compute.h"
#include "view/caution.h"
#include "view/switches.h"
#include "view/graph.h"
#include "view/host_report.h"
#include "view/layer.h"
#include "view/memory.h"
#include "view/moe.h"
#include "view/report_model.h"
#include "view/transfer.h"
#include "view/sampling.h"
#include "view/wasted.h"
#include "view/window.h"

#include "view/custom.h"
#include "view/encoder_decoder.h"

#include <string.h>

#include "base/utf8.h"
#include "session/step_facts.h"
#include "session/attrs.h"
#include "session/hist.h"

#define WIDTH 80
#define NOTES_SHOWN 12

struct page {
    struct pm_buf *buf;
    bool colour;
};

static void put(struct page *page, const char *text)
{
    (void)pm_buf_add_text(page->buf, text);
}

/* Text of the session's own: whatever could drive a terminal becomes `?`. */
static void put_clean(struct page *page, const char *text)
{
    size_t left = strlen(text);
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

static void put_heading(struct page *page, const char *text)
{
    (void)pm_buf_printf(page->buf, "\n%s%s%s\n", page->colour ? "\033[1m" : "", text,
                        page->colour ? "\033[0m" : "");
}

/* A sentence broken at blanks; lines after the first one are indented alike. */
static void put_wrapped(struct page *page, const char *text, unsigned indent)
{
    unsigned column = indent;
    (void)pm_buf_printf(page->buf, "%*s", (int)indent, "");
    while (*text != '\0') {
        char word[256];
        size_t bytes = strcspn(text, " ");
        snprintf(word, sizeof(word), "%.*s", (int)(bytes < 255 ? bytes : 255), text);
        if (column > indent && column + 1 + bytes > WIDTH) {
            (void)pm_buf_printf(page->buf, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            put(page, " ");
            column++;
        }
        put_clean(page, word);
        column += (unsigned)(bytes < 255 ? bytes : 255);
        text += bytes;
        text += strspn(text, " ");
    }
    put(page, "\n");
}

/* A count with thousands apart, as in 1 234 567. */
static const char *grouped(uint64_t value, char out[32])
{
    char digits[24];
    const int n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
    size_t used = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            out[used++] = ' ';
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

/* Milliseconds in at most 8 places. */
static const char *ms(double ns, char out[48])
{
    const double value = ns / 1e6;
    snprintf(out, 48, "%.*f", value < 1000.0 ? 3 : value < 100000.0 ? 1 : 0, value);
    return out;
}

static const char *or_unknown(const char *text)
{
    return text != NULL && *text != '\0' ? text : "unknown";
}

static void put_named(struct page *page, const char *name, const char *value)
{
    (void)pm_buf_printf(page->buf, "  %-12s", name);
    put_clean(page, value);
    put(page, "\n");
}

/* ---- what ran ---- */

static void put_state(struct page *page, unsigned count, const char *word)
{
    if (count > 0)
        (void)pm_buf_printf(page->buf, " %u %s", count, word);
}

static void put_processes(struct page *page, const struct pm_session *session,
                          const struct pm_sums *sums)
{
    unsigned engines = 0, workers = 0, frontends = 0;
    for (size_t i = 0; i < pm_session_process_count(session); i++) {
        const unsigned roles = pm_process_info(pm_session_process(session, i))->roles;
        engines += (roles & PM_ROLE_ENGINE) != 0;
        workers += (roles & PM_ROLE_WORKER) != 0;
        frontends += (roles & PM_ROLE_FRONTEND) != 0;
    }
    (void)pm_buf_printf(page->buf,
                        "  %-12s%zu (engines %u, workers %u, front ends %u):", "processes",
                        pm_session_process_count(session), engines, workers, frontends);
    put_state(page, sums->running, "running");
    put_state(page, sums->closed, "closed");
    put_state(page, sums->killed, "killed");
    put(page, "\n");
    if (sums->killed > 0 && strcmp(pm_session_state_name(sums), "ended") == 0)
        put(page, "              vLLM stops its engines by a kill: what they recorded is whole\n");
}

static void put_switch(const char *sentence, void *arg)
{
    put_wrapped(arg, sentence, 2);
}

static void put_what_ran(struct page *page, const struct pm_report *report, bool brief,
                         const struct pm_window *window)
{
    const struct pm_session *session = report->session;
    const struct pm_session_info *info = pm_session_info(session);
    const char *vllm = pm_session_attr(session, PM_ATTR_VLLM);
    char start[64], line[512];

    put(page, page->colour ? "\033[1m" : "");
    put_clean(page, info->name);
    put(page, page->colour ? "\033[0m" : "");
    (void)pm_buf_printf(page->buf, " (%s)\n", pm_session_state_name(&report->sums));
    put_named(page, "folder", info->path);
    for (size_t n = 0; pm_session_caution(session, n) != NULL; n++)
        put_wrapped(page, pm_session_caution(session, n), 2);
    pm_switches_tell(session, put_switch, page);
    if (brief)
        return;
    put_named(page, "model", or_unknown(pm_session_attr(session, PM_ATTR_MODEL)));
    snprintf(line, sizeof(line), "vLLM %.60s, torch %.60s, Python %.60s", or_unknown(vllm),
             or_unknown(pm_session_attr(session, PM_ATTR_TORCH)),
             or_unknown(pm_session_attr(session, PM_ATTR_PYTHON)));
    put_named(page, "versions", line);
    put_named(page, "device", or_unknown(pm_session_attr(session, PM_ATTR_DEVICE)));
    snprintf(line, sizeof(line), "ProfileMate %.60s, clock %.60s",
             or_unknown(pm_session_attr(session, PM_ATTR_PROFILEMATE)),
             or_unknown(pm_session_attr(session, PM_ATTR_CLOCK)));
    put_named(page, "recorded by", line);
    pm_iso_time(info->start_real_ns, start, sizeof(start));
    const uint64_t seen =
        report->sums.end_ns > info->start_mono_ns ? report->sums.end_ns - info->start_mono_ns : 0;
    snprintf(line, sizeof(line), "%s, %.1f s", start, (double)seen / 1e9);
    put_named(page, "started", line);
    put_processes(page, session, &report->sums);
    if (window != NULL && !window->whole)
        put_named(page, "shown", window->words);
}

/* ---- forward passes ---- */

static void put_phase(struct page *page, const char *name, const struct pm_rank_report *rank,
                      unsigned phase)
{
    const struct pm_stats *s = &rank->stats[phase];
    char cells[6][48], rate[48] = "-";

    if (s->count == 0) {
        (void)pm_buf_printf(page->buf, "  %-7s%8u\n", name, 0u);
        return;
    }
    if (rank->forward_ns[phase] != 0) {
        const double value =
            (double)rank->timed_tokens[phase] * 1e9 / (double)rank->forward_ns[phase];
        snprintf(rate, sizeof(rate), "%.*f", value < 100000.0 ? 1 : 0, value);
    }
    (void)pm_buf_printf(page->buf, "  %-7s%8llu%9s%9s%9s%9s%9s%9s%9s\n", name,
                        (unsigned long long)s->count, ms(s->mean, cells[0]), ms(s->p50, cells[1]),
                        ms(s->p90, cells[2]), ms(s->p95, cells[3]), ms(s->p99, cells[4]),
                        ms(s->max, cells[5]), rate);
}

static const char *clock_words(const struct pm_forward *forward)
{
    if (forward->clocks[3] > 0 && forward->clocks[2] > 0)
        return "device events, where there are any";
    if (forward->clocks[3] > 0)
        return "device events";
    if (forward->clocks[2] > 0)
        return "to vLLM's own synchronisation";
    return "wall time of the model call";
}

static void put_forward(struct page *page, const struct pm_engine_report *engine, bool several)
{
    const struct pm_rank_report *rank = &engine->ranks[engine->sampler];
    char title[128], where[48] = "";

    if (several || engine->n_ranks > 1)
        snprintf(where, sizeof(where), "engine %u, rank %d; ", engine->number, rank->rank);
    snprintf(title, sizeof(title), "Forward passes, ms (%s%s)", where, clock_words(&rank->forward));
    put_heading(page, title);
    (void)pm_buf_printf(page->buf, "  %-7s%8s%9s%9s%9s%9s%9s%9s%9s\n", "phase", "count", "mean",
                        "p50", "p90", "p95", "p99", "max", "tok/s");
    put_phase(page, "prefill", rank, PM_PHASE_PREFILL);
    put_phase(page, "decode", rank, PM_PHASE_DECODE);
    if (strcmp(rank->source, "histogram") == 0)
        (void)pm_buf_printf(page->buf,
                            "  Percentiles come from histograms (within %.1f %%): older steps had "
                            "to go.\n",
                            100.0 * PM_HIST_QUANTILE_ERROR);
    else if (strcmp(rank->source, "held") == 0)
        put(page, "  Older steps had to go: these are the ones that are left.\n");
    if (rank->forward.untimed > 0)
        (void)pm_buf_printf(page->buf, "  %llu passes have no time: their end was not seen.\n",
                            (unsigned long long)rank->forward.untimed);
}

static void put_ranks(struct page *page, const struct pm_engine_report *engine)
{
    char cells[3][48];

    if (engine->n_ranks < 2)
        return;
    (void)pm_buf_printf(page->buf, "\n  %-8s%9s%16s%16s%16s\n", "rank", "passes", "prefill mean",
                        "decode mean", "decode p99");
    for (unsigned n = 0; n < engine->n_ranks; n++) {
        const struct pm_rank_report *rank = &engine->ranks[n];
        const struct pm_stats *prefill = &rank->stats[PM_PHASE_PREFILL];
        const struct pm_stats *decode = &rank->stats[PM_PHASE_DECODE];
        (void)pm_buf_printf(page->buf, "  %-8d%9llu%16s%16s%16s\n", rank->rank,
                            (unsigned long long)rank->forward.rows,
                            prefill->count != 0 ? ms(prefill->mean, cells[0]) : "-",
                            decode->count != 0 ? ms(decode->mean, cells[1]) : "-",
                            decode->count != 0 ? ms(decode->p99, cells[2]) : "-");
    }
}

/* ---- batches, queues, time ---- */

static double mean_of(const struct pm_level *level)
{
    return level->count != 0 ? (double)level->sum / (double)level->count : 0.0;
}

static void put_batches(struct page *page, const struct pm_engine_report *engine)
{
    char a[32], b[32], c[32];

    if (engine->steps == 0)
        return;
    put_heading(page, "Batches");
    (void)pm_buf_printf(
        page->buf, "  %-12s%s: %llu prefill (%llu mixed), %llu decode, %llu without tokens\n",
        "steps", grouped(engine->steps, a), (unsigned long long)engine->prefill_steps,
        (unsigned long long)engine->mixed_steps, (unsigned long long)engine->decode_steps,
        (unsigned long long)engine->empty_steps);
    (void)pm_buf_printf(page->buf, "  %-12s%s prompt, %s decode, %s computed again\n", "tokens",
                        grouped(engine->prefill_tokens, a), grouped(engine->decode_tokens, b),
                        grouped(engine->recompute_tokens, c));
    (void)pm_buf_printf(page->buf, "  %-12s%.1f requests and %.1f tokens, at most %llu and %llu\n",
                        "batch", mean_of(&engine->requests), mean_of(&engine->tokens),
                        (unsigned long long)engine->requests.max,
                        (unsigned long long)engine->tokens.max);
    (void)pm_buf_printf(page->buf,
                        "  %-12srunning %.1f, at most %llu; waiting %.1f, at most %llu\n", "queues",
                        mean_of(&engine->running), (unsigned long long)engine->running.max,
                        mean_of(&engine->waiting), (unsigned long long)engine->waiting.max);
}

static void put_share(struct page *page, const char *name, uint64_t sum_ns,
                      const struct pm_breakdown *down)
{
    char cell[48];
    (void)pm_buf_printf(page->buf, "  %-12s%12s%9.1f %%\n", name,
                        ms((double)sum_ns / (double)down->steps, cell),
                        down->span_ns != 0 ? 100.0 * (double)sum_ns / (double)down->span_ns : 0.0);
}

static void put_breakdown(struct page *page, const struct pm_engine_report *engine)
{
    const struct pm_breakdown *down = &engine->ranks[engine->sampler].breakdown;

    if (down->steps == 0)
        return;
    put_heading(page, "A step's time by the host's clock: mean in ms, share of the whole");
    put_share(page, "schedule", down->waited_schedule_ns, down);
    put_share(page, "pre", down->pre_ns, down);
    put_share(page, "model", down->model_ns, down);
    put_share(page, "post", down->post_ns, down);
    put_share(page, "sample", down->sample_ns, down);
    put_share(page, "other", down->other_ns, down);
    put_share(page, "idle", down->idle_ns - down->waited_schedule_ns, down);
    put(page, "  schedule: while the worker had nothing to run; other: between a step's two\n"
              "  calls; idle: the rest of the time between steps. Together the whole.\n");
}

/* ---- what was not seen, what it cost ---- */

static void put_confession(struct page *page, const struct pm_report *report)
{
    const struct pm_sums *sums = &report->sums;
    const struct pm_account *account = &report->account;
    const size_t notes = pm_session_note_count(report->session);
    char a[32], b[32], c[32];

    put_heading(page, "The profile itself");
    (void)pm_buf_printf(page->buf, "  %-12s%u in place, %u fired, %u not in this vLLM, %u off\n",
                        "hooks", report->hooks_patched, report->hooks_fired, report->hooks_missing,
                        report->hooks_off);
    (void)pm_buf_printf(page->buf, "  %-12s%s readable, %s lost, %s made room for newer ones\n",
                        "records", grouped(sums->records, a), grouped(sums->lost, b),
                        grouped(sums->recycled, c));
    (void)pm_buf_printf(
        page->buf, "  %-12s%s calls, %.3f ms, %.4f %% of the processes' time\n", "own cost",
        grouped(sums->hook_calls, a), (double)sums->hook_ns / 1e6,
        sums->observed_ns != 0 ? 100.0 * (double)sums->hook_ns / (double)sums->observed_ns : 0.0);
    if (sums->faults > 0)
        (void)pm_buf_printf(page->buf, "  %-12s%s inside the hooks, vLLM was not affected\n",
                            "faults", grouped(sums->faults, a));
    if (account->mismatched + account->sched_only + account->worker_only > 0)
        (void)pm_buf_printf(
            page->buf, "  %-12s%llu disagree, %llu without a worker, %llu without a scheduler\n",
            "steps", (unsigned long long)account->mismatched,
            (unsigned long long)account->sched_only, (unsigned long long)account->worker_only);
    for (size_t i = 0; i < notes && i < NOTES_SHOWN; i++)
        put_wrapped(page, pm_session_note(report->session, i), 2);
    if (notes > NOTES_SHOWN)
        (void)pm_buf_printf(page->buf, "  … and %zu more (report --json has them all)\n",
                            notes - NOTES_SHOWN);
}

static void put_empty(struct page *page, const struct pm_report *report)
{
    put_heading(page, "No engine step was recorded yet");
    put_wrapped(page,
                pm_session_process_count(report->session) == 0
                    ? "No process has written a record. Send the server a request; if it has had "
                      "some, `profilemate doctor` says what is missing."
                    : "Send the server a request and look again. If it has served some, "
                      "`profilemate doctor SESSION` says which hooks are missing.",
                2);
}

static void put_report(struct page *page, const struct pm_report *report,
                       const struct pm_report_options *options)
{
    const bool brief = options->brief;
    uint64_t steps = report->account.passes;

    put_what_ran(page, report, brief, options->window);
    for (size_t e = 0; e < report->n_engines; e++)
        steps += report->engines[e].steps;
    if (steps == 0)
        put_empty(page, report);
    else if (options->findings_text != NULL)
        options->findings_text(page->buf, page->colour, brief, options->findings_arg);
    for (size_t e = 0; e < report->n_engines && steps > 0; e++) {
        const struct pm_engine_report *engine = &report->engines[e];
        put_forward(page, engine, report->n_engines > 1);
        if (brief)
            continue;
        put_ranks(page, engine);
        put_batches(page, engine);
        put_breakdown(page, engine);
        pm_device_report_text(&engine->ranks[engine->sampler].device,
                              engine->ranks[engine->sampler].forward.rows, page->colour, page->buf);
        (void)!pm_compute_report_text(report->session, e, engine->sampler, page->colour, page->buf);
        (void)!pm_host_report_text(report->session, e, engine->sampler, page->colour, page->buf);
        (void)!pm_graph_report_text(report->session, e, engine->sampler, page->colour, page->buf);
        if (pm_session_setting_on(report->session, "spec_decode", true))
            (void)!pm_wasted_report_text(report->session, e, engine->sampler, page->colour,
                                         page->buf);
        if (pm_session_setting_on(report->session, "sampling", true))
            (void)!pm_sampling_report_text(report->session, e, engine->sampler, page->colour,
                                           page->buf);
        (void)!pm_moe_report_text(report->session, e, engine->sampler, page->colour, page->buf);
        (void)!pm_memory_report_text(report->session, e, engine->sampler, page->colour, page->buf);
        (void)!pm_collective_report_text(report->session, e, engine->sampler, page->colour,
                                         page->buf);
        (void)!pm_transfer_report_text(report->session, e, engine->sampler, page->colour,
                                       page->buf);
        (void)!pm_layer_report_text(report->session, e, engine->sampler, page->colour, page->buf);
        if (engine->kv.steps > 0) {
            put_heading(page, "KV cache");
            pm_kv_report_text(page->buf, &engine->kv);
        }
    }
    if (!brief)
        (void)!pm_encoder_decoder_report(report->session, page->colour, page->buf);
    if (!brief)
        (void)!pm_custom_report(report->session, page->colour, page->buf);
    if (!brief || report->sums.lost + report->sums.damaged + report->sums.faults > 0)
        put_confession(page, report);
}

int pm_view_report_text(const struct pm_session *session, const struct pm_report_options *options,
                        FILE *out, struct pm_error *err)
{
    struct pm_report report;
    struct pm_buf buf;
    int rc = pm_window_apply(session, options->window, err);

    if (rc != 0)
        return rc;
    rc = pm_report_make(&report, session);
    if (rc != 0)
        return pm_error_set(err, rc, "%s: %s", pm_session_info(session)->path, pm_strerror(rc));
    pm_buf_init(&buf, PM_VIEW_TEXT_MAX);
    put_report(&(struct page){.buf = &buf, .colour = options->colour}, &report, options);
    rc = pm_buf_status(&buf);
    if (rc != 0)
        (void)pm_error_set(err, rc, "the report cannot be written: %s", pm_strerror(rc));
    else if (fwrite(buf.data, 1, buf.used, out) != buf.used)
        rc = pm_error_set(err, -PM_EIO, "the report cannot be written");
    pm_buf_release(&buf);
    pm_report_release(&report);
    return rc;
}
