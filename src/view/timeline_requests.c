/*
 * Requests on the timeline (timeline.h): waiting, prefill, decode, and within them the times away
 * after a preemption, a track each.
 */
#include "view/timeline.h"

#include "reader/requests.h"

struct walk {
    struct pm_timeline *t;
    unsigned engine;
};

static int slice(const struct walk *walk, const struct pm_timeline_track *track, const char *name,
                 uint64_t from_ns, uint64_t to_ns, const struct pm_timeline_arg *args, size_t n)
{
    const struct pm_timeline_sink *sink = walk->t->sink;
    const struct pm_timeline_event event = {
        .track = track,
        .category = "request",
        .name = name,
        .at_ns = from_ns,
        .dur_ns = to_ns > from_ns ? to_ns - from_ns : 0,
        .args = args,
        .n_args = n,
    };
    return sink->slice(sink->arg, &event);
}

/* The time away of a request that was preempted comes before the rest of its life is known. */
static int moment(const struct pm_request_moment *m, void *arg)
{
    const struct walk *walk = arg;
    if (m->kind != PM_MOMENT_RESUMED || m->away_ns == 0)
        return 0;
    const struct pm_timeline_track track = pm_timeline_request(walk->engine, m->request->id);
    const struct pm_timeline_arg args[] = {{"resumed_in_step", NULL, m->step},
                                           {"tokens_from_cache", NULL, m->tokens}};
    return slice(walk, &track, "preempted", m->at_ns - m->away_ns, m->at_ns, args, 2);
}

static int put_request(const struct walk *walk, const struct pm_request *r)
{
    const struct pm_request_fact *f = &r->fact;
    const struct pm_timeline_track track = pm_timeline_request(walk->engine, r->id);
    const bool over = f->state == PM_REQUEST_STATE_FINISHED;
    const uint64_t end_ns = over ? f->finished_ns : walk->t->end_ns;
    const uint64_t from_ns = f->queued_ns != 0 ? f->queued_ns : f->started_ns;
    const uint64_t started_ns = f->started_ns != 0 ? f->started_ns : end_ns;
    const uint64_t first_ns = f->first_token_ns != 0 ? f->first_token_ns : end_ns;
    const struct pm_timeline_arg whole[] = {
        {"reason", over ? pm_finish_reason_text(f->reason) : "not over", 0},
        {"prompt_tokens", NULL, f->prompt_tokens},
        {"cached_tokens", NULL, f->cached_tokens},
        {"output_tokens", NULL, f->output_tokens},
        {"ttft_ns", NULL, f->ttft_ns},
        {"tpot_ns", NULL, f->tpot_ns},
        {"longest_gap_ns", NULL, f->longest_gap_ns},
        {"preemptions", NULL, f->preemptions},
        {"lost_tokens", NULL, f->lost_tokens},
    };
    int rc = walk->t->sink->track(walk->t->sink->arg, &track);

    if (rc == 0 && from_ns != 0)
        rc = slice(walk, &track, r->id, from_ns, end_ns, whole, sizeof(whole) / sizeof(whole[0]));
    if (rc == 0 && f->queued_ns != 0)
        rc = slice(walk, &track, "waiting", f->queued_ns, started_ns, NULL, 0);
    if (rc == 0 && f->started_ns != 0)
        rc = slice(walk, &track, "prefill", f->started_ns, first_ns, NULL, 0);
    if (rc == 0 && f->first_token_ns != 0)
        rc = slice(walk, &track, "decode", f->first_token_ns, end_ns, NULL, 0);
    if (rc == 0 && f->state == PM_REQUEST_STATE_AWAY && f->preempted_ns != 0)
        rc = slice(walk, &track, "preempted", f->preempted_ns, end_ns, NULL, 0);
    return rc;
}

int pm_timeline_requests(struct pm_timeline *t, size_t engine)
{
    struct walk walk = {t, pm_session_engine(t->session, engine)->number};
    const struct pm_request_watch watch = {.moment = moment, .arg = &walk};
    struct pm_requests *requests;
    struct pm_request request;
    int rc = pm_requests_open(&requests, t->session, engine, &watch);
    if (rc != 0)
        return rc;
    while ((rc = pm_requests_next(requests, &request)) == 1) {
        rc = put_request(&walk, &request);
        if (rc != 0)
            break;
    }
    pm_requests_close(requests);
    return rc;
}
