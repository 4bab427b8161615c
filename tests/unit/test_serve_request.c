/* What a request to `serve` is answered with: methods, hosts, tokens, paths, forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "serve/request.h"

#define TOKEN "0123456789abcdef"

static struct pm_serve_decision ask(const struct pm_serve_rules *rules,
                                    struct pm_serve_request request)
{
    static const struct pm_serve_rules none;
    struct pm_serve_decision decision;
    if (request.method == NULL)
        request.method = "GET";
    if (request.host == NULL)
        request.host = "127.0.0.1:9810";
    pm_serve_decide(rules != NULL ? rules : &none, &request, &decision);
    return decision;
}

static void expect(struct pm_serve_decision decision, unsigned status, enum pm_serve_route route)
{
    assert_int_equal(decision.status, status);
    assert_int_equal(decision.route, route);
    assert_int_equal(decision.sentence != NULL, route == PM_ROUTE_REFUSED);
}

#define ASK(...) ask(NULL, (struct pm_serve_request){__VA_ARGS__})
#define ASK_WITH(rules, ...) ask(&(rules), (struct pm_serve_request){__VA_ARGS__})

static void test_paths(void **state)
{
    (void)state;
    expect(ASK(.target = "/"), 200, PM_ROUTE_PAGE);
    expect(ASK(.target = "/?x=1"), 200, PM_ROUTE_PAGE);
    expect(ASK(.target = "/metrics"), 200, PM_ROUTE_METRICS);
    expect(ASK(.target = "/metrics?name[]=up"), 200, PM_ROUTE_METRICS);
    expect(ASK(.target = "/events"), 200, PM_ROUTE_EVENTS);
    expect(ASK(.target = "/healthz"), 200, PM_ROUTE_HEALTH);
    expect(ASK(.target = "/api/sessions"), 200, PM_ROUTE_SESSIONS);
    struct pm_serve_decision decision = ASK(.target = "/api/sessions/session_1-a.b");
    expect(decision, 200, PM_ROUTE_SESSION);
    assert_string_equal(decision.id, "session_1-a.b");
    decision = ASK(.target = "/api/sessions/s/report?x=2&last=90s");
    expect(decision, 200, PM_ROUTE_REPORT);
    assert_string_equal(decision.id, "s");
    assert_int_equal(decision.last_sec, 90);
    expect(ASK(.target = "/api/sessions/s/seconds"), 200, PM_ROUTE_SECONDS);
    assert_int_equal(ASK(.target = "/api/sessions/s/report").last_sec, PM_SERVE_LAST_SEC);
}

static void test_other_paths_are_nothing(void **state)
{
    static const char *const paths[] = {
        "",
        "//",
        "/metrics/",
        "/Metrics",
        "/metric",
        "/metricsx",
        "metrics",
        "/api",
        "/api/sessions/",
        "/api/sessions//report",
        "/api/sessions/../metrics",
        "/api/sessions/.",
        "/api/sessions/..",
        "/api/sessions/.hidden",
        "/api/sessions/a/b/report",
        "/api/sessions/a/report/",
        "/api/sessions/%2e%2e",
        "/api/sessions/a%00",
        "/api/sessions/a\\b",
        "/./metrics",
        "/metrics%20",
        "/%6detrics",
        "http://127.0.0.1/metrics",
        "*",
        "/etc/passwd",
        "/\xff",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        expect(ASK(.target = paths[i]), 404, PM_ROUTE_REFUSED);
    char path[PM_SERVE_TARGET_MAX + 2];
    memset(path, 'a', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    expect(ASK(.target = path), 414, PM_ROUTE_REFUSED);
    path[PM_SERVE_TARGET_MAX] = '\0';
    expect(ASK(.target = path), 404, PM_ROUTE_REFUSED);
    memcpy(path, "/api/sessions/", 14);
    expect(ASK(.target = path), 404, PM_ROUTE_REFUSED);
}

static void test_how_far_back(void **state)
{
    static const char *const bad[] = {"0",   "0s",  "601", "601s",  "-1", "1m",
                                      "1.5", "s1s", "",    "99999", "ss", "18446744073709551617"};
    char target[128];
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(target, sizeof(target), "/api/sessions/s/report?last=%s", bad[i]);
        if (bad[i][0] != '\0')
            expect(ASK(.target = target), 400, PM_ROUTE_REFUSED);
    }
    assert_int_equal(ASK(.target = "/api/sessions/s/report?last=600").last_sec, 600);
    assert_int_equal(ASK(.target = "/api/sessions/s/report?last=1s").last_sec, 1);
}

static void test_methods(void **state)
{
    static const char *const bad[] = {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "", "X"};
    (void)state;
    assert_false(ASK(.target = "/metrics").head);
    assert_true(ASK(.target = "/metrics", .method = "HEAD").head);
    expect(ASK(.target = "/metrics", .method = "HEAD"), 200, PM_ROUTE_METRICS);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect(ASK(.target = "/metrics", .method = bad[i]), 405, PM_ROUTE_REFUSED);
    expect(ASK(.target = "/metrics", .has_body = true), 413, PM_ROUTE_REFUSED);
}

static void test_hosts(void **state)
{
    static const char *const ours[] = {
        "localhost", "LOCALHOST:9810", "127.0.0.1",    "127.0.0.1:1",       "[::1]", "[::1]:9810",
        "10.1.2.3",  "10.1.2.3:80",    "metrics.test", "Metrics.Test:9810", "b.test"};
    static const char *const theirs[] = {"",
                                         "evil.example",
                                         "evil.example:9810",
                                         "localhost.evil.example",
                                         "127.0.0.1.evil",
                                         "[::1",
                                         "[::1]x",
                                         "[]",
                                         "[evil]",
                                         ":9810",
                                         "metrics.te",
                                         "metrics.test,b.te",
                                         ",",

                                         "localhost:99999999",
                                         "localhost:x"};
    const struct pm_serve_rules rules = {.names = "metrics.test,,b.test"};
    const struct pm_serve_rules closed = {.token = TOKEN};
    (void)state;
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        expect(ASK_WITH(rules, .target = "/metrics", .host = ours[i]), 200, PM_ROUTE_METRICS);
    for (size_t i = 0; i < sizeof(theirs) / sizeof(theirs[0]); i++)
        expect(ASK_WITH(rules, .target = "/metrics", .host = theirs[i]), 421, PM_ROUTE_REFUSED);
    expect(ASK(.target = "/healthz", .host = "evil.example"), 421, PM_ROUTE_REFUSED);
    /* Who has the token is not a page of somebody else's. */
    expect(ASK_WITH(closed, .target = "/metrics", .host = "gpu1.example:9810",
                    .authorization = "Bearer " TOKEN),
           200, PM_ROUTE_METRICS);
    expect(ASK_WITH(closed, .target = "/metrics", .host = "gpu1.example",
                    .cookie = PM_SERVE_COOKIE "=" TOKEN),
           421, PM_ROUTE_REFUSED);
    struct pm_serve_request request = {.method = "GET", .target = "/metrics"};
    struct pm_serve_decision decision;
    pm_serve_decide(&rules, &request, &decision);
    expect(decision, 400, PM_ROUTE_REFUSED);
    expect(ASK(.target = "/metrics", .twice = true), 400, PM_ROUTE_REFUSED);
}

static void test_the_token(void **state)
{
    static const char *const wrong[] = {NULL,
                                        "",
                                        TOKEN,
                                        "Bearer",
                                        "Bearer ",
                                        "Bearer 0123456789abcde",
                                        "Bearer 0123456789abcdeF",
                                        "Bearer 0123456789abcdef0",
                                        "Basic " TOKEN,
                                        "Bearer x" TOKEN,
                                        "Bearer " TOKEN TOKEN};
    static const char *const wrong_cookies[] = {"",
                                                PM_SERVE_COOKIE,
                                                PM_SERVE_COOKIE "=",
                                                "x" PM_SERVE_COOKIE "=" TOKEN,
                                                "other=" TOKEN,
                                                PM_SERVE_COOKIE "=" TOKEN "x"};
    const struct pm_serve_rules rules = {.token = TOKEN};
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        expect(ASK_WITH(rules, .target = "/metrics", .authorization = wrong[i]), 401,
               PM_ROUTE_REFUSED);
        /* What is there and what is not cannot be told apart without the token. */
        expect(ASK_WITH(rules, .target = "/nothing", .authorization = wrong[i]), 401,
               PM_ROUTE_REFUSED);
        /* The page alone has no figures; it asks for them with the token. */
        expect(ASK_WITH(rules, .target = "/", .authorization = wrong[i]), 200, PM_ROUTE_PAGE);
        expect(ASK_WITH(rules, .target = "/healthz", .authorization = wrong[i]), 200,
               PM_ROUTE_HEALTH);
    }
    for (size_t i = 0; i < sizeof(wrong_cookies) / sizeof(wrong_cookies[0]); i++)
        expect(ASK_WITH(rules, .target = "/metrics", .cookie = wrong_cookies[i]), 401,
               PM_ROUTE_REFUSED);
    expect(ASK_WITH(rules, .target = "/metrics", .authorization = "bearer  " TOKEN), 200,
           PM_ROUTE_METRICS);
    expect(
        ASK_WITH(rules, .target = "/events", .cookie = "a=b; " PM_SERVE_COOKIE "=" TOKEN "; c=d"),
        200, PM_ROUTE_EVENTS);
    expect(ASK_WITH(rules, .target = "/?token=" TOKEN), 303, PM_ROUTE_LOGIN);
    expect(ASK_WITH(rules, .target = "/?token=" TOKEN "x"), 401, PM_ROUTE_REFUSED);
    expect(ASK_WITH(rules, .target = "/metrics?token=" TOKEN), 401, PM_ROUTE_REFUSED);
    expect(ASK_WITH(rules, .target = "/nothing", .authorization = "Bearer " TOKEN), 404,
           PM_ROUTE_REFUSED);
}

static void test_what_can_be_a_token(void **state)
{
    (void)state;
    assert_true(pm_serve_token_is_valid(TOKEN));
    assert_true(pm_serve_token_is_valid("abcDEF0189-._~+/="));
    assert_false(pm_serve_token_is_valid("0123456789abcde"));
    assert_false(pm_serve_token_is_valid("0123456789abcde;"));
    assert_false(pm_serve_token_is_valid("0123456789 abcdef"));
    assert_false(pm_serve_token_is_valid(""));
}

static void test_forms(void **state)
{
    static const struct {
        const char *accept;
        enum pm_serve_format format;
    } cases[] = {
        {NULL, PM_FORMAT_TEXT},
        {"", PM_FORMAT_TEXT},
        {"*/*", PM_FORMAT_TEXT},
        {"text/html,application/xhtml+xml,*/*;q=0.8", PM_FORMAT_TEXT},
        {"text/plain;version=0.0.4", PM_FORMAT_TEXT},
        /* Prometheus 2.42, without and with native histograms */
        {"application/openmetrics-text;version=1.0.0,application/"
         "openmetrics-text;version=0.0.1;q=0.75,"
         "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         PM_FORMAT_OPENMETRICS},
        {"application/"
         "vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
         "application/openmetrics-text;version=1.0.0;q=0.8,application/"
         "openmetrics-text;version=0.0.1;"
         "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         PM_FORMAT_PROTOBUF},
        {"application/openmetrics-text;q=0.2,text/plain;q=0.5", PM_FORMAT_TEXT},
        {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
         PM_FORMAT_TEXT},
        {"application/vnd.google.protobuf;proto=other;encoding=delimited", PM_FORMAT_TEXT},
        {"application/"
         "vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
         "q=0.1,application/openmetrics-text",
         PM_FORMAT_OPENMETRICS},
        {"application/openmetrics-text;q=0", PM_FORMAT_TEXT},
        {"application/openmetrics-textile", PM_FORMAT_TEXT},
        {",,;q=,;;", PM_FORMAT_TEXT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(ASK(.target = "/metrics", .accept = cases[i].accept).format,
                         cases[i].format);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_other_paths_are_nothing),
        cmocka_unit_test(test_how_far_back),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_the_token),
        cmocka_unit_test(test_what_can_be_a_token),
        cmocka_unit_test(test_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
