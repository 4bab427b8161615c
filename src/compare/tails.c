/*
 * Counts of durations by class. See tails.h.
 */
#include "compare/tails.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare/cells.h"

#define EXACT 64u
#define BITS 6u
#define UNIT_NS 1000.0

_Static_assert(PM_TAIL_VALUES == PM_CELL_VALUES, "every value of an observation has its classes");

void pm_tails_release(struct pm_tails *tails)
{
    free(tails->rows);
    memset(tails, 0, sizeof(*tails));
}

static int make_room(struct pm_tails *tails, uint32_t n)
{
    if (n <= tails->capacity)
        return 0;
    const uint32_t more = n + n / 2 + 8;
    struct pm_tail *grown = realloc(tails->rows, more * sizeof(*grown));
    if (grown == NULL)
        return -PM_ENOMEM;
    tails->rows = grown;
    tails->capacity = more;
    return 0;
}

/* The first row whose key is not below this one. */
static uint32_t place_of(const struct pm_tails *tails, uint32_t key)
{
    uint32_t low = 0, high = tails->n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (tails->rows[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int pm_tails_add(struct pm_tails *tails, unsigned value, double ns)
{
    const uint64_t units = !(ns > 0) ? 0 : ns < 1e18 ? (uint64_t)(ns / UNIT_NS) : UINT64_MAX;
    const unsigned class_number = pm_size_class(units, EXACT, BITS);
    const uint32_t key =
        value * PM_TAIL_CLASSES +
        (class_number < PM_TAIL_CLASSES ? class_number : (unsigned)PM_TAIL_CLASSES - 1);
    const uint32_t at = place_of(tails, key);

    if (at < tails->n && tails->rows[at].key == key) {
        tails->rows[at].n++;
        return 0;
    }
    const int rc = make_room(tails, tails->n + 1);
    if (rc != 0)
        return rc;
    memmove(&tails->rows[at + 1], &tails->rows[at], (tails->n - at) * sizeof(*tails->rows));
    tails->rows[at] = (struct pm_tail){.key = key, .n = 1};
    tails->n++;
    return 0;
}

int pm_tails_merge(struct pm_tails *into, const struct pm_tails *from)
{
    const int rc = make_room(into, into->n + from->n);
    uint32_t a = into->n, b = from->n, at = into->n + from->n, empty;

    if (rc != 0 || from->n == 0)
        return rc;
    while (b > 0) { /* from the end, so that nothing is overwritten that is still to be read */
        if (a > 0 && into->rows[a - 1].key > from->rows[b - 1].key)
            into->rows[--at] = into->rows[--a];
        else if (a > 0 && into->rows[a - 1].key == from->rows[b - 1].key) {
            into->rows[--at] = into->rows[--a];
            into->rows[at].n += from->rows[--b].n;
        } else
            into->rows[--at] = from->rows[--b];
    }
    empty = at - a; /* one for each key that both had */
    memmove(&into->rows[a], &into->rows[at], (into->n + from->n - at) * sizeof(*into->rows));
    into->n += from->n - empty;
    return 0;
}

void pm_tails_spread(const struct pm_tails *tails, double times, double *table)
{
    for (uint32_t i = 0; i < tails->n; i++)
        table[tails->rows[i].key] += times * tails->rows[i].n;
}

double pm_tails_quantile(const double *classes, double q, double *ret_n)
{
    double n = 0, below = 0;

    for (unsigned c = 0; c < PM_TAIL_CLASSES; c++)
        n += classes[c];
    *ret_n = n;
    if (!(n > 0))
        return NAN;
    for (unsigned c = 0; c < PM_TAIL_CLASSES; c++) {
        if (classes[c] > 0 && below + classes[c] >= q * n) {
            const double low = (double)pm_size_class_lower(c, EXACT, BITS);
            const double next = (double)pm_size_class_lower(c + 1, EXACT, BITS);
            return UNIT_NS * (low + (next - low) * (q * n - below) / classes[c]);
        }
        below += classes[c];
    }
    return NAN;
}
