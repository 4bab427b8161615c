/*
 * Who is in the batch: the requests that one scheduler has scheduled, step by step.
 *
 * Used by the probe sched_step, under the GIL. A step whose requests are the last step's, all
 * decoding one token each, is recognised by comparing the keys of `num_scheduled_tokens` by
 * pointer; only what differs is looked at closely. Owns a strong reference to each key (a str),
 * none to requests.
 */
#ifndef PM_PROBE_MEMBERS_H
#define PM_PROBE_MEMBERS_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A request is looked at in every step until its first decode has been seen; after that only when
 * it changes. */
enum pm_member_state {
    PM_MEMBER_NEW,     /* never scheduled */
    PM_MEMBER_PREFILL, /* has prompt tokens, or tokens lost to preemption, still to compute */
    PM_MEMBER_READY,   /* has none left, not yet seen as a decode */
    PM_MEMBER_DECODE,
};

struct pm_member {
    PyObject *key;       /* the request's id, a str; NULL: slot free */
    uint64_t last_step;  /* step number + 1 in which it was last scheduled; 0: never */
    uint32_t string;     /* id in the recorder; 0: none */
    uint32_t prompt;     /* its prompt tokens */
    uint32_t lost_until; /* tokens [0, lost_until) were computed once and lost to a preemption */
    uint8_t state;       /* enum pm_member_state */
    bool preempted;      /* since it was last scheduled */
    uint16_t sampling;   /* what it asks of sampling, see sampling.c; 0: not read yet */
};

/* The life of a member's request, apart so that walks over members stay small: kept only where the
 * probe request_life is on (with_lives), and worked on by request_life.c alone. Moments in
 * CLOCK_MONOTONIC ns, 0: not yet. Steps by number, PM_NEVER: none.
 *
 * Run: steps one after another in each of which the request gives an output. It is open from the
 * update of its first step to the update of its last one. */
struct pm_life {
    uint64_t arrived_ns, queued_ns, started_ns, first_token_ns, last_token_ns, finished_ns;
    uint64_t first_preempted_ns, preempted_ns, resumed_ns, away_ns;
    uint64_t longest_gap_ns;          /* of runs that are over, and between runs */
    uint64_t gives_from, gives_until; /* of the newest run; gives_until PM_NEVER: goes on */
    uint64_t opens_at, closes_at;     /* the steps whose updates will open and close it */
    uint64_t run_first;               /* first step of the open run */
    uint32_t prompt, cached, max_tokens, recomputed, lost, blocks, preemptions;
    uint32_t earlier_outputs; /* tokens of turns before this one */
    uint32_t outputs;         /* tokens of this turn, known at its end */
    int32_t priority;
    uint16_t turns;
    uint8_t state;  /* enum pm_request_state; 0: not followed */
    uint8_t reason; /* enum pm_finish_reason */
    bool run_open;
    bool new_turn; /* of a streaming session: the time to its first output is no gap */
};

/* Invariants: order[0..n_order) are slots of members in use, in the order of the last step that had
 * tokens; index is open addressing over slots + 1, its size a power of two, at most half full. */
struct pm_members {
    struct pm_member *slots;
    struct pm_life *lives; /* one for each slot; NULL without with_lives */
    uint32_t *index;
    uint32_t *order, *next_order;
    PyObject **keys;     /* of order[], borrowed from the members; valid while settled */
    bool with_lives;     /* set before the first member is added */
    bool settled;        /* every member of the last step has state DECODE and is still a member */
    uint32_t n_order;    /* members of the last step */
    uint32_t order_room; /* entries that both orders and keys have room for */
    uint32_t n_slots;    /* slots ever used */
    uint32_t capacity;   /* slots there are */
    uint32_t
        free_head; /* slot + 1 of the first free one, which names the next in `string`; 0: none */
};

#define PM_MEMBERS_MAX 65536u /* further requests are counted in steps, but have no events */

/* An all-zero struct is an empty table. clear gives everything back; strings are the recorder's
 * business. */
void pm_members_clear(struct pm_members *members);

/* The member of this key (compared by pointer), or NULL. */
struct pm_member *pm_members_find(const struct pm_members *members, const PyObject *key);

/* A new member for a key that has none; NULL at the ceiling or without memory. Other members may
 * move. */
struct pm_member *pm_members_add(struct pm_members *members, PyObject *key);

/* The life of a member, NULL where lives are not kept. */
static inline struct pm_life *pm_members_life(const struct pm_members *members,
                                              const struct pm_member *member)
{
    return members->lives != NULL ? &members->lives[member - members->slots] : NULL;
}

/* Forgets a member. It must not be in order[]. */
void pm_members_remove(struct pm_members *members, struct pm_member *member);

/* Makes both orders and keys hold at least n entries. False: no memory. */
bool pm_members_reserve_order(struct pm_members *members, uint32_t n);

#endif
