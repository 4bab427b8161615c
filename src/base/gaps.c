/* See gaps.h. */
#include "base/gaps.h"

void pm_gaps_push(struct pm_gaps *gaps, uint64_t at, uint64_t gap_ns)
{
    while (gaps->n > 0 && gaps->held[gaps->n - 1].gap_ns <= gap_ns)
        gaps->n--;
    if (gaps->n == PM_GAPS_MAX)
        gaps->n--;
    gaps->held[gaps->n].at = at;
    gaps->held[gaps->n].gap_ns = gap_ns;
    gaps->n++;
}

uint64_t pm_gaps_since(const struct pm_gaps *gaps, uint64_t after)
{
    uint32_t low = 0, high = gaps->n; /* the first one held that is later than `after` */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (gaps->held[middle].at > after)
            high = middle;
        else
            low = middle + 1;
    }
    return low < gaps->n ? gaps->held[low].gap_ns : 0;
}
