/*
 * The native table `requests`: one row per request of each engine, with every time and count. A
 * time that did not come, or is not known, is empty (null). What ITL, TPOT and TTFT mean stands in
 * reader/requests.h.
 */
#include "view/native.h"

#include "reader/requests.h"

static const char *const states[] = {"unknown", "waiting", "running", "preempted", "finished"};

static void put_time(struct pm_rows *rows, const char *name, uint64_t at_ns, uint64_t start_ns)
{
    at_ns != 0 ? pm_rows_sec6(rows, name, (int64_t)(at_ns - start_ns)) : pm_rows_null(rows, name);
}

static void put_if(struct pm_rows *rows, const char *name, bool have, uint64_t value)
{
    have ? pm_rows_u64(rows, name, value) : pm_rows_null(rows, name);
}

static int put_request(struct pm_rows *rows, const struct pm_request *request, uint64_t start_ns,
                       unsigned engine, uint32_t pid)
{
    const struct pm_request_fact *f = &request->fact;
    const bool over = f->state == PM_REQUEST_STATE_FINISHED;
    const bool counted = over || request->outputs_known;
    const uint64_t itls = request->outputs_known && request->outputs > 1 ? request->outputs - 1 : 0;

    pm_rows_begin(rows);
    pm_rows_text(rows, "request_id", request->id);
    pm_rows_u64(rows, "engine", engine);
    pm_rows_u64(rows, "pid", pid);
    pm_rows_text(rows, "state", states[f->state <= PM_REQUEST_STATE_FINISHED ? f->state : 0]);
    over ? pm_rows_text(rows, "reason", pm_finish_reason_text(f->reason))
         : pm_rows_null(rows, "reason");
    put_time(rows, "arrived_sec", f->arrived_ns, start_ns);
    put_time(rows, "queued_sec", f->queued_ns, start_ns);
    put_time(rows, "started_sec", f->started_ns, start_ns);
    put_time(rows, "first_token_sec", f->first_token_ns, start_ns);
    put_time(rows, "last_token_sec", f->last_token_ns, start_ns);
    put_time(rows, "first_preempted_sec", f->first_preempted_ns, start_ns);
    put_time(rows, "last_preempted_sec", f->preempted_ns, start_ns);
    put_time(rows, "last_resumed_sec", f->resumed_ns, start_ns);
    put_time(rows, "finished_sec", f->finished_ns, start_ns);
    pm_rows_u64(rows, "prompt_tokens", f->prompt_tokens);
    put_if(rows, "cached_tokens", f->started_ns != 0, f->cached_tokens);
    put_if(rows, "output_tokens", counted, f->output_tokens);
    pm_rows_u64(rows, "max_tokens", f->max_tokens);
    pm_rows_i64(rows, "priority", f->priority);
    pm_rows_u64(rows, "turns", f->turns);
    pm_rows_u64(rows, "preemptions", f->preemptions);
    put_if(rows, "recomputed_tokens", over, f->recomputed_tokens);
    pm_rows_u64(rows, "lost_tokens", f->lost_tokens);
    pm_rows_u64(rows, "lost_blocks", f->lost_blocks);
    pm_rows_u64(rows, "preempted_ns", f->away_ns);
    put_if(rows, "outputs", request->outputs_known, request->outputs);
    put_if(rows, "queue_ns", f->started_ns != 0 && f->queued_ns != 0, f->queue_ns);
    put_if(rows, "ttft_ns", f->first_token_ns != 0, f->ttft_ns);
    put_if(rows, "tpot_ns", counted && f->output_tokens > 1, f->tpot_ns);
    put_if(rows, "mean_itl_ns", itls != 0,
           itls != 0 ? (f->last_token_ns - f->first_token_ns) / itls : 0);
    put_if(rows, "max_itl_ns", f->longest_gap_ns != 0, f->longest_gap_ns);
    put_if(rows, "e2e_ns", over, f->e2e_ns);
    return pm_rows_end(rows);
}

int pm_native_requests(struct pm_rows *rows, const struct pm_session *session)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    int rc = 0;

    if (rows->format == PM_NATIVE_CSV) {
        static const struct pm_request none = {.id = ""};
        rows->header = true;
        rc = put_request(rows, &none, 0, 0, 0);
        rows->header = false;
    }
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0; e++) {
        const struct pm_engine *engine = pm_session_engine(session, e);
        struct pm_requests *requests;
        struct pm_request request;
        rc = pm_requests_open(&requests, session, e, NULL);
        if (rc != 0)
            return rc;
        const uint32_t pid = engine->process != NULL ? pm_process_info(engine->process)->pid : 0;
        while ((rc = pm_requests_next(requests, &request)) == 1) {
            rc = put_request(rows, &request, start_ns, engine->number, pid);
            if (rc != 0)
                break;
        }
        pm_requests_close(requests);
    }
    return rc;
}
