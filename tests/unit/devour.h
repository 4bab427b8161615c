/*
 * Looks at everything that a session has to offer, for tests that only ask whether it survives.
 */
#ifndef PM_TESTS_DEVOUR_H
#define PM_TESTS_DEVOUR_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reader/reader.h"
#include "reader/steps.h"
#include "explain/explain.h"
#include "html/page.h"
#include "view/arrow_view.h"
#include "view/chrome_trace.h"
#include "view/openmetrics.h"
#include "view/perfetto_trace.h"
#include "view/view.h"

struct devoured {
    uint64_t facts, steps, strings;
};

static inline int devour_cursors(const struct pm_process *process, struct devoured *eaten)
{
    for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
        struct pm_cursor *cursor;
        struct pm_record record;
        int rc = pm_cursor_open(&cursor, process, (enum pm_stream)s);
        if (rc != 0)
            return rc;
        /* The second round asks again after the end. */
        for (int round = 0; round < 2; round++)
            while ((rc = pm_cursor_next(cursor, &record)) == 1) {
                eaten->facts++;
                for (size_t i = 0; i < record.desc->n_fields; i++) {
                    const uint64_t value = pm_field_get(&record.desc->fields[i], record.payload);
                    if (record.desc->fields[i].type == PM_TYPE_STR)
                        eaten->strings += strlen(pm_cursor_string(cursor, (uint32_t)value)) > 0;
                }
            }
        pm_cursor_close(cursor);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Records, totals, joins. 0, or the first error that a verb gave (only damage that it names). */
static inline int devour_reader(const struct pm_session *session, struct devoured *eaten)
{
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        struct pm_totals totals;
        int rc = devour_cursors(process, eaten);
        if (rc != 0)
            return rc;
        if (pm_process_totals(process, &totals) == 0)
            pm_totals_free(&totals);
        for (size_t i = 0; i < pm_process_attr_count(process); i++) {
            const char *key, *value;
            pm_process_attr_at(process, i, &key, &value);
            eaten->strings += strlen(key) + strlen(value) > 0;
        }
    }
    for (size_t e = 0; e < pm_session_engine_count(session); e++) {
        const unsigned n_ranks = pm_session_engine(session, e)->n_ranks;
        for (unsigned n = 0; n < (n_ranks > 0 ? n_ranks : 1); n++) {
            struct pm_steps *steps;
            struct pm_step step;
            int rc = pm_steps_open(&steps, session, e, n);
            if (rc != 0)
                return rc;
            while ((rc = pm_steps_next(steps, &step)) == 1)
                eaten->steps++;
            pm_steps_close(steps);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static inline int devour_table(const char *name, const char *sentence, void *arg)
{
    const struct pm_session *session = arg;
    struct ArrowSchema schema;
    struct ArrowArray array;
    struct pm_table *table;
    size_t rows = 1;
    int rc = pm_table_open(&table, session, name, NULL);
    (void)sentence;
    if (rc != 0)
        return rc;
    rc = pm_arrow_schema(table, &schema);
    if (rc == 0)
        schema.release(&schema);
    while (rc == 0 && rows > 0) {
        rc = pm_arrow_batch(table, 100, &array, &rows);
        if (rc == 0 && rows > 0)
            array.release(&array);
    }
    pm_table_close(table);
    return rc;
}

static inline int devour_exports(const struct pm_session *session, FILE *null)
{
    struct pm_error err = {""};
    int rc = pm_view_chrome(session, null, &err);
    if (rc == 0)
        rc = pm_view_perfetto(session, null, &err);
    if (rc == 0)
        rc = pm_view_openmetrics(session, null, &err);
    /* Damaged times may make the session too long for an interval, which is told. */
    if (rc == 0 && pm_view_openmetrics_series(session, 3600000000000ull, null, &err) != 0 &&
        strstr(err.text, "longer interval") == NULL)
        rc = -PM_EIO;
    return rc == 0 ? pm_native_tables(session, devour_table, (void *)(uintptr_t)session) : rc;
}

static inline int devour_views(const struct pm_session *session)
{
    struct pm_report_options options = {.colour = true};
    struct pm_error err = {""};
    FILE *null = fopen("/dev/null", "w");
    int rc = null == NULL ? -PM_EIO : 0;
    if (rc == 0)
        rc = pm_view_report_text(session, &options, null, &err);
    if (rc == 0)
        rc = pm_view_report_json(session, NULL, null, &err);
    if (rc == 0)
        rc = pm_explain_report_text(session, &options, null, &err);
    if (rc == 0) {
        struct pm_buf page;
        pm_buf_init(&page, 64u << 20);
        rc = pm_html_data(&page, session, NULL, &err);
        pm_buf_release(&page);
    }
    if (rc == 0)
        rc = pm_view_metadata(session, null, &err);
    if (rc == 0)
        rc = pm_export_native(session, PM_NATIVE_JSON, NULL, null, NULL, &err);
    if (rc == 0)
        rc = devour_exports(session, null);
    if (null != NULL)
        fclose(null);
    return rc;
}

#endif
