/*
 * One request that has ended as one line of JSON: what a request log holds. Pure: bytes into a
 * buffer.
 */
#ifndef PM_VIEW_REQUEST_LINE_H
#define PM_VIEW_REQUEST_LINE_H

#include "base/buf.h"
#include "base/error.h"
#include "reader/requests.h"

/* Appends the line with its newline. task: what the line says. The keys, in order: request_id,
 * session, engine, model, task, arrival (ISO 8601, UTC), arrival_sec (since the session's start),
 * queue_ms, ttft_ms, tpot_ms, e2e_ms, prompt_tokens, cached_tokens, output_tokens, max_tokens,
 * finish_reason, preemptions. null for what is not known or did not happen. Times as
 * reader/requests.h defines them. 0 or the buffer's failure. */
PM_MUST_USE int pm_view_request_line(struct pm_buf *buf, const struct pm_session *session,
                                     unsigned engine, const struct pm_request *request,
                                     const char *task);

/* The task that a request's id names: what stands before the first of - _ : . / in the part that
 * its client chose (X-Request-Id), vLLM's own beginning (chatcmpl-, cmpl-, …) left out. A random id
 * names none: *out is "default". Only letters and digits come out. Always ends with NUL. */
#define PM_TASK_MAX 64
void pm_request_task(const char *request_id, char out[PM_TASK_MAX]);

#endif
