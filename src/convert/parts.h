/*
 * The files of old as sources that the converter merges by time (convert.c): the parts in steps.c
 * and others.c. Not for other rooms.
 */
#ifndef PM_CONVERT_PARTS_H
#define PM_CONVERT_PARTS_H

#include "convert/convert.h"
#include "convert/csv.h"
#include "recorder/recorder.h"

/* Schemas in the order of the recorder's options. */
enum pm_convert_schema {
    PM_CONVERT_SCHED,
    PM_CONVERT_REQUEST_EVENT,
    PM_CONVERT_WORKER,
    PM_CONVERT_UPDATE,
    PM_CONVERT_REQUEST,
    PM_CONVERT_KV_STEP,
    PM_CONVERT_KV_EVICTION,
    PM_CONVERT_SCHEMAS
};

struct pm_convert {
    struct pm_recorder *rec;
    uint64_t start_ns; /* CLOCK_MONOTONIC of second 0 */
    uint64_t last_ns;  /* CLOCK_MONOTONIC of the newest row */
    uint64_t step;     /* number of the newest step written + 1 */
    bool on_device;    /* the model's times are of a device */
    struct pm_convert_result *result;
    struct pm_error *err;
};

/* One file, or several that belong together. */
struct pm_source {
    bool at_end;
    uint64_t at_ns; /* since second 0, of what comes next */
    int (*write)(struct pm_source *source, struct pm_convert *all); /* that, then looks further */
    void (*close)(struct pm_source *source);                        /* frees it */
};

/* Each opens its files and looks at the first row. */
PM_MUST_USE int pm_source_steps(struct pm_source **ret_source, const char *dir,
                                struct pm_error *err);
PM_MUST_USE int pm_source_kv(struct pm_source **ret_source, const char *dir, struct pm_error *err);
PM_MUST_USE int pm_source_evictions(struct pm_source **ret_source, const char *dir,
                                    struct pm_error *err);
PM_MUST_USE int pm_source_events(struct pm_source **ret_source, const char *dir,
                                 struct pm_error *err);
/* request_lifecycle.csv, behind all else: it stands in the order in which requests ended, or in
 * none. */
PM_MUST_USE int pm_source_requests(struct pm_source **ret_source, const char *dir,
                                   struct pm_error *err);

/* Room for a record, or the sentence for a full disk. */
PM_MUST_USE int pm_convert_reserve(struct pm_convert *all, enum pm_convert_schema schema,
                                   void *ret_payload);

#endif
