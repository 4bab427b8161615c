/*
 * The formats of `profilemate export` beside the seeds' files and the native tables: what one file
 * holds (export_stream.c) and what the Python package writes (export_python.c).
 */
#ifndef PM_CMD_EXPORT_FORMATS_H
#define PM_CMD_EXPORT_FORMATS_H

#include "cmd/place.h"
#include "reader/reader.h"
#include "view/window.h"

struct pm_export_words {
    const char *format;
    const char *out;    /* NULL: not given */
    const char *series; /* the interval; NULL: a snapshot */
    const char *python; /* NULL: the one beside this program, else python3 */
    const char *trace;  /* a torch trace to put beside the session; NULL: none */
    bool partition;
    const char *tables; /* of a lake; NULL: all */
    bool quiet;
    struct pm_window_options window;
};

/* chrome, perfetto, openmetrics: to the file `out` (into it, where it is a folder), else to stdout.
 * Returns an exit code. */
int pm_export_stream(const struct pm_session *session, const struct pm_export_words *words);
bool pm_export_is_stream(const char *format);

/* arrow, parquet: Python takes over this process; returns only when that fails. */
int pm_export_python(const struct pm_place *place, const struct pm_export_words *words);

/* parquet --partition: likewise. The sessions are found there, each by itself; none: the newest. */
int pm_export_lake(const char *dir, const char *const *sessions, size_t n_sessions,
                   const struct pm_export_words *words);

#endif
