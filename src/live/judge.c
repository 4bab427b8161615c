/*
 * How a followed server stands, in one word and one sentence: whether it gets on, waits, hangs, or
 * is gone, and which process is in the way. Pure but for the kernel's names of states.
 */
#include "live/follow.h"
#include "view/view.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define STALL_NS 2000000000ull   /* requests wait, and no sign of a step for so long */
#define SILENCE_NS 2500000000ull /* a helper thread's round is due every 100 ms */

const char *pm_live_health_text(enum pm_live_health health)
{
    static const char *const words[PM_LIVE_HEALTHS] = {
        [PM_LIVE_STARTING] = "starting", [PM_LIVE_IDLE] = "idle",
        [PM_LIVE_SERVING] = "serving",   [PM_LIVE_STALLED] = "stalled",
        [PM_LIVE_STOPPED] = "stopped",   [PM_LIVE_BROKEN] = "broken",
        [PM_LIVE_ENDED_WELL] = "ended",  [PM_LIVE_KILLED] = "killed",
    };
    return (unsigned)health < PM_LIVE_HEALTHS ? words[health] : "unknown";
}

static const char *role_of(const struct pm_live_process *process)
{
    if (process->info.roles & PM_ROLE_ENGINE)
        return "engine core";
    if (process->info.roles & PM_ROLE_WORKER)
        return "worker";
    return process->info.roles & PM_ROLE_FRONTEND ? "front end" : "process";
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

static uint32_t pid_of(const struct pm_live_process *process)
{
    return process->proc.pid != 0 ? process->proc.pid : process->info.pid;
}

/* The thread that set its word last is the one that serves; NULL: none has one. */
const struct pm_thread_state *pm_live_main_thread(const struct pm_live_process *process)
{
    const struct pm_thread_state *found = NULL;
    for (size_t i = 0; i < process->n_threads; i++)
        if (found == NULL || process->threads[i].since_ns > found->since_ns)
            found = &process->threads[i];
    return found;
}

const char *pm_live_doing_text(unsigned doing)
{
    static const char *const texts[PM_DOING_COUNT] = {
#define X(name, word, sentence) sentence,
        PM_DOINGS(X)
#undef X
    };
    return doing < PM_DOING_COUNT ? texts[doing] : texts[PM_DOING_UNKNOWN];
}

const char *pm_live_doing_word(unsigned doing)
{
    static const char *const words[PM_DOING_COUNT] = {
#define X(name, word, sentence) word,
        PM_DOINGS(X)
#undef X
    };
    return doing < PM_DOING_COUNT ? words[doing] : words[PM_DOING_UNKNOWN];
}

/* The engine that a process serves; NULL: none. */
static const struct pm_live_engine *engine_of(const struct pm_live_view *view, size_t process)
{
    for (size_t e = 0; e < view->n_engines; e++) {
        const struct pm_live_engine *engine = &view->engines[e];
        if (engine->process == (int)process)
            return engine;
        for (size_t n = 0; n < engine->n_ranks; n++)
            if (engine->ranks[n].process == process)
                return engine;
    }
    return NULL;
}

/* "; last step 12345 ended 12.3 s ago". */
static void add_last_step(const struct pm_live_view *view, const struct pm_live_engine *engine,
                          char *out, size_t size)
{
    const size_t used = strlen(out);
    if (engine == NULL || engine->n_steps == 0)
        return;
    const struct pm_live_step *step = &engine->steps[engine->n_steps - 1];
    if (step->end_ns != 0)
        snprintf(out + used, size - used, "; last step %llu ended %.1f s ago",
                 (unsigned long long)step->step, seconds(step->end_ns, view->now_ns));
    else
        snprintf(out + used, size - used, "; step %llu was begun %.1f s ago",
                 (unsigned long long)step->step, seconds(step->start_ns, view->now_ns));
}

/* A process that the kernel keeps from running, or that is not heard of. */
static bool find_stopped(struct pm_live_view *view)
{
    for (size_t i = 0; i < view->n_processes; i++) {
        const struct pm_live_process *process = &view->processes[i];
        const struct pm_process_info *info = &process->info;
        if (info->life != PM_LIFE_RUNNING)
            continue;
        const bool stopped =
            process->visible && (process->proc.state == 'T' || process->proc.state == 't');
        const bool silent =
            info->heartbeat_ns != 0 && view->now_ns > info->heartbeat_ns + SILENCE_NS;
        if (!stopped && !silent)
            continue;
        view->health = PM_LIVE_STOPPED;
        char state[128] = "";
        if (process->visible)
            snprintf(state, sizeof(state), " is in state %c (%s)", process->proc.state,
                     pm_proc_state_text(process->proc.state));
        else
            snprintf(state, sizeof(state), " holds its lock and does not run");
        snprintf(view->sentence, sizeof(view->sentence), "%s pid %u%s", role_of(process),
                 pid_of(process), state);
        if (silent) {
            const size_t used = strlen(view->sentence);
            snprintf(view->sentence + used, sizeof(view->sentence) - used,
                     ", not heard of for %.1f s", seconds(info->heartbeat_ns, view->now_ns));
        }
        add_last_step(view, engine_of(view, i), view->sentence, sizeof(view->sentence));
        view->sentence[0] = (char)toupper((unsigned char)view->sentence[0]);
        return true;
    }
    return false;
}

/* A process that died while others of the server live. */
static bool find_broken(struct pm_live_view *view)
{
    for (size_t i = 0; view->running && i < view->n_processes; i++) {
        const struct pm_live_process *process = &view->processes[i];
        const struct pm_live_engine *engine = engine_of(view, i);
        if (process->info.life == PM_LIFE_RUNNING || engine == NULL)
            continue;
        /* One that was followed by another of its kind was only replaced. */
        bool replaced = false;
        for (size_t k = i + 1; k < view->n_processes; k++)
            replaced = replaced || (view->processes[k].info.roles == process->info.roles &&
                                    view->processes[k].info.engine == process->info.engine &&
                                    view->processes[k].info.rank == process->info.rank);
        if (replaced)
            continue;
        view->health = PM_LIVE_BROKEN;
        snprintf(view->sentence, sizeof(view->sentence), "%s pid %u %s", role_of(process),
                 pid_of(process),
                 process->info.life == PM_LIFE_CLOSED ? "has ended by itself"
                                                      : "was killed, or ended without a word");
        add_last_step(view, engine, view->sentence, sizeof(view->sentence));
        view->sentence[0] = (char)toupper((unsigned char)view->sentence[0]);
        return true;
    }
    return false;
}

/* The process of an engine that has been at one thing for the longest: a worker that is in a step,
 * else the engine core. */
static const struct pm_live_process *culprit(const struct pm_live_view *view,
                                             const struct pm_live_engine *engine)
{
    const struct pm_live_process *found =
        engine->process >= 0 ? &view->processes[engine->process] : NULL;
    for (size_t n = 0; n < engine->n_ranks; n++) {
        const struct pm_live_process *worker = &view->processes[engine->ranks[n].process];
        const struct pm_thread_state *thread = pm_live_main_thread(worker);
        if (thread == NULL || thread->doing == PM_DOING_AFTER_STEP)
            continue;
        if (worker != found)
            return worker;
    }
    return found;
}

static bool find_stalled(struct pm_live_view *view)
{
    for (size_t e = 0; view->running && e < view->n_engines; e++) {
        const struct pm_live_engine *engine = &view->engines[e];
        const bool work = engine->n_requests > 0 || engine->running + engine->waiting > 0;
        if (!work || !engine->stepped || view->now_ns < engine->last_ns + STALL_NS)
            continue;
        const struct pm_live_process *process = culprit(view, engine);
        view->health = PM_LIVE_STALLED;
        snprintf(view->sentence, sizeof(view->sentence), "No step for %.0f s",
                 seconds(engine->last_ns, view->now_ns));
        size_t used = strlen(view->sentence);
        if (process != NULL) {
            const struct pm_thread_state *thread = pm_live_main_thread(process);
            used += (size_t)snprintf(view->sentence + used, sizeof(view->sentence) - used,
                                     ": %s pid %u", role_of(process), pid_of(process));
            if (process->visible)
                used += (size_t)snprintf(view->sentence + used, sizeof(view->sentence) - used,
                                         " in state %c (%s)", process->proc.state,
                                         pm_proc_state_text(process->proc.state));
            if (thread != NULL)
                snprintf(view->sentence + used, sizeof(view->sentence) - used, ", %s for %.0f s",
                         pm_live_doing_text(thread->doing),
                         seconds(thread->since_ns, view->now_ns));
        }
        add_last_step(view, engine, view->sentence, sizeof(view->sentence));
        return true;
    }
    return false;
}

static enum pm_live_health of_the_dead(const struct pm_live_view *view)
{
    bool front = false, front_killed = false, killed = false;
    for (size_t i = 0; i < view->n_processes; i++) {
        const struct pm_process_info *info = &view->processes[i].info;
        killed = killed || info->life == PM_LIFE_KILLED;
        front = front || ((info->roles & PM_ROLE_FRONTEND) && info->life == PM_LIFE_CLOSED);
        front_killed =
            front_killed || ((info->roles & PM_ROLE_FRONTEND) && info->life == PM_LIFE_KILLED);
    }
    /* vLLM stops its own engines by SIGKILL: where every front end came to its end, all is well,
     * unless it told that an engine had gone before. */
    return killed && (!front || front_killed || pm_engine_died(view->session)) ? PM_LIVE_KILLED
                                                                               : PM_LIVE_ENDED_WELL;
}

void pm_live_judge(struct pm_live_view *view)
{
    bool stepped = false, work = false;
    view->sentence[0] = '\0';
    if (!view->running) {
        view->health = of_the_dead(view);
        return;
    }
    if ((view->here && find_stopped(view)) || find_broken(view) || find_stalled(view))
        return;
    for (size_t e = 0; e < view->n_engines; e++) {
        const struct pm_live_engine *engine = &view->engines[e];
        stepped = stepped || engine->stepped;
        work = work || engine->n_requests > 0 || engine->running + engine->waiting > 0 ||
               view->now_ns < engine->last_ns + 1000000000u;
    }
    view->health = !stepped ? PM_LIVE_STARTING : work ? PM_LIVE_SERVING : PM_LIVE_IDLE;
}
