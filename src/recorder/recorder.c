/*
 * The recorder's life and verbs. Called by the hooks on the thread that holds the GIL.
 * This version keeps facts nowhere: it has the verbs that the extension links against, and counts
 * each record as lost.
 */
#include "recorder/recorder.h"

#include <stdlib.h>

struct pm_recorder {
    struct pm_file_head head;
};

int pm_recorder_open(struct pm_recorder **ret_rec, const struct pm_recorder_options *options,
                     struct pm_error *err)
{
    (void)options;
    struct pm_recorder *rec = calloc(1, sizeof *rec);
    if (rec == NULL)
        return pm_error_set(err, -PM_ENOMEM, "no memory for the recorder");
    *ret_rec = rec;
    return 0;
}

void *pm_recorder_reserve(struct pm_recorder *rec, unsigned schema)
{
    (void)schema;
    atomic_fetch_add_explicit(&rec->head.lost[PM_STREAM_CORE], 1, memory_order_relaxed);
    return NULL;
}

void pm_recorder_commit(struct pm_recorder *rec, void *payload)
{
    (void)rec;
    (void)payload;
}

uint32_t pm_recorder_string(struct pm_recorder *rec, enum pm_stream stream, const char *text,
                            size_t bytes)
{
    (void)rec;
    (void)stream;
    (void)text;
    (void)bytes;
    return 0;
}

void pm_recorder_string_drop(struct pm_recorder *rec, enum pm_stream stream, uint32_t id)
{
    (void)rec;
    (void)stream;
    (void)id;
}

void pm_recorder_attr(struct pm_recorder *rec, const char *key, const char *value)
{
    (void)rec;
    (void)key;
    (void)value;
}

void pm_recorder_identify(struct pm_recorder *rec, unsigned roles, int engine, int rank)
{
    (void)rec;
    (void)roles;
    (void)engine;
    (void)rank;
}

struct pm_file_head *pm_recorder_head(struct pm_recorder *rec)
{
    return &rec->head;
}

bool pm_recorder_forked(const struct pm_recorder *rec)
{
    (void)rec;
    return false;
}

void pm_recorder_abandon(struct pm_recorder *rec)
{
    free(rec);
}

void pm_recorder_close(struct pm_recorder *rec)
{
    free(rec);
}

void pm_recorder_round(struct pm_recorder *rec)
{
    (void)rec;
}
