/*
 * Which native tables a session has, and the opening of one (table.h).
 */
#include "view/table.h"

#include <string.h>

const struct pm_schema *pm_table_schema(const struct pm_session *session, const char *name,
                                        size_t *ret_process)
{
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        const int number = pm_process_schema_find(process, name);
        if (number < 0)
            continue;
        *ret_process = p;
        return pm_process_schema(process, (size_t)number);
    }
    return NULL;
}

/* Steps and requests are made from facts: whether there are such facts. */
static bool has_schema(const struct pm_session *session, const char *name)
{
    size_t process;
    return pm_table_schema(session, name, &process) != NULL;
}

static bool has_steps(const struct pm_session *session)
{
    return has_schema(session, "sched_step") || has_schema(session, "worker_step");
}

static bool has_requests(const struct pm_session *session)
{
    return has_schema(session, "request") && pm_session_setting_on(session, "preemption", true);
}

static bool is_joined(const char *name)
{
    return strcmp(name, PM_TABLE_STEPS) == 0 || strcmp(name, PM_TABLE_REQUESTS) == 0;
}

int pm_native_tables(const struct pm_session *session,
                     int (*fn)(const char *name, const char *sentence, void *arg), void *arg)
{
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        for (size_t i = 0; i < pm_process_schema_count(process); i++) {
            const struct pm_schema *schema = pm_process_schema(process, i);
            size_t first = 0;
            if (schema == NULL || pm_table_schema(session, schema->name, &first) != schema)
                continue; /* told already */
            if (is_joined(schema->name))
                continue;
            int rc = fn(schema->name, schema->doc, arg);
            if (rc != 0)
                return rc;
        }
    }
    int rc = has_steps(session)
                 ? fn(PM_TABLE_STEPS, "The scheduler's and the worker's facts of each step.", arg)
                 : 0;
    if (rc == 0 && has_requests(session))
        rc = fn(PM_TABLE_REQUESTS, "Each request's times and counts, from arrival to end.", arg);
    return rc;
}

int pm_table_open(struct pm_table **ret_table, const struct pm_session *session, const char *name,
                  struct pm_error *err)
{
    int rc;
    if (strcmp(name, PM_TABLE_STEPS) == 0)
        rc = has_steps(session) ? pm_table_open_steps(ret_table, session, NULL) : -PM_ENOTFOUND;
    else if (strcmp(name, PM_TABLE_REQUESTS) == 0)
        rc = has_requests(session) ? pm_table_open_requests(ret_table, session, NULL)
                                   : -PM_ENOTFOUND;
    else
        rc = pm_table_open_facts(ret_table, session, name, NULL);
    if (rc == -PM_ENOTFOUND)
        return pm_error_set(err, rc, "%.100s: the session has no such table", name);
    if (rc != 0)
        return pm_error_set(err, rc, "%.100s: cannot be read: %s", name, pm_strerror(rc));
    return 0;
}

void pm_table_close(struct pm_table *table)
{
    if (table != NULL)
        table->sort->close(table);
}
