/*
 * Reads and analyses the files of `profilemate trace`, one after another.
 */
#include "cmd/trace.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/buf.h"
#include "trace/stacks.h"

/* "…rank12.pt.trace.json.gz", "…rank_3…": the last such number of the file's name. */
static int32_t rank_of_path(const char *path)
{
    const char *name = strrchr(path, '/');
    int32_t rank = -1;
    for (const char *p = name != NULL ? name : path; *p != '\0'; p++) {
        if (strncasecmp(p, "rank", 4) != 0)
            continue;
        const char *digits = p + 4;
        if (*digits == '_' || *digits == '-' || *digits == '=')
            digits++;
        if (!isdigit((unsigned char)*digits))
            continue;
        long value = strtol(digits, NULL, 10);
        if (value >= 0 && value <= 1000000)
            rank = (int32_t)value;
    }
    return rank;
}

/* Only strings and totals are needed once a trace is analysed. */
static void drop_events(struct pm_trace *trace)
{
    struct pm_trace_events *events = &trace->events;
    void *columns[] = {events->ts_ns, events->dur_ns, events->name, events->where, events->ext,
                       events->link,  events->extra,  trace->ops,   trace->work,   trace->memory};
    for (size_t k = 0; k < sizeof(columns) / sizeof(columns[0]); k++)
        free(columns[k]);
    *events = (struct pm_trace_events){.ordinal = events->ordinal};
    trace->ops = NULL;
    trace->work = NULL;
    trace->memory = NULL;
}

static void find_window(struct pm_trace_file *file)
{
    const struct pm_trace *trace = file->trace;
    file->first_ns = INT64_MAX;
    file->last_ns = INT64_MIN;
    for (uint32_t row = 0; row < trace->events.n; row++) {
        if (pm_trace_kind_of(trace, row) == PM_KIND_SPAN)
            continue;
        if (trace->events.ts_ns[row] < file->first_ns)
            file->first_ns = trace->events.ts_ns[row];
        if (pm_trace_end_ns(trace, row) > file->last_ns)
            file->last_ns = pm_trace_end_ns(trace, row);
    }
    if (file->last_ns < file->first_ns)
        file->first_ns = file->last_ns = 0;
}

/* ---- folded stacks --------------------------------------------------------------------------- */

struct stacks_file {
    int fd;
    struct pm_buf buf;
};

static int add_line(void *arg, const char *line, size_t n)
{
    struct stacks_file *out = arg;
    int err = pm_buf_add(&out->buf, line, n);
    if (err == 0 && out->buf.used >= 64 * 1024)
        err = pm_buf_flush(&out->buf, out->fd);
    return err;
}

static int write_stacks(const struct pm_tree *tree, const struct pm_trace_how *how, bool first)
{
    struct stacks_file out;
    bool nesting = false;
    out.fd = open(how->stacks_path,
                  O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (first ? O_TRUNC : O_APPEND), 0644);
    if (out.fd < 0)
        return pm_complain("cannot write %.300s, %s, choose another place", how->stacks_path,
                           strerror(errno));
    pm_buf_init(&out.buf, 4 * 1024 * 1024);
    int err = pm_folded(tree, how->stacks_device, add_line, &out, &nesting);
    if (err == 0)
        err = pm_buf_flush(&out.buf, out.fd);
    pm_buf_release(&out.buf);
    if (close(out.fd) != 0 && err == 0)
        err = -PM_EIO;
    if (err != 0)
        return pm_complain("cannot write %.300s, %s", how->stacks_path, pm_strerror(err));
    if (nesting && first)
        fprintf(stderr,
                "profilemate: the trace has no Python stacks (it was made without with_stack), "
                "%.300s has the operators around instead\n",
                how->stacks_path);
    return 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* For the page: thinned here, while the events are there. */
#define PAGE_FILES 64      /* of more, the rest has figures only */
#define PAGE_SLICES 160000 /* of the timelines, and */
#define PAGE_PATHS 12000   /* of the flame graphs, of all files together */

static int draw(struct pm_trace_set *set, struct pm_trace_file *file, const struct pm_tree *tree,
                size_t n_files)
{
    const size_t share = n_files < PAGE_FILES ? n_files : PAGE_FILES;
    int err = 0;
    if ((size_t)(file - set->files) >= PAGE_FILES)
        return 0;
    file->has_page = true;
    /* Whole is the step in the middle; without steps, a hundredth. */
    int64_t from_ns = file->first_ns + (file->last_ns - file->first_ns) / 2;
    int64_t to_ns = from_ns + (file->last_ns - file->first_ns) / 100;
    if (file->steps.n > 0) {
        const struct pm_step *step = &file->steps.steps[file->steps.n / 2];
        from_ns = step->ts_ns;
        to_ns = step->ts_ns + (step->period_ns > step->cpu_ns ? step->period_ns : step->cpu_ns);
    }
    err = pm_lanes_build(&file->lanes, tree->trace, &set->classes, PAGE_SLICES / share, from_ns,
                         to_ns);
    for (enum pm_flame_kind kind = PM_FLAME_NESTING; kind <= PM_FLAME_PYTHON && err == 0; kind++)
        err = pm_flame_build(&file->flames[kind], tree, kind, (uint32_t)(PAGE_PATHS / share / 2));
    return err;
}

static int analyse(struct pm_trace_set *set, const struct pm_trace_how *how,
                   struct pm_trace_file *file, const char *path, size_t n_files)
{
    struct pm_error err = {""};
    struct pm_tree tree;
    if (pm_trace_load(&file->trace, path, NULL, &err) != 0)
        return pm_complain("%s", err.text);
    struct pm_trace *trace = file->trace;
    file->rank = trace->rank >= 0 ? trace->rank : rank_of_path(path);
    find_window(file);
    if (pm_trace_loss_text(trace, file->loss, sizeof(file->loss)))
        fprintf(stderr, "profilemate: %.300s is not whole: %s\n", path, file->loss);
    int code = pm_tree_build(&tree, trace);
    if (code == 0) {
        file->old_ids = tree.old_ids;
        file->n_unlaunched = tree.n_unlaunched;
        code = pm_keys_add(&set->keys, &tree);
        if (code == 0)
            code = pm_gpu_build(&file->gpu, &tree, &set->classes);
        if (code == 0)
            code = pm_steps_build(&file->steps, &tree, &set->classes, how->step_prefix);
        if (code == 0 && n_files > 1)
            snprintf(set->findings.where, sizeof(set->findings.where), "rank %" PRId32 ": ",
                     file->rank);
        if (code == 0)
            pm_findings_add(&set->findings, trace, &file->gpu, &set->classes, &set->keys);
        if (code == 0 && how->page)
            code = draw(set, file, &tree, n_files);
        if (code == 0 && how->stacks_path != NULL &&
            write_stacks(&tree, how, file == set->files) != 0) {
            pm_tree_release(&tree);
            return PM_EXIT_FAILED;
        }
        pm_tree_release(&tree);
    }
    if (code != 0)
        return pm_complain("cannot analyse %.300s, %s", path, pm_strerror(code));
    drop_events(trace);
    return 0;
}

static int by_rank(const void *a, const void *b)
{
    const struct pm_trace_file *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return strcmp(x->trace->path, y->trace->path);
}

static void compare_ranks(struct pm_trace_set *set)
{
    struct pm_rank_times *times = calloc(set->n, sizeof(*times));
    if (times == NULL || set->n < 2) {
        free(times);
        return;
    }
    for (size_t i = 0; i < set->n; i++) {
        times[i].rank = set->files[i].rank;
        for (uint32_t d = 0; d < set->files[i].gpu.n_devices; d++) {
            const struct pm_gpu_device *device = &set->files[i].gpu.devices[d];
            times[i].span_ns += pm_gpu_span_ns(device);
            times[i].compute_ns += device->compute_ns;
            times[i].collective_ns += device->collective_ns;
        }
    }
    pm_findings_add_ranks(&set->findings, times, set->n);
    free(times);
}

int pm_trace_gather(struct pm_trace_set *set, const struct pm_trace_how *how, char **paths,
                    size_t n)
{
    struct pm_error err = {""};
    *set = (struct pm_trace_set){0};
    if (pm_classes_init(&set->classes, how->rules, &err) != 0)
        return pm_complain("%s", err.text);
    set->files = calloc(n, sizeof(*set->files));
    if (set->files == NULL || pm_keys_init(&set->keys, how->by_shape, how->by_stack) != 0) {
        pm_trace_set_release(set);
        return pm_complain("cannot read the traces, out of memory, free some");
    }
    for (size_t i = 0; i < n; i++) {
        set->n = i + 1;
        if (analyse(set, how, &set->files[i], paths[i], n) != 0) {
            pm_trace_set_release(set);
            return PM_EXIT_FAILED;
        }
    }
    set->findings.where[0] = '\0';
    qsort(set->files, set->n, sizeof(*set->files), by_rank);
    compare_ranks(set);
    pm_findings_sort(&set->findings);
    return 0;
}

void pm_trace_set_release(struct pm_trace_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        pm_gpu_release(&set->files[i].gpu);
        pm_steps_release(&set->files[i].steps);
        pm_lanes_release(&set->files[i].lanes);
        pm_flame_release(&set->files[i].flames[PM_FLAME_NESTING]);
        pm_flame_release(&set->files[i].flames[PM_FLAME_PYTHON]);
        pm_trace_free(set->files[i].trace);
    }
    free(set->files);
    pm_keys_release(&set->keys);
    pm_classes_release(&set->classes);
    *set = (struct pm_trace_set){0};
}

bool pm_trace_shows(const struct pm_trace_set *set, const struct pm_trace_how *how,
                    const struct pm_key *row)
{
    return !how->layers || (row->kind == PM_KIND_PYTHON &&
                            strncmp(pm_key_text(&set->keys, row->name), "nn.Module: ", 11) == 0);
}
