/* The JSON of `serve` (serve.h); each document from the sessions as of the last refresh. */
#include "serve/serve.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "html/page.h"
#include "session/attrs.h"
#include "view/common.h"
#include "view/window.h"

static void put_text(struct pm_json *json, const char *key, const char *text)
{
    pm_json_key(json, key);
    pm_json_text(json, text != NULL && text[0] != '\0' ? text : NULL);
}

static void put_now(struct pm_json *json)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pm_json_key(json, "now_unix_ms");
    pm_json_u64(json, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

static void put_session(struct pm_json *json, const struct pm_serve *serve, size_t i)
{
    const struct pm_live_view *view = pm_live_view(pm_serve_at(serve, i));
    const char *model = pm_session_attr(view->session, PM_ATTR_MODEL);
    uint64_t open = 0;
    char id[256], start[64];

    pm_serve_id(serve, i, id, sizeof(id));
    pm_iso_time(view->info->start_real_ns, start, sizeof(start));
    for (size_t e = 0; e < view->n_engines; e++)
        open += view->engines[e].n_requests;
    pm_json_object(json);
    put_text(json, "id", id);
    put_text(json, "name", view->info->name);
    put_text(json, "label", model != NULL ? model : view->info->name);
    put_text(json, "path", view->info->path);
    put_text(json, "state", pm_live_health_text(view->health));
    put_text(json, "sentence", view->sentence);
    pm_json_key(json, "running"), pm_json_bool(json, view->running);
    put_text(json, "start", start);
    pm_json_key(json, "up_sec");
    pm_json_sec6(json, view->now_ns > view->info->start_mono_ns
                           ? view->now_ns - view->info->start_mono_ns
                           : 0);
    put_text(json, "model", model);
    put_text(json, "vllm", pm_session_attr(view->session, PM_ATTR_VLLM));
    put_text(json, "host", pm_session_attr(view->session, PM_ATTR_HOST));
    pm_json_key(json, "engines"), pm_json_u64(json, view->n_engines);
    pm_json_key(json, "open_requests"), pm_json_u64(json, open);
    pm_json_end(json);
}

int pm_serve_sessions_json(const struct pm_serve *serve, struct pm_buf *buf)
{
    struct pm_json json;
    pm_json_init(&json, buf, 2);
    pm_json_object(&json);
    pm_json_key(&json, "sessions");
    pm_json_array(&json);
    for (size_t i = 0; i < pm_serve_count(serve); i++)
        put_session(&json, serve, i);
    pm_json_end(&json);
    put_now(&json);
    put_text(&json, "made_by", PM_VERSION);
    pm_json_end(&json);
    return pm_json_finish(&json);
}

int pm_serve_state_json(const struct pm_serve *serve, struct pm_buf *buf)
{
    struct pm_json json;
    char id[256];
    pm_json_init(&json, buf, 0);
    pm_json_object(&json);
    pm_json_key(&json, "sessions");
    pm_json_array(&json);
    for (size_t i = 0; i < pm_serve_count(serve); i++)
        pm_live_json(&json, pm_live_view(pm_serve_at(serve, i)), true);
    pm_json_end(&json);
    pm_json_key(&json, "ids");
    pm_json_array(&json);
    for (size_t i = 0; i < pm_serve_count(serve); i++) {
        pm_serve_id(serve, i, id, sizeof(id));
        pm_json_text(&json, id);
    }
    pm_json_end(&json);
    put_now(&json);
    pm_json_end(&json);
    return pm_json_finish(&json);
}

int pm_serve_session_json(const struct pm_serve *serve, size_t i, struct pm_buf *buf)
{
    struct pm_json json;
    pm_json_init(&json, buf, 2);
    pm_live_json(&json, pm_live_view(pm_serve_at(serve, i)), true);
    return pm_json_finish(&json);
}

/* ---- second by second ---- */

static void put_number(struct pm_json *json, double value, unsigned decimals)
{
    if (value < 0)
        pm_json_null(json); /* no level in that second */
    else
        pm_json_double(json, value, decimals);
}

static void put_series(struct pm_json *json, const struct pm_live_engine *engine, const char *key,
                       size_t offset, unsigned decimals)
{
    pm_json_key(json, key);
    pm_json_array(json);
    for (size_t n = 0; n < PM_LIVE_HISTORY; n++) {
        double value;
        memcpy(&value, (const char *)&engine->seconds[n] + offset, sizeof(value));
        put_number(json, value, decimals);
    }
    pm_json_end(json);
}

int pm_serve_seconds_json(const struct pm_serve *serve, size_t i, struct pm_buf *buf)
{
    const struct pm_live_view *view = pm_live_view(pm_serve_at(serve, i));
    struct pm_json json;
    pm_json_init(&json, buf, 0);
    pm_json_object(&json);
    pm_json_key(&json, "from_sec"); /* of the first second, since the session's start */
    /* (It may lie before the host's clock began.) */
    pm_json_double(&json,
                   (double)(int64_t)(view->seconds_from_ns - view->info->start_mono_ns) / 1e9, 3);
    pm_json_key(&json, "engines");
    pm_json_array(&json);
    for (size_t e = 0; e < view->n_engines; e++) {
        const struct pm_live_engine *engine = &view->engines[e];
        pm_json_object(&json);
        pm_json_key(&json, "engine"), pm_json_u64(&json, engine->number);
#define PUT(name, decimals)                                                                        \
    put_series(&json, engine, #name, offsetof(struct pm_live_second, name), decimals)
        PUT(in_tokens, 1);
        PUT(out_tokens, 1);
        PUT(steps, 1);
        PUT(running, 0);
        PUT(waiting, 0);
        PUT(kv, 4);
#undef PUT
        pm_json_end(&json);
    }
    pm_json_end(&json);
    pm_json_end(&json);
    return pm_json_finish(&json);
}

/* ---- the report ---- */

int pm_serve_report_json(const struct pm_serve *serve, size_t i, unsigned last_sec,
                         struct pm_buf *buf, struct pm_error *err)
{
    const struct pm_live_view *view = pm_live_view(pm_serve_at(serve, i));
    struct pm_window_options options = {0};
    struct pm_session *session;
    struct pm_window window;
    char last[32];

    /* A session of its own: what a window is laid over stays so. */
    int rc = pm_session_open(&session, view->info->path, err);
    if (rc != 0)
        return rc;
    snprintf(last, sizeof(last), "%us", last_sec);
    options.last = last;
    rc = pm_window_parse(session, &options, &window, err);
    if (rc == 0)
        rc = pm_window_apply(session, &window, err);
    if (rc == 0)
        rc = pm_html_data(buf, session, &window, err);
    pm_session_close(session);
    return rc;
}
