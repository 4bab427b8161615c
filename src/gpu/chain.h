/*
 * Chains of a device's events: any number of marks of one step on its stream, and what the device
 * took between two of them, read back later and never waited for. What layers (a mark at each
 * border) and collective operations (a pair round each call) are timed with. Used by the probe
 * device's chains (probe/device_chain.c) on whatever thread holds the GIL, which is the lock; owns
 * the events.
 *
 *   mark      0        1        2        3        4
 *   layers    ●─ model ●─ norm ─●─ attn ─●─ model ●        each from the one before
 *   calls     ●─ reduce ●       ●─ gather ●                in pairs, which may lie in each other
 *
 * A pool has a fixed number of events, in one ring per context: a mark's event is made when its
 * place is first taken, and recorded again when the ring comes round. Marks of a chain that has
 * been read, or was given up, are free when those before them are. All times of a chain are told at
 * once, or none of them. The rest holds as for pm_events: nothing on a stream that is being
 * captured, the first error that a driver gives ends all calls for good.
 */
#ifndef PM_GPU_CHAIN_H
#define PM_GPU_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu/calls.h"

#define PM_CHAIN_CONTEXTS 8           /* devices of one process */
#define PM_CHAINS_MAX 512             /* of one device under way */
#define PM_CHAIN_OLD_NS 1000000000ull /* chains older than this are not kept for a batch */
#define PM_CHAIN_NO_MARK UINT32_MAX
#define PM_CHAIN_WHOLE UINT32_MAX /* in the place of a tag: all times of the chain together */

/* Whose a chain is: handed back with its times as it was given. */
struct pm_chain_of {
    uint64_t key; /* the caller's */
    uint64_t step;
    uint64_t begun_ns; /* host */
    uint16_t instance;
    uint8_t phase;
};

struct pm_chains_counts {
    uint64_t made;         /* events */
    uint64_t chains, read; /* chains with marks; and those whose times were told */
    uint64_t marks;        /* recorded */
    uint64_t apart;        /* times that were not told: from one stream to another */
    uint64_t turns;        /* times that something was read */
};

struct pm_chains;

/* marks: events of each device at most; batch: marks that are read back at a time. -PM_ENOMEM. No
 * driver call is made. */
PM_MUST_USE int pm_chains_open(struct pm_chains **ret_chains, const struct pm_driver *driver,
                               unsigned marks, unsigned batch);

/* A chain begins; one that is still open is closed. No driver call. */
void pm_chains_begin(struct pm_chains *chains, const struct pm_chain_of *of);

/* Whether a chain is open, and was not given up. */
bool pm_chains_is_open(const struct pm_chains *chains);

/* Whether the open chain has marks on another stream only. */
bool pm_chains_is_elsewhere(const struct pm_chains *chains, const void *stream);

/* Records an event. from: the number of an earlier mark of this chain (*ret_mark): what lies
 * between it and this one is told as the tag's; PM_CHAIN_NO_MARK: nothing is. A mark that was not
 * recorded leaves the chain as it was: the caller decides whether the chain is worth anything
 * without it. ret_mark may be NULL. */
enum pm_event_outcome pm_chains_mark(struct pm_chains *chains, void *stream, uint32_t from,
                                     uint32_t tag, uint32_t *ret_mark);

/* The open chain is given up. No driver call. */
void pm_chains_lose(struct pm_chains *chains);

/* The chain is complete. One without a time is given up. No driver call. */
void pm_chains_end(struct pm_chains *chains);

/* Whether it is time to read: a batch is under way, or something is old. No driver call. */
bool pm_chains_due(const struct pm_chains *chains, uint64_t now_ns);

/* Tells the times of chains of the context in use that are complete by now, two of them and a batch
 * unless `all`: each time with its tag, in the order of the marks that end them, then their sum
 * with PM_CHAIN_WHOLE. Returns how many chains. */
typedef void (*pm_chains_tell)(const struct pm_chain_of *of, uint32_t tag, uint64_t ns, void *arg);
unsigned pm_chains_read(struct pm_chains *chains, bool all, pm_chains_tell tell, void *arg);

bool pm_chains_failed(const struct pm_chains *chains, char *out, size_t size);
void pm_chains_count(const struct pm_chains *chains, struct pm_chains_counts *ret_counts);

/* Destroys the events, unless they are off. NULL is fine. */
void pm_chains_close(struct pm_chains *chains);

/* Frees the memory without a driver call: in a child of fork(), whose driver is not there. */
void pm_chains_abandon(struct pm_chains *chains);

#endif
