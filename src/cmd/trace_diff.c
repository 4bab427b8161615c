/*
 * profilemate trace diff: two traces by name, what changed most first.
 */
#include "cmd/trace.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cmd/options.h"

static struct diff_options {
    const char *by, *format;
    long limit;
    bool by_shape;
} options;

static const struct pm_option option_table[] = {
    {0, "by", PM_OPTION_TEXT, "KEY", &options.by,
     "self_device, device, self_cpu or cpu (default: self_device where there is one)"},
    {'n', "limit", PM_OPTION_WHOLE, "N", &options.limit,
     "rows (default: 20; 0: all; csv and json: all)"},
    {0, "format", PM_OPTION_TEXT, "table|csv|json", &options.format, "(default: table)"},
    {0, "group-by-shape", PM_OPTION_FLAG, "", &options.by_shape, "tell input shapes apart"},
};
static const char *const synopsis[] = {"[options] BEFORE AFTER", NULL};
static const char *const examples[] = {
    "profilemate trace diff before.json.gz after.json.gz",
    "calls and times by name, the largest change first",
    "profilemate trace diff --by self_cpu --format csv a.json b.json",
    "CPU time, for a spreadsheet",
    NULL,
};
static const struct pm_usage usage = {
    .command = "trace diff",
    .synopsis = synopsis,
    .intro = "Compares two traces by the names of operators, calls and kernels.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when a file could not be read; 2 for a misuse.",
    .min_operands = 2,
    .max_operands = 2,
};

struct change {
    const char *name, *shapes;
    bool on_device, annotation;
    uint64_t calls[2];
    int64_t ns[2];
};

static int64_t metric_of(const struct pm_key *row, enum pm_key_sort by)
{
    switch (by) {
    case PM_SORT_CPU:
        return row->cpu_ns;
    case PM_SORT_SELF_DEVICE:
        return row->self_device_ns;
    case PM_SORT_DEVICE:
        return row->device_ns;
    default:
        return row->self_cpu_ns;
    }
}

static int by_key(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    if (order == 0)
        order = strcmp(x->shapes, y->shapes);
    if (order == 0)
        order = (int)x->on_device - (int)y->on_device;
    return order != 0 ? order : (int)x->annotation - (int)y->annotation;
}

static int by_change(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    int64_t left = llabs(x->ns[1] - x->ns[0]), right = llabs(y->ns[1] - y->ns[0]);
    if (left != right)
        return left < right ? 1 : -1;
    return by_key(a, b);
}

/* One entry per name of either; sorted. Names are the sets'. Annotations repeat what their kernels
 * say, so with device time they are left out. */
static struct change *compare(const struct pm_trace_set sets[2], enum pm_key_sort by, size_t *ret_n)
{
    size_t n = 0, kept = 0;
    struct change *list = calloc((size_t)sets[0].keys.n + sets[1].keys.n + 1, sizeof(*list));
    if (list == NULL)
        return NULL;
    for (unsigned side = 0; side < 2; side++)
        for (uint32_t i = 0; i < sets[side].keys.n; i++) {
            const struct pm_key *row = &sets[side].keys.rows[i];
            struct change *change = &list[n];
            if (row->annotation && row->on_device)
                continue;
            change->name = pm_key_text(&sets[side].keys, row->name);
            change->shapes = pm_key_text(&sets[side].keys, row->shapes);
            change->on_device = row->on_device;
            change->annotation = row->annotation;
            change->calls[side] = row->calls;
            change->ns[side] = metric_of(row, by);
            n++;
        }
    if (n > 0)
        qsort(list, n, sizeof(*list), by_key);
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && by_key(&list[kept - 1], &list[i]) == 0) {
            for (unsigned side = 0; side < 2; side++) {
                list[kept - 1].calls[side] += list[i].calls[side];
                list[kept - 1].ns[side] += list[i].ns[side];
            }
        } else {
            list[kept++] = list[i];
        }
    }
    if (kept > 0)
        qsort(list, kept, sizeof(*list), by_change);
    *ret_n = kept;
    return list;
}

/* Not worth a row: nothing on either side, or in the text no change at all. */
static bool is_left_out(const struct change *change, bool text)
{
    return change->calls[0] == change->calls[1] && change->ns[0] == change->ns[1] &&
           (text || change->ns[0] == 0);
}

static void print_table(const struct change *list, size_t n, const int64_t total[2],
                        const char *metric)
{
    char name[512], a[24], b[24], c[24], d[24], e[24], f[24];
    printf("%s%-40s %7s %7s %10s %10s %11s %7s%s\n", pm_style(stdout, PM_BOLD), metric, "calls",
           "after", "before", "after", "change", "", pm_style(stdout, PM_PLAIN));
    for (size_t i = 0; i < n; i++) {
        const struct change *change = &list[i];
        int64_t by = change->ns[1] - change->ns[0];
        const char *text = change->name;
        if (strncmp(text, "void ", 5) == 0)
            text += 5;
        char signed_time[32];
        snprintf(signed_time, sizeof(signed_time), "%s%s", by > 0 ? "+" : "", pm_trace_time(by, e));
        printf("%-40s %7s %7s %10s %10s %s%11s %7s%s\n", pm_trace_fit(text, 40, name),
               pm_trace_count(change->calls[0], a), pm_trace_count(change->calls[1], b),
               pm_trace_time(change->ns[0], c), pm_trace_time(change->ns[1], d),
               pm_style(stdout, by > 0   ? PM_RED
                                : by < 0 ? PM_GREEN
                                         : PM_PLAIN),
               signed_time, change->ns[0] > 0 ? pm_trace_percent(by, change->ns[0], f) : "new",
               pm_style(stdout, PM_PLAIN));
        if (change->shapes[0] != '\0')
            printf("    %s\n", pm_trace_fit(change->shapes, 96, name));
    }
    printf("in all, %s: %s before, %s after, %s%s (%s)\n", metric, pm_trace_time(total[0], a),
           pm_trace_time(total[1], b), total[1] > total[0] ? "+" : "",
           pm_trace_time(total[1] - total[0], c),
           pm_trace_percent(total[1] - total[0], total[0], d));
}

static void print_csv(const struct change *list, size_t n)
{
    puts("name,on,input_shapes,calls_before,calls_after,before_us,after_us,change_us,change_pct");
    for (size_t i = 0; i < n; i++) {
        const struct change *change = &list[i];
        pm_trace_csv_field(change->name);
        printf(",%s,", change->on_device ? "device" : "cpu");
        pm_trace_csv_field(change->shapes);
        printf(",%" PRIu64 ",%" PRIu64 ",", change->calls[0], change->calls[1]);
        pm_trace_csv_us(change->ns[0]);
        putchar(',');
        pm_trace_csv_us(change->ns[1]);
        putchar(',');
        pm_trace_csv_us(change->ns[1] - change->ns[0]);
        if (change->ns[0] > 0)
            printf(",%.2f\n",
                   (double)(change->ns[1] - change->ns[0]) * 100 / (double)change->ns[0]);
        else
            puts(",");
    }
}

static int print_json(const struct change *list, size_t n, const int64_t total[2],
                      const char *metric)
{
    struct pm_buf buf;
    struct pm_json json;
    pm_buf_init(&buf, 2048ull * 1024 * 1024);
    pm_json_init(&json, &buf, 1);
    pm_json_object(&json);
    pm_json_key(&json, "metric"), pm_json_text(&json, metric);
    pm_json_key(&json, "before_us"), pm_json_fixed_signed(&json, total[0], 3, 3);
    pm_json_key(&json, "after_us"), pm_json_fixed_signed(&json, total[1], 3, 3);
    pm_json_key(&json, "changes"), pm_json_array(&json);
    for (size_t i = 0; i < n; i++) {
        const struct change *change = &list[i];
        int64_t by = change->ns[1] - change->ns[0];
        pm_json_object(&json);
        pm_json_key(&json, "name"), pm_json_text(&json, change->name);
        pm_json_key(&json, "on"), pm_json_text(&json, change->on_device ? "device" : "cpu");
        if (change->shapes[0] != '\0')
            pm_json_key(&json, "input_shapes"), pm_json_text(&json, change->shapes);
        pm_json_key(&json, "calls_before"), pm_json_u64(&json, change->calls[0]);
        pm_json_key(&json, "calls_after"), pm_json_u64(&json, change->calls[1]);
        pm_json_key(&json, "before_us"), pm_json_fixed_signed(&json, change->ns[0], 3, 3);
        pm_json_key(&json, "after_us"), pm_json_fixed_signed(&json, change->ns[1], 3, 3);
        pm_json_key(&json, "change_us"), pm_json_fixed_signed(&json, by, 3, 3);
        pm_json_key(&json, "change_pct");
        if (change->ns[0] > 0)
            pm_json_double(&json, (double)by * 100 / (double)change->ns[0], 2);
        else
            pm_json_null(&json);
        pm_json_end(&json);
    }
    pm_json_end(&json);
    pm_json_end(&json);
    int err = pm_json_finish(&json);
    if (err == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return err != 0 ? pm_complain("cannot write the JSON, %s", pm_strerror(err)) : 0;
}

/* The words for --by, as the table shows them. */
static const char *metric_name(enum pm_key_sort by)
{
    switch (by) {
    case PM_SORT_CPU:
        return "cpu";
    case PM_SORT_DEVICE:
        return "device";
    case PM_SORT_SELF_DEVICE:
        return "self_device";
    default:
        return "self_cpu";
    }
}

static int print(const struct pm_trace_set sets[2], enum pm_key_sort by)
{
    size_t n, shown = 0;
    int64_t total[2] = {0, 0};
    int code = 0;
    struct change *list = compare(sets, by, &n);
    if (list == NULL)
        return pm_complain("cannot compare the traces, out of memory, free some");
    for (unsigned side = 0; side < 2; side++)
        total[side] = by == PM_SORT_SELF_DEVICE || by == PM_SORT_DEVICE
                          ? sets[side].keys.total_self_device_ns
                          : sets[side].keys.total_self_cpu_ns;
    bool text = options.format == NULL || strcmp(options.format, "table") == 0;
    size_t limit = options.limit >= 0 ? (size_t)options.limit : text ? 20 : 0;
    for (size_t i = 0; i < n; i++)
        if (!is_left_out(&list[i], text) && (limit == 0 || shown < limit))
            list[shown++] = list[i];
    if (text)
        print_table(list, shown, total, metric_name(by));
    else if (strcmp(options.format, "csv") == 0)
        print_csv(list, shown);
    else
        code = print_json(list, shown, total, metric_name(by));
    free(list);
    return code != 0 ? code : pm_finish_stdout();
}

int pm_cmd_trace_diff(int argc, char **argv)
{
    struct pm_trace_how how = {0};
    struct pm_trace_set sets[2];
    enum pm_key_sort by = PM_SORT_NONE;
    int first;
    options = (struct diff_options){.limit = -1};
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (options.by != NULL &&
        (!pm_key_sort_find(options.by, &by) || (by != PM_SORT_SELF_CPU && by != PM_SORT_CPU &&
                                                by != PM_SORT_SELF_DEVICE && by != PM_SORT_DEVICE)))
        return pm_misuse("trace diff",
                         "--by=%.60s is not known, give self_device, device, self_cpu or cpu",
                         options.by);
    if (options.format != NULL && strcmp(options.format, "table") != 0 &&
        strcmp(options.format, "csv") != 0 && strcmp(options.format, "json") != 0)
        return pm_misuse("trace diff", "--format=%.60s is not known, give table, csv or json",
                         options.format);
    how.by_shape = options.by_shape;
    if (pm_trace_gather(&sets[0], &how, argv + first, 1) != 0)
        return PM_EXIT_FAILED;
    if (pm_trace_gather(&sets[1], &how, argv + first + 1, 1) != 0) {
        pm_trace_set_release(&sets[0]);
        return PM_EXIT_FAILED;
    }
    if (options.by == NULL)
        by = sets[0].keys.total_self_device_ns > 0 || sets[1].keys.total_self_device_ns > 0
                 ? PM_SORT_SELF_DEVICE
                 : PM_SORT_SELF_CPU;
    int code = print(sets, by);
    pm_trace_set_release(&sets[0]);
    pm_trace_set_release(&sets[1]);
    return code;
}
