/*
 * Cutting a trace (see cut.h). One thread.
 *
 * The first pass loads the trace and marks, by their position in the file, the events to keep; the
 * second one copies them.
 */
#include "trace/cut.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/buf.h"
#include "trace/parse.h"
#include "trace/steps.h"

/* ---- what to keep ---------------------------------------------------------------------------- */

struct marks {
    uint32_t *bits; /* per event of the file, in order */
    uint64_t n;
    int64_t from_ns, to_ns; /* times of the trace */
    int64_t until_ns;       /* end of the last work that was launched in the range */
};

static void mark(struct marks *marks, uint32_t ordinal)
{
    marks->bits[ordinal / 32] |= 1u << ordinal % 32;
}

static bool is_marked(const struct marks *marks, uint64_t ordinal)
{
    return ordinal < marks->n && (marks->bits[ordinal / 32] >> ordinal % 32 & 1) != 0;
}

static void mark_events(struct marks *marks, const struct pm_tree *tree)
{
    const struct pm_trace *trace = tree->trace;
    const struct pm_trace_events *events = &trace->events;
    marks->until_ns = marks->to_ns;
    for (uint32_t row = 0; row < events->n; row++) {
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        int64_t begin = events->ts_ns[row], end = pm_trace_end_ns(trace, row);
        if (pm_kind_on_device(kind) || kind == PM_KIND_SPAN)
            continue;
        if (begin < marks->to_ns &&
            (end > marks->from_ns || (end == begin && begin >= marks->from_ns)))
            mark(marks, events->ordinal[row]);
    }
    for (uint32_t k = 0; k < tree->n_device; k++) {
        uint32_t row = tree->device[k];
        int64_t begin = events->ts_ns[row], end = pm_trace_end_ns(trace, row);
        int64_t at = tree->launch[k] != PM_NONE ? events->ts_ns[tree->launch[k]] : begin;
        bool keep = at >= marks->from_ns && at < marks->to_ns;
        if (tree->launch[k] == PM_NONE)
            keep = begin < marks->to_ns && end > marks->from_ns;
        if (!keep)
            continue;
        mark(marks, events->ordinal[row]);
        if (end > marks->until_ns)
            marks->until_ns = end;
    }
}

/* The n-th step: by the number in its name, else by its place. */
static int find_step(const struct pm_cut *cut, const struct pm_tree *tree, struct marks *marks,
                     struct pm_error *err)
{
    struct pm_classes classes = {0};
    struct pm_steps steps;
    char name[64];
    int code = pm_steps_build(&steps, tree, &classes, cut->step_prefix);
    if (code != 0)
        return pm_error_set(err, code, "cannot find the steps, %s", pm_strerror(code));
    snprintf(name, sizeof(name), PM_STEP_PREFIX "%ld", cut->step);
    uint32_t found = PM_NONE;
    for (uint32_t i = 0; i < steps.n && found == PM_NONE; i++)
        if (strcmp(pm_trace_text(tree->trace, steps.steps[i].name), name) == 0)
            found = i;
    if (found == PM_NONE && cut->step >= 0 && (unsigned long)cut->step < steps.n)
        found = (uint32_t)cut->step;
    if (found != PM_NONE) {
        marks->from_ns = steps.steps[found].ts_ns;
        marks->to_ns = steps.steps[found].ts_ns + steps.steps[found].period_ns;
    } else {
        code = pm_error_set(err, -PM_ENOTFOUND,
                            "%.300s has no step %ld: `profilemate trace --steps --limit 0` lists "
                            "its %u steps, from 0 on",
                            cut->path, cut->step, steps.n);
    }
    pm_steps_release(&steps);
    return code;
}

static int find_marks(const struct pm_cut *cut, struct marks *marks, struct pm_cut_result *result,
                      struct pm_error *err)
{
    struct pm_trace_options options = {.ordinals = true};
    struct pm_trace *trace;
    struct pm_tree tree;
    int64_t first = INT64_MAX;
    int code = pm_trace_load(&trace, cut->path, &options, err);
    if (code != 0)
        return code;
    code = pm_tree_build(&tree, trace);
    if (code != 0) {
        pm_trace_free(trace);
        return pm_error_set(err, code, "cannot read %.300s, %s", cut->path, pm_strerror(code));
    }
    for (uint32_t row = 0; row < trace->events.n; row++)
        if (pm_trace_kind_of(trace, row) != PM_KIND_SPAN && trace->events.ts_ns[row] < first)
            first = trace->events.ts_ns[row];
    if (first == INT64_MAX)
        first = 0;
    marks->n = trace->all_events;
    marks->bits = calloc(trace->all_events / 32 + 1, sizeof(*marks->bits));
    if (marks->bits == NULL)
        code = pm_error_set(err, -PM_ENOMEM, "cannot cut %.300s, out of memory", cut->path);
    if (code == 0 && cut->has_step) {
        code = find_step(cut, &tree, marks, err);
    } else if (code == 0) {
        marks->from_ns = cut->from_ns > INT64_MAX - first ? INT64_MAX : first + cut->from_ns;
        marks->to_ns = cut->to_ns > INT64_MAX - first ? INT64_MAX : first + cut->to_ns;
    }
    if (code == 0) {
        mark_events(marks, &tree);
        result->events = trace->all_events;
        result->from_ns = marks->from_ns - first;
        result->to_ns = marks->to_ns - first;
    }
    pm_tree_release(&tree);
    pm_trace_free(trace);
    return code;
}

/* ---- copying --------------------------------------------------------------------------------- */

struct copy {
    const struct marks *marks;
    int fd;
    gzFile gz; /* NULL: plain */
    struct pm_buf buf;
    uint64_t kept;
    bool in_events, any_event, any_member, array_only;
};

static int flush(struct copy *copy)
{
    if (copy->gz == NULL)
        return pm_buf_flush(&copy->buf, copy->fd);
    int status = pm_buf_status(&copy->buf);
    if (status == 0 && copy->buf.used > 0 &&
        gzwrite(copy->gz, copy->buf.data, (unsigned)copy->buf.used) != (int)copy->buf.used)
        status = -PM_EIO;
    pm_buf_clear(&copy->buf);
    return status;
}

static int put(struct copy *copy, const void *bytes, size_t n)
{
    int err = pm_buf_add(&copy->buf, bytes, n);
    return err == 0 && copy->buf.used >= 256 * 1024 ? flush(copy) : err;
}

static int begin_events(struct copy *copy)
{
    static const char object[] = "\"traceEvents\": [";
    copy->in_events = true;
    if (copy->array_only)
        return put(copy, "[", 1);
    int err = put(copy, copy->any_member ? ",\n" : "{\n", 2);
    copy->any_member = true;
    return err != 0 ? err : put(copy, object, sizeof(object) - 1);
}

static int copy_event(struct pm_parse *parse, struct pm_event *event)
{
    struct copy *copy = parse->arg;
    uint64_t ordinal = parse->trace->all_events;
    const uint8_t *ph = parse->text + event->ph.at;
    bool keep = is_marked(copy->marks, ordinal);
    if ((event->has & PM_HAS_PH) != 0 && event->ph.len == 1 && !keep) {
        if (*ph == 'M' || (event->has & PM_HAS_TS) == 0)
            keep = true;
        else if (*ph != 'X')
            keep = event->ts_ns >= copy->marks->from_ns && event->ts_ns < copy->marks->until_ns;
    }
    if (!keep)
        return 0;
    int err = 0;
    copy->array_only = parse->array_only;
    if (!copy->in_events)
        err = begin_events(copy);
    if (err == 0)
        err = put(copy, copy->any_event ? ",\n" : "\n", copy->any_event ? 2 : 1);
    if (err == 0)
        err = put(copy, parse->text + event->begin, event->end - event->begin);
    copy->any_event = true;
    copy->kept++;
    return err;
}

/* A member of the outer object beside traceEvents. */
static int copy_member(struct pm_parse *parse, uint32_t begin, uint32_t end)
{
    struct copy *copy = parse->arg;
    int err = 0;
    if (copy->in_events)
        err = put(copy, "\n]", 2);
    copy->in_events = false;
    if (err == 0)
        err = put(copy, copy->any_member ? ",\n" : "{\n", 2);
    copy->any_member = true;
    return err != 0 ? err : put(copy, parse->text + begin, end - begin);
}

static int finish(struct copy *copy)
{
    int err = 0;
    if (!copy->in_events && !copy->any_event)
        err = begin_events(copy);
    if (err == 0 && copy->in_events)
        err = put(copy, "\n]", 2);
    if (err == 0 && !copy->array_only)
        err = put(copy, "\n}", 2);
    if (err == 0)
        err = put(copy, "\n", 1);
    return err != 0 ? err : flush(copy);
}

static int copy_all(const struct pm_cut *cut, struct copy *copy, struct pm_error *err)
{
    struct pm_trace_source *source;
    struct pm_trace *trace = calloc(1, sizeof(*trace));
    if (trace == NULL)
        return pm_error_set(err, -PM_ENOMEM, "cannot cut %.300s, out of memory", cut->path);
    int code = pm_trace_source_open(&source, cut->path, NULL, err);
    if (code == 0) {
        struct pm_parse parse = {.trace = trace,
                                 .source = source,
                                 .on_event = copy_event,
                                 .on_member = copy_member,
                                 .arg = copy,
                                 .want_flows = true};
        code = pm_parse_run(&parse);
        if (code == 0)
            code = finish(copy);
        if (code != 0)
            pm_error_set(err, code, "cannot copy %.200s to %.200s, %s", cut->path, cut->out_path,
                         pm_strerror(code));
        pm_trace_source_close(source);
    }
    free(trace);
    return code;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int write_out(const struct pm_cut *cut, const struct marks *marks,
                     struct pm_cut_result *result, struct pm_error *err)
{
    char part[4096];
    struct stat info;
    size_t n = strlen(cut->out_path);
    struct copy copy = {.marks = marks};
    if (same_file(cut->path, cut->out_path))
        return pm_error_set(err, -PM_EINVALID,
                            "%.300s is the trace itself, give the cut another name", cut->out_path);
    if (n + 16 > sizeof(part))
        return pm_error_set(err, -PM_EINVALID, "the name of the output is too long");
    snprintf(part, sizeof(part), "%s.%ld.part", cut->out_path, (long)getpid());
    copy.fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (copy.fd < 0)
        return pm_error_set(err, pm_error_from_errno(errno),
                            "cannot write %.300s, %s, choose another place", part, strerror(errno));
    if (n > 3 && strcmp(cut->out_path + n - 3, ".gz") == 0)
        copy.gz = gzdopen(dup(copy.fd), "wb6");
    pm_buf_init(&copy.buf, 80ull * 1024 * 1024);
    int code = copy_all(cut, &copy, err);
    if (copy.gz != NULL && gzclose(copy.gz) != Z_OK && code == 0)
        code = pm_error_set(err, -PM_EIO, "cannot write %.300s, is the disk full?", part);
    if (code == 0 && fstat(copy.fd, &info) == 0)
        result->out_bytes = (uint64_t)info.st_size;
    if (close(copy.fd) != 0 && code == 0)
        code = pm_error_set(err, -PM_EIO, "cannot write %.300s, is the disk full?", part);
    if (code == 0 && rename(part, cut->out_path) != 0)
        code = pm_error_set(err, pm_error_from_errno(errno), "cannot name the output %.300s, %s",
                            cut->out_path, strerror(errno));
    if (code != 0)
        unlink(part);
    pm_buf_release(&copy.buf);
    result->kept = copy.kept;
    return code;
}

int pm_trace_cut(const struct pm_cut *cut, struct pm_cut_result *ret, struct pm_error *err)
{
    struct marks marks = {0};
    struct pm_cut_result result = {0};
    int code = find_marks(cut, &marks, &result, err);
    if (code == 0)
        code = write_out(cut, &marks, &result, err);
    free(marks.bits);
    if (code == 0)
        *ret = result;
    return code;
}
