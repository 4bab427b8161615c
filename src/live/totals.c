/* Totals of one process, kept up to date without reading the live copy again (see follow.h). */
#include "live/follow.h"

#include "view/common.h"

#include <stdlib.h>
#include <string.h>

static int load(struct pm_live_totals *totals)
{
    uint64_t covers[PM_STREAM_COUNT];
    struct pm_totals fresh;
    int rc = pm_process_live_totals(totals->process, &fresh, covers);
    if (rc != 0)
        return rc;
    pm_totals_free(&totals->totals);
    totals->totals = fresh;
    totals->covers = covers[PM_STREAM_CORE];
    return 0;
}

int pm_live_totals_open(struct pm_live_totals *ret_totals, const struct pm_process *process)
{
    const size_t n = pm_process_schema_count(process);
    struct pm_live_totals totals = {.process = process};
    totals.value_at = calloc(n + 1, sizeof(*totals.value_at));
    totals.hist_at = calloc(n + 1, sizeof(*totals.hist_at));
    int rc = totals.value_at != NULL && totals.hist_at != NULL ? load(&totals) : -PM_ENOMEM;
    /* A file whose schemas cannot all be read has no totals; the rest of it is shown. */
    if (rc == -PM_ECORRUPT || rc == -PM_ELIMIT)
        rc = 0;
    if (rc != 0) {
        pm_live_totals_close(&totals);
        return rc;
    }
    for (size_t i = 0; i < n; i++)
        pm_process_series(process, i, &totals.value_at[i], &totals.hist_at[i]);
    *ret_totals = totals;
    return 0;
}

void pm_live_totals_close(struct pm_live_totals *totals)
{
    free(totals->value_at);
    free(totals->hist_at);
    pm_totals_free(&totals->totals);
    *totals = (struct pm_live_totals){0};
}

int pm_live_totals_add(struct pm_live_totals *totals, const struct pm_record *record)
{
    if (totals->totals.values == NULL)
        return 0;
    if (totals->next != 0 && record->fact > totals->next && record->fact > totals->covers) {
        /* Some went before we came to them: the live copy has them. */
        int rc = load(totals);
        if (rc != 0)
            return rc;
    }
    totals->next = record->fact + 1;
    if (record->fact >= totals->covers)
        pm_schema_accumulate(record->desc, record->payload,
                             totals->totals.values + totals->value_at[record->schema],
                             totals->totals.hists + totals->hist_at[record->schema]);
    return 0;
}

uint64_t pm_live_total_class(const struct pm_live_totals *totals, const char *schema,
                             unsigned class_value)
{
    struct pm_series series;
    return totals->totals.values != NULL && pm_series_find(totals->process, &totals->totals, schema,
                                                           NULL, class_value, &series)
               ? series.count
               : 0;
}

uint64_t pm_live_total(const struct pm_live_totals *totals, const char *schema, const char *field,
                       unsigned first_class)
{
    struct pm_series series;
    uint64_t sum = 0;
    for (unsigned class_value = first_class;
         totals->totals.values != NULL &&
         pm_series_find(totals->process, &totals->totals, schema, field[0] != '\0' ? field : NULL,
                        class_value, &series);
         class_value++)
        sum += field[0] != '\0' ? series.sum : series.count;
    return sum;
}

void pm_live_total_quantiles(const struct pm_live_totals *totals, const char *schema,
                             const char *field, struct pm_live_quantiles *ret_quantiles)
{
    struct pm_hist all = {{0}};
    struct pm_series series;
    struct pm_stats stats;
    uint64_t sum = 0;
    for (unsigned class_value = 0;
         totals->totals.values != NULL &&
         pm_series_find(totals->process, &totals->totals, schema, field, class_value, &series);
         class_value++) {
        if (series.hist == NULL)
            continue;
        for (unsigned i = 0; i < PM_HIST_BUCKETS; i++)
            all.buckets[i] += series.hist->buckets[i];
        sum += series.sum;
    }
    pm_stats_from_hist(&all, sum, &stats);
    *ret_quantiles = (struct pm_live_quantiles){.count = stats.count};
    if (stats.count > 0)
        *ret_quantiles = (struct pm_live_quantiles){.count = stats.count,
                                                    .p50 = stats.p50,
                                                    .p95 = stats.p95,
                                                    .p99 = stats.p99,
                                                    .mean = stats.mean};
}
