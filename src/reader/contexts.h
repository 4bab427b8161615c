/*
 * How long the contexts are that an engine's steps attend to, from who joined and left each step:
 * the counts that bytes and floating point operations of attention are made of. Used by the views,
 * one thread; owns its memory.
 *
 * A request is told of where it joins a step, while it has a prompt to compute, as it turns to
 * decoding, and where it leaves (step_request); in between it grows by one token a step. With
 * speculative decoding it grows by what was accepted, which is known of a step as a whole and
 * shared out evenly. Where a request's beginning was not recorded (older detail had to go) its
 * steps are not known.
 */
#ifndef PM_READER_CONTEXTS_H
#define PM_READER_CONTEXTS_H

#include "reader/reader.h"

/* A request with n tokens in a step and c computed before it attends from n tokens to c + 1, c + 2,
 * … c + n: pairs are these added up; its context is c + n. */
struct pm_context_step {
    uint64_t step;
    bool known;            /* of every request in it */
    double context;        /* tokens whose keys and values are read, over the requests */
    double pairs;          /* of a token and one that it attends to */
    double windowed;       /* context, and … */
    double windowed_pairs; /* … pairs, with no more than a window's tokens before each; 0 without
                              a window */
};

struct pm_contexts;

/* window: tokens of sliding-window attention; 0: there is none. An engine of which no scheduler was
 * found has no steps. */
PM_MUST_USE int pm_contexts_open(struct pm_contexts **ret_contexts,
                                 const struct pm_session *session, size_t engine, uint32_t window);
/* 1: the next step with tokens, in their order; 0: the end; < 0: error. */
PM_MUST_USE int pm_contexts_next(struct pm_contexts *contexts, struct pm_context_step *ret_step);
void pm_contexts_close(struct pm_contexts *contexts);

#endif
