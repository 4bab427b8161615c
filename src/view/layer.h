/*
 * The time of a worker's layers, by kind of module: layer_timing.csv and layer_summary.json, and
 * their part of the reports, from layer_time and layer_pass. The walk is layer.c, what is made of
 * it layer_report.c.
 */
#ifndef PM_VIEW_LAYER_H
#define PM_VIEW_LAYER_H

#include "session/layer_facts.h"
#include "view/common.h"

/* Of one kind; index 0 prefill, 1 decode. By the device's events where there are any. */
struct pm_layer_sum {
    uint64_t calls[2], ns[2];
    uint64_t host_ns; /* of all calls, both phases: on a device the launches */
};

/* One layer, or what is of none. */
struct pm_layer_row {
    int32_t layer; /* PM_LAYER_OUTSIDE: the last row */
    struct pm_layer_sum kinds[PM_LAYER_KINDS_COUNT];
};

struct pm_layers {
    struct pm_layer_row *rows; /* in order of layers */
    size_t n_rows;
    struct pm_layer_sum kinds[PM_LAYER_KINDS_COUNT]; /* of all rows */
    uint64_t passes[2], pass_ns[2];                  /* that the times are of, by phase */
    uint64_t all_passes;                             /* also those without events */
    uint64_t host_ns;                                /* of all of them, by the host's clock */
    uint64_t unseen;                                 /* steps in which the model was replayed */
    bool device;                                     /* by the device's events */
    bool launch;       /* on a device without them: times of the host's launches */
    const char *hooks; /* what the worker says of its timers (PM_ATTR_LAYERS); NULL: nothing */
};

/* Walks the facts of worker n of an engine (one that does not exist has none). Release *ret_layers
 * in any case. */
PM_MUST_USE int pm_layer_walk(const struct pm_session *session, size_t engine, unsigned n,
                              struct pm_layers *ret_layers);
void pm_layer_release(struct pm_layers *layers);

/* "attention", …; "unknown". */
const char *pm_layer_kind_name(unsigned kind);

/* Both phases together, and all kinds. */
uint64_t pm_layer_ns(const struct pm_layer_sum *sum);
uint64_t pm_layer_row_ns(const struct pm_layer_row *row);
uint64_t pm_layer_pass_ns(const struct pm_layers *layers);

/* A section of the text report, and "layers" of the JSON one: nothing, and null, where layers were
 * not to be timed. */
PM_MUST_USE int pm_layer_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                     bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_layer_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                     struct pm_json *json);

#endif
