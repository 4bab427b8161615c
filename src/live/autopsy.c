/* See autopsy.h. */
#include "live/autopsy.h"

#include "session/attrs.h"
#include "view/view.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define AT_ONCE_NS 250000000ull /* a helper thread's round is 100 ms */

const char *pm_cause_word(enum pm_cause cause)
{
    static const char *const words[PM_CAUSES] = {
        [PM_CAUSE_ALIVE] = "alive",   [PM_CAUSE_HANGS] = "hangs",
        [PM_CAUSE_BROKEN] = "broken", [PM_CAUSE_STOPPED] = "stopped",
        [PM_CAUSE_MEMORY] = "memory", [PM_CAUSE_CRASHED] = "crashed",
        [PM_CAUSE_RAISED] = "raised", [PM_CAUSE_KILLED] = "killed",
    };
    return (unsigned)cause < PM_CAUSES ? words[cause] : "unknown";
}

const char *pm_live_role_text(unsigned roles)
{
    if ((roles & PM_ROLE_ENGINE) && (roles & PM_ROLE_WORKER))
        return "engine core (runs the model itself)";
    if (roles & PM_ROLE_ENGINE)
        return "engine core";
    if (roles & PM_ROLE_WORKER)
        return "worker";
    return roles & PM_ROLE_FRONTEND ? "front end" : "process";
}

static const char *short_role(unsigned roles)
{
    return roles & PM_ROLE_ENGINE     ? "engine core"
           : roles & PM_ROLE_WORKER   ? "worker"
           : roles & PM_ROLE_FRONTEND ? "front end"
                                      : "process";
}

/* ---- each process ---- */

static void find_raised(const struct pm_process *process, struct pm_end *end)
{
    const size_t prefix = strlen(PM_ATTR_RAISED_PREFIX);
    for (size_t i = 0; i < pm_process_attr_count(process); i++) {
        const char *key, *value;
        pm_process_attr_at(process, i, &key, &value);
        /* execute_model's is the innermost; schedule and update are of their own. */
        if (strncmp(key, PM_ATTR_RAISED_PREFIX, prefix) == 0) {
            end->raised_in = key + prefix;
            end->raised = value;
        }
    }
}

static void look_at_end(struct pm_autopsy *autopsy, size_t i)
{
    const struct pm_live_process *process = &autopsy->view->processes[i];
    const struct pm_process_info *info = &process->info;
    struct pm_end *end = &autopsy->ends[i];
    const uint64_t signs[] = {info->heartbeat_ns, info->last_ns, info->closed_ns};

    *end = (struct pm_end){.process = process, .status = -1};
    for (size_t k = 0; k < sizeof(signs) / sizeof(signs[0]); k++)
        end->last_sign_ns = signs[k] > end->last_sign_ns ? signs[k] : end->last_sign_ns;
    for (size_t t = 0; t < process->n_threads; t++)
        if (process->threads[t].since_ns > end->last_sign_ns)
            end->last_sign_ns = process->threads[t].since_ns;
    if (process->visible && process->proc.exit_status >= 0) {
        end->status = process->proc.exit_status;
        end->status_by = "kernel";
    } else if (autopsy->run.found && autopsy->run.pid == info->pid) {
        end->status = autopsy->run.status;
        end->status_by = "run";
    }
    find_raised(pm_session_process(autopsy->view->session, i), end);
}

static const struct pm_end *first_gone(const struct pm_autopsy *autopsy)
{
    const struct pm_end *found = NULL;
    for (size_t i = 0; i < autopsy->view->n_processes; i++) {
        const struct pm_end *end = &autopsy->ends[i];
        if (end->process->info.life == PM_LIFE_RUNNING || end->process->info.roles == 0)
            continue;
        if (found == NULL || end->last_sign_ns < found->last_sign_ns)
            found = end;
    }
    return found;
}

static const struct pm_end *last_raised(const struct pm_autopsy *autopsy)
{
    for (size_t i = 0; i < autopsy->view->n_processes; i++)
        if (autopsy->ends[i].raised != NULL &&
            autopsy->ends[i].process->info.life != PM_LIFE_RUNNING)
            return &autopsy->ends[i];
    return NULL;
}

static const struct pm_end *end_of_pid(const struct pm_autopsy *autopsy, uint32_t pid)
{
    for (size_t i = 0; i < autopsy->view->n_processes; i++)
        if (autopsy->ends[i].process->info.pid == pid)
            return &autopsy->ends[i];
    return NULL;
}

/* "it was in the model", as of its last word. */
static const char *was_in(const struct pm_end *end)
{
    static const char *const sentences[PM_DOING_COUNT] = {
#define X(name, word, sentence) "it was " sentence,
        PM_DOINGS(X)
#undef X
    };
    const struct pm_thread_state *thread = pm_live_main_thread(end->process);
    return thread != NULL && thread->doing != PM_DOING_UNKNOWN && thread->doing < PM_DOING_COUNT
               ? sentences[thread->doing]
               : "what it was in is not recorded";
}

/* ---- the verdict, strongest evidence first ---- */

static void say(struct pm_autopsy *autopsy, enum pm_cause cause, const char *format, ...)
    PM_PRINTF(3, 4);
static void say(struct pm_autopsy *autopsy, enum pm_cause cause, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(autopsy->sentence, sizeof(autopsy->sentence), format, args);
    va_end(args);
    autopsy->cause = cause;
}

static void add_evidence(struct pm_autopsy *autopsy, const char *format, ...) PM_PRINTF(2, 3);
static void add_evidence(struct pm_autopsy *autopsy, const char *format, ...)
{
    const size_t used = strlen(autopsy->evidence);
    va_list args;
    va_start(args, format);
    if (used > 0)
        snprintf(autopsy->evidence + used, sizeof(autopsy->evidence) - used, " ");
    vsnprintf(autopsy->evidence + used + (used > 0), sizeof(autopsy->evidence) - used - (used > 0),
              format, args);
    va_end(args);
}

static bool judge_living(struct pm_autopsy *autopsy)
{
    const struct pm_live_view *view = autopsy->view;
    if (!view->running)
        return false;
    switch (view->health) {
    case PM_LIVE_STALLED:
    case PM_LIVE_STOPPED:
        say(autopsy, PM_CAUSE_HANGS, "The server runs and does not get on. %s.", view->sentence);
        return true;
    case PM_LIVE_BROKEN:
        return false;
    default:
        say(autopsy, PM_CAUSE_ALIVE, "The server runs (%s); there is nothing to explain.",
            pm_live_health_text(view->health));
        return true;
    }
}

static bool judge_kernel(struct pm_autopsy *autopsy)
{
    for (size_t i = 0; i < autopsy->kernel.n_lines; i++) {
        const struct pm_end *end = end_of_pid(autopsy, autopsy->kernel.lines[i].pid);
        if (end == NULL)
            continue;
        const unsigned roles = end->process->info.roles;
        if (autopsy->kernel.lines[i].oom)
            say(autopsy, PM_CAUSE_MEMORY,
                "The kernel killed the %s, pid %u, for want of memory; %s.", short_role(roles),
                end->process->info.pid, was_in(end));
        else
            say(autopsy, PM_CAUSE_CRASHED, "The %s, pid %u, died of a fault of its own; %s.",
                short_role(roles), end->process->info.pid, was_in(end));
        add_evidence(autopsy, "The kernel's log: %s.", autopsy->kernel.lines[i].text);
        return true;
    }
    return false;
}

static bool judge_status(struct pm_autopsy *autopsy)
{
    for (size_t i = 0; i < autopsy->view->n_processes; i++) {
        const struct pm_end *end = &autopsy->ends[i];
        if (end->status < 0 || !WIFSIGNALED(end->status))
            continue;
        const int number = WTERMSIG(end->status);
        char text[96];
        if (number == autopsy->run.asked)
            continue;
        pm_proc_status_text(end->status, text, sizeof(text));
        say(autopsy,
            number == SIGKILL || number == SIGTERM || number == SIGINT ? PM_CAUSE_KILLED
                                                                       : PM_CAUSE_CRASHED,
            "The %s, pid %u, was %s; %s.", short_role(end->process->info.roles),
            end->process->info.pid, text, was_in(end));
        add_evidence(autopsy, "Its status was seen by %s.",
                     strcmp(end->status_by, "run") == 0 ? "`profilemate run`"
                                                        : "the kernel, its parent has not "
                                                          "collected it yet");
        return true;
    }
    return false;
}

static bool judge_raised(struct pm_autopsy *autopsy)
{
    const struct pm_end *end = last_raised(autopsy);
    if (end == NULL)
        return false;
    say(autopsy, PM_CAUSE_RAISED, "The %s, pid %u, ended after %s had raised %s.",
        short_role(end->process->info.roles), end->process->info.pid, end->raised_in, end->raised);
    add_evidence(autopsy, "The exception's text is not recorded (it may hold what was asked): it "
                          "stands in the server's own log.");
    return true;
}

static bool judge_group(struct pm_autopsy *autopsy)
{
    const uint64_t now = autopsy->memory.group_oom_kills, before = autopsy->oom_kills_before;
    const struct pm_end *end = first_gone(autopsy);
    if (end == NULL || before == UINT64_MAX || now == UINT64_MAX || now <= before ||
        end->process->info.life != PM_LIFE_KILLED)
        return false;
    say(autopsy, PM_CAUSE_MEMORY, "The %s, pid %u, was killed, most likely for want of memory; %s.",
        short_role(end->process->info.roles), end->process->info.pid, was_in(end));
    add_evidence(autopsy,
                 "In its cgroup the kernel has killed %llu process%s since the session began.",
                 (unsigned long long)(now - before), now - before == 1 ? "" : "es");
    return true;
}

/* All of them at one moment: nothing of the server's own. */
static bool judge_all_at_once(struct pm_autopsy *autopsy)
{
    uint64_t first_ns = UINT64_MAX, last_ns = 0;
    size_t count = 0;
    const struct pm_end *engine = first_gone(autopsy);
    for (size_t i = 0; i < autopsy->view->n_processes; i++) {
        const struct pm_end *end = &autopsy->ends[i];
        if (end->process->info.roles == 0)
            continue;
        if (end->process->info.roles & PM_ROLE_ENGINE)
            engine = end;
        if (end->process->info.life != PM_LIFE_KILLED || end->process->info.heartbeat_ns == 0)
            return false;
        count++;
        first_ns = end->last_sign_ns < first_ns ? end->last_sign_ns : first_ns;
        last_ns = end->last_sign_ns > last_ns ? end->last_sign_ns : last_ns;
    }
    if (count < 3 || last_ns - first_ns > AT_ONCE_NS)
        return false;
    say(autopsy, PM_CAUSE_KILLED,
        "All %zu processes of the server were killed at about the same moment; of the engine "
        "core: %s.",
        count, was_in(engine));
    add_evidence(autopsy,
                 "That is what the end of a container, a job or a group of processes looks "
                 "like, not a fault of one of them.");
    return true;
}

static void judge_gone(struct pm_autopsy *autopsy)
{
    const struct pm_live_view *view = autopsy->view;
    const struct pm_end *end = first_gone(autopsy);
    bool front_closed = false;
    if (end == NULL) {
        say(autopsy, PM_CAUSE_STOPPED, "The server ended before an engine had started.");
        return;
    }
    const unsigned roles = end->process->info.roles;
    const uint32_t pid = end->process->info.pid;
    uint64_t front_ns = 0;
    for (size_t i = 0; i < view->n_processes; i++) {
        const struct pm_process_info *info = &view->processes[i].info;
        if (info->life != PM_LIFE_CLOSED || !(info->roles & PM_ROLE_FRONTEND))
            continue;
        front_closed = true;
        front_ns = info->closed_ns > front_ns ? info->closed_ns : front_ns;
    }
    if (autopsy->run.asked != 0) {
        say(autopsy, PM_CAUSE_STOPPED, "The server was asked to end by signal %d (SIG%s), and did.",
            autopsy->run.asked, sigabbrev_np(autopsy->run.asked));
        if (autopsy->open_requests > 0)
            add_evidence(autopsy, "%zu requests were under way.", autopsy->open_requests);
        return;
    }
    if (end->process->info.life == PM_LIFE_CLOSED) {
        say(autopsy, PM_CAUSE_STOPPED, "The %s, pid %u, ended by itself; %s.", short_role(roles),
            pid, was_in(end));
        return;
    }
    const double ahead =
        front_ns > end->last_sign_ns ? (double)(front_ns - end->last_sign_ns) / 1e9 : 0;
    const bool died_first = pm_engine_died(view->session);
    if (front_closed && autopsy->open_requests == 0 && !died_first) {
        say(autopsy, PM_CAUSE_STOPPED,
            "The server came to an ordinary end: no request was under way, and vLLM kills its "
            "engine cores when it stops.");
        return;
    }
    say(autopsy, view->running ? PM_CAUSE_BROKEN : PM_CAUSE_KILLED,
        "The %s, pid %u, was killed (SIGKILL, a fault, or an exit past Python's); %s.",
        short_role(roles), pid, was_in(end));
    if (front_closed && died_first)
        add_evidence(autopsy,
                     "vLLM's front end saw that its engine core was gone before it began to end, "
                     "and ended by itself, %.1f s after the last sign of the process.",
                     ahead);
    else if (front_closed)
        add_evidence(autopsy,
                     "The front end ended by itself, %.1f s after the last sign of it. Either "
                     "that process died first, or the server was stopped under load: vLLM kills "
                     "its engine cores then.",
                     ahead);
}

static void judge(struct pm_autopsy *autopsy)
{
    if (judge_living(autopsy) || judge_kernel(autopsy) || judge_status(autopsy) ||
        judge_raised(autopsy) || judge_group(autopsy) || judge_all_at_once(autopsy))
        return;
    judge_gone(autopsy);
}

/* ---- the whole ---- */

int pm_autopsy_make(struct pm_autopsy *ret_autopsy, const struct pm_live_view *view)
{
    struct pm_autopsy autopsy = {.view = view, .oom_kills_before = UINT64_MAX};
    uint32_t *pids = calloc(view->n_processes + 1, sizeof(*pids));
    autopsy.ends = calloc(view->n_processes + 1, sizeof(*autopsy.ends));
    if (pids == NULL || autopsy.ends == NULL) {
        free(pids);
        free(autopsy.ends);
        return -PM_ENOMEM;
    }
    const char *before = pm_session_attr(view->session, PM_ATTR_CGROUP_OOM);
    autopsy.cgroup = pm_session_attr(view->session, PM_ATTR_CGROUP);
    if (before != NULL)
        autopsy.oom_kills_before = strtoull(before, NULL, 10);
    pm_run_record_read(view->info->path, &autopsy.run);
    pm_memory_read(view->here ? autopsy.cgroup : "-", &autopsy.memory);
    for (size_t i = 0; i < view->n_processes; i++) {
        pids[i] = view->processes[i].info.pid;
        look_at_end(&autopsy, i);
    }
    for (size_t e = 0; e < view->n_engines; e++)
        autopsy.open_requests += view->engines[e].n_requests;
    if (view->here)
        pm_kernel_log_read(pids, view->n_processes, view->info->start_mono_ns, &autopsy.kernel);
    free(pids);
    judge(&autopsy);
    *ret_autopsy = autopsy;
    return 0;
}

void pm_autopsy_release(struct pm_autopsy *autopsy)
{
    free(autopsy->ends);
    *autopsy = (struct pm_autopsy){0};
}
