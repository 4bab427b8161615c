/*
 * preemption_events.csv, request_lifecycle.csv and preemption_summary.json, and the figures of
 * requests for the reports (see life.h). Called by seed_export.c and the reports.
 */
#include "view/life.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "view/detail.h"
#include "view/seed.h"

/* A walk under way. */
struct walk {
    uint64_t start_ns;
    struct pm_outfile *events; /* NULL: not written */
    struct pm_lives *lives;
};

static char *put_text(char *out, const char *text)
{
    const size_t bytes = strlen(text);
    memcpy(out, text, bytes);
    return out + bytes;
}

/* RFC 4180: quoted only where it must be. At most 2 * 256 + 2 bytes. */
static char *put_id(char *out, const char *id)
{
    if (strpbrk(id, ",\"\r\n") == NULL)
        return put_text(out, id);
    *out++ = '"';
    for (; *id != '\0'; id++) {
        if (*id == '"')
            *out++ = '"';
        *out++ = *id;
    }
    *out++ = '"';
    return out;
}
#define ID_BYTES (2 * PM_REQUEST_ID_MAX + 2)

static char *put_time(char *out, uint64_t at_ns, uint64_t start_ns)
{
    return at_ns != 0 ? pm_number_sec6_signed(out, (int64_t)(at_ns - start_ns)) : out;
}

static char *put_count(char *out, const char *key, uint64_t value)
{
    *out++ = ';';
    out = put_text(out, key);
    *out++ = '=';
    return pm_number_u64(out, value);
}

static char *put_sec(char *out, const char *key, uint64_t ns)
{
    *out++ = ';';
    out = put_text(out, key);
    *out++ = '=';
    return pm_number_sec6(out, ns);
}

static char *put_extra(char *out, const struct pm_request_moment *moment)
{
    const struct pm_request_fact *fact = &moment->request->fact;
    out = put_text(out, "step=");
    out = pm_number_u64(out, moment->step);
    switch (moment->kind) {
    case PM_MOMENT_STARTED:
        if (fact->queued_ns != 0 && moment->at_ns > fact->queued_ns)
            out = put_sec(out, "queue_sec", moment->at_ns - fact->queued_ns);
        return put_count(out, "cached_tokens", moment->tokens);
    case PM_MOMENT_PREEMPTED:
        out = put_count(out, "tokens_lost", moment->tokens);
        return put_count(out, "blocks_held", moment->blocks);
    case PM_MOMENT_RESUMED:
        out = put_sec(out, "delay_sec", moment->away_ns);
        return put_count(out, "cached_tokens", moment->tokens);
    case PM_MOMENT_FINISHED:
        out = put_count(out, "prompt_tokens", fact->prompt_tokens);
        out = put_count(out, "cached_tokens", fact->cached_tokens);
        out = put_count(out, "output_tokens", fact->output_tokens);
        return put_count(out, "preemptions", fact->preemptions);
    }
    return out;
}

static int put_event(struct pm_outfile *file, const struct pm_request_moment *moment,
                     uint64_t start_ns)
{
    static const char *const names[] = {[PM_MOMENT_STARTED] = "started",
                                        [PM_MOMENT_PREEMPTED] = "preempted",
                                        [PM_MOMENT_RESUMED] = "resumed",
                                        [PM_MOMENT_FINISHED] = "finished"};
    const char *reason =
        moment->kind == PM_MOMENT_PREEMPTED  ? pm_preempt_reason_text(moment->reason)
        : moment->kind == PM_MOMENT_FINISHED ? pm_finish_reason_text(moment->reason)
                                             : "";
    char *out = pm_buf_reserve(&file->buf, ID_BYTES + 512);
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = pm_number_sec6_signed(out, (int64_t)(moment->at_ns - start_ns));
    *out++ = ',';
    out = put_id(out, moment->request->id);
    *out++ = ',';
    out = put_text(out, names[moment->kind]);
    *out++ = ',';
    out = put_text(out, reason);
    *out++ = ',';
    out = pm_number_sec6(out, moment->running_ns);
    *out++ = ',';
    out = put_extra(out, moment);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

static int on_moment(const struct pm_request_moment *moment, void *arg)
{
    struct walk *walk = arg;
    struct pm_lives *lives = walk->lives;
    if (moment->kind == PM_MOMENT_PREEMPTED) {
        lives->preemptions[moment->reason < PM_PREEMPT_COUNT ? moment->reason : 0]++;
        lives->running_ns += moment->running_ns;
    } else if (moment->kind == PM_MOMENT_RESUMED) {
        lives->resumes++;
        lives->away_ns += moment->away_ns;
        if (moment->away_ns > lives->longest_away_ns)
            lives->longest_away_ns = moment->away_ns;
    }
    return walk->events != NULL ? put_event(walk->events, moment, walk->start_ns) : 0;
}

static int on_gap(uint64_t gap_ns, uint32_t count, void *arg)
{
    struct walk *walk = arg;
    return pm_gap_add(&walk->lives->gaps, gap_ns, count);
}

static int put_lifecycle(struct pm_outfile *file, const struct pm_request *request,
                         uint64_t start_ns)
{
    const struct pm_request_fact *fact = &request->fact;
    char *out = pm_buf_reserve(&file->buf, ID_BYTES + 7 * (PM_NUMBER_MAX + 1));
    char *const begin = out;

    if (out == NULL)
        return pm_buf_status(&file->buf);
    out = put_id(out, request->id);
    *out++ = ',';
    out = put_time(out, fact->started_ns, start_ns);
    *out++ = ',';
    out = put_time(out, fact->first_preempted_ns, start_ns);
    *out++ = ',';
    out = put_time(out, fact->resumed_ns, start_ns);
    *out++ = ',';
    out = put_time(out, fact->finished_ns, start_ns);
    *out++ = ',';
    if (fact->started_ns != 0 && fact->finished_ns >= fact->started_ns)
        out = pm_number_sec6(out, fact->finished_ns - fact->started_ns);
    *out++ = ',';
    if (fact->preemptions > 0)
        out = pm_number_sec6(out, fact->away_ns);
    *out++ = '\n';
    pm_buf_advance(&file->buf, (size_t)(out - begin));
    return pm_outfile_spill(file);
}

static int add_time(struct pm_lives *lives, enum pm_life_time which, uint64_t ns, bool known)
{
    return known ? pm_samples_add(&lives->times[which], ns) : 0;
}

static int count(struct pm_lives *lives, const struct pm_request *request)
{
    const struct pm_request_fact *fact = &request->fact;
    const bool over = fact->state == PM_REQUEST_STATE_FINISHED;
    lives->requests++;
    lives->open += !over;
    lives->open_preemptions += over ? 0 : fact->preemptions;
    const unsigned reason = fact->reason == PM_FINISH_IGNORED ? PM_FINISH_LENGTH : fact->reason;
    lives->finished[reason < PM_FINISH_COUNT ? reason : PM_FINISH_OTHER] += over;
    lives->never_ran += fact->started_ns == 0;
    lives->preempted_requests += fact->preemptions > 0;
    lives->prompt_tokens += fact->prompt_tokens;
    lives->cached_tokens += fact->cached_tokens;
    lives->output_tokens += fact->output_tokens;
    lives->recomputed_tokens += fact->recomputed_tokens;
    lives->lost_tokens += fact->lost_tokens;
    int rc = add_time(lives, PM_LIFE_QUEUE, fact->queue_ns,
                      fact->started_ns != 0 && fact->queued_ns != 0);
    if (rc == 0)
        rc = add_time(lives, PM_LIFE_TTFT, fact->ttft_ns,
                      fact->first_token_ns != 0 && (fact->arrived_ns | fact->queued_ns) != 0);
    if (rc == 0)
        rc = add_time(lives, PM_LIFE_TPOT, fact->tpot_ns, fact->output_tokens > 1 && fact->tpot_ns);
    if (rc == 0)
        rc = add_time(lives, PM_LIFE_E2E, fact->e2e_ns,
                      over && fact->reason != PM_FINISH_ABORT && fact->e2e_ns != 0);
    return rc;
}

/* Requests whose detail had to go are in the totals still. */
static void count_totals(const struct pm_session *session, size_t engine, struct pm_lives *lives)
{
    const struct pm_process *process = pm_engine_recycled(session, engine);
    struct pm_series series;
    struct pm_totals totals;

    lives->total_requests = lives->requests;
    for (unsigned i = 0; i < PM_PREEMPT_COUNT; i++)
        lives->total_preemptions += lives->preemptions[i];
    lives->recycled = process != NULL;
    if (process == NULL || !pm_engine_totals(session, engine, &totals))
        return;
    if (pm_series_find(process, &totals, "request", "preemptions", 0, &series)) {
        lives->from_totals = true;
        lives->total_requests = series.count + lives->open;
        lives->total_preemptions = series.sum + lives->open_preemptions;
    }
    pm_totals_free(&totals);
}

int pm_lives_walk(const struct pm_session *session, size_t engine, struct pm_outfile *events,
                  struct pm_outfile *lifecycle, struct pm_lives *ret_lives)
{
    struct walk walk = {
        .start_ns = pm_session_info(session)->start_mono_ns, .events = events, .lives = ret_lives};
    const struct pm_request_watch watch = {.moment = on_moment, .gap = on_gap, .arg = &walk};
    struct pm_requests *requests;
    struct pm_request request;
    int rc = 0;

    memset(ret_lives, 0, sizeof(*ret_lives));
    for (unsigned i = 0; i < PM_LIFE_TIMES; i++)
        pm_samples_init(&ret_lives->times[i]);
    if (events != NULL)
        rc = pm_buf_add_text(&events->buf,
                             "timestamp_sec,request_id,event,reason,running_time_sec,extra_info\n");
    if (rc == 0 && lifecycle != NULL)
        rc = pm_buf_add_text(&lifecycle->buf,
                             "request_id,started_sec,preempted_sec,resumed_sec,finished_sec,"
                             "total_time_sec,preemption_delay_sec\n");
    if (rc != 0 || engine >= pm_session_engine_count(session))
        return rc;
    rc = pm_requests_open(&requests, session, engine, &watch);
    if (rc != 0)
        return rc;
    while ((rc = pm_requests_next(requests, &request)) == 1) {
        rc = count(ret_lives, &request);
        if (rc == 0 && lifecycle != NULL)
            rc = put_lifecycle(lifecycle, &request, walk.start_ns);
        if (rc != 0)
            break;
    }
    pm_requests_close(requests);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; i < PM_LIFE_TIMES; i++)
        pm_samples_stats(&ret_lives->times[i], &ret_lives->stats[i]);
    pm_gap_stats(&ret_lives->gaps, &ret_lives->itl);
    count_totals(session, engine, ret_lives);
    return 0;
}

void pm_lives_release(struct pm_lives *lives)
{
    for (unsigned i = 0; i < PM_LIFE_TIMES; i++)
        pm_samples_release(&lives->times[i]);
    free(lives->gaps.held);
    memset(&lives->gaps, 0, sizeof(lives->gaps));
}

static void put_seconds(struct pm_json *json, const char *key, uint64_t ns, uint64_t among)
{
    pm_json_key(json, key);
    if (among == 0)
        pm_json_null(json);
    else
        pm_json_double(json, (double)ns / 1e9 / (double)among, 6);
}

void pm_lives_summary(struct pm_json *json, const struct pm_lives *lives)
{
    uint64_t seen = 0;
    pm_json_object(json);
    pm_json_key(json, "total_preemptions");
    pm_json_u64(json, lives->total_preemptions);
    pm_json_key(json, "total_requests");
    pm_json_u64(json, lives->total_requests);
    pm_json_key(json, "preemption_reasons");
    pm_json_object(json);
    for (unsigned i = 0; i < PM_PREEMPT_COUNT; i++) {
        seen += lives->preemptions[i];
        if (lives->preemptions[i] == 0)
            continue;
        pm_json_key(json, i != 0 ? pm_preempt_reason_text(i) : "unknown");
        pm_json_u64(json, lives->preemptions[i]);
    }
    pm_json_end(json);
    put_seconds(json, "mean_running_time_before_preempt", lives->running_ns, seen);
    put_seconds(json, "mean_resume_delay", lives->away_ns, lives->resumes);
    put_seconds(json, "max_resume_delay", lives->longest_away_ns, lives->resumes != 0);
    if (lives->recycled) {
        pm_json_key(json, "detail");
        pm_json_text(json, lives->from_totals ? "totals of all, times of those held" : "held");
    }
    pm_json_end(json);
}

int pm_seed_requests(struct pm_seed *seed, int dir_fd, size_t engine, unsigned n)
{
    struct pm_outfile events, lifecycle;
    struct pm_lives lives;
    struct pm_json json;

    (void)n;
    int rc = pm_seed_begin(seed, dir_fd, "preemption_events.csv", &events);
    if (rc != 0)
        return rc;
    rc = pm_seed_begin(seed, dir_fd, "request_lifecycle.csv", &lifecycle);
    if (rc != 0)
        return pm_outfile_finish(&events, rc, NULL, seed->err);
    rc = pm_lives_walk(seed->session, engine, &events, &lifecycle, &lives);
    int done = pm_seed_finish(seed, &events, rc);
    rc = pm_seed_finish(seed, &lifecycle, rc != 0 ? rc : done);
    if (rc != 0)
        goto done;
    seed->result.rows += lives.requests;
    struct pm_outfile file;
    rc = pm_seed_begin(seed, dir_fd, "preemption_summary.json", &file);
    if (rc != 0)
        goto done;
    pm_json_init(&json, &file.buf, 2);
    pm_lives_summary(&json, &lives);
    rc = pm_seed_finish(seed, &file, pm_json_finish(&json));
done:
    pm_lives_release(&lives);
    return rc;
}
