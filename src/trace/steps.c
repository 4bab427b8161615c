/*
 * Steps (see steps.h). One thread.
 */
#include "trace/steps.h"

#include <stdlib.h>
#include <string.h>

#include "trace/gpu.h"

#define MAX_DEVICES 16 /* further ones share the last entry */

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The prefix in use: vLLM's, if there are such annotations, else torch's. */
static const char *choose(const struct pm_tree *tree)
{
    const struct pm_trace *trace = tree->trace;
    for (uint32_t at = 0; at < tree->n; at++)
        if (pm_trace_kind_of(trace, tree->event[at]) == PM_KIND_ANNOTATION &&
            begins(pm_trace_text(trace, trace->events.name[tree->event[at]]), "execute_"))
            return "execute_";
    return PM_STEP_PREFIX;
}

static int by_begin(const void *a, const void *b)
{
    const struct pm_step *x = a, *y = b;
    return x->ts_ns < y->ts_ns ? -1 : x->ts_ns > y->ts_ns;
}

static int collect(struct pm_steps *steps, const struct pm_tree *tree, const char *prefix)
{
    const struct pm_trace *trace = tree->trace;
    uint32_t room = 0;
    for (uint32_t at = 0; at < tree->n; at++) {
        uint32_t row = tree->event[at];
        if (pm_trace_kind_of(trace, row) != PM_KIND_ANNOTATION ||
            !begins(pm_trace_text(trace, trace->events.name[row]), prefix))
            continue;
        if (steps->n == room) {
            room = room == 0 ? 64 : room * 2;
            struct pm_step *more = realloc(steps->steps, room * sizeof(*more));
            if (more == NULL)
                return -PM_ENOMEM;
            steps->steps = more;
        }
        steps->steps[steps->n++] = (struct pm_step){
            .name = trace->events.name[row],
            .track = pm_trace_track_of(trace, row),
            .ts_ns = trace->events.ts_ns[row],
            .cpu_ns = trace->events.dur_ns[row],
            .period_ns = trace->events.dur_ns[row],
        };
    }
    if (steps->n > 0)
        qsort(steps->steps, steps->n, sizeof(*steps->steps), by_begin);
    for (uint32_t i = 0; i + 1 < steps->n; i++)
        steps->steps[i].period_ns = steps->steps[i + 1].ts_ns - steps->steps[i].ts_ns;
    return 0;
}

/* The step that was on at ts, or NULL. */
static struct pm_step *step_at(const struct pm_steps *steps, int64_t ts)
{
    uint32_t low = 0, high = steps->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (steps->steps[middle].ts_ns <= ts)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &steps->steps[low - 1] : NULL;
}

/* Adds the time [begin, end) to the steps during which it passed. */
static void add_window(struct pm_steps *steps, int64_t begin, int64_t end)
{
    struct pm_step *step = step_at(steps, begin);
    if (step == NULL)
        step = steps->steps;
    for (; step < steps->steps + steps->n && step->ts_ns < end; step++) {
        int64_t from = step->ts_ns > begin ? step->ts_ns : begin;
        int64_t to = step->ts_ns + step->period_ns < end ? step->ts_ns + step->period_ns : end;
        if (to > from)
            step->window_ns += to - from;
    }
}

/* Work of all devices by time, as one union. */
static void add_windows(struct pm_steps *steps, const struct pm_tree *tree)
{
    int64_t until = INT64_MIN;
    for (uint32_t k = 0; k < tree->n_device; k++) {
        uint32_t row = tree->device[k];
        if (!pm_kind_is_work(pm_trace_kind_of(tree->trace, row)))
            continue;
        int64_t begin = tree->trace->events.ts_ns[row], end = pm_trace_end_ns(tree->trace, row);
        if (begin < until)
            begin = until;
        if (end > begin) {
            add_window(steps, begin, end);
            until = end;
        }
    }
}

int pm_steps_build(struct pm_steps *steps, const struct pm_tree *tree,
                   const struct pm_classes *classes, const char *prefix)
{
    const struct pm_trace *trace = tree->trace;
    *steps = (struct pm_steps){0};
    int err = collect(steps, tree, prefix != NULL ? prefix : choose(tree));
    int64_t(*busy_end)[MAX_DEVICES] = NULL;
    uint8_t *class_of = calloc(trace->strings.n, 1);
    if (err == 0 && steps->n > 0) {
        busy_end = malloc(steps->n * sizeof(*busy_end));
        if (busy_end != NULL)
            memset(busy_end, 0x80, steps->n * sizeof(*busy_end)); /* long ago */
    }
    if (err == 0 && (class_of == NULL || (steps->n > 0 && busy_end == NULL)))
        err = -PM_ENOMEM;
    for (uint32_t k = 0; k < tree->n_device && err == 0 && steps->n > 0; k++) {
        uint32_t row = tree->device[k], name = trace->events.name[row];
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        if (!pm_kind_is_work(kind))
            continue;
        struct pm_step *step = tree->launch[k] != PM_NONE
                                   ? step_at(steps, trace->events.ts_ns[tree->launch[k]])
                                   : NULL;
        if (step == NULL) {
            steps->works_outside++;
            continue;
        }
        int64_t begin = trace->events.ts_ns[row], end = pm_trace_end_ns(trace, row);
        uint32_t device = (uint32_t)pm_gpu_device_of(trace, row);
        int64_t *until =
            &busy_end[step - steps->steps][device < MAX_DEVICES ? device : MAX_DEVICES - 1];
        if (step->works++ == 0)
            step->first_ns = begin;
        if (end > step->last_ns)
            step->last_ns = end;
        step->device_ns += end - begin;
        if (begin >= *until)
            step->busy_ns += end - begin;
        else if (end > *until)
            step->busy_ns += end - *until;
        if (end > *until)
            *until = end;
        if (kind != PM_KIND_KERNEL) {
            step->copy_ns += end - begin;
            continue;
        }
        if (class_of[name] == 0)
            class_of[name] = (uint8_t)(pm_classes_find(classes, pm_trace_text(trace, name)) + 1);
        if (class_of[name] - 1 == PM_CLASS_COLLECTIVE)
            step->collective_ns += end - begin;
    }
    if (err == 0 && steps->n > 0)
        add_windows(steps, tree);
    free(class_of);
    free(busy_end);
    if (err != 0)
        pm_steps_release(steps);
    return err;
}

void pm_steps_release(struct pm_steps *steps)
{
    free(steps->steps);
    *steps = (struct pm_steps){0};
}
