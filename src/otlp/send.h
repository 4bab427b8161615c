/*
 * The thread that pushes (see otlp.h): takes batches from the queue, posts them, and tries again
 * what the protocol lets one try again. Owns libcurl's handle.
 */
#ifndef PM_OTLP_SEND_H
#define PM_OTLP_SEND_H

#include "otlp/queue.h"

struct pm_otlp_sender;

/* 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_otlp_sender_start(struct pm_otlp_sender **ret_sender,
                                     struct pm_otlp_queue *queue,
                                     const struct pm_otlp_options *options, struct pm_error *err);

/* Waits for the thread, whose queue was told to end, at most limit_ms; then breaks off what it
 * does. */
void pm_otlp_sender_stop(struct pm_otlp_sender *sender, unsigned limit_ms);

/* How many points or spans an Export…ServiceResponse says were rejected, and its words, if any. */
uint64_t pm_otlp_rejected(const uint8_t *body, size_t size, char *ret_words, size_t words_size);

#endif
