/*
 * `profilemate trace --format html`: one page with the figures of --format=json, timelines and
 * flame graphs. web/DATA.md tells the shape of its data.
 */
#include "cmd/trace.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "html/frame.h"

#define DATA_MAX (256ull * 1024 * 1024)
#define NAME_MAX_BYTES 320 /* of a name in timelines and flame graphs; tables have it whole */

struct page {
    struct pm_json *json;
    struct pm_intern names; /* of timelines and flame graphs */
    int status;             /* of names */
};

static void number(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}
static void text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value);
}
static void list(struct pm_json *json, const char *key)
{
    pm_json_key(json, key);
    pm_json_array(json);
}

/* The number of a name, cut where it is long. */
static uint32_t name_of(struct page *page, const struct pm_trace *trace, uint32_t string)
{
    const char *name = pm_trace_text(trace, string);
    size_t n = pm_intern_len(&trace->strings, string);
    char cut[NAME_MAX_BYTES + 4];
    uint32_t id = 0;
    if (n > NAME_MAX_BYTES) {
        size_t keep = NAME_MAX_BYTES;
        while (keep > 0 && ((unsigned char)name[keep] & 0xc0) == 0x80)
            keep--; /* not inside a character */
        memcpy(cut, name, keep);
        memcpy(cut + keep, "…", sizeof("…"));
        name = cut;
        n = keep + sizeof("…") - 1;
    }
    if (page->status == 0)
        page->status = pm_intern_add(&page->names, name, n, &id);
    return id;
}

/* ---- the timeline ---------------------------------------------------------------------------- */

static void put_lane_head(struct page *page, const struct pm_trace *trace,
                          const struct pm_lane *lane)
{
    struct pm_json *json = page->json;
    const struct pm_trace_track *track = &trace->tracks[lane->track];
    text(json, "process", pm_trace_text(trace, track->process));
    text(json, "labels", pm_trace_text(trace, track->labels));
    text(json, "pid", pm_trace_text(trace, track->pid));
    text(json, "thread", pm_trace_text(trace, track->name));
    text(json, "tid", pm_trace_text(trace, track->tid));
    pm_json_key(json, "device");
    if (lane->device)
        pm_json_i64(json, lane->device_id);
    else
        pm_json_null(json);
    pm_json_key(json, "stream");
    if (lane->has_stream)
        pm_json_u64(json, lane->stream);
    else
        pm_json_null(json);
    number(json, "depth", lane->depth);
    number(json, "events", lane->events);
    number(json, "too_deep", lane->too_deep);
}

enum column { COLUMN_T, COLUMN_D, COLUMN_ROW, COLUMN_NAME, COLUMN_TONE, COLUMN_N, COLUMN_BUSY };

static int64_t value_of(struct page *page, const struct pm_trace_file *file,
                        const struct pm_lane *lane, const struct pm_lane_slice *slice,
                        enum column column, int64_t *before)
{
    int64_t step;
    switch (column) {
    case COLUMN_T:
        step = slice->ts_ns - *before;
        *before = slice->ts_ns;
        return step;
    case COLUMN_D:
        return slice->dur_ns;
    case COLUMN_ROW:
        return slice->depth;
    case COLUMN_NAME:
        return name_of(page, file->trace, slice->name);
    case COLUMN_TONE: /* classes of work, kinds behind them */
        return lane->device && pm_kind_is_work((enum pm_trace_kind)slice->kind)
                   ? slice->class
                   : PM_CLASSES_MAX + slice->kind;
    case COLUMN_N:
        return slice->events;
    default:
        return slice->busy_ns;
    }
}

static void put_lane(struct page *page, const struct pm_trace_file *file,
                     const struct pm_lane *lane)
{
    static const char *const keys[] = {"t", "d", "row", "name", "tone", "n", "busy"};
    struct pm_json *json = page->json;
    const enum column last = file->lanes.grain_ns > 0 ? COLUMN_BUSY : COLUMN_TONE;
    pm_json_object(json);
    put_lane_head(page, file->trace, lane);
    for (enum column column = COLUMN_T; column <= last; column++) {
        int64_t before = file->first_ns;
        list(json, keys[column]);
        for (uint32_t i = 0; i < lane->n; i++)
            pm_json_i64(json, value_of(page, file, lane, &file->lanes.slices[lane->first + i],
                                       column, &before));
        pm_json_end(json);
    }
    pm_json_end(json);
}

/* ---- flame graphs ---------------------------------------------------------------------------- */

static void put_flame(struct page *page, const struct pm_trace *trace, const char *key,
                      const struct pm_flame *flame)
{
    static const char *const keys[] = {"outer", "name", "kind", "calls", "cpu", "device", "paths"};
    struct pm_json *json = page->json;
    pm_json_key(json, key);
    if (flame->n == 0) {
        pm_json_null(json);
        return;
    }
    pm_json_object(json);
    number(json, "left_out", flame->left_out);
    for (unsigned column = 0; column < 7; column++) {
        list(json, keys[column]);
        for (uint32_t i = 0; i < flame->n; i++) {
            const struct pm_flame_node *node = &flame->nodes[i];
            const int64_t values[] = {
                node->outer == PM_NONE ? -1 : (int64_t)node->outer,
                column != 1             ? 0
                : node->name == PM_NONE ? -1
                                        : (int64_t)name_of(page, trace, node->name),
                node->kind,
                (int64_t)node->calls,
                node->cpu_ns,
                node->device_ns,
                node->paths,
            };
            pm_json_i64(json, values[column]);
        }
        pm_json_end(json);
    }
    pm_json_end(json);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void put_drawing(struct page *page, const struct pm_trace_file *file, int64_t earliest_ns)
{
    struct pm_json *json = page->json;
    if (!file->has_page) {
        pm_json_null(json);
        return;
    }
    pm_json_object(json);
    pm_json_key(json, "offset"); /* of this file's time, in ns */
    pm_json_i64(json, file->trace->base_ns + file->first_ns - earliest_ns);
    number(json, "grain", (uint64_t)file->lanes.grain_ns);
    list(json, "whole"); /* where every event is, in ns */
    pm_json_i64(json, file->lanes.whole_from_ns - file->first_ns);
    pm_json_i64(json, file->lanes.whole_to_ns - file->first_ns);
    pm_json_end(json);
    number(json, "tracks_left_out", file->lanes.left_out);
    list(json, "tracks");
    for (uint32_t i = 0; i < file->lanes.n; i++)
        put_lane(page, file, &file->lanes.lanes[i]);
    pm_json_end(json);
    put_flame(page, file->trace, "nesting", &file->flames[PM_FLAME_NESTING]);
    put_flame(page, file->trace, "python", &file->flames[PM_FLAME_PYTHON]);
    list(json, "gaps"); /* the longest of each device */
    for (uint32_t d = 0; d < file->gpu.n_devices; d++) {
        const struct pm_gpu_device *device = &file->gpu.devices[d];
        pm_json_i64(json,
                    device->longest_gap_ns > 0 ? device->longest_gap_at_ns - file->first_ns : -1);
    }
    pm_json_end(json);
    pm_json_end(json);
}

static void put_page(struct page *page, const struct pm_trace_set *set,
                     const struct pm_trace_how *how)
{
    struct pm_json *json = page->json;
    char made[32];
    struct tm parts;
    const time_t now = time(NULL);
    int64_t earliest_ns = INT64_MAX;
    uint64_t rows = 0;
    strftime(made, sizeof(made), "%Y-%m-%d %H:%M:%S %z", localtime_r(&now, &parts));
    for (size_t f = 0; f < set->n; f++)
        if (set->files[f].trace->base_ns + set->files[f].first_ns < earliest_ns)
            earliest_ns = set->files[f].trace->base_ns + set->files[f].first_ns;
    for (uint32_t i = 0; i < set->keys.n; i++)
        rows += pm_trace_shows(set, how, &set->keys.rows[i]);
    pm_json_object(json);
    number(json, "version", 1);
    text(json, "made", made);
    text(json, "made_by", PM_VERSION);
    pm_json_key(json, "figures");
    pm_json_object(json);
    pm_trace_put_json(json, set, how);
    pm_json_end(json);
    number(json, "rows", rows); /* of key_averages, before they were limited */
    list(json, "classes");
    for (unsigned c = 0; c < set->classes.n; c++)
        pm_json_text(json, set->classes.names[c]);
    pm_json_end(json);
    list(json, "kinds"); /* a tone is a class, or kinds_from and a kind */
    for (enum pm_trace_kind kind = 0; kind < PM_KINDS; kind++)
        pm_json_text(json, pm_kind_name(kind));
    pm_json_end(json);
    number(json, "kinds_from", PM_CLASSES_MAX);
    list(json, "drawings");
    for (size_t f = 0; f < set->n; f++)
        put_drawing(page, &set->files[f], earliest_ns);
    pm_json_end(json);
    list(json, "names");
    for (uint32_t i = 0; i < page->names.n; i++)
        pm_json_text_bytes(json, pm_intern_text(&page->names, i), pm_intern_len(&page->names, i));
    pm_json_end(json);
    pm_json_end(json);
}

/* "dir/rank0.pt.trace.json.gz" as "rank0.pt.trace.html". */
static void default_name(const char *path, char *out, size_t size)
{
    static const char *const endings[] = {".gz", ".json"};
    const char *slash = strrchr(path, '/');
    snprintf(out, size, "%.90s", slash != NULL ? slash + 1 : path);
    for (size_t k = 0; k < sizeof(endings) / sizeof(endings[0]); k++) {
        const size_t n = strlen(out), m = strlen(endings[k]);
        if (n > m && strcmp(out + n - m, endings[k]) == 0)
            out[n - m] = '\0';
    }
    const size_t n = strlen(out);
    snprintf(out + n, size - n, ".html");
}

int pm_trace_write_page(const struct pm_trace_set *set, const struct pm_trace_how *how,
                        const char *out)
{
    struct pm_buf buf;
    struct pm_json json;
    struct page page = {.json = &json};
    struct pm_html_result result;
    struct pm_error err = {""};
    char name[128];
    const mode_t mask = umask(077);
    umask(mask);
    if (!pm_html_built()) {
        (void)pm_html_not_built("use --format=json", &err);
        return pm_complain("%s", err.text);
    }
    default_name(set->files[0].trace->path, name, sizeof(name));
    pm_buf_init(&buf, DATA_MAX);
    int rc = pm_intern_init(&page.names);
    if (rc == 0) {
        pm_json_init(&json, &buf, 0);
        put_page(&page, set, how);
        rc = pm_json_finish(&json);
        rc = rc != 0 ? rc : page.status;
    }
    if (rc != 0)
        (void)pm_error_set(&err, rc, "cannot make the page, %s", pm_strerror(rc));
    else
        rc = pm_html_frame_write(PM_PAGE_TRACE, &buf, out != NULL ? out : name,
                                 0666u & ~(uint32_t)mask, &result, &err);
    pm_intern_release(&page.names);
    pm_buf_release(&buf);
    if (rc != 0)
        return pm_complain("%s", err.text);
    pm_print_clean(stdout, result.path);
    putchar('\n');
    return 0;
}
