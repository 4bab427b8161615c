/*
 * See spans.h. A session is opened here once more, apart from the one that src/live keeps and opens
 * again as it grows: cursors must not outlive their session. Requests that ended before `serve`
 * began are not told of.
 */
#include "otlp/spans.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "otlp/otlp.h"
#include "reader/requests.h"
#include "reader/steps.h"
#include "serve/expose_otlp.h"
#include "session/attrs.h"
#include "view/openmetrics.h"
#include "view/perfetto_proto.h"

enum {
    RESOURCE_SPANS = 1,
    RESOURCE = 1,
    SCOPE_SPANS = 2,
    SCOPE = 1,
    ATTRIBUTE = 1,
    SCOPE_NAME = 1
};
enum { SCOPE_VERSION = 2 };

#define AWAY_MAX 4096 /* times that requests under way were preempted; the oldest go first */
#define AWAY_OF_ONE 64
#define ENGINES_MAX 64

struct away {
    char id[PM_REQUEST_ID_MAX];
    struct pm_otlp_away time;
};

struct engine {
    struct pm_requests *requests; /* NULL: could not be opened */
    struct away *away;
    size_t n_away;
};

struct followed {
    char path[4096];
    struct pm_session *session;
    size_t n_processes;
    struct engine *engines;
    size_t n_engines;
    uint64_t told_ns[ENGINES_MAX]; /* of each engine: requests that ended up to then were told */
    bool met;                      /* in this round */
};

struct pm_otlp_spans {
    struct followed **rows;
    size_t count, capacity;
    uint64_t began_ns;
};

int pm_otlp_spans_open(struct pm_otlp_spans **ret_spans)
{
    struct pm_otlp_spans *spans = calloc(1, sizeof(*spans));
    if (spans == NULL)
        return -PM_ENOMEM;
    spans->began_ns = pm_clock_vdso_ns();
    *ret_spans = spans;
    return 0;
}

static void close_session(struct followed *row)
{
    for (size_t e = 0; e < row->n_engines; e++) {
        pm_requests_close(row->engines[e].requests);
        free(row->engines[e].away);
    }
    free(row->engines);
    pm_session_close(row->session);
    row->engines = NULL;
    row->n_engines = 0;
    row->session = NULL;
}

static void forget(struct followed *row)
{
    close_session(row);
    free(row);
}

void pm_otlp_spans_close(struct pm_otlp_spans *spans)
{
    if (spans == NULL)
        return;
    for (size_t i = 0; i < spans->count; i++)
        forget(spans->rows[i]);
    free(spans->rows);
    free(spans);
}

/* ---- following ---- */

static int see_moment(const struct pm_request_moment *moment, void *arg)
{
    struct engine *engine = arg;
    const char *id = moment->request->id;
    if (moment->kind == PM_MOMENT_PREEMPTED) {
        if (engine->away == NULL)
            engine->away = malloc(AWAY_MAX * sizeof(*engine->away));
        if (engine->away == NULL)
            return 0;
        if (engine->n_away == AWAY_MAX)
            memmove(engine->away, engine->away + 1, --engine->n_away * sizeof(*engine->away));
        struct away *away = &engine->away[engine->n_away++];
        memcpy(away->id, id, sizeof(away->id));
        away->time = (struct pm_otlp_away){.from_ns = moment->at_ns};
    } else if (moment->kind == PM_MOMENT_RESUMED) {
        for (size_t i = engine->n_away; i-- > 0;)
            if (strcmp(engine->away[i].id, id) == 0) {
                engine->away[i].time.to_ns = moment->at_ns;
                break;
            }
    }
    return 0;
}

static int open_session(struct followed *row)
{
    int rc = pm_session_open(&row->session, row->path, NULL);
    if (rc != 0)
        return rc;
    row->n_processes = pm_session_process_count(row->session);
    const size_t engines = pm_session_engine_count(row->session);
    row->engines = calloc(engines + 1, sizeof(*row->engines));
    if (row->engines == NULL)
        return -PM_ENOMEM;
    row->n_engines = engines;
    for (size_t e = 0; e < engines; e++) {
        const struct pm_request_watch watch = {.moment = see_moment, .arg = &row->engines[e]};
        if (pm_requests_open(&row->engines[e].requests, row->session, e, &watch) != 0)
            row->engines[e].requests = NULL;
        else
            pm_requests_skip(row->engines[e].requests, row->told_ns[e % ENGINES_MAX], UINT64_MAX);
    }
    return 0;
}

static struct followed *row_of(struct pm_otlp_spans *spans, const char *path)
{
    for (size_t i = 0; i < spans->count; i++)
        if (strcmp(spans->rows[i]->path, path) == 0)
            return spans->rows[i];
    if (spans->count == spans->capacity) {
        const size_t want = spans->capacity * 2 + 8;
        struct followed **more = realloc(spans->rows, want * sizeof(struct followed *));
        if (more == NULL)
            return NULL;
        spans->rows = more;
        spans->capacity = want;
    }
    struct followed *row = calloc(1, sizeof(*row));
    if (row == NULL)
        return NULL;
    snprintf(row->path, sizeof(row->path), "%s", path);
    for (size_t e = 0; e < ENGINES_MAX; e++)
        row->told_ns[e] = spans->began_ns;
    spans->rows[spans->count++] = row;
    return row;
}

/* ---- writing ---- */

static void put_resource(struct pm_buf *buf, const struct pm_session *session, const char *model)
{
    const size_t resource = pm_proto_begin(buf, RESOURCE);
    const char *host = pm_session_attr(session, PM_ATTR_HOST);
    const char *vllm = pm_session_attr(session, PM_ATTR_VLLM);
    pm_otlp_text(buf, ATTRIBUTE, "service.name", "vllm");
    pm_otlp_text(buf, ATTRIBUTE, "service.instance.id", pm_session_info(session)->name);
    if (vllm != NULL)
        pm_otlp_text(buf, ATTRIBUTE, "service.version", vllm);
    if (host != NULL)
        pm_otlp_text(buf, ATTRIBUTE, "host.name", host);
    pm_otlp_text(buf, ATTRIBUTE, "profilemate.model_name", model);
    pm_proto_end(buf, resource);
}

static void put_scope(struct pm_buf *buf)
{
    const size_t scope = pm_proto_begin(buf, SCOPE);
    pm_proto_text(buf, SCOPE_NAME, "profilemate");
    pm_proto_text(buf, SCOPE_VERSION, PM_VERSION);
    pm_proto_end(buf, scope);
}

/* Takes the times out that a request was away; how many. */
static size_t take_away(struct engine *engine, const char *id,
                        struct pm_otlp_away ret_away[AWAY_OF_ONE])
{
    size_t taken = 0, kept = 0;
    for (size_t i = 0; i < engine->n_away; i++) {
        if (strcmp(engine->away[i].id, id) != 0) {
            if (kept != i)
                engine->away[kept] = engine->away[i];
            kept++;
        } else if (taken < AWAY_OF_ONE) {
            ret_away[taken++] = engine->away[i].time;
        }
    }
    engine->n_away = kept;
    return taken;
}

static int take_engine(struct followed *row, size_t e, const char *model, struct pm_buf *buf,
                       uint64_t *count)
{
    struct engine *engine = &row->engines[e];
    struct pm_otlp_away away[AWAY_OF_ONE];
    struct pm_request request;
    const uint64_t told_ns = row->told_ns[e % ENGINES_MAX];
    int rc = 0;
    while (engine->requests != NULL && *count < PM_OTLP_BATCH_SPANS &&
           (rc = pm_requests_poll(engine->requests, &request)) == 1) {
        const size_t n_away = take_away(engine, request.id, away);
        if (request.fact.finished_ns <= told_ns)
            continue; /* before an opening, which sees some of it again */
        row->told_ns[e % ENGINES_MAX] = request.fact.finished_ns;
        pm_otlp_put_request(buf, &(struct pm_otlp_request){.request = &request,
                                                           .away = away,
                                                           .n_away = n_away,
                                                           .info = pm_session_info(row->session),
                                                           .model = model,
                                                           .engine = (unsigned)e});
        (*count)++;
    }
    return rc < 0 ? rc : 0;
}

static int take_session(struct followed *row, size_t live_processes, struct pm_buf *buf,
                        uint64_t *count)
{
    char model[256];
    /* Cursors of what is open see all that is written; a process that has come needs it anew. */
    if (row->session != NULL && row->n_processes != live_processes)
        close_session(row);
    if (row->session == NULL && open_session(row) != 0) {
        close_session(row);
        return 0; /* half made, or gone: looked at again */
    }
    const uint64_t before = *count;
    const size_t used = buf->used;
    const size_t whole = pm_proto_begin(buf, RESOURCE_SPANS);
    pm_metric_model_name(row->session, model, sizeof(model));
    put_resource(buf, row->session, model);
    const size_t scope = pm_proto_begin(buf, SCOPE_SPANS);
    put_scope(buf);
    int rc = 0;
    for (size_t e = 0; e < row->n_engines && rc == 0; e++)
        rc = take_engine(row, e, model, buf, count);
    pm_proto_end(buf, scope);
    pm_proto_end(buf, whole);
    if (*count == before && pm_buf_status(buf) == 0)
        buf->used = used; /* nothing to tell */
    return rc;
}

int pm_otlp_spans_take(struct pm_otlp_spans *spans, const struct pm_serve *serve,
                       struct pm_buf *buf, uint64_t *ret_count)
{
    int rc = 0;
    *ret_count = 0;
    for (size_t i = 0; i < spans->count; i++)
        spans->rows[i]->met = false;
    for (size_t i = 0; i < pm_serve_count(serve) && rc == 0; i++) {
        const struct pm_live_view *view = pm_live_view(pm_serve_at(serve, i));
        struct followed *row = row_of(spans, view->info->path);
        if (row == NULL)
            return -PM_ENOMEM;
        row->met = true;
        if (*ret_count < PM_OTLP_BATCH_SPANS)
            rc = take_session(row, pm_session_process_count(view->session), buf, ret_count);
    }
    for (size_t i = spans->count; i-- > 0;)
        if (!spans->rows[i]->met) {
            forget(spans->rows[i]);
            spans->rows[i] = spans->rows[--spans->count];
        }
    return rc != 0 ? rc : pm_buf_status(buf);
}
