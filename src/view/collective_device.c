/* See collective_device.h. */
#include "view/collective_device.h"

#include <stdlib.h>
#include <string.h>

#include "view/columns.h"

#define AHEAD 2048u      /* steps: a time is told before so many more have begun (gpu/chain.h) */
#define TIMES_MAX 65536u /* held; of more than that the steps have none */

int pm_collective_ahead_open(struct pm_collective_ahead *ahead, struct pm_collectives *sums,
                             const struct pm_process *process, unsigned step_schema,
                             unsigned instance)
{
    const int schema = pm_process_schema_find(process, "collective_device");
    *ahead = (struct pm_collective_ahead){.sums = sums, .instance = instance};
    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    const struct pm_schema *step = pm_process_schema(process, step_schema);
    ahead->schema = (unsigned)schema;
    ahead->step_schema = step_schema;
    ahead->step = pm_column(desc, "step");
    ahead->ns = pm_column(desc, "device_ns");
    ahead->calls = pm_column(desc, "calls");
    ahead->group = pm_column(desc, "group");
    ahead->in = pm_column(desc, "instance");
    ahead->operation = pm_column(desc, "operation");
    ahead->step_step = pm_column(step, "step");
    ahead->step_in = pm_column(step, "instance");
    return pm_cursor_open(&ahead->cursor, process, PM_STREAM_CORE);
}

static void close_cursor(struct pm_collective_ahead *ahead)
{
    if (ahead->cursor != NULL)
        pm_cursor_close(ahead->cursor);
    ahead->cursor = NULL;
}

void pm_collective_ahead_close(struct pm_collective_ahead *ahead)
{
    close_cursor(ahead);
    free(ahead->times);
    memset(ahead, 0, sizeof(*ahead));
}

static int keep(struct pm_collective_ahead *ahead, const struct pm_collective_time *time)
{
    if (ahead->count == ahead->room && ahead->first > ahead->room / 2) {
        ahead->count -= ahead->first;
        memmove(ahead->times, ahead->times + ahead->first, ahead->count * sizeof(*ahead->times));
        ahead->first = 0;
    }
    if (ahead->count == ahead->room) {
        const size_t room = ahead->room > 0 ? 2 * ahead->room : 256;
        if (room > TIMES_MAX)
            return 0;
        struct pm_collective_time *times = realloc(ahead->times, room * sizeof(*times));
        if (times == NULL)
            return -PM_ENOMEM;
        ahead->times = times;
        ahead->room = room;
    }
    ahead->times[ahead->count++] = *time;
    return 0;
}

static int take(struct pm_collective_ahead *ahead, const struct pm_record *record)
{
    const void *payload = record->payload;
    if (record->schema == ahead->step_schema &&
        pm_column_get(ahead->step_in, payload) == ahead->instance) {
        const uint64_t now = pm_column_get(ahead->step_step, payload);
        if (now > AHEAD && now - AHEAD > ahead->until)
            ahead->until = now - AHEAD;
        return 0;
    }
    if (record->schema != ahead->schema || pm_column_get(ahead->in, payload) != ahead->instance)
        return 0;
    const char *group =
        pm_cursor_string(ahead->cursor, (uint32_t)pm_column_get(ahead->group, payload));
    const unsigned operation = (unsigned)pm_column_get(ahead->operation, payload);
    const struct pm_collective_time time = {
        .step = pm_column_get(ahead->step, payload),
        .calls = pm_column_get(ahead->calls, payload),
        .ns = pm_column_get(ahead->ns, payload),
        .row = pm_collective_row_of(ahead->sums, group, operation),
    };
    return keep(ahead, &time);
}

/* Reads on until all times of the step are there. */
static int read_until(struct pm_collective_ahead *ahead, uint64_t step)
{
    struct pm_record record;
    int rc = 0;
    while (ahead->cursor != NULL && ahead->until <= step) {
        rc = pm_cursor_next(ahead->cursor, &record);
        if (rc != 1) { /* the end */
            close_cursor(ahead);
            return rc;
        }
        rc = record.keyframe ? 0 : take(ahead, &record);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int pm_collective_ahead_find(struct pm_collective_ahead *ahead, uint64_t step, unsigned row,
                             uint64_t calls, const struct pm_collective_time **ret_time)
{
    const int rc = read_until(ahead, step);
    *ret_time = NULL;
    while (ahead->first < ahead->count && ahead->times[ahead->first].step < step)
        ahead->first++;
    for (size_t i = ahead->first; i < ahead->count && rc == 0; i++) {
        const struct pm_collective_time *time = &ahead->times[i];
        if (time->step == step && time->row == row) {
            *ret_time = time->calls == calls ? time : NULL;
            break;
        }
    }
    return rc;
}
