/*
 * One request as spans (see spans.h): the request, and below it queue, prefill, decode, and each
 * time that it was preempted. Field numbers are those of opentelemetry-proto 1.x, names those of
 * the GenAI semantic conventions, and of vLLM's own tracing where these have none.
 *
 * Ids follow from the session's token and the request's id, so that a message that is sent twice
 * says the same twice.
 */
#include <stdio.h>
#include <string.h>

#include "base/siphash.h"
#include "otlp/spans.h"
#include "reader/requests.h"
#include "serve/expose_otlp.h"
#include "view/perfetto_proto.h"

enum { SCOPE_SPAN = 2, TRACE_ID = 1, SPAN_ID = 2, PARENT_ID = 4, NAME = 5, KIND = 6, START = 7 };
enum { END = 8, ATTRIBUTE = 9, STATUS = 15, STATUS_CODE = 3, KIND_INTERNAL = 1, KIND_SERVER = 2 };
enum { STATUS_ERROR = 2, KEY = 1, VALUE = 2, ANY_TEXT = 1, ANY_ARRAY = 5, ARRAY_VALUE = 1 };

struct ids {
    uint64_t trace[2], root;
};

static void put_bytes(struct pm_buf *buf, unsigned field, const void *bytes, size_t count)
{
    const size_t begun = pm_proto_begin(buf, field);
    (void)pm_buf_add(buf, bytes, count);
    pm_proto_end(buf, begun);
}

/* A digest of the request within its session; salt tells several of one request apart. */
static uint64_t digest(const struct pm_otlp_request *what, uint64_t salt)
{
    char text[PM_REQUEST_ID_MAX + 64];
    const int length =
        snprintf(text, sizeof(text), "%llu/%llu/%s", (unsigned long long)salt,
                 (unsigned long long)what->request->fact.queued_ns, what->request->id);
    const uint64_t value = pm_siphash(what->info->token, text, (size_t)length);
    return value != 0 ? value : 1; /* 0 is no id */
}

static uint64_t unix_ns(const struct pm_otlp_request *what, uint64_t at_ns)
{
    return what->info->start_real_ns + (at_ns - what->info->start_mono_ns);
}

static size_t begin_span(struct pm_buf *buf, const struct pm_otlp_request *what,
                         const struct ids *ids, uint64_t id, const char *name, uint64_t from_ns,
                         uint64_t to_ns)
{
    const size_t span = pm_proto_begin(buf, SCOPE_SPAN);
    put_bytes(buf, TRACE_ID, ids->trace, sizeof(ids->trace));
    put_bytes(buf, SPAN_ID, &id, sizeof(id));
    if (id != ids->root)
        put_bytes(buf, PARENT_ID, &ids->root, sizeof(ids->root));
    pm_proto_text(buf, NAME, name);
    pm_proto_u64(buf, KIND, id == ids->root ? KIND_SERVER : KIND_INTERNAL);
    pm_proto_fixed64(buf, START, unix_ns(what, from_ns));
    pm_proto_fixed64(buf, END, unix_ns(what, to_ns > from_ns ? to_ns : from_ns));
    return span;
}

static void put_child(struct pm_buf *buf, const struct pm_otlp_request *what, const struct ids *ids,
                      uint64_t salt, const char *name, uint64_t from_ns, uint64_t to_ns)
{
    if (from_ns == 0 || to_ns < from_ns)
        return;
    pm_proto_end(buf, begin_span(buf, what, ids, digest(what, salt), name, from_ns, to_ns));
}

/* gen_ai.response.finish_reasons is a list. */
static void put_reasons(struct pm_buf *buf, const char *reason)
{
    const size_t pair = pm_proto_begin(buf, ATTRIBUTE);
    pm_proto_text(buf, KEY, "gen_ai.response.finish_reasons");
    const size_t any = pm_proto_begin(buf, VALUE);
    const size_t array = pm_proto_begin(buf, ANY_ARRAY);
    const size_t value = pm_proto_begin(buf, ARRAY_VALUE);
    pm_proto_text(buf, ANY_TEXT, reason);
    pm_proto_end(buf, value);
    pm_proto_end(buf, array);
    pm_proto_end(buf, any);
    pm_proto_end(buf, pair);
}

static void put_attributes(struct pm_buf *buf, const struct pm_otlp_request *what,
                           const char *operation)
{
    const struct pm_request_fact *fact = &what->request->fact;
    pm_otlp_text(buf, ATTRIBUTE, "gen_ai.operation.name", operation);
    pm_otlp_text(buf, ATTRIBUTE, "gen_ai.provider.name", "vllm");
    pm_otlp_text(buf, ATTRIBUTE, "gen_ai.request.model", what->model);
    pm_otlp_text(buf, ATTRIBUTE, "gen_ai.response.id", what->request->id);
    if (fact->max_tokens > 0)
        pm_otlp_int(buf, ATTRIBUTE, "gen_ai.request.max_tokens", fact->max_tokens);
    pm_otlp_int(buf, ATTRIBUTE, "gen_ai.usage.input_tokens", fact->prompt_tokens);
    pm_otlp_int(buf, ATTRIBUTE, "gen_ai.usage.output_tokens", fact->output_tokens);
    put_reasons(buf, pm_finish_reason_text(fact->reason));
    if (fact->started_ns != 0)
        pm_otlp_double(buf, ATTRIBUTE, "gen_ai.latency.time_in_queue",
                       (double)fact->queue_ns / 1e9);
    if (fact->first_token_ns != 0)
        pm_otlp_double(buf, ATTRIBUTE, "gen_ai.latency.time_to_first_token",
                       (double)fact->ttft_ns / 1e9);
    pm_otlp_double(buf, ATTRIBUTE, "gen_ai.latency.e2e", (double)fact->e2e_ns / 1e9);
    pm_otlp_int(buf, ATTRIBUTE, "profilemate.cached_tokens", fact->cached_tokens);
    pm_otlp_int(buf, ATTRIBUTE, "profilemate.preemptions", fact->preemptions);
    pm_otlp_int(buf, ATTRIBUTE, "profilemate.recomputed_tokens", fact->recomputed_tokens);
    pm_otlp_int(buf, ATTRIBUTE, "profilemate.engine", what->engine);
    if (fact->reason == PM_FINISH_ERROR) {
        const size_t status = pm_proto_begin(buf, STATUS);
        pm_proto_u64(buf, STATUS_CODE, STATUS_ERROR);
        pm_proto_end(buf, status);
    }
}

void pm_otlp_put_request(struct pm_buf *buf, const struct pm_otlp_request *what)
{
    const struct pm_request_fact *fact = &what->request->fact;
    const uint64_t begin_ns = fact->arrived_ns != 0 && fact->arrived_ns < fact->queued_ns
                                  ? fact->arrived_ns
                                  : fact->queued_ns;
    const uint64_t end_ns = fact->finished_ns;
    /* vLLM's front end says by the id which of its interfaces was asked. */
    const char *operation =
        strncmp(what->request->id, "chatcmpl", 8) == 0 ? "chat" : "text_completion";
    const struct ids ids = {.trace = {digest(what, 0), digest(what, 1)}, .root = digest(what, 2)};
    char name[320];
    snprintf(name, sizeof(name), "%s %.256s", operation, what->model);
    const size_t root = begin_span(buf, what, &ids, ids.root, name, begin_ns, end_ns);
    put_attributes(buf, what, operation);
    pm_proto_end(buf, root);
    put_child(buf, what, &ids, 3, "queue", fact->queued_ns,
              fact->started_ns != 0 ? fact->started_ns : end_ns);
    if (fact->started_ns != 0)
        put_child(buf, what, &ids, 4, "prefill", fact->started_ns,
                  fact->first_token_ns != 0 ? fact->first_token_ns : end_ns);
    if (fact->first_token_ns != 0)
        put_child(buf, what, &ids, 5, "decode", fact->first_token_ns,
                  fact->last_token_ns > fact->first_token_ns ? fact->last_token_ns
                                                             : fact->first_token_ns);
    /* One that was away before it was followed is known by the fact alone. */
    if (what->n_away == 0 && fact->preemptions == 1 && fact->preempted_ns != 0)
        put_child(buf, what, &ids, 6, "preempted", fact->preempted_ns,
                  fact->resumed_ns > fact->preempted_ns ? fact->resumed_ns : end_ns);
    for (size_t i = 0; i < what->n_away; i++)
        put_child(buf, what, &ids, 6 + i, "preempted", what->away[i].from_ns,
                  what->away[i].to_ns != 0 ? what->away[i].to_ns : end_ns);
}
