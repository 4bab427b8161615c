/*
 * The requests of one engine as observations: matched by prompt (what was not cached), output and
 * how many requests were there and how
 * much prompt was computed in a step while it was.
 */
#include "compare/collect_parts.h"

#include <string.h>

#include "reader/requests.h"

static void put(struct pm_observation *seen, enum pm_request_value value, uint64_t ns)
{
    seen->values[value] = (double)ns;
    seen->present[value] = true;
    seen->sums[PM_REQUEST_SUM_VALUES + 2 * value] = (double)ns;
    seen->sums[PM_REQUEST_SUM_VALUES + 2 * value + 1] = 1;
}

static void observe(const struct pm_request_fact *fact, const struct pm_levels *levels,
                    struct pm_observation *seen)
{
    const uint64_t came = fact->queued_ns != 0 ? fact->queued_ns : fact->started_ns;
    const uint64_t ended = fact->last_token_ns != 0 ? fact->last_token_ns : fact->finished_ns;
    double crowd, prompts;
    const uint64_t fresh =
        fact->prompt_tokens > fact->cached_tokens ? fact->prompt_tokens - fact->cached_tokens : 0;

    pm_levels_mean(levels, came, ended, &crowd, &prompts);
    memset(seen, 0, sizeof(*seen));
    seen->tails = true;
    seen->key = pm_request_key(fresh, fact->output_tokens, (uint64_t)(crowd + 0.5),
                               (uint64_t)(prompts + 0.5));
    seen->covariates[0] = (double)fresh;
    seen->covariates[1] = (double)fact->output_tokens;
    seen->covariates[2] = crowd;
    seen->covariates[3] = prompts;
    if (fact->queued_ns != 0 && fact->started_ns != 0)
        put(seen, PM_REQUEST_VALUE_QUEUE, fact->queue_ns);
    if (fact->started_ns != 0 && fact->first_token_ns > fact->started_ns)
        put(seen, PM_REQUEST_VALUE_PREFILL, fact->first_token_ns - fact->started_ns);
    if (fact->ttft_ns != 0)
        put(seen, PM_REQUEST_VALUE_TTFT, fact->ttft_ns);
    if (fact->output_tokens > 1 && fact->tpot_ns != 0)
        put(seen, PM_REQUEST_VALUE_TPOT, fact->tpot_ns);
    if (fact->longest_gap_ns != 0)
        put(seen, PM_REQUEST_VALUE_GAP, fact->longest_gap_ns);
    if (fact->e2e_ns != 0)
        put(seen, PM_REQUEST_VALUE_E2E, fact->e2e_ns);
    seen->sums[PM_REQUEST_SUM_ENDED] = 1;
    seen->sums[PM_REQUEST_SUM_PREEMPTIONS] = fact->preemptions;
    seen->sums[PM_REQUEST_SUM_SIZED] = fact->prompt_tokens > 0;
    seen->sums[PM_REQUEST_SUM_PROMPT] = fact->prompt_tokens;
    seen->sums[PM_REQUEST_SUM_OUTPUT] = fact->output_tokens;
    seen->sums[PM_REQUEST_SUM_CROWD] = crowd;
}

int pm_collect_requests(const struct pm_session *session, size_t engine,
                        const struct pm_levels *levels, struct pm_collected *collected)
{
    struct pm_observation seen;
    struct pm_requests *requests;
    struct pm_request request;
    int rc = pm_requests_open(&requests, session, engine, NULL);

    if (rc != 0)
        return rc;
    while ((rc = pm_requests_next(requests, &request)) == 1) {
        if (request.fact.state != PM_REQUEST_STATE_FINISHED ||
            request.fact.reason == PM_FINISH_ABORT || request.fact.reason == PM_FINISH_ERROR ||
            request.fact.started_ns == 0)
            continue;
        observe(&request.fact, levels, &seen);
        collected->n_requests++;
        rc = pm_tally_add(&collected->requests, &seen);
        if (rc != 0)
            break;
    }
    pm_requests_close(requests);
    return rc;
}

int pm_collect_engine(const struct pm_session *session, size_t engine, const struct pm_known *known,
                      struct pm_strata *step_strata, struct pm_strata *request_strata,
                      struct pm_collected *ret_collected)
{
    const struct pm_process *process = pm_session_engine(session, engine)->process;
    struct pm_levels levels;

    memset(ret_collected, 0, sizeof(*ret_collected));
    if (process != NULL)
        ret_collected->recycled = pm_process_info(process)->first_fact[PM_STREAM_CORE] > 0;
    int rc = pm_levels_init(&levels, pm_session_info(session)->start_mono_ns);
    if (rc != 0)
        return rc;
    rc = pm_tally_init(&ret_collected->steps, step_strata);
    if (rc == 0)
        rc = pm_tally_init(&ret_collected->requests, request_strata);
    if (rc == 0)
        rc = pm_collect_steps(session, engine, known, &levels, ret_collected);
    pm_levels_seal(&levels);
    if (rc == 0)
        rc = pm_collect_requests(session, engine, &levels, ret_collected);
    pm_levels_release(&levels);
    return rc;
}

void pm_collected_release(struct pm_collected *collected)
{
    pm_tally_release(&collected->steps);
    pm_tally_release(&collected->requests);
}
