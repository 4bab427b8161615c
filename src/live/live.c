/*
 * A session followed: its processes, engines and workers, opened again when one more has come (see
 * live.h). One thread; owns the reader's session and everything shown.
 */
#include "live/follow.h"

#include "base/clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REOPEN_NS 1000000000ull /* while a session is young it is opened again this often */
#define LOOK_BACK_NS ((PM_LIVE_HISTORY + 2) * 1000000000ull)

struct pm_live {
    char path[4096];
    struct pm_session *session;
    struct pm_follow_engine *engines;
    size_t n_engines;
    struct pm_follow_rank **ranks; /* of all engines, in their order */
    size_t n_ranks;
    struct pm_live_view view;
    struct {
        uint32_t pid;
        uint64_t ticks, at_ns;
    } * cpu; /* of each process, at the refresh before */
    size_t n_files;
    unsigned roles;
    uint64_t opened_ns;
    bool here;
    char boot_id[64];
};

/* ---- what lies in the folder ---- */

/* How many record files; running (may be NULL): whether one is locked. */
static size_t count_files(const char *path, bool *running)
{
    size_t count = 0;
    char records[4200];
    snprintf(records, sizeof(records), "%s/records", path);
    DIR *dir = opendir(records);
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        const size_t bytes = strlen(entry->d_name);
        if (bytes <= 6 || strcmp(entry->d_name + bytes - 6, ".pmrec") != 0)
            continue;
        count++;
        if (running == NULL || *running)
            continue;
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
        const int fd =
            openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        *running = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
        if (fd >= 0)
            close(fd);
    }
    if (dir != NULL)
        closedir(dir);
    return count;
}

bool pm_live_runs(const char *path)
{
    bool running = false;
    count_files(path, &running);
    return running;
}

/* The value of a key of the file `session`; "" where it has none. */
static void session_value(const char *path, const char *key, char *out, size_t size)
{
    char file[4200], line[4200];
    snprintf(file, sizeof(file), "%s/session", path);
    FILE *stream = fopen(file, "re");
    const size_t bytes = strlen(key);
    out[0] = '\0';
    while (stream != NULL && out[0] == '\0' && fgets(line, sizeof(line), stream) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, key, bytes) == 0 && line[bytes] == ' ')
            snprintf(out, size, "%.*s", (int)size - 1, line + bytes + 1);
    }
    if (stream != NULL)
        fclose(stream);
}

/* Whether the session began on this machine since it was started: its pids and times mean
 * something here. */
static bool began_here(const char *path)
{
    char theirs[64], ours[64] = "";
    session_value(path, "boot_id", theirs, sizeof(theirs));
    FILE *stream = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (stream != NULL) {
        if (fgets(ours, sizeof(ours), stream) != NULL)
            ours[strcspn(ours, "\n")] = '\0';
        fclose(stream);
    }
    return theirs[0] == '\0' || ours[0] == '\0' || strcmp(theirs, ours) == 0;
}

/* ---- opening ---- */

static void drop(struct pm_live *live)
{
    for (size_t i = 0; i < live->n_ranks; i++) {
        pm_follow_rank_close(live->ranks[i]);
        free(live->ranks[i]);
    }
    for (size_t i = 0; i < live->n_engines; i++)
        pm_follow_engine_close(&live->engines[i]);
    for (size_t i = 0; i < live->view.n_engines; i++) {
        free(live->view.engines[i].requests);
        free(live->view.engines[i].ranks);
    }
    free(live->ranks);
    free(live->engines);
    free(live->view.engines);
    free(live->view.processes);
    pm_session_close(live->session);
    live->ranks = NULL;
    live->engines = NULL;
    live->n_ranks = live->n_engines = 0;
    live->view = (struct pm_live_view){0};
    live->session = NULL;
}

void pm_live_close(struct pm_live *live)
{
    if (live == NULL)
        return;
    drop(live);
    free(live->cpu);
    free(live);
}

static int place_of(const struct pm_session *session, const struct pm_process *process)
{
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        if (pm_session_process(session, i) == process)
            return (int)i;
    return -1;
}

static int add_ranks(struct pm_live *live, size_t e, uint64_t from_ns)
{
    struct pm_follow_engine *engine = &live->engines[e];
    struct pm_live_engine *shown = &live->view.engines[e];
    const unsigned count = engine->which->n_ranks;

    shown->ranks = calloc(count + 1u, sizeof(*shown->ranks));
    engine->own_ranks = calloc(count + 1u, sizeof(struct pm_follow_rank *));
    if (shown->ranks == NULL || engine->own_ranks == NULL)
        return -PM_ENOMEM;
    for (unsigned n = 0; n < count; n++) {
        struct pm_follow_rank *rank = calloc(1, sizeof(*rank));
        if (rank == NULL)
            return -PM_ENOMEM;
        if (pm_engine_worker(live->session, e, n, &rank->process, &rank->instance, &rank->rank) !=
            0) {
            free(rank);
            continue;
        }
        rank->shares = rank->process == engine->which->process;
        rank->engine = n == 0 || rank->shares ? engine : NULL;
        live->ranks[live->n_ranks++] = rank;
        int rc = pm_follow_rank_open(rank, from_ns);
        if (rc != 0)
            return rc;
        if (rank->shares)
            engine->own_ranks[engine->n_own_ranks++] = rank;
        shown->ranks[shown->n_ranks++] = (struct pm_live_rank){
            .rank = rank->rank, .process = (unsigned)place_of(live->session, rank->process)};
    }
    return 0;
}

static unsigned all_roles(const struct pm_session *session)
{
    unsigned roles = 0;
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        roles = roles * 31 + pm_process_info(pm_session_process(session, i))->roles;
    return roles;
}

/* The newest moment known of a session. */
static uint64_t newest(const struct pm_session *session)
{
    uint64_t last_ns = pm_session_info(session)->start_mono_ns;
    for (size_t i = 0; i < pm_session_process_count(session); i++) {
        const struct pm_process_info *info = pm_process_info(pm_session_process(session, i));
        const uint64_t seen[] = {info->last_ns, info->heartbeat_ns, info->closed_ns};
        for (size_t k = 0; k < sizeof(seen) / sizeof(seen[0]); k++)
            last_ns = seen[k] > last_ns ? seen[k] : last_ns;
    }
    return last_ns;
}

static bool any_runs(const struct pm_session *session)
{
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        if (pm_process_info(pm_session_process(session, i))->life == PM_LIFE_RUNNING)
            return true;
    return false;
}

static uint64_t moment(const struct pm_live *live, uint64_t at_ns)
{
    if (at_ns != 0)
        return at_ns;
    return live->here && any_runs(live->session) ? pm_clock_vdso_ns() : newest(live->session);
}

static int reopen(struct pm_live *live, uint64_t at_ns, struct pm_error *err)
{
    drop(live);
    live->n_files = count_files(live->path, NULL);
    int rc = pm_session_open(&live->session, live->path, err);
    if (rc != 0)
        return rc;
    const uint64_t now_ns = moment(live, at_ns);
    const uint64_t from_ns = now_ns > LOOK_BACK_NS ? now_ns - LOOK_BACK_NS : 0;
    const size_t count = pm_session_engine_count(live->session);
    const size_t processes = pm_session_process_count(live->session);
    size_t ranks = 0;
    for (size_t e = 0; e < count; e++)
        ranks += pm_session_engine(live->session, e)->n_ranks;
    live->engines = calloc(count + 1, sizeof(*live->engines));
    live->ranks = calloc(ranks + 1, sizeof(struct pm_follow_rank *));
    live->view.engines = calloc(count + 1, sizeof(*live->view.engines));
    live->view.processes = calloc(processes + 1, sizeof(*live->view.processes));
    rc = live->engines != NULL && live->ranks != NULL && live->view.engines != NULL &&
                 live->view.processes != NULL
             ? 0
             : -PM_ENOMEM;
    for (size_t e = 0; e < count && rc == 0; e++) {
        struct pm_follow_engine *engine = &live->engines[live->n_engines++];
        engine->which = pm_session_engine(live->session, e);
        engine->place = e;
        live->view.engines[e].process =
            engine->which->process != NULL ? place_of(live->session, engine->which->process) : -1;
        live->view.n_engines++;
        rc = pm_follow_engine_open(engine, live->session, from_ns);
        if (rc == 0)
            rc = add_ranks(live, e, from_ns);
    }
    live->view.n_processes = processes;
    live->roles = all_roles(live->session);
    live->opened_ns = pm_clock_vdso_ns();
    return rc == 0 ? 0 : pm_error_set(err, rc, "%s: %s", live->path, pm_strerror(rc));
}

int pm_live_open(struct pm_live **ret_live, const char *path, uint64_t at_ns, struct pm_error *err)
{
    struct pm_live *live = calloc(1, sizeof(*live));
    if (live == NULL)
        return pm_error_set(err, -PM_ENOMEM, "%s: out of memory", path);
    snprintf(live->path, sizeof(live->path), "%s", path);
    live->here = began_here(path);
    int rc = reopen(live, at_ns, err);
    if (rc == 0)
        rc = pm_live_refresh(live, at_ns, err);
    if (rc != 0) {
        pm_live_close(live);
        return rc;
    }
    *ret_live = live;
    return 0;
}

/* ---- refreshing ---- */

/* Whether the session has got parts that it had not when it was opened. */
static bool has_grown(struct pm_live *live)
{
    const bool young = live->view.n_engines == 0 || pm_session_attr(live->session, "model") == NULL;
    bool stepped = live->view.n_engines > 0;
    for (size_t e = 0; e < live->view.n_engines; e++)
        stepped = stepped && live->view.engines[e].stepped;
    if (count_files(live->path, NULL) != live->n_files)
        return true;
    if (all_roles(live->session) != live->roles)
        return true;
    return (young || !stepped) && pm_clock_vdso_ns() - live->opened_ns >= REOPEN_NS &&
           any_runs(live->session);
}

static void look_at_process(struct pm_live *live, size_t i)
{
    const struct pm_process *process = pm_session_process(live->session, i);
    struct pm_live_process *shown = &live->view.processes[i];
    const uint64_t now_ns = pm_clock_vdso_ns();

    *shown = (struct pm_live_process){.info = *pm_process_info(process), .cpu = -1};
    if (live->here && shown->info.life != PM_LIFE_CLOSED)
        shown->visible = pm_proc_of(&shown->info, &shown->proc);
    shown->n_threads = pm_process_threads(process, shown->threads);
    for (size_t t = 0; t < shown->n_threads && shown->visible; t++)
        shown->thread_kernel[t] =
            pm_proc_thread_state(&shown->proc, &shown->info, shown->threads[t].tid);
    if (live->cpu[i].pid == shown->proc.pid && shown->proc.pid != 0 &&
        now_ns > live->cpu[i].at_ns + 10000000 && live->cpu[i].at_ns != 0)
        shown->cpu = (double)(shown->proc.cpu_ticks - live->cpu[i].ticks) * 1e9 /
                     (double)sysconf(_SC_CLK_TCK) / (double)(now_ns - live->cpu[i].at_ns);
    live->cpu[i].pid = shown->proc.pid;
    live->cpu[i].ticks = shown->proc.cpu_ticks;
    live->cpu[i].at_ns = now_ns;
}

static int look_at_processes(struct pm_live *live)
{
    const size_t count = pm_session_process_count(live->session);
    void *cpu = realloc(live->cpu, (count + 1) * sizeof(*live->cpu));
    if (cpu == NULL)
        return -PM_ENOMEM;
    const bool fresh = live->cpu == NULL;
    live->cpu = cpu;
    for (size_t i = 0; i < count; i++) {
        if (fresh)
            memset(&live->cpu[i], 0, sizeof(live->cpu[i]));
        look_at_process(live, i);
    }
    return 0;
}

int pm_live_refresh(struct pm_live *live, uint64_t at_ns, struct pm_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < pm_session_process_count(live->session) && rc == 0; i++)
        rc = pm_process_look(pm_session_process(live->session, i));
    if (rc == 0 && has_grown(live)) {
        free(live->cpu);
        live->cpu = NULL;
        rc = reopen(live, at_ns, err);
        if (rc != 0)
            return rc;
    }
    const uint64_t now_ns = moment(live, at_ns);
    for (size_t e = 0; e < live->n_engines && rc == 0; e++)
        rc = pm_follow_engine_poll(&live->engines[e], now_ns);
    for (size_t i = 0; i < live->n_ranks && rc == 0; i++)
        rc = pm_follow_rank_poll(live->ranks[i]);
    if (rc == 0)
        rc = look_at_processes(live);
    struct pm_live_view *view = &live->view;
    view->session = live->session;
    view->info = pm_session_info(live->session);
    view->now_ns = now_ns;
    view->here = live->here;
    view->running = any_runs(live->session);
    view->window_from_ns = now_ns > PM_LIVE_WINDOW_NS ? (now_ns - PM_LIVE_WINDOW_NS) : 0;
    view->window_from_ns -= view->window_from_ns % PM_LIVE_BUCKET_NS;
    view->seconds_from_ns =
        (now_ns / PM_LIVE_BUCKET_NS / 4 - PM_LIVE_HISTORY) * 4 * PM_LIVE_BUCKET_NS;
    size_t r = 0;
    for (size_t e = 0; e < live->n_engines && rc == 0; e++) {
        struct pm_live_engine *engine = &view->engines[e];
        rc = pm_follow_engine_show(&live->engines[e], view->window_from_ns, now_ns, engine);
        for (size_t n = 0; n < engine->n_ranks; n++, r++) {
            const unsigned process = engine->ranks[n].process;
            pm_follow_rank_show(live->ranks[r], view->window_from_ns, now_ns, &engine->ranks[n]);
            engine->ranks[n].process = process;
        }
        if (engine->n_ranks > 0) {
            const struct pm_follow_rank *first = live->ranks[r - engine->n_ranks];
            pm_live_samples_quantiles(&first->steps, view->window_from_ns, now_ns + 1,
                                      &engine->window_quantiles[PM_LIVE_step]);
            pm_live_total_quantiles(first->totals, "worker_step", "total_ns",
                                    &engine->total_quantiles[PM_LIVE_step]);
            if (first->last_ns > engine->last_ns)
                engine->last_ns = first->last_ns;
        }
    }
    pm_live_judge(view);
    return rc == 0 ? 0 : pm_error_set(err, rc, "%s: %s", live->path, pm_strerror(rc));
}

const struct pm_live_view *pm_live_view(const struct pm_live *live)
{
    return &live->view;
}

bool pm_live_process_totals(const struct pm_live *live, size_t engine, int n,
                            const struct pm_process **ret_process,
                            const struct pm_totals **ret_totals)
{
    const struct pm_live_totals *totals;
    size_t before = 0;
    if (engine >= live->n_engines)
        return false;
    for (size_t e = 0; e < engine; e++)
        before += live->view.engines[e].n_ranks;
    if (n >= 0 && (size_t)n >= live->view.engines[engine].n_ranks)
        return false;
    totals = n < 0 ? live->engines[engine].totals : live->ranks[before + (size_t)n]->totals;
    if (totals == NULL || totals->process == NULL || totals->totals.values == NULL)
        return false;
    *ret_process = totals->process;
    *ret_totals = &totals->totals;
    return true;
}
