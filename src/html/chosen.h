/*
 * The requests that a page shows: all of them while they are few, else the worst by each measure
 * and a sample of every 2^k-th, in memory that does not grow with the session. Used by requests.c,
 * one thread; owns its rows.
 */
#ifndef PM_HTML_CHOSEN_H
#define PM_HTML_CHOSEN_H

#include "reader/requests.h"

#define PM_CHOSEN_ALL 12000u   /* requests that are all shown */
#define PM_CHOSEN_WORST 500u   /* of each measure, where there are more */
#define PM_CHOSEN_SAMPLE 6000u /* at most, at least half of them, beside the worst */

enum pm_chosen_by { PM_BY_TTFT, PM_BY_TPOT, PM_BY_GAP, PM_BY_E2E, PM_BY_AWAY, PM_CHOSEN_MEASURES };

/* One interval without its blocks. */
struct pm_away {
    uint64_t from_ns, to_ns; /* to 0: not resumed */
};

struct pm_chosen_row {
    struct pm_request_fact fact;
    char *id;
    struct pm_away *away;
    uint32_t n_away;
    uint32_t holders; /* lists that have it */
    uint64_t ordinal; /* in the order of the walk */
};

struct pm_chosen {
    uint64_t seen;
    struct pm_chosen_row **sample; /* all, as long as stride is 1 */
    size_t n_sample, room;
    uint64_t stride;
    struct pm_chosen_row **worst[PM_CHOSEN_MEASURES]; /* heaps, the least first */
    size_t n_worst[PM_CHOSEN_MEASURES];
};

/* Takes what it keeps of the request; away: its intervals, copied. */
PM_MUST_USE int pm_chosen_add(struct pm_chosen *chosen, const struct pm_request *request,
                              const struct pm_away *away, uint32_t n_away);

/* All kept, once each, in the order of the walk. Free the list, not the rows, with free(). */
PM_MUST_USE int pm_chosen_list(const struct pm_chosen *chosen, struct pm_chosen_row ***ret_rows,
                               size_t *ret_count);
void pm_chosen_release(struct pm_chosen *chosen);

#endif
