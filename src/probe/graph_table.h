/*
 * The graphs that a worker's process knows: one entry per descriptor, and which graph objects
 * (torch.cuda.CUDAGraph) are the pieces of which entry.
 *
 * Used by the probe cuda_graph, under the GIL; plain C. Graph objects are compared by address and
 * never followed or held: an object has to be captured before it can be replayed, and its capture
 * is seen, so that an address that comes back means the newer object from then on.
 */
#ifndef PM_PROBE_GRAPH_TABLE_H
#define PM_PROBE_GRAPH_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "session/graph_facts.h"

#define PM_GRAPHS_MAX 16384u            /* entries; graphs beyond them are not told apart */
#define PM_GRAPH_OBJECTS_MAX (1u << 18) /* addresses; objects beyond them are not recognised */
#define PM_GRAPH_NONE UINT32_MAX        /* no entry: thrown away after its capture, or unknown */

struct pm_graph_entry {
    struct pm_graph_desc desc;
    uint64_t begun_ns, ended_ns; /* its newest capture; 0: seen by its replays only */
    uint64_t capture_ns;
    uint64_t replays;
    const void **chain; /* its pieces' objects in order, as far as there was memory; owned */
    uint32_t chained, chain_room;
    uint32_t pieces;
    uint32_t round; /* of capturing: a later one captures it anew */
    uint16_t instance;
    uint8_t when; /* enum pm_graph_when */
    bool told;    /* its newest capture has been recorded */
};

struct pm_graph_object {
    const void *address; /* NULL: free */
    uint32_t entry;      /* place in entries, or PM_GRAPH_NONE */
    uint32_t piece;      /* 0: the first one, whose replay begins a pass */
};

/* An all-zero struct is an empty table. Both indices are open addressing, their sizes powers of
 * two, at most half full. */
struct pm_graphs {
    struct pm_graph_entry *entries;
    uint32_t *index; /* place in entries + 1; 0: free */
    struct pm_graph_object *objects;
    uint32_t n_entries, capacity, index_size;
    uint32_t n_objects, objects_size;
};

void pm_graphs_clear(struct pm_graphs *graphs);

/* The entry of a descriptor in one worker, made if it is not there: its place, or PM_GRAPH_NONE at
 * the ceiling or without memory. Entries may move. */
uint32_t pm_graphs_entry(struct pm_graphs *graphs, const struct pm_graph_desc *desc,
                         uint16_t instance);

/* Says what an object is. Quietly without effect at the ceiling or without memory. */
void pm_graphs_learn(struct pm_graphs *graphs, const void *address, uint32_t entry, uint32_t piece);

/* What an object is; NULL: its capture was not seen. */
const struct pm_graph_object *pm_graphs_object(const struct pm_graphs *graphs, const void *address);

/* The largest captured sizes of a worker's own model, in tokens: of any graph, and of those that
 * take batches that are not uniform. 0: none was captured. */
void pm_graphs_largest(const struct pm_graphs *graphs, uint16_t instance, uint32_t *ret_any,
                       uint32_t *ret_mixed);

/* Whether a holder's graphs are those of the step's model, not of a drafter or an encoder. */
static inline bool pm_graph_is_models(const struct pm_graph_desc *desc)
{
    return desc->holder == PM_GRAPH_HOLDER_WRAPPER || desc->holder == PM_GRAPH_HOLDER_MANAGER ||
           desc->holder == PM_GRAPH_HOLDER_BREAKABLE || desc->holder == PM_GRAPH_HOLDER_UBATCH;
}

#endif
