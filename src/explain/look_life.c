/*
 * Requests of an engine: queue, arrival, preemptions, and the one that was asked for. One walk of
 * the reader's requests. Called by explain.c.
 */
#include "explain/look.h"

#include <string.h>

struct walk {
    struct pm_look_life *life;
};

static int on_moment(const struct pm_request_moment *moment, void *arg)
{
    struct pm_look_life *life = ((struct walk *)arg)->life;

    if (moment->kind == PM_MOMENT_PREEMPTED) {
        if (moment->reason == PM_PREEMPT_RESET) {
            life->resets++;
            return 0;
        }
        life->preemptions++;
        life->lost_tokens += moment->tokens;
        life->lost_blocks += moment->blocks;
        if (life->first_preempted_ns == 0)
            life->first_preempted_ns = moment->at_ns;
        life->last_preempted_ns = moment->at_ns;
    }
    if (moment->kind == PM_MOMENT_RESUMED) {
        life->resumes++;
        life->away_ns += moment->away_ns;
        if (moment->away_ns > life->longest_away_ns)
            life->longest_away_ns = moment->away_ns;
    }
    return 0;
}

static void add(struct pm_look_life *life, const struct pm_request *request, const char *asked)
{
    const struct pm_request_fact *fact = &request->fact;
    const bool over = fact->state == PM_REQUEST_STATE_FINISHED || fact->finished_ns != 0;

    life->requests++;
    life->finished += over;
    life->started += fact->started_ns != 0;
    life->prompt_tokens += fact->prompt_tokens;
    life->cached_tokens += fact->cached_tokens;
    life->output_tokens += fact->output_tokens;
    life->recomputed_tokens += fact->recomputed_tokens;
    if (fact->started_ns != 0) {
        pm_times_add(&life->queue, fact->queue_ns);
        pm_worst_add(&life->queued, request->id, (double)fact->queue_ns / 1e9, fact->prompt_tokens,
                     0);
    }
    if (fact->first_token_ns != 0) {
        pm_times_add(&life->ttft, fact->ttft_ns);
        if (fact->arrived_ns != 0 && fact->queued_ns > fact->arrived_ns) {
            pm_times_add(&life->front, fact->queued_ns - fact->arrived_ns);
            life->front_of_ttft_ns += fact->ttft_ns;
        }
    }
    if (fact->preemptions > 0) {
        life->preempted_requests++;
        pm_worst_add(&life->preempted, request->id, (double)fact->away_ns / 1e9, fact->lost_tokens,
                     fact->preemptions);
    }
    if (asked != NULL && strcmp(asked, request->id) == 0) {
        life->asked = true;
        life->one = *request;
    }
}

int pm_look_take_life(struct pm_look *look)
{
    struct walk walk = {.life = &look->life};
    const struct pm_request_watch watch = {.moment = on_moment, .arg = &walk};
    const char *asked =
        look->window != NULL && look->window->request[0] != '\0' ? look->window->request : NULL;
    struct pm_requests *requests;
    struct pm_request request;
    int rc = pm_requests_open(&requests, look->session, look->engine, &watch);

    if (rc != 0)
        return rc;
    while ((rc = pm_requests_next(requests, &request)) == 1)
        add(&look->life, &request, asked);
    pm_requests_close(requests);
    return rc;
}
