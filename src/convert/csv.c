/*
 * Reads CSV files. See csv.h.
 */
#include "convert/csv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void pm_csv_close(struct pm_csv *csv)
{
    if (csv->file != NULL)
        fclose(csv->file);
    free(csv->line);
    csv->file = NULL;
    csv->line = NULL;
}

static int bad(const struct pm_csv *csv, struct pm_error *err, const char *what)
{
    return pm_error_set(err, -PM_ECORRUPT, "%.300s, line %llu: %s", csv->path,
                        (unsigned long long)csv->number, what);
}

/* One line without its end. 1; 0 at the end of the file; *ret_whole: its newline was there. */
static int read_line(struct pm_csv *csv, bool *ret_whole, struct pm_error *err)
{
    if (fgets(csv->line, PM_CSV_LINE_MAX, csv->file) == NULL) {
        if (ferror(csv->file))
            return pm_error_set(err, -PM_EIO, "%.300s cannot be read, %s", csv->path,
                                strerror(errno));
        return 0;
    }
    csv->number++;
    size_t bytes = strlen(csv->line);
    *ret_whole = bytes > 0 && csv->line[bytes - 1] == '\n';
    if (!*ret_whole && bytes == PM_CSV_LINE_MAX - 1)
        return bad(csv, err, "the line is longer than 64 KiB, this is no CSV file of a profiler");
    if (!*ret_whole && !feof(csv->file))
        return bad(csv, err, "there is a NUL byte in it, this is no CSV file of a profiler");
    while (bytes > 0 && (csv->line[bytes - 1] == '\n' || csv->line[bytes - 1] == '\r'))
        csv->line[--bytes] = '\0';
    return 1;
}

/* Takes the line apart in place. */
static int split(struct pm_csv *csv, struct pm_error *err)
{
    char *at = csv->line;

    csv->n_fields = 0;
    for (;;) {
        if (csv->n_fields == PM_CSV_COLUMNS_MAX)
            return bad(csv, err, "there are more than 32 fields in it");
        csv->fields[csv->n_fields++] = at;
        if (*at != '"') {
            at += strcspn(at, ",");
        } else {
            char *to = at;
            for (at++; *at != '\0' && (*at != '"' || at[1] == '"'); at++) {
                if (*at == '"')
                    at++;
                *to++ = *at;
            }
            if (*at == '\0')
                return bad(csv, err, "a quoted field does not end on its line");
            at++;
            *to = '\0';
            if (*at != ',' && *at != '\0')
                return bad(csv, err, "there is text behind a quoted field");
        }
        if (*at == '\0')
            return 0;
        *at++ = '\0';
    }
}

static int find_columns(struct pm_csv *csv, const char *const *wanted, unsigned n_wanted,
                        unsigned needed, struct pm_error *err)
{
    csv->n_columns = csv->n_fields;
    for (unsigned w = 0; w < n_wanted; w++) {
        csv->places[w] = -1;
        for (unsigned f = 0; f < csv->n_fields; f++)
            if (strcmp(csv->fields[f], wanted[w]) == 0)
                csv->places[w] = (int)f;
        if (csv->places[w] < 0 && w < needed)
            return pm_error_set(err, -PM_EFORMAT,
                                "%.300s, line 1: there is no column %s, this is "
                                "no file of the profiler",
                                csv->path, wanted[w]);
    }
    return 0;
}

int pm_csv_open(struct pm_csv *ret_csv, const char *dir, const char *name,
                const char *const *wanted, unsigned n_wanted, unsigned needed, struct pm_error *err)
{
    struct pm_csv csv = {.file = NULL};
    struct stat st;
    bool whole;

    for (unsigned w = 0; w < PM_CSV_COLUMNS_MAX; w++)
        csv.places[w] = -1;
    snprintf(csv.path, sizeof(csv.path), "%s/%s", dir, name);
    const int fd = open(csv.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT) {
        *ret_csv = csv;
        return 0;
    }
    if (fd < 0)
        return pm_error_set(err, pm_error_from_errno(errno), "%.300s cannot be opened, %s",
                            csv.path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return pm_error_set(err, -PM_EFORMAT, "%.300s is no plain file", csv.path);
    }
    csv.file = fdopen(fd, "r");
    csv.line = malloc(PM_CSV_LINE_MAX);
    if (csv.file == NULL || csv.line == NULL) {
        if (csv.file == NULL)
            close(fd);
        pm_csv_close(&csv);
        return pm_error_set(err, -PM_ENOMEM, "%.300s cannot be opened, out of memory", csv.path);
    }
    int rc = read_line(&csv, &whole, err);
    if (rc == 1)
        rc = split(&csv, err);
    if (rc == 0 && csv.number > 0)
        rc = find_columns(&csv, wanted, n_wanted, needed, err);
    if (rc < 0) {
        pm_csv_close(&csv);
        return rc;
    }
    *ret_csv = csv;
    return 0;
}

int pm_csv_next(struct pm_csv *csv, struct pm_error *err)
{
    bool whole;
    int rc;

    if (csv->file == NULL || csv->number == 0)
        return 0;
    do {
        rc = read_line(csv, &whole, err);
        if (rc != 1)
            return rc;
    } while (csv->line[0] == '\0');
    rc = split(csv, err);
    if ((rc != 0 || csv->n_fields < csv->n_columns) && !whole)
        return 0;
    if (rc != 0)
        return rc;
    if (csv->n_fields != csv->n_columns) {
        char what[96];
        snprintf(what, sizeof(what), "%u fields, the header has %u", csv->n_fields, csv->n_columns);
        return bad(csv, err, what);
    }
    return 1;
}

const char *pm_csv_text(const struct pm_csv *csv, unsigned column)
{
    return csv->places[column] >= 0 ? csv->fields[csv->places[column]] : "";
}

int pm_csv_scaled(const struct pm_csv *csv, unsigned column, unsigned digits, uint64_t *ret_value,
                  bool *ret_present, struct pm_error *err)
{
    const char *text = pm_csv_text(csv, column);
    char *end;

    if (ret_present != NULL)
        *ret_present = *text != '\0';
    *ret_value = 0;
    if (*text == '\0')
        return 0;
    errno = 0;
    const double value = strtod(text, &end);
    double scaled = value;
    for (unsigned d = 0; d < digits; d++)
        scaled *= 10;
    if (end == text || *end != '\0' || !(value >= 0) || !(scaled < 9e18) ||
        strspn(text, "0123456789.eE+-") != strlen(text)) {
        char what[128];
        snprintf(what, sizeof(what), "\"%.40s\" is no number that can stand here", text);
        for (char *c = what; *c != '\0'; c++)
            if (*c < ' ' || *c == 127)
                *c = '?';
        return bad(csv, err, what);
    }
    *ret_value = (uint64_t)(scaled + 0.5);
    return 0;
}

int pm_csv_u32(const struct pm_csv *csv, unsigned column, uint32_t *ret_value, struct pm_error *err)
{
    uint64_t value;
    int rc = pm_csv_scaled(csv, column, 0, &value, NULL, err);
    if (rc == 0 && value > UINT32_MAX)
        return bad(csv, err, "a number in it is larger than it can be");
    if (rc == 0)
        *ret_value = (uint32_t)value;
    return rc;
}
