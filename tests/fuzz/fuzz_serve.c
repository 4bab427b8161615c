/*
 * libFuzzer target: the input is a request to `serve`, a field a line: method, target, Host,
 * Authorization, Cookie, Accept; a line that is "-" was not sent. What is decided has to hold
 * together, and nobody without the token may get at anything but /healthz and the empty page.
 *
 *   cmake -S . -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DPM_SANITIZE=address,undefined \
 *         -DPM_FUZZ=ON && cmake --build build/fuzz --target fuzz_serve
 *   build/fuzz/tests/fuzz_serve -max_total_time=60 -max_len=4000 CORPUS
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/request.h"

#define TOKEN "0123456789abcdef"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
    if (!holds)
        abort();
}

static void check(const struct pm_serve_request *request, const struct pm_serve_decision *decision)
{
    expect((unsigned)decision->route < PM_SERVE_ROUTE_COUNT);
    expect(decision->status == 200 || decision->route == PM_ROUTE_REFUSED ||
           (decision->route == PM_ROUTE_LOGIN && decision->status == 303));
    expect((decision->route == PM_ROUTE_REFUSED) == (decision->sentence != NULL));
    expect(strlen(decision->id) < sizeof(decision->id) && strchr(decision->id, '/') == NULL);
    expect(decision->last_sec >= 1 || decision->route == PM_ROUTE_REFUSED);
    expect(decision->last_sec <= PM_SERVE_LAST_SEC_MAX || decision->route == PM_ROUTE_REFUSED);
    if (decision->route != PM_ROUTE_REFUSED)
        expect(strcmp(request->method, "GET") == 0 || decision->head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *lines[6] = {NULL};
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *at = text;
    for (size_t i = 0; i < 6 && at != NULL; i++) {
        lines[i] = strsep(&at, "\n");
        if (strcmp(lines[i], "-") == 0)
            lines[i] = NULL;
    }
    const struct pm_serve_request request = {.method = lines[0] != NULL ? lines[0] : "GET",
                                             .target = lines[1],
                                             .host = lines[2],
                                             .authorization = lines[3],
                                             .cookie = lines[4],
                                             .accept = lines[5]};
    struct pm_serve_decision decision;
    const struct pm_serve_rules open = {.names = "a.example,b"}, closed = {.token = TOKEN};
    pm_serve_decide(&open, &request, &decision);
    check(&request, &decision);
    pm_serve_decide(&closed, &request, &decision);
    check(&request, &decision);
    /* Only the text itself, somewhere in the request, opens anything. */
    if (decision.route != PM_ROUTE_REFUSED && decision.route != PM_ROUTE_HEALTH &&
        decision.route != PM_ROUTE_PAGE)
        expect(memmem(data, size, TOKEN, sizeof(TOKEN) - 1) != NULL);
    free(text);
    return 0;
}
