/*
 * What the files of `profilemate trace` share: the traces that were read, and how they are shown.
 */
#ifndef PM_CMD_TRACE_H
#define PM_CMD_TRACE_H

#include "cmd/cmd.h"
#include "base/json.h"
#include "trace/findings.h"
#include "trace/flame.h"
#include "trace/lanes.h"
#include "trace/steps.h"

/* One file, analysed. Its events are freed again, its strings stay. */
struct pm_trace_file {
    struct pm_trace *trace;
    struct pm_gpu gpu;
    struct pm_steps steps;
    int32_t rank; /* -1: unknown */
    int64_t first_ns, last_ns;
    bool old_ids;
    uint64_t n_unlaunched;
    char loss[640];
    bool has_page; /* what follows is filled */
    struct pm_lanes lanes;
    struct pm_flame flames[2]; /* by enum pm_flame_kind */
};

struct pm_trace_set {
    struct pm_trace_file *files;
    size_t n;
    struct pm_keys keys; /* over all files */
    struct pm_classes classes;
    struct pm_findings findings;
};

struct pm_trace_how {
    bool by_shape;
    unsigned by_stack;
    const char *rules;       /* file, or NULL */
    const char *step_prefix; /* or NULL */
    enum pm_key_sort sort;
    bool sort_given;
    size_t limit; /* rows; 0: all */
    bool steps, kernels, findings, layers;
    const char *stacks_path; /* write folded stacks there, or NULL */
    bool stacks_device;
    bool page;  /* timelines and flame graphs, too */
    size_t cap; /* entries of the lists of a file in JSON; 0: all */
};

/* Reads and analyses the files. 0 or a complaint printed and PM_EXIT_FAILED. */
int pm_trace_gather(struct pm_trace_set *set, const struct pm_trace_how *how, char **paths,
                    size_t n);
void pm_trace_set_release(struct pm_trace_set *set);

/* Each prints to stdout. */
void pm_trace_print_table(const struct pm_trace_set *set, const struct pm_trace_how *how);
int pm_trace_print_json(const struct pm_trace_set *set, const struct pm_trace_how *how);
/* The members of that JSON, into the open object. */
void pm_trace_put_json(struct pm_json *json, const struct pm_trace_set *set,
                       const struct pm_trace_how *how);
/* The page, into the file `out`, or a name after the first trace's in this folder; prints its path.
 * An exit code. */
int pm_trace_write_page(const struct pm_trace_set *set, const struct pm_trace_how *how,
                        const char *out);
void pm_trace_print_csv(const struct pm_trace_set *set, const struct pm_trace_how *how);

/* Whether a row of the averages is shown: with --layers only modules. */
bool pm_trace_shows(const struct pm_trace_set *set, const struct pm_trace_how *how,
                    const struct pm_key *row);

/* `trace diff` and `trace cut`; argv[0] is "diff" or "cut". */
int pm_cmd_trace_diff(int argc, char **argv);
int pm_cmd_trace_cut(int argc, char **argv);

/* trace_text.c: text cut to a number of columns, control characters and broken UTF-8 as `?`.
 * Returns out, which has room for columns * 4 + 1 bytes. */
const char *pm_trace_fit(const char *text, size_t columns, char *out);
/* "12.345ms" and the like, at most 10 columns. */
const char *pm_trace_time(int64_t ns, char out[24]);
const char *pm_trace_bytes(int64_t bytes, char out[24]);
const char *pm_trace_count(uint64_t n, char out[24]); /* 1234567 as 1.23M from 10^7 on */
const char *pm_trace_percent(int64_t part, int64_t whole, char out[24]);
/* A CSV field (RFC 4180), broken UTF-8 replaced. */
void pm_trace_csv_field(const char *text);
/* ns as microseconds with 3 decimals. */
void pm_trace_csv_us(int64_t ns);

#endif
