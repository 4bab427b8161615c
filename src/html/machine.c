/*
 * What a worker tells of its device, its memory, the exchange between ranks, KV connectors, and the
 * layers of its model, for the page: the very values of `report --json`, and memory and transfers
 * over time. Called by page.c.
 */
#include "html/data.h"

#include "html/thin.h"
#include "view/collective.h"
#include "view/device_report.h"
#include "view/layer.h"
#include "view/memory.h"
#include "view/transfer.h"

#define ROWS_HELD 4096       /* readings of memory that are shown one by one */
#define TRANSFERS_HELD 20000 /* steps with transfers */

enum { ALLOCATED, RESERVED, PEAK, MEMORY_COLUMNS };
#define SHOWN (PM_THIN_ROW | PM_THIN_SUM | PM_THIN_MIN | PM_THIN_MAX)
static const struct pm_thin_column memory_columns[MEMORY_COLUMNS] = {
    [ALLOCATED] = {"allocated", SHOWN},
    [RESERVED] = {"reserved", SHOWN},
    [PEAK] = {"peak", SHOWN},
};

static int on_memory(void *arg, const struct pm_memory_sample *sample)
{
    const uint64_t values[MEMORY_COLUMNS] = {
        [ALLOCATED] = sample->allocated_bytes,
        [RESERVED] = sample->reserved_bytes,
        [PEAK] = sample->peak_bytes,
    };
    return pm_thin_add(arg, sample->at_ns, values);
}

static int put_memory(struct pm_json *json, const struct pm_session *session, size_t engine,
                      unsigned n)
{
    struct pm_thin thin;

    pm_json_key(json, "memory");
    int rc = pm_memory_report_json(session, engine, n, json);
    pm_thin_init(&thin, memory_columns, MEMORY_COLUMNS, -1, pm_session_info(session)->start_mono_ns,
                 ROWS_HELD);
    if (rc == 0)
        rc = pm_memory_each(session, engine, n, on_memory, &thin);
    if (rc == 0) {
        pm_json_key(json, "memory_series");
        if (thin.rows > 0)
            pm_thin_json(json, &thin);
        else
            pm_json_null(json);
    }
    pm_thin_release(&thin);
    return rc;
}

/* ---- KV connectors ---- */

enum { FOUND, LOADED, LOADS, HELD_SCHEDULER, HELD_LOAD, HELD_SAVE, HELD_OTHER, TRANSFER_COLUMNS };
#define ADDED (PM_THIN_ROW | PM_THIN_SUM)
static const struct pm_thin_column transfer_columns[TRANSFER_COLUMNS] = {
    [FOUND] = {"found", ADDED},
    [LOADED] = {"loaded", ADDED},
    [LOADS] = {"loads", ADDED},
    [HELD_SCHEDULER] = {"sched", ADDED | PM_THIN_NS},
    [HELD_LOAD] = {"load", ADDED | PM_THIN_NS},
    [HELD_SAVE] = {"save", ADDED | PM_THIN_NS},
    [HELD_OTHER] = {"ask", ADDED | PM_THIN_NS},
};

static int on_transfer(void *arg, const struct pm_transfer_step *step)
{
    const uint64_t *took = step->dur_ns;
    const uint64_t values[TRANSFER_COLUMNS] = {
        [FOUND] = step->tokens[PM_TRANSFER_LOOKUP],
        [LOADED] = step->tokens[PM_TRANSFER_LOAD],
        [LOADS] = step->calls[PM_TRANSFER_LOAD],
        [HELD_SCHEDULER] = took[PM_TRANSFER_LOOKUP] + took[PM_TRANSFER_LOAD],
        [HELD_LOAD] = took[PM_TRANSFER_START_LOAD] + took[PM_TRANSFER_WAIT_LOAD],
        [HELD_SAVE] = took[PM_TRANSFER_SAVE] + took[PM_TRANSFER_WAIT_SAVE],
        [HELD_OTHER] = took[PM_TRANSFER_FINISHED],
    };
    return pm_thin_add(arg, step->at_ns, values);
}

static int put_transfers(struct pm_json *json, const struct pm_session *session, size_t engine,
                         unsigned n)
{
    struct pm_thin thin;

    pm_json_key(json, "kv_transfers");
    int rc = pm_transfer_report_json(session, engine, n, json);
    pm_thin_init(&thin, transfer_columns, TRANSFER_COLUMNS, -1,
                 pm_session_info(session)->start_mono_ns, TRANSFERS_HELD);
    if (rc == 0)
        rc = pm_transfer_each(session, engine, n, on_transfer, &thin);
    if (rc == 0) {
        pm_json_key(json, "kv_transfer_series");
        if (thin.rows > 0)
            pm_thin_json(json, &thin);
        else
            pm_json_null(json);
    }
    pm_thin_release(&thin);
    return rc;
}

/* The steps that the reports count: those whose worker ran something. */
static int put_device(struct pm_json *json, const struct pm_session *session, size_t engine,
                      unsigned n)
{
    struct pm_device_sums sums = {0};
    struct pm_forward forward;
    struct pm_steps *steps;
    struct pm_step step;
    int error = 0, rc = pm_steps_open(&steps, session, engine, n);

    if (rc != 0)
        return rc;
    pm_forward_init(&forward);
    while (error == 0 && (rc = pm_steps_next(steps, &step)) == 1)
        if (pm_forward_count(&forward, &step, &error))
            pm_device_add(&sums, &step);
    pm_steps_close(steps);
    pm_forward_release(&forward);
    if (rc < 0 || error != 0)
        return rc < 0 ? rc : error;
    pm_device_report_json(&sums, json);
    return 0;
}

int pm_data_machine(struct pm_json *json, const struct pm_session *session, size_t engine,
                    unsigned n)
{
    int rc = put_device(json, session, engine, n);
    if (rc == 0)
        rc = put_memory(json, session, engine, n);
    if (rc == 0) {
        pm_json_key(json, "collectives");
        rc = pm_collective_report_json(session, engine, n, json);
    }
    if (rc == 0)
        rc = put_transfers(json, session, engine, n);
    if (rc == 0) {
        pm_json_key(json, "layers");
        rc = pm_layer_report_json(session, engine, n, json);
    }
    return rc;
}
