/* See window.h. */
#include "view/window.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "reader/steps.h"
#include "view/common.h"

#define WHOLE ((struct pm_window){.whole = true, .to_ns = UINT64_MAX})

/* ---- --last ---- */

/* "1.5s" in ns; false where it is none, is 0, or is longer than 292 years. */
static bool parse_span(const char *text, uint64_t *ret_ns)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"", 1e9},   {"s", 1e9},    {"ms", 1e6},   {"us", 1e3},
                 {"m", 60e9}, {"min", 60e9}, {"h", 3600e9}, {"d", 86400e9}};
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    const double value = strtod(text, &end);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        const double ns = value * units[i].ns;
        if (strcmp(end, units[i].unit) != 0)
            continue;
        if (!(ns >= 1.0) || ns > 9e18)
            return false;
        *ret_ns = (uint64_t)ns;
        return true;
    }
    return false;
}

static int parse_last(const struct pm_session *session, const char *text, struct pm_window *window,
                      struct pm_error *err)
{
    struct pm_sums sums;
    uint64_t ns;

    if (!parse_span(text, &ns))
        return pm_error_set(
            err, -PM_EINVALID,
            "--last %s: not a length of time, give one such as 30s, 500ms, 5m or 2h", text);
    pm_session_sums(session, &sums);
    window->from_ns = sums.end_ns > ns ? sums.end_ns - ns : 0;
    snprintf(window->words, sizeof(window->words), "the last %g s", (double)ns / 1e9);
    return 0;
}

/* ---- --steps ---- */

static bool parse_number(const char *text, size_t bytes, uint64_t *ret_number)
{
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9' || number > (UINT64_MAX - 9) / 10)
            return false;
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    *ret_number = number;
    return bytes > 0;
}

static int parse_steps(const char *text, struct pm_window *window, struct pm_error *err)
{
    const size_t first = strcspn(text, ":");
    const char *const second = text[first] == ':' ? text + first + 1 : NULL;

    window->by_steps = true;
    window->from_step = 0;
    window->to_step = UINT64_MAX;
    bool fine = first == 0 ? second != NULL && *second != '\0'
                           : parse_number(text, first, &window->from_step);
    if (fine && second == NULL)
        window->to_step = window->from_step;
    if (fine && second != NULL && *second != '\0')
        fine = parse_number(second, strlen(second), &window->to_step);
    if (!fine || window->to_step < window->from_step)
        return pm_error_set(err, -PM_EINVALID,
                            "--steps %s: not a range of steps, give A:B (both included), A: or :B",
                            text);
    if (window->to_step == UINT64_MAX)
        snprintf(window->words, sizeof(window->words), "from step %llu on",
                 (unsigned long long)window->from_step);
    else
        snprintf(window->words, sizeof(window->words), "steps %llu to %llu",
                 (unsigned long long)window->from_step, (unsigned long long)window->to_step);
    return 0;
}

/* ---- --request ---- */

struct search {
    struct pm_request exact, first;
    bool has_exact;
    uint64_t starts; /* ids that begin so */
    char another[PM_REQUEST_ID_MAX];
};

static int search_engine(const struct pm_session *session, size_t engine, const char *id,
                         struct search *search)
{
    const size_t bytes = strlen(id);
    struct pm_requests *requests;
    struct pm_request request;
    int rc = pm_requests_open(&requests, session, engine, NULL);

    if (rc != 0)
        return rc;
    while ((rc = pm_requests_next(requests, &request)) == 1) {
        if (strncmp(request.id, id, bytes) != 0)
            continue;
        if (request.id[bytes] == '\0') {
            search->exact = request;
            search->has_exact = true;
        }
        if (search->starts == 0)
            search->first = request;
        else if (search->starts == 1 || strcmp(search->another, search->first.id) == 0)
            memcpy(search->another, request.id, sizeof(request.id));
        search->starts += strcmp(request.id, search->first.id) != 0 || search->starts == 0;
    }
    pm_requests_close(requests);
    return rc;
}

static int parse_request(const struct pm_session *session, const char *id, struct pm_window *window,
                         struct pm_error *err)
{
    int rc = 0;

    if (id[0] == '\0' || strlen(id) >= PM_REQUEST_ID_MAX)
        return pm_error_set(err, -PM_EINVALID,
                            "--request %.40s: not a request's id, `profilemate export --format "
                            "json` lists them",
                            id);
    struct search *search = calloc(1, sizeof(*search));
    if (search == NULL)
        return pm_error_set(err, -PM_ENOMEM, "%s", pm_strerror(-PM_ENOMEM));
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0 && !search->has_exact; e++)
        rc = search_engine(session, e, id, search);
    const struct pm_request *found = search->has_exact ? &search->exact : &search->first;
    if (rc != 0) {
        rc = pm_error_set(err, rc, "%s: %s", pm_session_info(session)->path, pm_strerror(rc));
    } else if (!search->has_exact && search->starts == 0) {
        rc = pm_error_set(err, -PM_ENOTFOUND,
                          "--request %.200s: no request of this session has an id that begins so, "
                          "requests.jsonl of `profilemate export --format json` lists them",
                          id);
    } else if (!search->has_exact && search->starts > 1) {
        rc =
            pm_error_set(err, -PM_EINVALID,
                         "--request %.100s: %llu requests have ids that begin so, among them "
                         "%.100s and %.100s: give more of it",
                         id, (unsigned long long)search->starts, search->first.id, search->another);
    } else {
        const struct pm_request_fact *fact = &found->fact;
        memcpy(window->request, found->id, sizeof(window->request));
        window->from_ns = fact->arrived_ns != 0  ? fact->arrived_ns
                          : fact->queued_ns != 0 ? fact->queued_ns
                                                 : fact->started_ns;
        window->to_ns = fact->finished_ns != 0 ? fact->finished_ns + 1 : UINT64_MAX;
        snprintf(window->words, sizeof(window->words), "the life of request %s", found->id);
    }
    free(search);
    return rc;
}

int pm_window_parse(const struct pm_session *session, const struct pm_window_options *options,
                    struct pm_window *ret_window, struct pm_error *err)
{
    struct pm_window window = WHOLE;
    const int given =
        (options->last != NULL) + (options->steps != NULL) + (options->request != NULL);
    int rc = 0;

    if (given > 1)
        return pm_error_set(err, -PM_EINVALID,
                            "--last, --steps and --request do not go together, choose one");
    window.whole = given == 0;
    if (options->last != NULL)
        rc = parse_last(session, options->last, &window, err);
    else if (options->steps != NULL)
        rc = parse_steps(options->steps, &window, err);
    else if (options->request != NULL)
        rc = parse_request(session, options->request, &window, err);
    if (rc == 0)
        *ret_window = window;
    return rc;
}

int pm_window_apply(const struct pm_session *session, const struct pm_window *window,
                    struct pm_error *err)
{
    if (window == NULL || window->whole)
        return 0;
    const struct pm_span span = {
        .by_steps = window->by_steps,
        .from_ns = window->by_steps ? 0 : window->from_ns,
        .to_ns = window->by_steps ? UINT64_MAX : window->to_ns,
        .from_step = window->by_steps ? window->from_step : 0,
        .to_step = window->by_steps ? window->to_step : UINT64_MAX,
    };
    const int rc = pm_session_see(session, &span);
    if (rc == -PM_ENOTFOUND)
        return pm_error_set(err, rc, "%s: no engine has recorded %s",
                            pm_session_info(session)->path, window->words);
    if (rc != 0)
        return pm_error_set(err, rc, "%s: %s", pm_session_info(session)->path, pm_strerror(rc));
    return 0;
}
