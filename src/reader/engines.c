/*
 * Which processes are engines, which are their workers, and in which order. Found once per session,
 * from the facts themselves: a process may run several schedulers, one after another. Called by the
 * views and by steps.c; the lists live as long as the session.
 */
#include "reader/instances.h"
#include "reader/internal.h"
#include "reader/steps.h"

#include <stdlib.h>
#include <string.h>

#define PARTS_MAX 4096 /* schedulers, and workers, of a session */

/* One scheduler or worker of a process. */
struct part {
    const struct pm_process *process;
    unsigned instance;
    uint64_t first_ns; /* its oldest readable step */
    int rank;
    const struct pm_process *scheduler; /* of a worker: the process that schedules for it */
    size_t engine;                      /* of a worker: place in engines; SIZE_MAX: not found yet */
};

struct part_list {
    struct part *parts;
    size_t count, capacity;
};

struct pm_engines {
    struct pm_engine *engines;
    size_t n_engines;
    struct part_list scheds;  /* in the order of their engines */
    struct part_list workers; /* by engine, then rank */
};

void pm_engines_free(struct pm_engines *engines)
{
    if (engines == NULL)
        return;
    free(engines->engines);
    free(engines->scheds.parts);
    free(engines->workers.parts);
    free(engines);
}

static int add_part(struct part_list *list, const struct part *part)
{
    if (list->count == PARTS_MAX)
        return 0; /* not a profile any more; what is there is shown */
    if (list->count == list->capacity) {
        size_t want = list->capacity != 0 ? list->capacity * 2 : 16;
        struct part *more = realloc(list->parts, want * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        list->parts = more;
        list->capacity = want;
    }
    list->parts[list->count++] = *part;
    return 0;
}

/* The schedulers and workers of one process; one known by its role before its first step too. */
static int scan_process(struct pm_engines *engines, const struct pm_process *process)
{
    const struct pm_process_info *info = pm_process_info(process);
    static const struct pm_instance unseen = {0};
    struct pm_instances found[2];
    int rc = pm_instances_find(process, &found[0], &found[1]);

    for (unsigned k = 0; k < 2 && rc == 0; k++) {
        const unsigned role = k == 0 ? PM_ROLE_ENGINE : PM_ROLE_WORKER;
        const bool by_role = found[k].count == 0 && (info->roles & role) != 0;
        for (size_t i = 0; i < found[k].count + by_role && rc == 0; i++) {
            const struct pm_instance *instance = by_role ? &unseen : &found[k].rows[i];
            const struct part part = {.process = process,
                                      .instance = instance->number,
                                      .first_ns =
                                          by_role ? info->opened_mono_ns : instance->first_ns,
                                      .rank = info->rank,
                                      .engine = SIZE_MAX};
            rc = add_part(k == 0 ? &engines->scheds : &engines->workers, &part);
        }
    }
    return rc;
}

static int data_rank(const struct pm_process *process)
{
    int engine = pm_process_info(process)->engine;
    return engine > 0 ? engine : 0;
}

/* By data-parallel rank, then start. */
static int by_engine_order(const void *left, const void *right)
{
    const struct part *a = left, *b = right;
    if (data_rank(a->process) != data_rank(b->process))
        return data_rank(a->process) < data_rank(b->process) ? -1 : 1;
    uint64_t start_a = pm_process_info(a->process)->opened_mono_ns;
    uint64_t start_b = pm_process_info(b->process)->opened_mono_ns;
    if (start_a != start_b)
        return start_a < start_b ? -1 : 1;
    if (a->process != b->process)
        return pm_process_info(a->process)->pid < pm_process_info(b->process)->pid ? -1 : 1;
    return a->instance < b->instance ? -1 : a->instance > b->instance;
}

static int by_first(const void *left, const void *right)
{
    const struct part *a = left, *b = right;
    if (a->first_ns != b->first_ns)
        return a->first_ns < b->first_ns ? -1 : 1;
    return a->instance < b->instance ? -1 : a->instance > b->instance;
}

static int by_engine_and_rank(const void *left, const void *right)
{
    const struct part *a = left, *b = right;
    if (a->engine != b->engine)
        return a->engine < b->engine ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return by_first(a, b);
}

/* The process that schedules for a worker: itself, its parent, the engine of its data-parallel
 * rank, the only one there is; NULL when none of these is certain. */
static const struct pm_process *scheduler_of(const struct pm_engines *engines,
                                             const struct part *worker)
{
    const struct pm_process_info *info = pm_process_info(worker->process);
    const struct pm_process *by_parent = NULL, *by_rank = NULL, *only = NULL;
    bool rank_twice = false, several = false;

    for (size_t i = 0; i < engines->scheds.count; i++) {
        const struct pm_process *process = engines->scheds.parts[i].process;
        const struct pm_process_info *candidate = pm_process_info(process);
        if (process == worker->process)
            return process;
        if (candidate->pid == info->ppid && candidate->pid != 0)
            by_parent = process;
        if (candidate->engine >= 0 && candidate->engine == info->engine) {
            rank_twice = rank_twice || (by_rank != NULL && by_rank != process);
            by_rank = process;
        }
        several = several || (only != NULL && only != process);
        only = process;
    }
    if (by_parent != NULL)
        return by_parent;
    if (by_rank != NULL && !rank_twice)
        return by_rank;
    return several ? NULL : only;
}

/* Which of a process's schedulers a worker of another process serves. Where there are as many
 * worker processes of its rank as schedulers, the n-th serves the n-th; else the one that had begun
 * last before the worker's first step. In one process, worker n is scheduler n's. */
static size_t engine_of(const struct pm_engines *engines, const struct pm_process *process,
                        const struct part *worker)
{
    size_t first = SIZE_MAX, count = 0, same = SIZE_MAX, latest = SIZE_MAX;
    size_t before = 0, alike = 0;

    for (size_t i = 0; i < engines->scheds.count; i++) {
        const struct part *sched = &engines->scheds.parts[i];
        if (sched->process != process)
            continue;
        if (first == SIZE_MAX)
            first = i;
        count++;
        if (sched->instance == worker->instance)
            same = i;
        if (sched->first_ns <= worker->first_ns &&
            (latest == SIZE_MAX || sched->first_ns >= engines->scheds.parts[latest].first_ns))
            latest = i;
    }
    if (process == worker->process && same != SIZE_MAX)
        return same;
    if (process != worker->process) {
        for (size_t i = 0; i < engines->workers.count; i++) {
            const struct part *other = &engines->workers.parts[i];
            if (other->rank != worker->rank || other->scheduler != process)
                continue;
            alike++;
            if (other != worker && by_first(other, worker) < 0)
                before++;
        }
        if (alike == count)
            return first + before; /* schedulers of one process stand together, in order */
    }
    return latest != SIZE_MAX ? latest : first;
}

/* An engine of which only workers were found: one for all children of one parent. */
static int add_orphan(struct pm_engines *engines, size_t orphans_from, struct part *worker)
{
    const struct pm_process_info *info = pm_process_info(worker->process);
    for (size_t i = orphans_from; i < engines->scheds.count; i++) {
        const struct pm_process_info *other = pm_process_info(engines->scheds.parts[i].process);
        if (other->ppid == info->ppid && other->engine == info->engine) {
            worker->engine = i;
            return 0;
        }
    }
    if (engines->scheds.count == PARTS_MAX)
        return -PM_ELIMIT;
    worker->engine = engines->scheds.count;
    return add_part(&engines->scheds, &(struct part){.process = worker->process,
                                                     .instance = worker->instance,
                                                     .first_ns = worker->first_ns});
}

/* Ranks that nobody told: the lowest free ones of the engine, in order of start. */
static void number_ranks(struct pm_engines *engines)
{
    struct part_list *list = &engines->workers;
    size_t from = 0;
    while (from < list->count) {
        size_t to = from;
        int next = 0;
        while (to < list->count && list->parts[to].engine == list->parts[from].engine)
            to++;
        for (size_t i = from; i < to; i++) {
            if (list->parts[i].rank >= 0)
                continue;
            for (size_t j = from; j < to; j++)
                if (list->parts[j].rank == next) {
                    next++;
                    j = from - 1; /* look again for the new number */
                }
            list->parts[i].rank = next++;
        }
        qsort(list->parts + from, to - from, sizeof(*list->parts), by_engine_and_rank);
        from = to;
    }
}

static int build(struct pm_engines *engines, const struct pm_session *session)
{
    struct part_list *scheds = &engines->scheds, *workers = &engines->workers;
    int rc = 0;

    for (size_t i = 0; i < session->n_processes && rc == 0; i++)
        rc = scan_process(engines, session->processes[i]);
    if (rc != 0)
        return rc;
    if (scheds->count > 1)
        qsort(scheds->parts, scheds->count, sizeof(*scheds->parts), by_engine_order);
    if (workers->count > 1)
        qsort(workers->parts, workers->count, sizeof(*workers->parts), by_first);
    const size_t n_scheds = scheds->count;
    for (size_t i = 0; i < workers->count; i++)
        workers->parts[i].scheduler = scheduler_of(engines, &workers->parts[i]);
    for (size_t i = 0; i < workers->count; i++) {
        struct part *worker = &workers->parts[i];
        if (worker->scheduler != NULL)
            worker->engine = engine_of(engines, worker->scheduler, worker);
    }
    for (size_t i = 0; i < workers->count; i++)
        if (workers->parts[i].engine == SIZE_MAX) {
            rc = add_orphan(engines, n_scheds, &workers->parts[i]);
            if (rc != 0)
                return rc;
        }
    if (workers->count > 1)
        qsort(workers->parts, workers->count, sizeof(*workers->parts), by_engine_and_rank);
    number_ranks(engines);

    engines->n_engines = scheds->count;
    engines->engines = calloc(engines->n_engines + 1, sizeof(*engines->engines));
    if (engines->engines == NULL)
        return -PM_ENOMEM;
    for (size_t i = 0; i < engines->n_engines; i++)
        engines->engines[i] =
            (struct pm_engine){.number = (unsigned)i,
                               .process = i < n_scheds ? scheds->parts[i].process : NULL,
                               .instance = scheds->parts[i].instance};
    for (size_t i = 0; i < workers->count; i++)
        engines->engines[workers->parts[i].engine].n_ranks++;
    return 0;
}

static const struct pm_engines *engines_of(const struct pm_session *session)
{
    if (session->engines != NULL)
        return session->engines;
    struct pm_engines *engines = calloc(1, sizeof(*engines));
    int rc = engines != NULL ? build(engines, session) : -PM_ENOMEM;
    if (rc != 0) {
        pm_session_add_note(session->self, "the engines of the session cannot be told: %s",
                            pm_strerror(rc));
        pm_engines_free(engines);
        return NULL;
    }
    session->self->engines = engines;
    return engines;
}

size_t pm_session_engine_count(const struct pm_session *session)
{
    const struct pm_engines *engines = engines_of(session);
    return engines != NULL ? engines->n_engines : 0;
}

const struct pm_engine *pm_session_engine(const struct pm_session *session, size_t i)
{
    const struct pm_engines *engines = engines_of(session);
    return engines != NULL && i < engines->n_engines ? &engines->engines[i] : NULL;
}

int pm_engine_worker(const struct pm_session *session, size_t engine, unsigned n,
                     const struct pm_process **ret_process, unsigned *ret_instance, int *ret_rank)
{
    const struct pm_engines *engines = engines_of(session);
    if (engines == NULL)
        return -PM_ENOTFOUND;
    for (size_t i = 0; i < engines->workers.count; i++) {
        const struct part *part = &engines->workers.parts[i];
        if (part->engine != engine || n-- != 0)
            continue;
        *ret_process = part->process;
        *ret_instance = part->instance;
        *ret_rank = part->rank;
        return 0;
    }
    return -PM_ENOTFOUND;
}
