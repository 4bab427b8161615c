/*
 * Reads a CSV file (RFC 4180) by the names of its columns, one row at a time, from any bytes. Used
 * by the converter, one thread. Every complaint names the file and the line.
 */
#ifndef PM_CONVERT_CSV_H
#define PM_CONVERT_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define PM_CSV_LINE_MAX 65536
#define PM_CSV_COLUMNS_MAX 32

struct pm_csv {
    FILE *file; /* NULL: there is no such file */
    char path[4352];
    char *line; /* of the row at hand; the fields point into it */
    uint64_t number;
    char *fields[PM_CSV_COLUMNS_MAX];
    unsigned n_fields, n_columns;
    int places[PM_CSV_COLUMNS_MAX]; /* of the wanted columns; -1: absent */
};

/* Opens dir/name and finds the wanted columns by name, in whatever order they stand. The first
 * `needed` of them must be there. A file that does not exist is fine: it has no rows. */
PM_MUST_USE int pm_csv_open(struct pm_csv *ret_csv, const char *dir, const char *name,
                            const char *const *wanted, unsigned n_wanted, unsigned needed,
                            struct pm_error *err);
void pm_csv_close(struct pm_csv *csv);

/* 1: a row; 0: the end; < 0: error with a sentence. Empty lines are skipped. A last line without
 * its newline that lacks fields was being written when the process died: it counts as the end. */
PM_MUST_USE int pm_csv_next(struct pm_csv *csv, struct pm_error *err);

/* A field of the row at hand by its number among the wanted columns; "" where absent. */
const char *pm_csv_text(const struct pm_csv *csv, unsigned column);
/* A decimal number, not negative, times 10^digits as a whole number: seconds to ns are digits 9.
 * An empty field is 0 and *ret_present false (may be NULL). */
PM_MUST_USE int pm_csv_scaled(const struct pm_csv *csv, unsigned column, unsigned digits,
                              uint64_t *ret_value, bool *ret_present, struct pm_error *err);
/* A whole number that fits into 32 bits. */
PM_MUST_USE int pm_csv_u32(const struct pm_csv *csv, unsigned column, uint32_t *ret_value,
                           struct pm_error *err);

#endif
