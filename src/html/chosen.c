/*
 * Which requests a page shows (see chosen.h). Called by requests.c.
 */
#include "html/chosen.h"

#include <stdlib.h>
#include <string.h>

static uint64_t measure(const struct pm_request_fact *fact, enum pm_chosen_by by)
{
    switch (by) {
    case PM_BY_TTFT:
        return fact->ttft_ns;
    case PM_BY_TPOT:
        return fact->output_tokens > 1 ? fact->tpot_ns : 0;
    case PM_BY_GAP:
        return fact->longest_gap_ns;
    case PM_BY_E2E:
        return fact->e2e_ns;
    default:
        return fact->away_ns;
    }
}

static void let_go(struct pm_chosen_row *row)
{
    if (--row->holders > 0)
        return;
    free(row->id);
    free(row->away);
    free(row);
}

static struct pm_chosen_row *make(const struct pm_request *request, const struct pm_away *away,
                                  uint32_t n_away, uint64_t ordinal)
{
    struct pm_chosen_row *row = calloc(1, sizeof(*row));
    if (row == NULL)
        return NULL;
    row->fact = request->fact;
    row->ordinal = ordinal;
    row->holders = 1;
    row->id = strdup(request->id);
    if (n_away > 0) {
        row->away = malloc(n_away * sizeof(*away));
        if (row->away != NULL) {
            memcpy(row->away, away, n_away * sizeof(*away));
            row->n_away = n_away;
        }
    }
    if (row->id == NULL || (n_away > 0 && row->away == NULL)) {
        let_go(row);
        return NULL;
    }
    return row;
}

/* Every second one goes. */
static void thin_out(struct pm_chosen *chosen)
{
    size_t kept = 0;
    chosen->stride *= 2;
    for (size_t i = 0; i < chosen->n_sample; i++) {
        if (chosen->sample[i]->ordinal % chosen->stride == 0)
            chosen->sample[kept++] = chosen->sample[i];
        else
            let_go(chosen->sample[i]);
    }
    chosen->n_sample = kept;
}

static int add_sample(struct pm_chosen *chosen, struct pm_chosen_row *row)
{
    if (chosen->n_sample == chosen->room) {
        const size_t room = chosen->room != 0 ? 2 * chosen->room : 256;
        struct pm_chosen_row **sample =
            realloc(chosen->sample, room * sizeof(struct pm_chosen_row *));
        if (sample == NULL)
            return -PM_ENOMEM;
        chosen->sample = sample;
        chosen->room = room;
    }
    row->holders++;
    chosen->sample[chosen->n_sample++] = row;
    return 0;
}

static int add_worst(struct pm_chosen *chosen, enum pm_chosen_by by, struct pm_chosen_row *row)
{
    struct pm_chosen_row **heap = chosen->worst[by];
    const uint64_t value = measure(&row->fact, by);
    size_t *n = &chosen->n_worst[by], at;

    if (value == 0)
        return 0;
    if (heap == NULL) {
        heap = chosen->worst[by] = calloc(PM_CHOSEN_WORST, sizeof(struct pm_chosen_row *));
        if (heap == NULL)
            return -PM_ENOMEM;
    }
    if (*n < PM_CHOSEN_WORST) {
        at = (*n)++;
        while (at > 0 && measure(&heap[(at - 1) / 2]->fact, by) > value) {
            heap[at] = heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
    } else {
        if (value <= measure(&heap[0]->fact, by))
            return 0;
        let_go(heap[0]);
        at = 0;
        for (;;) {
            size_t child = 2 * at + 1;
            if (child >= *n)
                break;
            if (child + 1 < *n &&
                measure(&heap[child + 1]->fact, by) < measure(&heap[child]->fact, by))
                child++;
            if (measure(&heap[child]->fact, by) >= value)
                break;
            heap[at] = heap[child];
            at = child;
        }
    }
    row->holders++;
    heap[at] = row;
    return 0;
}

/* Whether it may be among the worst. */
static bool is_worst(const struct pm_chosen *chosen, const struct pm_request_fact *fact)
{
    for (unsigned by = 0; by < PM_CHOSEN_MEASURES; by++) {
        const uint64_t value = measure(fact, (enum pm_chosen_by)by);
        if (value > 0 && (chosen->n_worst[by] < PM_CHOSEN_WORST ||
                          value > measure(&chosen->worst[by][0]->fact, (enum pm_chosen_by)by)))
            return true;
    }
    return false;
}

int pm_chosen_add(struct pm_chosen *chosen, const struct pm_request *request,
                  const struct pm_away *away, uint32_t n_away)
{
    const uint64_t ordinal = chosen->seen++;
    int rc = 0;

    if (chosen->stride == 0)
        chosen->stride = 1;
    while (chosen->n_sample >= (chosen->stride == 1 ? PM_CHOSEN_ALL : PM_CHOSEN_SAMPLE))
        thin_out(chosen);
    const bool sampled = ordinal % chosen->stride == 0;
    if (!sampled && !is_worst(chosen, &request->fact))
        return 0;
    struct pm_chosen_row *row = make(request, away, n_away, ordinal);
    if (row == NULL)
        return -PM_ENOMEM;
    if (sampled)
        rc = add_sample(chosen, row);
    for (unsigned by = 0; by < PM_CHOSEN_MEASURES && rc == 0; by++)
        rc = add_worst(chosen, (enum pm_chosen_by)by, row);
    let_go(row);
    return rc;
}

static int by_ordinal(const void *a, const void *b)
{
    const struct pm_chosen_row *x = *(struct pm_chosen_row *const *)a,
                               *y = *(struct pm_chosen_row *const *)b;
    return (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
}

int pm_chosen_list(const struct pm_chosen *chosen, struct pm_chosen_row ***ret_rows,
                   size_t *ret_count)
{
    size_t room = chosen->n_sample + 1, n = 0, kept = 0;
    for (unsigned by = 0; by < PM_CHOSEN_MEASURES; by++)
        room += chosen->n_worst[by];
    struct pm_chosen_row **rows = calloc(room, sizeof(struct pm_chosen_row *));
    if (rows == NULL)
        return -PM_ENOMEM;
    for (size_t i = 0; i < chosen->n_sample; i++)
        rows[n++] = chosen->sample[i];
    for (unsigned by = 0; by < PM_CHOSEN_MEASURES; by++)
        for (size_t i = 0; i < chosen->n_worst[by]; i++)
            rows[n++] = chosen->worst[by][i];
    qsort(rows, n, sizeof(struct pm_chosen_row *), by_ordinal);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || rows[kept - 1] != rows[i])
            rows[kept++] = rows[i];
    *ret_rows = rows;
    *ret_count = kept;
    return 0;
}

void pm_chosen_release(struct pm_chosen *chosen)
{
    for (size_t i = 0; i < chosen->n_sample; i++)
        let_go(chosen->sample[i]);
    free(chosen->sample);
    for (unsigned by = 0; by < PM_CHOSEN_MEASURES; by++) {
        for (size_t i = 0; i < chosen->n_worst[by]; i++)
            let_go(chosen->worst[by][i]);
        free(chosen->worst[by]);
    }
    memset(chosen, 0, sizeof(*chosen));
}
