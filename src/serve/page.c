/*
 * The page at `/` (page.h): the live page, which src/html has; where this build has no pages, a
 * plain list of what there is, without a script.
 */
#include "serve/page.h"

#include <stdio.h>

#include "html/frame.h"

static const char plain[] =
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>ProfileMate</title>\n"
    "<h1>ProfileMate</h1>\n<p>This build has no live page (it was made without npm).</p>\n<ul>\n"
    "<li><a href=\"/api/sessions\">/api/sessions</a>: the servers of this host</li>\n"
    "<li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\n"
    "<li><a href=\"/events\">/events</a>: their state, every second</li>\n"
    "</ul>\n</html>\n";

void pm_serve_page(struct pm_serve_page *ret_page)
{
    static char policy[1024];
    const char *of_live = NULL;
    size_t bytes = 0;
    const char *live = pm_html_live(&bytes, &of_live);

    /* No other site may show it in a frame: that can be said by a header only. */
    snprintf(policy, sizeof(policy), "%s; frame-ancestors 'none'",
             live != NULL ? of_live : "default-src 'none'; base-uri 'none'; form-action 'none'");
    *ret_page = (struct pm_serve_page){.bytes = live != NULL ? live : plain,
                                       .n_bytes = live != NULL ? bytes : sizeof(plain) - 1,
                                       .policy = policy};
}
