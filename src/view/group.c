/* See group.h. */
#include "view/group.h"

#include "view/common.h"

static bool is_worker(const struct pm_session *session, size_t engine, unsigned n,
                      const struct pm_process *process)
{
    const struct pm_process *worker;
    unsigned instance;
    int rank;
    return pm_engine_worker(session, engine, n, &worker, &instance, &rank) == 0 &&
           worker == process;
}

bool pm_group_has(const struct pm_session *session, size_t engine, unsigned n,
                  const struct pm_process *process)
{
    for (size_t e = 0; e < pm_session_engine_count(session); e++) {
        const struct pm_engine *each = pm_session_engine(session, e);
        if (each->process == process)
            return e == engine && n == pm_engine_sampler(session, e);
        for (unsigned k = 0; k < each->n_ranks; k++)
            if (is_worker(session, e, k, process))
                return e == engine && k == n;
    }
    return engine == 0 &&
           (pm_session_engine_count(session) == 0 ? n == 0 : n == pm_engine_sampler(session, 0));
}
