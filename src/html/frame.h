/*
 * The pages that web/ is bundled into, without what they show: a file round given data, and the
 * live page as it is sent. Called by the command on its one thread; pm_html_live by any.
 */
#ifndef PM_HTML_FRAME_H
#define PM_HTML_FRAME_H

#include <stdio.h>

#include "base/buf.h"

enum pm_html_page {
    PM_PAGE_REPORT, /* of `profilemate report`: web/DATA.md */
    PM_PAGE_TRACE,  /* of `profilemate trace --format html`: web/DATA.md */
};

/* Whether this build has the pages in it (they were bundled, see cmake/web.cmake). */
bool pm_html_built(void);

/* -PM_EUNSUPPORTED with a sentence; instead: "use --text". */
int pm_html_not_built(const char *instead, struct pm_error *err);

struct pm_html_result {
    char path[4096];
    uint64_t bytes;
};

/* Writes the page with `data`, one JSON value, in it to the file `path` (renamed when complete). 0,
 * or -PM_E… with a sentence. ret_result may be NULL. */
PM_MUST_USE int pm_html_frame_write(enum pm_html_page page, const struct pm_buf *data,
                                    const char *path, uint32_t mode,
                                    struct pm_html_result *ret_result, struct pm_error *err);

/* The dashboard of a server (GET /): HTML in UTF-8, and the value of the Content-Security-Policy
 * header that goes with it. NULL where the build has no pages. Both live forever. */
const char *pm_html_live(size_t *ret_bytes, const char **ret_policy);

#endif
