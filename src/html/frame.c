/*
 * The bundled pages and the file round a page's data (see frame.h).
 *
 *   …_head.inc  from <!doctype html> to the opening tag of the data, made by web/build.mjs
 *   the data    JSON in which every < is \u003c, so that no text of it ends the element
 *   …_tail.inc  its closing tag, the script, the end
 *
 * A page's content security policy allows that one script and that one style sheet, by their
 * hashes, and no address at all; the live page may ask the server that it came from.
 */
#include "html/frame.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "view/outfile.h"

#ifdef PM_WEB
static const unsigned char report_head[] = {
#include "html/report_head.inc"
};
static const unsigned char report_tail[] = {
#include "html/report_tail.inc"
};
static const unsigned char trace_head[] = {
#include "html/trace_head.inc"
};
static const unsigned char trace_tail[] = {
#include "html/trace_tail.inc"
};
static const unsigned char live_page[] = {
#include "html/live.inc"
};
static const unsigned char live_policy[] = {
#include "html/live_policy.inc"
    , '\0'};
#else
static const unsigned char report_head[1], report_tail[1], trace_head[1], trace_tail[1];
static const unsigned char live_page[1], live_policy[1];
#endif

static const struct {
    const unsigned char *head, *tail;
    size_t head_bytes, tail_bytes;
} frames[] = {
    [PM_PAGE_REPORT] = {report_head, report_tail, sizeof(report_head), sizeof(report_tail)},
    [PM_PAGE_TRACE] = {trace_head, trace_tail, sizeof(trace_head), sizeof(trace_tail)},
};

bool pm_html_built(void)
{
    return sizeof(report_head) > 1;
}

int pm_html_not_built(const char *instead, struct pm_error *err)
{
    return pm_error_set(err, -PM_EUNSUPPORTED,
                        "this build has no page in it (npm was not there): %s, or build with "
                        "nodejs and npm installed",
                        instead);
}

const char *pm_html_live(size_t *ret_bytes, const char **ret_policy)
{
    if (!pm_html_built())
        return NULL;
    *ret_bytes = sizeof(live_page);
    *ret_policy = (const char *)live_policy;
    return (const char *)live_page;
}

/* The data with every < as \u003c: in JSON it stands inside strings only. */
static int put_escaped(struct pm_outfile *file, const char *data, size_t bytes)
{
    int rc = 0;
    while (bytes > 0 && rc == 0) {
        const char *found = memchr(data, '<', bytes);
        const size_t plain = found != NULL ? (size_t)(found - data) : bytes;
        const size_t part = plain < PM_OUTFILE_SPILL_BYTES ? plain : PM_OUTFILE_SPILL_BYTES;
        (void)pm_buf_add(&file->buf, data, part);
        data += part;
        bytes -= part;
        if (found == data && bytes > 0) {
            (void)pm_buf_add_text(&file->buf, "\\u003c");
            data++;
            bytes--;
        }
        rc = pm_buf_status(&file->buf);
        if (rc == 0)
            rc = pm_outfile_spill(file);
    }
    return rc;
}

static int put_page(struct pm_outfile *file, enum pm_html_page page, const struct pm_buf *data)
{
    (void)pm_buf_add(&file->buf, frames[page].head, frames[page].head_bytes);
    int rc = put_escaped(file, data->data, data->used);
    (void)pm_buf_add(&file->buf, frames[page].tail, frames[page].tail_bytes);
    return rc != 0 ? rc : pm_buf_status(&file->buf);
}

int pm_html_frame_write(enum pm_html_page page, const struct pm_buf *data, const char *path,
                        uint32_t mode, struct pm_html_result *ret_result, struct pm_error *err)
{
    struct pm_html_result result = {.bytes = 0};
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    char folder[4096] = ".";
    struct pm_outfile file;

    if (*name == '\0' || strlen(name) > 100 || strlen(path) >= sizeof(folder))
        return pm_error_set(err, -PM_EINVALID, "%s: not a name for a file", path);
    if (slash != NULL)
        snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    const int dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return pm_error_set(err, -PM_ENOTFOUND, "%s: there is no such folder", folder);
    int rc = pm_outfile_begin(&file, dir_fd, name, mode, err);
    if (rc == 0)
        rc = pm_outfile_finish(&file, put_page(&file, page, data), &result.bytes, err);
    close(dir_fd);
    snprintf(result.path, sizeof(result.path), "%s", path);
    if (rc == 0 && ret_result != NULL)
        *ret_result = result;
    return rc;
}
