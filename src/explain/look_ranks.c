/*
 * Ranks of one engine, step by step: whose model began last, whose took longest. All ranks are
 * walked side by side by the number of the step. Called by explain.c.
 *
 * On one host all times are of one clock. With a collective in each layer the ranks end together,
 * so that a slow one shows by beginning late, and by waiting least.
 */
#include "explain/look.h"

#include <stdlib.h>

#include "reader/steps.h"

struct side {
    struct pm_steps *steps;
    struct pm_step step;
    bool held, done;
};

static int advance(struct side *side)
{
    while (!side->held && !side->done) {
        const int rc = pm_steps_next(side->steps, &side->step);
        if (rc < 0)
            return rc;
        side->done = rc == 0;
        side->held = rc == 1 && side->step.has_worker && side->step.tokens > 0 &&
                     !side->step.failed && side->step.forward_ns != 0;
    }
    return 0;
}

static int by_number(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* A step that all ranks ran. */
static void compare(struct pm_look_ranks *ranks, const struct side *sides)
{
    uint64_t starts[PM_LOOK_RANKS], least = UINT64_MAX, most = 0;
    unsigned last = 0, longest = 0;

    for (unsigned n = 0; n < ranks->n; n++) {
        const struct pm_step *step = &sides[n].step;
        starts[n] = step->worker_start_ns + step->pre_ns;
        last = starts[n] > starts[last] ? n : last;
        longest = step->forward_ns > sides[longest].step.forward_ns ? n : longest;
        least = step->forward_ns < least ? step->forward_ns : least;
        most = step->forward_ns > most ? step->forward_ns : most;
        ranks->sum_ns[n] += step->forward_ns;
    }
    const uint64_t latest = starts[last];
    qsort(starts, ranks->n, sizeof(starts[0]), by_number);
    ranks->steps++;
    ranks->late_ns += latest - starts[(ranks->n - 1) / 2];
    ranks->spread_ns += most - least;
    ranks->forward_ns += most;
    ranks->last[last]++;
    ranks->longest[longest]++;
}

/* Ranks without a single step (not begun yet, or known by their role alone) stand in nobody's way.
 */
static int begin(struct pm_look_ranks *ranks, struct side *sides)
{
    unsigned kept = 0;

    for (unsigned n = 0; n < ranks->n; n++) {
        const int rc = advance(&sides[n]);
        if (rc < 0)
            return rc;
        if (sides[n].done) {
            pm_steps_close(sides[n].steps);
            sides[n].steps = NULL;
            continue;
        }
        if (kept != n) {
            sides[kept] = sides[n];
            sides[n].steps = NULL;
            ranks->rank[kept] = ranks->rank[n];
        }
        kept++;
    }
    ranks->n = kept;
    return 0;
}

static int walk(struct pm_look_ranks *ranks, struct side *sides)
{
    for (;;) {
        uint64_t first = UINT64_MAX;
        bool all = true;
        for (unsigned n = 0; n < ranks->n; n++) {
            const int rc = advance(&sides[n]);
            if (rc < 0)
                return rc;
            if (sides[n].done)
                return 0;
            first = sides[n].step.step < first ? sides[n].step.step : first;
        }
        for (unsigned n = 0; n < ranks->n; n++)
            all = all && sides[n].step.step == first;
        if (all)
            compare(ranks, sides);
        for (unsigned n = 0; n < ranks->n; n++)
            if (sides[n].step.step == first)
                sides[n].held = false;
    }
}

int pm_look_take_ranks(struct pm_look *look)
{
    struct pm_look_ranks *ranks = &look->ranks;
    struct side sides[PM_LOOK_RANKS] = {0};
    int rc = 0;

    if (look->n_ranks < 2)
        return 0;
    const char *stages = pm_look_config(look, "parallel.pipeline");
    ranks->pipeline = stages != NULL && strtoul(stages, NULL, 10) > 1;
    ranks->n = look->n_ranks < PM_LOOK_RANKS ? look->n_ranks : PM_LOOK_RANKS;
    for (unsigned n = 0; n < ranks->n && rc == 0; n++) {
        const struct pm_process *process;
        unsigned instance;
        if (pm_engine_worker(look->session, look->engine, n, &process, &instance,
                             &ranks->rank[n]) != 0)
            ranks->rank[n] = (int)n;
        rc = pm_steps_open(&sides[n].steps, look->session, look->engine, n);
    }
    if (rc == 0)
        rc = begin(ranks, sides);
    if (rc == 0 && ranks->n > 1)
        rc = walk(ranks, sides);
    for (unsigned n = 0; n < PM_LOOK_RANKS; n++)
        pm_steps_close(sides[n].steps);
    return rc;
}
