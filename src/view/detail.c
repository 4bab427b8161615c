/* See detail.h. Called by the views of engine-wide files; pure. */
#include "view/detail.h"

#include "session/hist.h"

static bool recycled(const struct pm_process *process)
{
    return process != NULL && pm_process_info(process)->first_fact[PM_STREAM_CORE] > 0;
}

const struct pm_process *pm_engine_recycled(const struct pm_session *session, size_t engine)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    return which != NULL && recycled(which->process) ? which->process : NULL;
}

static bool totals_of(const struct pm_process *process, unsigned parts,
                      struct pm_totals *ret_totals)
{
    return process != NULL && parts == 1 && pm_process_totals(process, ret_totals) == 0;
}

bool pm_engine_totals(const struct pm_session *session, size_t engine, struct pm_totals *ret_totals)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    unsigned parts = 0;
    for (size_t e = 0; which != NULL && e < pm_session_engine_count(session); e++)
        parts += pm_session_engine(session, e)->process == which->process;
    return which != NULL && totals_of(which->process, parts, ret_totals);
}

static const struct pm_process *worker_of(const struct pm_session *session, size_t engine,
                                          unsigned n)
{
    const struct pm_process *process;
    unsigned instance;
    int rank;
    return pm_engine_worker(session, engine, n, &process, &instance, &rank) == 0 ? process : NULL;
}

const struct pm_process *pm_worker_recycled(const struct pm_session *session, size_t engine,
                                            unsigned n)
{
    const struct pm_process *process = worker_of(session, engine, n);
    return recycled(process) ? process : NULL;
}

bool pm_worker_totals(const struct pm_session *session, size_t engine, unsigned n,
                      struct pm_totals *ret_totals)
{
    const struct pm_process *process = worker_of(session, engine, n);
    unsigned parts = 0;
    for (size_t e = 0; e < pm_session_engine_count(session); e++)
        for (unsigned i = 0; i < pm_session_engine(session, e)->n_ranks; i++)
            parts += worker_of(session, e, i) == process;
    return totals_of(process, parts, ret_totals);
}

void pm_json_detail(struct pm_json *json, bool had_to_go, bool from_totals)
{
    if (!had_to_go)
        return;
    pm_json_key(json, "percentiles");
    pm_json_text(json, from_totals ? "histogram" : "held");
    if (!from_totals)
        return;
    pm_json_key(json, "percentiles_error_pct");
    pm_json_double(json, 100.0 * PM_HIST_QUANTILE_ERROR + 0.005, 2);
}
