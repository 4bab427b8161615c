/* See follow.h. Owns the sessions and walks that it has open. */
#include "cmd/follow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/http.h"
#include "cmd/place.h"
#include "reader/facts.h"
#include "reader/steps.h"

#define ENGINES_MAX 256
#define LOOK_EARLY_MS 500
#define LOOK_LATE_MS 5000

struct engine {
    char file[256]; /* of its process; with instance it is known again */
    unsigned instance, number;
    struct pm_session *session; /* that its walk reads; may be shared with others */
    struct pm_requests *requests;
    struct pm_fact_map sched; /* its process's facts of steps */
    uint64_t steps;           /* with tokens */
};

struct pm_follow {
    char dir[4096], path[4096]; /* path: of the session, "" until it is there */
    uint8_t token[PM_TOKEN_BYTES];
    pm_follow_fn fn;
    void *arg;
    struct engine engines[ENGINES_MAX];
    unsigned n_engines;
    struct pm_session *sessions[ENGINES_MAX + 1]; /* to be closed at the end */
    size_t n_sessions;
    struct pm_session *asked; /* for attributes */
    uint64_t look_ms;         /* when to look for engines again */
    uint64_t n_requests;
};

struct pm_follow *pm_follow_new(const char *dir, const uint8_t *token, pm_follow_fn fn, void *arg)
{
    struct pm_follow *follow = calloc(1, sizeof(*follow));
    if (follow == NULL)
        return NULL;
    snprintf(follow->dir, sizeof(follow->dir), "%s", dir);
    memcpy(follow->token, token, sizeof(follow->token));
    follow->fn = fn;
    follow->arg = arg;
    return follow;
}

void pm_follow_free(struct pm_follow *follow)
{
    if (follow == NULL)
        return;
    for (unsigned i = 0; i < follow->n_engines; i++)
        pm_requests_close(follow->engines[i].requests);
    for (size_t i = 0; i < follow->n_sessions; i++)
        pm_session_close(follow->sessions[i]);
    pm_session_close(follow->asked);
    free(follow);
}

static bool find_path(struct pm_follow *follow)
{
    struct pm_place place;
    if (follow->path[0] != '\0')
        return true;
    if (pm_place_by_token(follow->dir, follow->token, &place) != 0 &&
        pm_place_by_token(NULL, follow->token, &place) != 0)
        return false;
    snprintf(follow->path, sizeof(follow->path), "%s", place.path);
    return true;
}

static bool knows(const struct pm_follow *follow, const char *file, unsigned instance)
{
    for (unsigned i = 0; i < follow->n_engines; i++)
        if (follow->engines[i].instance == instance && strcmp(follow->engines[i].file, file) == 0)
            return true;
    return false;
}

static int count_step(const struct pm_record *record, void *arg)
{
    struct engine *engine = arg;
    struct pm_sched_step fact;
    if (record->keyframe || (int)record->schema != engine->sched.schema)
        return 0;
    pm_fact_take(&engine->sched, record->payload, &fact);
    if (fact.instance == engine->instance && fact.tokens > 0)
        engine->steps++;
    return 0;
}

/* Takes up the engines of the session that are new; whether there were any. */
static bool take_engines(struct pm_follow *follow, struct pm_session *session)
{
    bool any = false;
    for (size_t i = 0; i < pm_session_engine_count(session); i++) {
        const struct pm_engine *engine = pm_session_engine(session, i);
        if (engine->process == NULL || follow->n_engines == ENGINES_MAX)
            continue;
        const char *file = pm_process_info(engine->process)->file;
        struct engine *added = &follow->engines[follow->n_engines];
        const struct pm_request_watch watch = {.record = count_step, .arg = added};
        if (knows(follow, file, engine->instance) ||
            pm_requests_open(&added->requests, session, i, &watch) != 0)
            continue;
        pm_fact_map_sched(&added->sched, engine->process);
        snprintf(added->file, sizeof(added->file), "%s", file);
        added->instance = engine->instance;
        added->number = engine->number;
        added->session = session;
        follow->n_engines++;
        any = true;
    }
    return any;
}

static void look_for_engines(struct pm_follow *follow)
{
    struct pm_session *session;
    if (!find_path(follow) || pm_session_open(&session, follow->path, NULL) != 0)
        return;
    if (take_engines(follow, session))
        follow->sessions[follow->n_sessions++] = session;
    else
        pm_session_close(session);
}

/* Hands on the requests that have ended since; how many. */
static uint64_t read_engines(struct pm_follow *follow)
{
    static struct pm_request request;
    const uint64_t before = follow->n_requests;
    for (unsigned i = 0; i < follow->n_engines; i++) {
        struct engine *engine = &follow->engines[i];
        while (pm_requests_poll(engine->requests, &request) == 1) {
            follow->n_requests++;
            if (follow->fn != NULL)
                follow->fn(engine->session, engine->number, &request, follow->arg);
        }
    }
    return follow->n_requests - before;
}

void pm_follow_poll(struct pm_follow *follow, bool last)
{
    uint64_t now_ms = pm_now_ms();
    if (last || now_ms >= follow->look_ms) {
        look_for_engines(follow);
        follow->look_ms = now_ms + (follow->n_engines > 0 ? LOOK_LATE_MS : LOOK_EARLY_MS);
    }
    /* A walk that has come to the end of its segment looks for newer ones at the call after: at the
     * last look it is asked until it has said twice that there is nothing. */
    unsigned quiet = 0;
    do
        quiet = read_engines(follow) > 0 ? 0 : quiet + 1;
    while (last && quiet < 2);
}

uint64_t pm_follow_requests(const struct pm_follow *follow)
{
    return follow->n_requests;
}

uint64_t pm_follow_steps(const struct pm_follow *follow)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < follow->n_engines; i++) {
        uint64_t steps = follow->engines[i].steps;
        most = steps > most ? steps : most;
    }
    return most;
}

const char *pm_follow_attr(struct pm_follow *follow, const char *key)
{
    struct pm_session *session;
    if (!find_path(follow) || pm_session_open(&session, follow->path, NULL) != 0)
        return NULL;
    pm_session_close(follow->asked);
    follow->asked = session;
    return pm_session_attr(session, key);
}
