/*
 * Native tables in parts: for readers that split a table among machines, and for writers that add
 * to a copy of it what came since they last looked. Called by the Python package; one thread.
 *
 * The rows of a table come from sources: one for each process that has facts of the table; for
 * `steps` one for each worker of each engine; for `requests` one for each engine. A row's position
 * says where it lies in its source and never changes, however often the session is read and
 * whatever had to go meanwhile:
 *
 *   facts      the number of the fact in its stream
 *   requests   the number of the fact that told the request's end; PM_TABLE_NOT_OVER for the others
 *   steps      nanoseconds from the session's start to the step's schedule(), or to its
 *              execute_model where the scheduler's half was not found
 *
 * So the rows of any parts [a, b), [b, c), … of a source are the rows of [a, …) of it, each once,
 * and the values in them are those of the table read as a whole.
 */
#ifndef PM_VIEW_TABLE_PART_H
#define PM_VIEW_TABLE_PART_H

#include "view/table.h"

enum pm_table_source_sort { PM_SOURCE_FACTS, PM_SOURCE_STEPS, PM_SOURCE_REQUESTS };

struct pm_table_source {
    char name[288]; /* unique in the table, and the same whenever the session is read: the record
                       file's without its ending; of steps and requests with "-<instance>" */
    enum pm_table_source_sort sort;
    const struct pm_process *process; /* whose stream the rows follow */
    enum pm_stream stream;
    int engine, rank;           /* -1: not known, or none */
    bool over;                  /* no more rows will come */
    struct pm_table_part place; /* all of it: from 0 to UINT64_MAX */
};

/* Calls fn for each source of a table, in the order in which the whole table has their rows; stops
 * when fn returns non-zero and returns that. A source may have no rows. 0, -PM_ENOTFOUND for a
 * table that the session does not have, -PM_ENOMEM. */
PM_MUST_USE int pm_table_sources(const struct pm_session *session, const char *table,
                                 int (*fn)(const struct pm_table_source *source, void *arg),
                                 void *arg);

/* The source of that name. 0, -PM_ENOTFOUND, -PM_ENOMEM. */
PM_MUST_USE int pm_table_source(const struct pm_session *session, const char *table,
                                const char *name, struct pm_table_source *ret_source);

/* How far the rows of a source are settled: those before *ret_position are there and will read the
 * same for ever. Facts and requests are when the segment in which they lie is complete; steps when
 * later ones of the same worker have all that this one lacks. UINT64_MAX where the source is over.
 * from: where the caller goes on; for steps what lies before it is not looked at. 0 or < 0. */
PM_MUST_USE int pm_table_settled(const struct pm_session *session,
                                 const struct pm_table_source *source, uint64_t from,
                                 uint64_t *ret_position);

/* Where a source may well be cut: positions at which segments begin, and since when they were
 * written. Every row recorded before at_ns has a position before the cut, except that a step's may
 * be as much later as the step took. Of requests none: each part of them reads all that is before.
 * Free *ret_cuts with free(). */
struct pm_table_cut {
    uint64_t position, at_ns; /* CLOCK_MONOTONIC */
};
PM_MUST_USE int pm_table_cuts(const struct pm_session *session,
                              const struct pm_table_source *source, struct pm_table_cut **ret_cuts,
                              size_t *ret_count);

/* Rows from <= position < to of the source with this name, with the column `position` behind the
 * others. 0, -PM_ENOTFOUND, … with a sentence. */
PM_MUST_USE int pm_table_open_part(struct pm_table **ret_table, const struct pm_session *session,
                                   const char *table, const char *source, uint64_t from,
                                   uint64_t to, struct pm_error *err);

#endif
