/* The metrics that come from no record (metrics.def): of sessions, engines, ranks, processes,
 * serve. */
#include "serve/scrape.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "session/attrs.h"
#include "view/view.h"

enum own_family {
#define S(name, type, of, unit, help) OWN_##name,
#include "serve/metrics.def"
    OWN_COUNT
};
enum own_of { OF_SESSION, OF_ENGINE, OF_RANK, OF_PROCESS, OF_SERVE };

static const struct own {
    struct pm_family family;
    enum own_of of;
} own[OWN_COUNT] = {
#define S(name, type, of, unit, help) {{#name, PM_FAMILY_##type, unit, help}, OF_##of},
#include "serve/metrics.def"
};

/* A moment of the session's clock as Unix time. */
static uint64_t unix_ns(const struct pm_live_view *view, uint64_t at_ns)
{
    return view->info->start_real_ns + (at_ns - view->info->start_mono_ns);
}

static void put_of_session(struct scrape *s, enum own_family family, size_t i)
{
    const struct pm_live_view *view = s->sessions[i].view;
    const char *vllm = pm_session_attr(view->session, PM_ATTR_VLLM);
    const char *host = pm_session_attr(view->session, PM_ATTR_HOST);
    struct pm_labels labels;

    pm_label_session(s, i, &labels);
    if (family == OWN_session) {
        pm_labels_add(&labels, "vllm", vllm != NULL ? vllm : "");
        pm_labels_add(&labels, "host", host != NULL ? host : "");
        pm_expose_count(&s->expose, &labels, 1);
    } else if (family == OWN_session_start_time_seconds) {
        pm_expose_seconds(&s->expose, &labels, view->info->start_real_ns);
    } else {
        const size_t before = labels.count;
        for (unsigned h = 0; h < PM_LIVE_HEALTHS; h++) {
            labels.count = before;
            pm_labels_add(&labels, "health", pm_live_health_text((enum pm_live_health)h));
            pm_expose_count(&s->expose, &labels, h == (unsigned)view->health);
        }
    }
}

static void put_of_engine(struct scrape *s, enum own_family family, size_t i, size_t e)
{
    const struct pm_live_view *view = s->sessions[i].view;
    const struct pm_live_engine *engine = &view->engines[e];
    const uint64_t window_ns = view->now_ns - view->window_from_ns;
    struct label_text text = {.engine = ""};
    struct pm_labels labels;

    pm_label_engine(s, i, e, &text, &labels);
    if (family == OWN_max_running_requests && engine->max_requests > 0)
        pm_expose_count(&s->expose, &labels, engine->max_requests);
    else if (family == OWN_max_step_tokens && engine->max_tokens > 0)
        pm_expose_count(&s->expose, &labels, engine->max_tokens);
    else if (family == OWN_open_requests)
        pm_expose_count(&s->expose, &labels, engine->n_requests);
    else if (family == OWN_last_step_time_seconds && engine->last_ns > 0)
        pm_expose_seconds(&s->expose, &labels, unix_ns(view, engine->last_ns));
    else if (family == OWN_kv_cache_evictable_blocks && engine->has_kv)
        pm_expose_count(&s->expose, &labels, engine->kv_evictable);
    else if (family == OWN_no_work_ratio && window_ns > 0)
        pm_expose_number(&s->expose, &labels, (double)engine->no_work_ns / (double)window_ns);
}

static void put_of_rank(struct scrape *s, enum own_family family, size_t i, size_t e, size_t n)
{
    const struct pm_live_view *view = s->sessions[i].view;
    const struct pm_live_rank *rank = &view->engines[e].ranks[n];
    const uint64_t window_ns = view->now_ns - view->window_from_ns;
    const uint64_t passes = rank->window.replayed + rank->window.eager;
    struct label_text text = {.engine = ""};
    struct pm_labels labels;

    pm_label_engine(s, i, e, &text, &labels);
    pm_label_rank(rank->rank >= 0 ? rank->rank : (int)n, &text, &labels);
    if (family == OWN_forward_ratio && window_ns > 0)
        pm_expose_number(&s->expose, &labels, (double)rank->window.forward_ns / (double)window_ns);
    else if (family == OWN_graph_replay_ratio && passes > 0)
        pm_expose_number(&s->expose, &labels, (double)rank->window.replayed / (double)passes);
}

static void put_of_process(struct scrape *s, enum own_family family, size_t i,
                           const struct pm_live_process *process)
{
    const struct pm_process_info *info = &process->info;
    const bool stopped = process->visible && strchr("Tt", process->proc.state) != NULL;
    const long ticks = sysconf(_SC_CLK_TCK);
    struct label_text text = {.engine = ""};
    struct pm_labels labels;
    uint64_t lost = 0;

    for (int stream = 0; stream < PM_STREAM_COUNT; stream++)
        lost += info->lost[stream];
    pm_label_session(s, i, &labels);
    snprintf(text.pid, sizeof(text.pid), "%u", info->pid);
    pm_roles_name(info->roles, text.roles, sizeof(text.roles));
    pm_labels_add(&labels, "pid", text.pid);
    pm_labels_add(&labels, "role", text.roles);
    switch ((int)family) {
    case OWN_process_up:
        pm_expose_count(&s->expose, &labels, info->life == PM_LIFE_RUNNING);
        break;
    case OWN_process_stopped:
        if (process->visible)
            pm_expose_count(&s->expose, &labels, stopped && process->proc.state != '\0');
        break;
    case OWN_process_resident_memory_bytes:
        if (process->visible)
            pm_expose_count(&s->expose, &labels, process->proc.rss_bytes);
        break;
    case OWN_process_cpu_seconds:
        if (process->visible && ticks > 0)
            pm_expose_seconds(&s->expose, &labels,
                              process->proc.cpu_ticks * (1000000000u / (uint64_t)ticks));
        break;
    case OWN_records_lost:
        pm_expose_count(&s->expose, &labels, lost);
        break;
    case OWN_hook_faults:
        pm_expose_count(&s->expose, &labels, info->faults);
        break;
    case OWN_hook_calls:
        pm_expose_count(&s->expose, &labels, info->hook_calls);
        break;
    default:
        pm_expose_seconds(&s->expose, &labels, info->hook_ns);
    }
}

static uint64_t cpu_ns(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * 1000u;
}

static void put_of_serve(struct scrape *s, enum own_family family)
{
    struct pm_labels labels = {0};
    if (family == OWN_serve_build) {
        pm_labels_add(&labels, "version", PM_VERSION);
        pm_expose_count(&s->expose, &labels, 1);
    } else if (family == OWN_serve_cpu_seconds) {
        pm_expose_seconds(&s->expose, &labels, cpu_ns());
    } else {
        pm_expose_count(&s->expose, &labels,
                        family == OWN_serve_clients     ? s->serve->clients
                        : family == OWN_serve_listeners ? s->serve->listeners
                                                        : s->serve->scrapes);
    }
}

static void put_own_of(struct scrape *s, enum own_family family, size_t i)
{
    const struct pm_live_view *view = s->sessions[i].view;
    if (own[family].of == OF_SESSION)
        put_of_session(s, family, i);
    for (size_t p = 0; own[family].of == OF_PROCESS && p < view->n_processes; p++)
        put_of_process(s, family, i, &view->processes[p]);
    for (size_t e = 0; e < view->n_engines; e++) {
        if (own[family].of == OF_ENGINE)
            put_of_engine(s, family, i, e);
        for (size_t n = 0; own[family].of == OF_RANK && n < view->engines[e].n_ranks; n++)
            put_of_rank(s, family, i, e, n);
    }
}

void pm_scrape_own(struct scrape *s)
{
    for (unsigned f = 0; f < OWN_COUNT; f++) {
        pm_expose_family(&s->expose, &own[f].family);
        if (own[f].of == OF_SERVE)
            put_of_serve(s, (enum own_family)f);
        for (size_t i = 0; i < s->n_sessions; i++)
            put_own_of(s, (enum own_family)f, i);
    }
}
