/* See request_track.h. */
#include "reader/request_track.h"

#include <stdlib.h>
#include <string.h>

static size_t hash_of(const char *id)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a; a flood of chosen ids slows a reader only */
    for (; *id != '\0'; id++)
        hash = (hash ^ (unsigned char)*id) * 0x100000001b3ull;
    return (size_t)(hash ^ hash >> 32);
}

void pm_track_release(struct pm_track *track)
{
    for (struct pm_tracked *each = track->oldest, *newer; each != NULL; each = newer) {
        newer = each->newer;
        free(each);
    }
    free(track->chains);
    memset(track, 0, sizeof(*track));
}

struct pm_tracked *pm_track_find(const struct pm_track *track, const char *id)
{
    if (track->n_chains == 0)
        return NULL;
    struct pm_tracked *each = track->chains[hash_of(id) & (track->n_chains - 1)];
    while (each != NULL && strcmp(each->request.id, id) != 0)
        each = each->next;
    return each;
}

static bool grow(struct pm_track *track)
{
    const size_t want = track->n_chains != 0 ? track->n_chains * 2 : 256;
    struct pm_tracked **chains = calloc(want, sizeof(*chains));
    if (chains == NULL)
        return track->n_chains != 0; /* longer chains will do */
    for (struct pm_tracked *each = track->oldest; each != NULL; each = each->newer) {
        struct pm_tracked **chain = &chains[hash_of(each->request.id) & (want - 1)];
        each->next = *chain;
        *chain = each;
    }
    free(track->chains);
    track->chains = chains;
    track->n_chains = want;
    return true;
}

struct pm_tracked *pm_track_add(struct pm_track *track, const char *id)
{
    struct pm_tracked *old = pm_track_find(track, id);
    if (old != NULL)
        pm_track_remove(track, old);
    if (track->n_open == PM_TRACK_OPEN_MAX || (track->n_open >= track->n_chains && !grow(track)))
        return NULL;
    struct pm_tracked *tracked = calloc(1, sizeof(*tracked));
    if (tracked == NULL)
        return NULL;
    const size_t bytes = strnlen(id, sizeof(tracked->request.id) - 1);
    memcpy(tracked->request.id, id, bytes);
    tracked->gives_from = tracked->gives_until = PM_TRACK_NEVER;
    tracked->opens_at = tracked->closes_at = PM_TRACK_NEVER;
    struct pm_tracked **chain = &track->chains[hash_of(id) & (track->n_chains - 1)];
    tracked->next = *chain;
    *chain = tracked;
    tracked->older = track->newest;
    if (track->newest != NULL)
        track->newest->newer = tracked;
    else
        track->oldest = tracked;
    track->newest = tracked;
    track->n_open++;
    return tracked;
}

static void wait_for_an_update(struct pm_track *track, struct pm_tracked *tracked)
{
    if (tracked->waits_for_an_update)
        return;
    tracked->waits_for_an_update = true;
    tracked->next_waiting = track->waiting;
    track->waiting = tracked;
}

void pm_track_remove(struct pm_track *track, struct pm_tracked *tracked)
{
    struct pm_tracked **at = &track->chains[hash_of(tracked->request.id) & (track->n_chains - 1)];
    while (*at != tracked)
        at = &(*at)->next;
    *at = tracked->next;
    if (tracked->waits_for_an_update) {
        at = &track->waiting;
        while (*at != tracked)
            at = &(*at)->next_waiting;
        *at = tracked->next_waiting;
    }
    *(tracked->older != NULL ? &tracked->older->newer : &track->oldest) = tracked->newer;
    *(tracked->newer != NULL ? &tracked->newer->older : &track->newest) = tracked->older;
    track->n_open--;
    free(tracked);
}

void pm_track_settle(const struct pm_track *track, struct pm_tracked *tracked)
{
    if (!tracked->run_open)
        return;
    struct pm_request *request = &tracked->request;
    const uint64_t gap_ns = pm_gaps_since(&track->gaps, tracked->run_first);
    if (gap_ns > request->fact.longest_gap_ns)
        request->fact.longest_gap_ns = gap_ns;
    request->fact.last_token_ns = track->updated_ns;
    request->outputs += track->ordinal - tracked->run_first_ordinal + 1;
    tracked->run_open = false;
}

static void close_run(struct pm_track *track, struct pm_tracked *tracked)
{
    tracked->closes_at = PM_TRACK_NEVER;
    pm_track_settle(track, tracked);
}

void pm_track_gives(struct pm_track *track, struct pm_tracked *tracked, uint64_t step, bool gives)
{
    const bool in_run =
        tracked->gives_from != PM_TRACK_NEVER && tracked->gives_until == PM_TRACK_NEVER;
    if (in_run && !gives)
        pm_track_ends(track, tracked, false);
    if (in_run || !gives)
        return;
    if (tracked->closes_at != PM_TRACK_NEVER)
        close_run(track, tracked);
    tracked->gives_from = tracked->opens_at = step;
    tracked->gives_until = PM_TRACK_NEVER;
    wait_for_an_update(track, tracked);
}

void pm_track_ends(struct pm_track *track, struct pm_tracked *tracked, bool drops)
{
    if (drops && tracked->opens_at >= track->updated)
        tracked->opens_at = PM_TRACK_NEVER;
    if (tracked->gives_from == PM_TRACK_NEVER || tracked->gives_until != PM_TRACK_NEVER)
        return;
    tracked->gives_until = track->last > 0 ? track->last - 1 : 0;
    if (drops || track->updated >= track->last) {
        close_run(track, tracked);
    } else {
        tracked->closes_at = tracked->gives_until;
        wait_for_an_update(track, tracked);
    }
}

void pm_track_turn(struct pm_track *track, struct pm_tracked *tracked, bool in_update)
{
    tracked->new_turn = true;
    if (tracked->gives_from == PM_TRACK_NEVER || tracked->gives_until != PM_TRACK_NEVER)
        return; /* over already */
    if (!in_update) {
        pm_track_ends(track, tracked, false);
        return;
    }
    tracked->gives_until = track->updated;
    tracked->closes_at = PM_TRACK_NEXT;
    wait_for_an_update(track, tracked);
}

/* Its run begins with this update. */
static uint64_t open_run(struct pm_track *track, struct pm_tracked *tracked, uint64_t step,
                         uint64_t at_ns)
{
    struct pm_request_fact *fact = &tracked->request.fact;
    uint64_t gap_ns = 0;
    tracked->opens_at = PM_TRACK_NEVER;
    if (fact->first_token_ns == 0) {
        fact->first_token_ns = at_ns;
        tracked->request.outputs_known = fact->started_ns != 0;
    } else if (!tracked->new_turn && fact->last_token_ns != 0 && at_ns > fact->last_token_ns) {
        gap_ns = at_ns - fact->last_token_ns;
        if (gap_ns > fact->longest_gap_ns)
            fact->longest_gap_ns = gap_ns;
    }
    tracked->new_turn = false;
    tracked->run_open = true;
    tracked->run_first = step;
    tracked->run_first_ordinal = track->ordinal;
    fact->last_token_ns = at_ns;
    return gap_ns;
}

int pm_track_updated(struct pm_track *track, const struct pm_update_step *fact, uint64_t at_ns,
                     int (*gap)(uint64_t gap_ns, uint32_t count, void *arg), void *arg)
{
    int rc = 0;
    track->ordinal++;
    if (track->updated_ns != 0 && fact->step >= track->updated)
        pm_gaps_push(&track->gaps, fact->step, fact->gap_ns);
    track->updated = fact->step + 1;
    track->updated_ns = at_ns;
    struct pm_tracked **at = &track->waiting;
    while (*at != NULL && rc == 0) {
        struct pm_tracked *each = *at;
        if (each->opens_at == fact->step) {
            const uint64_t gap_ns = open_run(track, each, fact->step, at_ns);
            if (gap_ns != 0 && gap != NULL)
                rc = gap(gap_ns, 1, arg);
        }
        if (each->closes_at == fact->step || each->closes_at == PM_TRACK_NEXT)
            close_run(track, each);
        /* What was passed over (its update is not in the file) is not waited for. */
        if (each->opens_at < fact->step)
            each->opens_at = PM_TRACK_NEVER;
        if (each->closes_at < fact->step)
            close_run(track, each);
        if (each->opens_at == PM_TRACK_NEVER && each->closes_at == PM_TRACK_NEVER) {
            each->waits_for_an_update = false;
            *at = each->next_waiting;
        } else {
            at = &each->next_waiting;
        }
    }
    if (rc == 0 && gap != NULL && fact->continued > 0 && fact->gap_ns != 0)
        rc = gap(fact->gap_ns, fact->continued, arg);
    return rc;
}
