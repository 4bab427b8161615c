/* The JSON of `profilemate postmortem` (see postmortem.h). */
#include "cmd/postmortem.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "session/attrs.h"
#include "session/request_facts.h"
#include "session/step_facts.h"
#include "view/view.h"

static void put_text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value != NULL && value[0] != '\0' ? value : NULL);
}

static void put_u64(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    if (value == UINT64_MAX)
        pm_json_null(json);
    else
        pm_json_u64(json, value);
}

static void put_moment(struct pm_json *json, const char *key, const struct pm_autopsy *autopsy,
                       uint64_t at_ns)
{
    const uint64_t start_ns = autopsy->view->info->start_mono_ns;
    pm_json_key(json, key);
    if (at_ns != 0 && at_ns >= start_ns)
        pm_json_sec6(json, at_ns - start_ns);
    else
        pm_json_null(json);
}

static void put_letter(struct pm_json *json, const char *key, char letter)
{
    const char text[2] = {letter, '\0'};
    put_text(json, key, text);
}

static void put_end(struct pm_json *json, const struct pm_autopsy *autopsy,
                    const struct pm_end *end)
{
    static const char *const lives[] = {"running", "closed", "killed"};
    const struct pm_live_process *process = end->process;
    pm_json_object(json);
    put_u64(json, "pid", process->info.pid);
    put_text(json, "role", pm_live_role_text(process->info.roles));
    pm_json_key(json, "engine"), pm_json_i64(json, process->info.engine);
    pm_json_key(json, "rank"), pm_json_i64(json, process->info.rank);
    put_text(json, "life", lives[process->info.life]);
    put_moment(json, "last_sign_sec", autopsy, end->last_sign_ns);
    put_moment(json, "closed_sec", autopsy, process->info.closed_ns);
    put_letter(json, "kernel_state", process->visible ? process->proc.state : '\0');
    put_text(json, "kernel_wait", process->visible ? process->proc.wchan : NULL);
    put_u64(json, "rss_bytes", process->visible ? process->proc.rss_bytes : UINT64_MAX);
    pm_json_key(json, "signal");
    if (end->status >= 0 && WIFSIGNALED(end->status))
        pm_json_i64(json, WTERMSIG(end->status));
    else
        pm_json_null(json);
    pm_json_key(json, "exit_code");
    if (end->status >= 0 && WIFEXITED(end->status))
        pm_json_i64(json, WEXITSTATUS(end->status));
    else
        pm_json_null(json);
    put_text(json, "status_seen_by", end->status_by);
    put_text(json, "raised_in", end->raised_in);
    put_text(json, "raised", end->raised);
    pm_json_key(json, "threads");
    pm_json_array(json);
    for (size_t i = 0; i < process->n_threads; i++) {
        const struct pm_thread_state *thread = &process->threads[i];
        pm_json_object(json);
        put_u64(json, "tid", thread->tid);
        put_text(json, "doing", pm_live_doing_word(thread->doing));
        pm_json_key(json, "raised"), pm_json_bool(json, thread->raised);
        put_moment(json, "since_sec", autopsy, thread->since_ns);
        put_letter(json, "kernel_state", process->thread_kernel[i]);
        pm_json_end(json);
    }
    pm_json_end(json);
    pm_json_end(json);
}

static void put_step(struct pm_json *json, const struct pm_autopsy *autopsy,
                     const struct pm_live_step *step)
{
    static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
    pm_json_object(json);
    put_u64(json, "step", step->step);
    put_text(json, "phase", step->phase < PM_PHASE_CLASSES ? phases[step->phase] : NULL);
    put_moment(json, "start_sec", autopsy, step->start_ns);
    put_moment(json, "end_sec", autopsy, step->end_ns);
    pm_json_key(json, "ran"), pm_json_bool(json, step->has_worker);
    pm_json_key(json, "failed"), pm_json_bool(json, step->failed);
    put_u64(json, "requests", step->requests);
    put_u64(json, "tokens", step->tokens);
    put_u64(json, "running", step->running);
    put_u64(json, "waiting", step->waiting);
    pm_json_key(json, "schedule_ms"), pm_json_ms3(json, step->sched_ns);
    pm_json_key(json, "model_ms"), pm_json_ms3(json, step->model_ns);
    pm_json_key(json, "worker_ms"), pm_json_ms3(json, step->worker_ns);
    pm_json_end(json);
}

static void put_request(struct pm_json *json, const struct pm_live_request *request, bool plain)
{
    char name[PM_REQUEST_ID_MAX];
    pm_postmortem_name(request->id, plain, name, sizeof(name));
    pm_json_object(json);
    put_text(json, "request", name);
    put_text(json, "phase", request->phase);
    pm_json_key(json, "age_sec"), pm_json_sec6(json, request->age_ns);
    put_u64(json, "prompt_tokens", request->prompt_tokens);
    put_u64(json, "output_tokens", request->output_tokens);
    put_u64(json, "preemptions", request->preemptions);
    pm_json_key(json, "gap_ms"), pm_json_ms3(json, request->gap_ns);
    pm_json_end(json);
}

static void put_ended(struct pm_json *json, const struct pm_autopsy *autopsy,
                      const struct pm_request *request, bool plain)
{
    char name[PM_REQUEST_ID_MAX];
    pm_postmortem_name(request->id, plain, name, sizeof(name));
    pm_json_object(json);
    put_text(json, "request", name);
    put_text(json, "reason", pm_finish_reason_text(request->fact.reason));
    put_moment(json, "finished_sec", autopsy, request->fact.finished_ns);
    put_u64(json, "prompt_tokens", request->fact.prompt_tokens);
    put_u64(json, "output_tokens", request->fact.output_tokens);
    pm_json_end(json);
}

static void put_engine(struct pm_json *json, const struct pm_autopsy *autopsy,
                       const struct pm_live_engine *engine, bool plain)
{
    pm_json_object(json);
    put_u64(json, "engine", engine->number);
    put_u64(json, "running", engine->running);
    put_u64(json, "waiting", engine->waiting);
    put_u64(json, "kv_used_blocks", engine->has_kv ? engine->kv_used : UINT64_MAX);
    put_u64(json, "kv_total_blocks", engine->has_kv ? engine->kv_total : UINT64_MAX);
    put_u64(json, "steps_in_all", engine->total.steps);
    put_moment(json, "last_step_sec", autopsy, engine->last_ns);
    pm_json_key(json, "last_steps");
    pm_json_array(json);
    for (size_t i = 0; i < engine->n_steps; i++)
        put_step(json, autopsy, &engine->steps[i]);
    pm_json_end(json);
    pm_json_key(json, "requests_under_way");
    pm_json_array(json);
    for (size_t i = 0; i < engine->n_requests; i++)
        put_request(json, &engine->requests[i], plain);
    pm_json_end(json);
    pm_json_key(json, "requests_ended_last");
    pm_json_array(json);
    for (size_t i = 0; i < engine->n_ended; i++)
        put_ended(json, autopsy, &engine->ended[i], plain);
    pm_json_end(json);
    pm_json_end(json);
}

static void put_memory(struct pm_json *json, const struct pm_autopsy *autopsy)
{
    const struct pm_memory *memory = &autopsy->memory;
    pm_json_key(json, "memory_now");
    pm_json_object(json);
    put_u64(json, "total_bytes", memory->total);
    put_u64(json, "available_bytes", memory->available);
    put_u64(json, "swap_total_bytes", memory->swap_total);
    put_u64(json, "swap_free_bytes", memory->swap_free);
    put_u64(json, "cgroup_used_bytes", memory->group_used);
    put_u64(json, "cgroup_limit_bytes", memory->group_limit);
    put_u64(json, "cgroup_oom_kills", memory->group_oom_kills);
    put_u64(json, "cgroup_oom_kills_at_birth", autopsy->oom_kills_before);
    pm_json_end(json);
}

void pm_postmortem_json(struct pm_json *json, const struct pm_autopsy *autopsy, bool plain_ids)
{
    const struct pm_live_view *view = autopsy->view;
    char started[64];
    pm_iso_time(view->info->start_real_ns, started, sizeof(started));
    pm_json_object(json);
    put_text(json, "name", view->info->name);
    put_text(json, "model", pm_session_attr(view->session, PM_ATTR_MODEL));
    put_text(json, "vllm", pm_session_attr(view->session, PM_ATTR_VLLM));
    put_text(json, "torch", pm_session_attr(view->session, PM_ATTR_TORCH));
    put_text(json, "python", pm_session_attr(view->session, PM_ATTR_PYTHON));
    put_text(json, "profilemate", pm_session_attr(view->session, PM_ATTR_PROFILEMATE));
    put_text(json, "device", pm_session_attr(view->session, PM_ATTR_DEVICE));
    put_text(json, "command", pm_session_attr(view->session, PM_ATTR_COMMAND));
    put_text(json, "started", started);
    put_moment(json, "now_sec", autopsy, view->now_ns);
    put_text(json, "cause", pm_cause_word(autopsy->cause));
    put_text(json, "sentence", autopsy->sentence);
    put_text(json, "evidence", autopsy->evidence);
    put_text(json, "health", pm_live_health_text(view->health));
    pm_json_key(json, "processes");
    pm_json_array(json);
    for (size_t i = 0; i < view->n_processes; i++)
        put_end(json, autopsy, &autopsy->ends[i]);
    pm_json_end(json);
    pm_json_key(json, "engines");
    pm_json_array(json);
    for (size_t e = 0; e < view->n_engines; e++)
        put_engine(json, autopsy, &view->engines[e], plain_ids);
    pm_json_end(json);
    put_memory(json, autopsy);
    pm_json_key(json, "kernel_log");
    if (autopsy->kernel.readable) {
        pm_json_array(json);
        for (size_t i = 0; i < autopsy->kernel.n_lines; i++)
            pm_json_text(json, autopsy->kernel.lines[i].text);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_json_key(json, "run");
    if (autopsy->run.found) {
        pm_json_object(json);
        put_u64(json, "pid", autopsy->run.pid);
        pm_json_key(json, "status"), pm_json_i64(json, autopsy->run.status);
        pm_json_key(json, "asked_by_signal"), pm_json_i64(json, autopsy->run.asked);
        pm_json_end(json);
    } else {
        pm_json_null(json);
    }
    pm_json_end(json);
}
