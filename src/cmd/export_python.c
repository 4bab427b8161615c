/*
 * profilemate export: Arrow and Parquet, which the Python package writes with pyarrow.
 */
#include "cmd/export_formats.h"

#include <stdio.h>
#include <stdlib.h>

#include "cmd/cmd.h"
#include "cmd/python_part.h"

int pm_export_lake(const char *dir, const char *const *sessions, size_t n_sessions,
                   const struct pm_export_words *words)
{
    const struct pm_python_part part = {
        .asked = "--format=parquet --partition",
        .module = "profilemate.lake",
        .with = "pyarrow",
        .pip = "pyarrow",
        .python = words->python,
    };
    const char *list[PM_PYTHON_WORDS_MAX] = {words->out, words->quiet ? "quiet" : "",
                                             words->tables != NULL ? words->tables : "",
                                             dir != NULL ? dir : ""};
    size_t count = 4;
    for (size_t i = 0; i < n_sessions && count < PM_PYTHON_WORDS_MAX; i++)
        list[count++] = sessions[i];
    if (n_sessions == 0)
        list[count++] = ""; /* the newest */
    return pm_python_part(&part, list, count);
}

int pm_export_python(const struct pm_place *place, const struct pm_export_words *words)
{
    const char *const given[3] = {words->window.last, words->window.steps, words->window.request};
    static const char *const names[3] = {"last", "steps", "request"};
    const char *list[5] = {words->format, place->path, words->out, words->quiet ? "quiet" : "",
                           NULL};
    char asked[64], *span = NULL;
    size_t count = 4;

    for (int i = 0; i < 3 && span == NULL; i++)
        if (given[i] != NULL && asprintf(&span, "%s=%s", names[i], given[i]) < 0)
            return pm_complain("%s", pm_strerror(-PM_ENOMEM));
    if (span != NULL)
        list[count++] = span;
    snprintf(asked, sizeof(asked), "--format=%s", words->format);
    const struct pm_python_part part = {
        .asked = asked,
        .module = "profilemate.export",
        .with = "pyarrow",
        .pip = "pyarrow",
        .python = words->python,
    };
    const int code = pm_python_part(&part, list, count);
    free(span);
    return code;
}
