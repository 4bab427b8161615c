/* See request_line.h. */
#include "view/request_line.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "session/attrs.h"

/* How vLLM's servers begin a request's id, and what such a request does. */
static const struct {
    const char *prefix, *task;
} kinds[] = {
    {"chatcmpl-", "chat"},
    {"cmpl-", "completion"},
    {"embd-", "embed"},
    {"pooling-", "pooling"},
    {"pool-", "pooling"},
    {"classify-", "classify"},
    {"score-", "score"},
    {"rerank-", "rerank"},
    {"transcribe-", "transcribe"},
    {"translate-", "translate"},
    {"trsc-", "transcribe"},
    {"trsl-", "translate"},
    {"tokenize-", "tokenize"},
    {"generate-tokens-", "generate"},
    {"resp_", "responses"},
    {"vllm-batch-", "batch"},
    {"vllm-", "batch"},
    {"decision-", "decision"},
    {"rt-", "realtime"},
    {"msg_", "messages"},
};

/* One of several answers to a prompt has its number before the id: "1_chatcmpl-…". */
static const char *without_number(const char *id)
{
    const char *text = id;
    while (*text >= '0' && *text <= '9')
        text++;
    return text > id && *text == '_' ? text + 1 : id;
}

void pm_request_task(const char *request_id, char out[PM_TASK_MAX])
{
    const char *id = without_number(request_id), *kind = "default";
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t bytes = strlen(kinds[i].prefix);
        if (strncmp(id, kinds[i].prefix, bytes) == 0) {
            kind = kinds[i].task;
            id += bytes;
            break;
        }
    }
    size_t bytes = 0, digits = 0, hex = 0;
    for (; isalnum((unsigned char)id[bytes]); bytes++) {
        digits += isdigit((unsigned char)id[bytes]) != 0;
        hex += isxdigit((unsigned char)id[bytes]) != 0;
    }
    const bool ends = id[bytes] != '\0' && strchr("-_:./", id[bytes]) != NULL;
    const bool random = hex == bytes && (digits > 0 || bytes >= 16);
    if (!ends || bytes == 0 || bytes >= PM_TASK_MAX || !isalpha((unsigned char)id[0]) || random)
        snprintf(out, PM_TASK_MAX, "%s", kind);
    else
        snprintf(out, PM_TASK_MAX, "%.*s", (int)bytes, id);
}

/* In UTC, so that a log of several days sorts as text. */
static void arrival(struct pm_json *json, const struct pm_session_info *info, uint64_t at_ns)
{
    uint64_t real_ns = info->start_real_ns + (at_ns - info->start_mono_ns);
    time_t seconds = (time_t)(real_ns / 1000000000u);
    struct tm utc;
    char date[32], text[64];
    if (at_ns == 0 || gmtime_r(&seconds, &utc) == NULL ||
        strftime(date, sizeof(date), "%FT%T", &utc) == 0) {
        pm_json_null(json);
        return;
    }
    snprintf(text, sizeof(text), "%s.%06uZ", date, (unsigned)(real_ns / 1000u % 1000000u));
    pm_json_text(json, text);
}

static void milliseconds(struct pm_json *json, const char *key, bool known, uint64_t ns)
{
    pm_json_key(json, key);
    if (known)
        pm_json_ms3(json, ns);
    else
        pm_json_null(json);
}

static void count(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}

static void text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value != NULL && value[0] != '\0' ? value : NULL);
}

int pm_view_request_line(struct pm_buf *buf, const struct pm_session *session, unsigned engine,
                         const struct pm_request *request, const char *task)
{
    const struct pm_session_info *info = pm_session_info(session);
    const struct pm_request_fact *fact = &request->fact;
    const uint64_t came_ns = fact->arrived_ns != 0 ? fact->arrived_ns : fact->queued_ns;
    struct pm_json json;
    pm_json_init(&json, buf, 0);
    pm_json_object(&json);
    text(&json, "request_id", request->id);
    text(&json, "session", info->name);
    count(&json, "engine", engine);
    text(&json, "model", pm_session_attr(session, PM_ATTR_MODEL));
    text(&json, "task", task);
    pm_json_key(&json, "arrival");
    arrival(&json, info, came_ns);
    pm_json_key(&json, "arrival_sec");
    if (came_ns != 0)
        pm_json_fixed_signed(&json, (int64_t)(came_ns - info->start_mono_ns), 9, 6);
    else
        pm_json_null(&json);
    milliseconds(&json, "queue_ms", fact->started_ns != 0, fact->queue_ns);
    milliseconds(&json, "ttft_ms", fact->first_token_ns != 0, fact->ttft_ns);
    milliseconds(&json, "tpot_ms", fact->output_tokens > 1, fact->tpot_ns);
    milliseconds(&json, "e2e_ms", fact->finished_ns != 0, fact->e2e_ns);
    count(&json, "prompt_tokens", fact->prompt_tokens);
    count(&json, "cached_tokens", fact->cached_tokens);
    count(&json, "output_tokens", fact->output_tokens);
    count(&json, "max_tokens", fact->max_tokens);
    text(&json, "finish_reason", pm_finish_reason_text(fact->reason));
    count(&json, "preemptions", fact->preemptions);
    pm_json_end(&json);
    return pm_json_finish(&json);
}
