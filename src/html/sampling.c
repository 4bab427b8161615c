/*
 * How a worker's steps sampled, for the page: the very value of `report --json`, and over time what
 * the requests of each batch asked for and how long sampling took. Called by page.c.
 */
#include "html/data.h"

#include "html/thin.h"
#include "view/sampling.h"

#define ROWS_HELD 20000u /* steps that are shown one by one */

enum { REQUESTS, TOOK, UNKNOWN, SETTINGS, COLUMNS = SETTINGS + PM_SAMPLING_ALL };
#define ADDED (PM_THIN_ROW | PM_THIN_SUM)
_Static_assert(COLUMNS <= PM_THIN_COLUMNS_MAX, "a column for each setting");

static int on_step(void *arg, const struct pm_sampling_step *step)
{
    uint64_t values[COLUMNS] = {
        [REQUESTS] = step->requests,
        [TOOK] = step->dur_ns,
        [UNKNOWN] = step->bits == PM_SAMPLING_UNKNOWN ? step->requests : 0,
    };
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++)
        values[SETTINGS + i] = step->settings[i];
    return pm_thin_add(arg, step->at_ns, values);
}

/* Columns of settings that nobody used are left out. */
static void choose_columns(struct pm_thin_column columns[COLUMNS],
                           const struct pm_sampling *sampling)
{
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++)
        if (sampling->with[i] == 0)
            columns[SETTINGS + i].how = 0;
}

int pm_data_sampling(struct pm_json *json, const struct pm_session *session, size_t engine,
                     unsigned n)
{
    struct pm_thin_column columns[COLUMNS] = {
        [REQUESTS] = {"req", ADDED},
        [TOOK] = {"took", ADDED | PM_THIN_MAX | PM_THIN_NS},
        [UNKNOWN] = {"unknown", ADDED},
    };
    struct pm_sampling sampling;
    struct pm_thin thin;

    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++)
        columns[SETTINGS + i] = (struct pm_thin_column){pm_sampling_name(i), ADDED};
    pm_thin_init(&thin, columns, COLUMNS, TOOK, pm_session_info(session)->start_mono_ns, ROWS_HELD);
    const int rc = pm_sampling_each(session, engine, n, on_step, &thin, &sampling);
    if (rc == 0) {
        choose_columns(columns, &sampling);
        pm_json_key(json, "sampling");
        if (sampling.steps > 0)
            pm_sampling_summary(json, &sampling);
        else
            pm_json_null(json);
        pm_json_key(json, "sampling_series");
        if (thin.rows > 0)
            pm_thin_json(json, &thin);
        else
            pm_json_null(json);
    }
    pm_sampling_release(&sampling);
    pm_thin_release(&thin);
    return rc;
}
