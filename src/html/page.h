/*
 * The report as one HTML file that needs no network: the page that web/ is bundled into, and the
 * session's data as JSON inside of it. Called by the command `report` on its one thread.
 */
#ifndef PM_HTML_PAGE_H
#define PM_HTML_PAGE_H

#include <stdio.h>

#include "html/frame.h"
#include "reader/reader.h"
#include "view/window.h"

#define PM_HTML_DATA_MAX (256u << 20) /* ceiling of a page's data */

/* The data alone, one JSON object. window: what was laid over the session (pm_window_apply), or
 * NULL; only its words are used. */
PM_MUST_USE int pm_html_data(struct pm_buf *buf, const struct pm_session *session,
                             const struct pm_window *window, struct pm_error *err);

/* Writes the page to the file `path` (renamed when complete, mode as the session's files). 0, or
 * -PM_E… with a sentence. ret_result may be NULL. */
PM_MUST_USE int pm_html_write(const struct pm_session *session, const struct pm_window *window,
                              const char *path, struct pm_html_result *ret_result,
                              struct pm_error *err);

#endif
