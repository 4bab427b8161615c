/*
 * A table beside a process's record file: memory of a fixed size that is also a file, so that what
 * is counted in it is there however the process ends. Called by probes on the thread that holds the
 * GIL, once in a process's life; it may wait for the disk.
 *
 * The file has the record file's name with another suffix, lies in the same folder, counts in the
 * session's ceiling and holds a byte lock as long as the process lives, as the record file does. It
 * is allocated on disk before it is mapped: a store never fails for want of room.
 *
 * After fork() the child must not write to it, although it could: see pm_table_forget.
 */
#ifndef PM_RECORDER_TABLE_H
#define PM_RECORDER_TABLE_H

#include <stddef.h>

#include "recorder/recorder.h"

struct pm_table {
    void *base; /* NULL: none; zeros at first */
    size_t bytes;
    int fd; /* the only one of this file, kept open for its lock */
};

/* 0 and *ret_table, or -PM_E… with a sentence in err: -PM_ELIMIT when the session's ceiling or the
 * disk leaves no room. */
PM_MUST_USE int pm_table_make(struct pm_table *ret_table, struct pm_recorder *rec,
                              const char *suffix, size_t bytes, struct pm_error *err);

/* In a child of fork(): gives up the mapping, the parent's file stays. */
void pm_table_forget(struct pm_table *table);

#endif
