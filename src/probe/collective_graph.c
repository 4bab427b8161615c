/*
 * See collective.h. What is counted during a capture waits, by the graph object's address, until
 * the probe cuda_graph knows which graph that is: mostly when the capture has ended, of some
 * graphs when their manager's capture() returns. Graphs captured for an estimate only are never
 * known, and what was counted for them is dropped.
 *
 * Nothing is recorded while a capture is under way.
 */
#include "hook/compat.h"

#include <stdlib.h>
#include <string.h>

#include "probe/collective.h"
#include "probe/graph_capture.h"
#include "probe/worker_now.h"
#include "session/attrs.h"
#include "session/collective_schema.h"

#define ROWS_MAX (1u << 16) /* waiting; calls in graphs beyond them are not counted */

struct row {
    const void *graph;
    struct pm_collective_capture sums; /* desc, group, piece, instance: not yet */
    char group[PM_COLLECTIVE_NAME_MAX];
};

static struct {
    struct row *rows;
    uint32_t n_rows, room;
    uint32_t first;        /* of the newest capture's */
    const void *capturing; /* NULL: no capture is under way */
    bool noted;
} state;

void pm_collective_graph_reset(void)
{
    free(state.rows);
    memset(&state, 0, sizeof state);
}

static void record(const struct row *row, const struct pm_graph_object *object)
{
    struct pm_recorder *rec = pm_facts();
    const struct pm_graph_entry *entry = &pm_graphs.entries[object->entry];
    if (rec == NULL)
        return;
    const uint32_t group = pm_recorder_string(rec, PM_STREAM_KEEP, row->group, strlen(row->group));
    struct pm_collective_capture *room =
        pm_recorder_reserve(rec, pm_facts_schema(&pm_collective_capture_schema));
    if (room == NULL)
        return;
    *room = row->sums;
    room->desc = entry->desc;
    room->group = group;
    room->piece = object->piece;
    room->instance = entry->instance;
    pm_recorder_commit(rec, room);
}

/* Records the rows from one on whose graphs are known; of the others, drops those of graphs that
 * are not kept, or keeps them all. */
static void settle(uint32_t from, bool drop)
{
    uint32_t left = from;
    for (uint32_t i = from; i < state.n_rows; i++) {
        const struct row *row = &state.rows[i];
        const struct pm_graph_object *object = pm_graphs_object(&pm_graphs, row->graph);
        if (object != NULL && object->entry != PM_GRAPH_NONE)
            record(row, object);
        else if (!drop)
            state.rows[left++] = *row;
    }
    state.n_rows = left;
    state.first = left;
}

void pm_collective_graph_begin(struct pm_call *call)
{
    const void *graph = call->args[0];
    uint32_t left = 0;
    settle(state.first, false);
    for (uint32_t i = 0; i < state.n_rows; i++) /* an older graph lay there */
        if (state.rows[i].graph != graph)
            state.rows[left++] = state.rows[i];
    state.n_rows = state.first = left;
    state.capturing = graph;
}

void pm_collective_graph_end(struct pm_call *call)
{
    if (state.capturing != call->args[0])
        return;
    state.capturing = NULL;
    if (call->result == NULL) /* there is no graph */
        state.n_rows = state.first;
}

static struct row *row_of(enum pm_collective_operation operation, const char *group)
{
    for (uint32_t i = state.first; i < state.n_rows; i++)
        if (state.rows[i].sums.operation == operation && strcmp(state.rows[i].group, group) == 0)
            return &state.rows[i];
    if (state.n_rows == state.room) {
        const uint32_t room = state.room > 0 ? 2 * state.room : 64;
        struct row *rows = room <= ROWS_MAX ? realloc(state.rows, room * sizeof *state.rows) : NULL;
        if (rows == NULL)
            return NULL;
        state.rows = rows;
        state.room = room;
    }
    struct row *row = &state.rows[state.n_rows++];
    *row = (struct row){.graph = state.capturing, .sums = {.operation = (uint8_t)operation}};
    memcpy(row->group, group, strnlen(group, sizeof row->group - 1));
    return row;
}

bool pm_collective_graph_add(const struct pm_call *call, enum pm_collective_operation operation,
                             const char *group, uint64_t bytes)
{
    if (state.capturing == NULL)
        return false;
    struct row *row = row_of(operation, group);
    if (row == NULL)
        return true;
    if (row->sums.calls++ == 0)
        row->sums.at_ns = call->start_ns;
    row->sums.dur_ns += call->end_ns - call->start_ns;
    row->sums.bytes += bytes;
    return true;
}

void pm_collective_graph_resolve(void)
{
    if (state.capturing != NULL) { /* given up: no step begins inside of one */
        state.capturing = NULL;
        state.n_rows = state.first;
    }
    if (state.n_rows == 0)
        return;
    if (!pm_facts_settings()->cuda_graph && !state.noted) {
        state.noted = true;
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "collective.graphs",
                      "collective operations inside CUDA graphs are not counted: "
                      "CUDA_GRAPH_TRACKING is off, and replays are not seen");
    }
    settle(0, true);
}
