/*
 * Sorting rows of a trace by time: a merge sort that starts from the runs already there, since
 * torch writes nearly sorted files. Stable. Pure but for its scratch memory.
 */
#include "trace/tree.h"

#include <stdlib.h>
#include <string.h>

static inline bool before(const struct pm_trace *trace, uint32_t a, uint32_t b)
{
    int64_t start_a = trace->events.ts_ns[a], start_b = trace->events.ts_ns[b];
    if (start_a != start_b)
        return start_a < start_b;
    return trace->events.dur_ns[a] > trace->events.dur_ns[b];
}

/* Merges the neighbours [0, middle) and [middle, n); the shorter left part goes through scratch. */
static void merge(const struct pm_trace *trace, uint32_t *rows, size_t middle, size_t n,
                  uint32_t *scratch)
{
    size_t left = 0, right = middle, out = 0;
    /* What already stands right at the front stays. */
    while (out < middle && !before(trace, rows[middle], rows[out]))
        out++;
    size_t n_left = middle - out;
    memcpy(scratch, rows + out, n_left * sizeof(*rows));
    while (left < n_left && right < n)
        rows[out++] = before(trace, rows[right], scratch[left]) ? rows[right++] : scratch[left++];
    memcpy(rows + out, scratch + left, (n_left - left) * sizeof(*rows));
}

/* Sorts [0, n) whose first `run` rows are sorted already, by taking in one run after another, each
 * merged with its neighbours while it is not much shorter (so that the depth stays logarithmic). */
int pm_trace_sort_rows(const struct pm_trace *trace, uint32_t *rows, uint32_t n)
{
    size_t starts[64]; /* of the runs that wait, each more than half as long as … */
    unsigned depth = 0;
    uint32_t *scratch = NULL;
    size_t at = 0;
    while (at < n) {
        size_t end = at + 1;
        while (end < n && !before(trace, rows[end], rows[end - 1]))
            end++;
        if (at == 0 && end == n)
            return 0;        /* sorted */
        if (end - at < 32) { /* a short run: insert up to 32 */
            size_t want = at + 32 < n ? at + 32 : n;
            for (; end < want; end++) {
                uint32_t row = rows[end];
                size_t k = end;
                for (; k > at && before(trace, row, rows[k - 1]); k--)
                    rows[k] = rows[k - 1];
                rows[k] = row;
            }
        }
        if (scratch == NULL) {
            scratch = malloc((size_t)n * sizeof(*scratch));
            if (scratch == NULL)
                return -PM_ENOMEM;
        }
        starts[depth++] = at;
        while (depth > 1) {
            size_t last = end - starts[depth - 1];
            size_t earlier = starts[depth - 1] - starts[depth - 2];
            if (earlier > 2 * last && depth < 60 && end < n)
                break;
            merge(trace, rows + starts[depth - 2], earlier, earlier + last, scratch);
            depth--;
        }
        at = end;
    }
    free(scratch);
    return 0;
}
