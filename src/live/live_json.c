/* One session's figures as one JSON object, for `top --json` and whoever serves them (live.h). */
#include "live/live.h"

#include "base/json.h"
#include "session/attrs.h"
#include "session/step_facts.h"

#include <stdio.h>

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void put_text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value != NULL && value[0] != '\0' ? value : NULL);
}

/* A moment as seconds since the session's start. */
static void put_moment(struct pm_json *json, const char *key, const struct pm_live_view *view,
                       uint64_t at_ns)
{
    const uint64_t start_ns = view->info->start_mono_ns;
    pm_json_key(json, key);
    if (at_ns >= start_ns && at_ns != 0)
        pm_json_sec6(json, at_ns - start_ns);
    else
        pm_json_null(json);
}

static void put_letter(struct pm_json *json, const char *key, char letter)
{
    const char text[2] = {letter, '\0'};
    put_text(json, key, text);
}

static void put_memory(struct pm_json *json, const char *key, uint64_t bytes)
{
    pm_json_key(json, key);
    if (bytes == UINT64_MAX)
        pm_json_null(json);
    else
        pm_json_u64(json, bytes);
}

static void put_thread(struct pm_json *json, const struct pm_live_view *view,
                       const struct pm_live_process *process, size_t i)
{
    const struct pm_thread_state *thread = &process->threads[i];
    pm_json_object(json);
    put_u64(json, "tid", thread->tid);
    put_text(json, "doing", pm_live_doing_word(thread->doing));
    pm_json_key(json, "raised"), pm_json_bool(json, thread->raised);
    put_moment(json, "since_sec", view, thread->since_ns);
    put_letter(json, "kernel_state", process->thread_kernel[i]);
    pm_json_end(json);
}

static void put_roles(struct pm_json *json, unsigned roles)
{
    pm_json_key(json, "roles");
    pm_json_array(json);
    if (roles & PM_ROLE_FRONTEND)
        pm_json_text(json, "frontend");
    if (roles & PM_ROLE_ENGINE)
        pm_json_text(json, "engine");
    if (roles & PM_ROLE_WORKER)
        pm_json_text(json, "worker");
    pm_json_end(json);
}

static void put_process(struct pm_json *json, const struct pm_live_view *view,
                        const struct pm_live_process *process)
{
    static const char *const lives[] = {"running", "closed", "killed"};
    const struct pm_process_info *info = &process->info;
    pm_json_object(json);
    put_u64(json, "pid", info->pid);
    pm_json_key(json, "host_pid");
    if (process->visible)
        pm_json_u64(json, process->proc.pid);
    else
        pm_json_null(json);
    put_roles(json, info->roles);
    pm_json_key(json, "engine"), pm_json_i64(json, info->engine);
    pm_json_key(json, "rank"), pm_json_i64(json, info->rank);
    put_text(json, "life", lives[info->life]);
    put_letter(json, "kernel_state", process->visible ? process->proc.state : '\0');
    put_text(json, "kernel_wait", process->visible ? process->proc.wchan : NULL);
    put_memory(json, "rss_bytes", process->visible ? process->proc.rss_bytes : UINT64_MAX);
    pm_json_key(json, "cpu_pct");
    if (process->cpu >= 0)
        pm_json_double(json, process->cpu * 100, 1);
    else
        pm_json_null(json);
    put_moment(json, "heartbeat_sec", view, info->heartbeat_ns);
    put_moment(json, "closed_sec", view, info->closed_ns);
    pm_json_key(json, "threads");
    pm_json_array(json);
    for (size_t i = 0; i < process->n_threads; i++)
        put_thread(json, view, process, i);
    pm_json_end(json);
    pm_json_end(json);
}

static void put_quantiles(struct pm_json *json, const char *key,
                          const struct pm_live_quantiles *quantiles)
{
    pm_json_key(json, key);
    pm_json_object(json);
    put_u64(json, "count", quantiles->count);
    const struct {
        const char *key;
        double ns;
    } values[] = {{"mean_ms", quantiles->mean},
                  {"p50_ms", quantiles->p50},
                  {"p95_ms", quantiles->p95},
                  {"p99_ms", quantiles->p99}};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        pm_json_key(json, values[i].key);
        if (quantiles->count > 0)
            pm_json_double(json, values[i].ns / 1e6, 3);
        else
            pm_json_null(json);
    }
    pm_json_end(json);
}

/* Names that end in _ns are told in milliseconds. */
static void put_sum(struct pm_json *json, const char *name, uint64_t value)
{
    char key[64];
    const int bytes = snprintf(key, sizeof(key), "%s", name);
    if (bytes > 3 && key[bytes - 3] == '_' && key[bytes - 2] == 'n' && key[bytes - 1] == 's') {
        snprintf(key + bytes - 3, 4, "_ms");
        pm_json_key(json, key);
        pm_json_ms3(json, value);
    } else {
        put_u64(json, name, value);
    }
}

static void put_sums(struct pm_json *json, const struct pm_live_sums *sums)
{
#define X(name, schema, field, classes) put_sum(json, #name, sums->name);
    PM_LIVE_SUMS(X)
#undef X
}

static const char *const clocks[4] = {"none", "wall", "sync", "events"};

static void put_rank_sums(struct pm_json *json, const char *key,
                          const struct pm_live_rank_sums *sums)
{
    pm_json_key(json, key);
    pm_json_object(json);
#define X(name, schema, field, classes) put_sum(json, #name, sums->name);
    PM_LIVE_RANK_SUMS(X)
#undef X
    put_sum(json, "forward_ns", sums->forward_ns);
    put_u64(json, "graph_replays", sums->replayed);
    put_u64(json, "eager_passes", sums->eager);
    pm_json_end(json);
}

static void put_request(struct pm_json *json, const struct pm_live_request *request)
{
    pm_json_object(json);
    put_text(json, "request_id", request->id);
    put_text(json, "phase", request->phase);
    pm_json_key(json, "age_sec"), pm_json_sec6(json, request->age_ns);
    put_u64(json, "prompt_tokens", request->prompt_tokens);
    put_u64(json, "cached_tokens", request->cached_tokens);
    put_u64(json, "output_tokens", request->output_tokens);
    put_u64(json, "max_tokens", request->max_tokens);
    put_u64(json, "preemptions", request->preemptions);
    pm_json_key(json, "queue_ms"), pm_json_ms3(json, request->queue_ns);
    pm_json_key(json, "ttft_ms");
    if (request->ttft_ns != 0)
        pm_json_ms3(json, request->ttft_ns);
    else
        pm_json_null(json);
    pm_json_key(json, "gap_ms");
    if (request->gap_ns != 0)
        pm_json_ms3(json, request->gap_ns);
    else
        pm_json_null(json);
    pm_json_end(json);
}

static void put_step(struct pm_json *json, const struct pm_live_view *view,
                     const struct pm_live_step *step)
{
    static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
    pm_json_object(json);
    put_u64(json, "step", step->step);
    put_text(json, "phase", step->phase < PM_PHASE_CLASSES ? phases[step->phase] : NULL);
    put_moment(json, "start_sec", view, step->start_ns);
    put_moment(json, "end_sec", view, step->end_ns);
    put_u64(json, "requests", step->requests);
    put_u64(json, "tokens", step->tokens);
    put_u64(json, "outputs", step->outputs);
    put_u64(json, "running", step->running);
    put_u64(json, "waiting", step->waiting);
    pm_json_key(json, "schedule_ms"), pm_json_ms3(json, step->sched_ns);
    pm_json_key(json, "model_ms"), pm_json_ms3(json, step->model_ns);
    pm_json_key(json, "worker_ms"), pm_json_ms3(json, step->worker_ns);
    pm_json_key(json, "update_ms"), pm_json_ms3(json, step->update_ns);
    pm_json_key(json, "failed"), pm_json_bool(json, step->failed);
    pm_json_end(json);
}

static void put_window(struct pm_json *json, const struct pm_live_view *view,
                       const struct pm_live_engine *engine)
{
    const double sec = (double)(view->now_ns - view->window_from_ns) / 1e9;
    const struct pm_live_sums *sums = &engine->window;
    pm_json_key(json, "window");
    pm_json_object(json);
    put_moment(json, "from_sec", view, view->window_from_ns);
    put_moment(json, "to_sec", view, view->now_ns);
    const struct {
        const char *key;
        uint64_t count;
    } rates[] = {{"in_tokens_per_sec", sums->prefill_tokens},
                 {"out_tokens_per_sec", sums->output_tokens},
                 {"steps_per_sec", sums->steps},
                 {"requests_per_sec", sums->finished}};
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        pm_json_key(json, rates[i].key);
        pm_json_double(json, sec > 0 ? (double)rates[i].count / sec : 0, 3);
    }
    put_sums(json, sums);
    put_u64(json, "aborted", engine->aborted);
    pm_json_key(json, "no_work_ms"), pm_json_ms3(json, engine->no_work_ns);
#define X(name, doc, schema, field)                                                                \
    put_quantiles(json, #name, &engine->window_quantiles[PM_LIVE_##name]);
    PM_LIVE_METRICS(X)
#undef X
    pm_json_end(json);
    pm_json_key(json, "total");
    pm_json_object(json);
    put_sums(json, &engine->total);
#define X(name, doc, schema, field)                                                                \
    if (PM_LIVE_##name != PM_LIVE_itl)                                                             \
        put_quantiles(json, #name, &engine->total_quantiles[PM_LIVE_##name]);
    PM_LIVE_METRICS(X)
#undef X
    put_text(json, "percentiles", "histogram");
    pm_json_end(json);
}

static void put_engine(struct pm_json *json, const struct pm_live_view *view,
                       const struct pm_live_engine *engine, bool requests)
{
    pm_json_object(json);
    put_u64(json, "engine", engine->number);
    pm_json_key(json, "process");
    if (engine->process >= 0)
        pm_json_u64(json, view->processes[engine->process].info.pid);
    else
        pm_json_null(json);
    put_u64(json, "running", engine->running);
    put_u64(json, "waiting", engine->waiting);
    put_u64(json, "max_requests", engine->max_requests);
    put_u64(json, "max_tokens", engine->max_tokens);
    put_u64(json, "batch_requests", engine->batch_requests);
    put_u64(json, "batch_tokens", engine->batch_tokens);
    pm_json_key(json, "kv");
    if (engine->has_kv) {
        pm_json_object(json);
        put_u64(json, "used_blocks", engine->kv_used);
        put_u64(json, "total_blocks", engine->kv_total);
        put_u64(json, "evictable_blocks", engine->kv_evictable);
        put_u64(json, "peak_blocks", engine->kv_peak);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    put_moment(json, "last_step_sec", view, engine->last_ns);
    put_window(json, view, engine);
    pm_json_key(json, "ranks");
    pm_json_array(json);
    for (size_t n = 0; n < engine->n_ranks; n++) {
        const struct pm_live_rank *rank = &engine->ranks[n];
        pm_json_object(json);
        pm_json_key(json, "rank"), pm_json_i64(json, rank->rank);
        put_u64(json, "process", view->processes[rank->process].info.pid);
        put_moment(json, "last_step_sec", view, rank->last_ns);
        put_text(json, "forward_clock", clocks[rank->forward_clock & 3]);
        put_rank_sums(json, "window", &rank->window);
        put_rank_sums(json, "total", &rank->total);
        pm_json_end(json);
    }
    pm_json_end(json);
    pm_json_key(json, "steps");
    pm_json_array(json);
    for (size_t i = 0; i < engine->n_steps; i++)
        put_step(json, view, &engine->steps[i]);
    pm_json_end(json);
    put_u64(json, "open_requests", engine->n_requests);
    if (requests) {
        pm_json_key(json, "requests");
        pm_json_array(json);
        for (size_t i = 0; i < engine->n_requests; i++)
            put_request(json, &engine->requests[i]);
        pm_json_end(json);
    }
    pm_json_end(json);
}

void pm_live_json(struct pm_json *json, const struct pm_live_view *view, bool requests)
{
    pm_json_object(json);
    put_text(json, "name", view->info->name);
    put_text(json, "path", view->info->path);
    put_text(json, "model", pm_session_attr(view->session, PM_ATTR_MODEL));
    put_text(json, "vllm", pm_session_attr(view->session, PM_ATTR_VLLM));
    put_text(json, "host", pm_session_attr(view->session, PM_ATTR_HOST));
    put_text(json, "health", pm_live_health_text(view->health));
    put_text(json, "sentence", view->sentence);
    put_moment(json, "now_sec", view, view->now_ns);
    pm_json_key(json, "engines");
    pm_json_array(json);
    for (size_t e = 0; e < view->n_engines; e++)
        put_engine(json, view, &view->engines[e], requests);
    pm_json_end(json);
    pm_json_key(json, "processes");
    pm_json_array(json);
    for (size_t i = 0; i < view->n_processes; i++)
        put_process(json, view, &view->processes[i]);
    pm_json_end(json);
    pm_json_end(json);
}
