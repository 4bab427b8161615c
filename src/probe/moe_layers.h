/*
 * The MoE layers of this process and their counters: what the probe moe (moe.c) finds when a model
 * is loaded, what its ways of counting (moe_capture.c, moe_graph.c) add to, and what is recorded of
 * it. No Python here; GIL held, so one thread at a time. Owns the counters.
 *
 * Counters only grow. What was recorded last is kept beside them; a flush records the differences,
 * and what finds no room stays for the next flush.
 */
#ifndef PM_PROBE_MOE_LAYERS_H
#define PM_PROBE_MOE_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "recorder/recorder.h"
#include "session/moe_facts.h"
#include "session/moe_schema.h"

#define PM_MOE_LAYERS_MAX 1024 /* of all the models that the process still has */
#define PM_MOE_MODELS_MAX 4    /* loaded models; the oldest makes room */
#define PM_MOE_EXPERTS_MAX 65536u

#define PM_MOE_FLUSH_NS 1000000000ull /* between two flushes of selections: what a kill loses */
#define PM_MOE_FLUSH_PAIRS_NS 10000000000ull /* and of pairs */

/* A kind of cells of a layer. */
struct pm_moe_cells {
    uint64_t *n;    /* counted */
    uint64_t *told; /* of that, recorded */
    uint32_t count; /* 0: not kept */
};

struct pm_moe_slot {
    uint32_t handle;    /* names it to the ways of counting: pm_moe_find; 0: free */
    const void *router; /* the object that calls us; compared, never followed */
    char name[192];
    struct pm_moe_layer fact;     /* its name is filled in when it is recorded */
    struct pm_moe_cells cells[2]; /* by enum pm_moe_what */
    uint64_t unread;              /* calls whose ids could not be read */
    uint32_t device_nth; /* n-th, from 1, of those that count on the device; 0: none of them */
};

/* The recorder's number of one of these: pm_facts_schema, set by the probe. Apart, so that nothing
 * here needs Python. */
extern unsigned (*pm_moe_schema)(const struct pm_schema *schema);

/* Makes room for the layers of a model that is being loaded: those of the same worker are
 * forgotten, and those of the oldest one where PM_MOE_MODELS_MAX are held. */
void pm_moe_model(uint16_t instance);

/* A layer of the model: fact.layer, experts, top_k, instance, at_ns and seen are taken from `fact`;
 * slot and pairs are filled in. NULL without room. */
struct pm_moe_slot *pm_moe_add(const struct pm_moe_layer *fact, const char *name,
                               const void *router);

/* The layer of a handle; NULL where it is not (or no more) there. */
struct pm_moe_slot *pm_moe_find(uint64_t handle);
struct pm_moe_slot *pm_moe_of_router(const void *router);

/* The layers of one worker in order: the n-th, NULL at the end. */
struct pm_moe_slot *pm_moe_at(uint16_t instance, unsigned n);

/* Routed ids of one call: rows of tokens, `columns` ids each, as they lie in memory. */
struct pm_moe_ids {
    const void *data;
    int64_t rows, columns, row_stride, column_stride; /* strides in elements */
    unsigned item_bytes;                              /* 1, 2, 4, 8; signed where it matters */
};

/* Counts the rows from first to first + count - 1. Ids that are no expert of the layer are passed
 * over. */
void pm_moe_count(struct pm_moe_slot *slot, const struct pm_moe_ids *ids, int64_t first,
                  int64_t count);

/* Tells of the layers of a worker, once they are complete. */
void pm_moe_record_layers(struct pm_recorder *rec, uint16_t instance);

/* Records what has not been recorded, of all layers. pairs: co-selection as well. */
void pm_moe_flush(struct pm_recorder *rec, uint64_t now_ns, bool pairs);

/* As a probe's keyframe. */
void pm_moe_keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg);

/* Calls of all layers whose ids could not be read. */
uint64_t pm_moe_unread(void);

void pm_moe_reset(void);

#endif
