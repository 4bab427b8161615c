/*
 * profilemate._reader: tables in parts (view/table_part.h), for the Parquet lake and for Spark, and
 * what a lake tells of a session, its engines and its processes.
 */
#include "binding/binding.h"

#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX (PM_TABLE_COLUMNS_MAX + 1)

static PyObject *number(uint64_t value)
{
    return PyLong_FromUnsignedLongLong(value);
}

/* ---- what there is ---- */

/* What describe() says of a process, and where and when its file was written. */
static PyObject *survey_process(const struct pm_process *process)
{
    const struct pm_process_info *info = pm_process_info(process);
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"opened_real_ns", info->opened_real_ns},
        {"opened_mono_ns", info->opened_mono_ns},
        {"closed_mono_ns", info->closed_ns},
        {"last_mono_ns", info->last_ns},
        {"damaged_segments", info->damaged_segments},
        {"faults", info->faults},
        {"hook_calls", info->hook_calls},
        {"hook_ns", info->hook_ns},
    };
    PyObject *dict = pm_binding_process(process);
    int rc = dict != NULL ? pm_binding_put(dict, "file", pm_binding_text(info->file)) : -1;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]) && rc == 0; i++)
        rc = pm_binding_put(dict, numbers[i].key, number(numbers[i].value));
    if (rc != 0)
        Py_CLEAR(dict);
    return dict;
}

/* Place of a process in the session's list; -1: none. */
static long place_of(const struct pm_session *session, const struct pm_process *process)
{
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        if (pm_session_process(session, i) == process)
            return (long)i;
    return -1;
}

struct gathering {
    const struct pm_session *session;
    const char *table;
    PyObject *sources;
};

static PyObject *list_of_cuts(const struct pm_session *session,
                              const struct pm_table_source *source)
{
    struct pm_table_cut *cuts = NULL;
    size_t count = 0;
    const struct pm_error err = {""};
    int rc = pm_table_cuts(session, source, &cuts, &count);
    if (rc != 0)
        return pm_binding_raise(rc, &err);
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++)
        if (pm_binding_add(list, Py_BuildValue("(KK)", (unsigned long long)cuts[i].position,
                                               (unsigned long long)cuts[i].at_ns)) != 0)
            Py_CLEAR(list);
    free(cuts);
    return list;
}

static int gather_source(const struct pm_table_source *source, void *arg)
{
    const struct gathering *gathering = arg;
    PyObject *cuts = list_of_cuts(gathering->session, source);
    if (cuts == NULL)
        return 1;
    return pm_binding_add(
        gathering->sources,
        Py_BuildValue("{s:N,s:N,s:i,s:i,s:l,s:O,s:N}", "table", pm_binding_text(gathering->table),
                      "source", pm_binding_text(source->name), "engine", source->engine, "rank",
                      source->rank, "process", place_of(gathering->session, source->process),
                      "over", source->over ? Py_True : Py_False, "cuts", cuts));
}

static int gather_table(const char *name, const char *sentence, void *arg)
{
    struct gathering *gathering = arg;
    const struct pm_error err = {""};
    (void)sentence;
    gathering->table = name;
    int rc = pm_table_sources(gathering->session, name, gather_source, gathering);
    if (rc < 0 && !PyErr_Occurred())
        pm_binding_raise(rc, &err);
    return rc;
}

static PyObject *survey_engine(const struct pm_session *session, size_t i)
{
    const struct pm_engine *engine = pm_session_engine(session, i);
    PyObject *workers = PyList_New(0);
    for (unsigned n = 0; workers != NULL && n < engine->n_ranks; n++) {
        const struct pm_process *process;
        unsigned instance;
        int rank;
        if (pm_engine_worker(session, i, n, &process, &instance, &rank) != 0)
            continue;
        if (pm_binding_add(workers, PyLong_FromLong(place_of(session, process))) != 0)
            Py_CLEAR(workers);
    }
    if (workers == NULL)
        return NULL;
    return Py_BuildValue("{s:I,s:l,s:I,s:I,s:N}", "number", engine->number, "process",
                         place_of(session, engine->process), "instance", engine->instance, "ranks",
                         engine->n_ranks, "workers", workers);
}

PyObject *pm_binding_survey(PyObject *module, PyObject *args)
{
    const char *path;
    char token[2 * PM_TOKEN_BYTES + 1];
    PyObject *dict = NULL, *processes = NULL, *engines = NULL, *notes = NULL;
    (void)module;

    if (!PyArg_ParseTuple(args, "O&", pm_binding_take, &path))
        return NULL;
    struct pm_session *session = pm_binding_session(path);
    if (session == NULL)
        return NULL;
    const struct pm_session_info *info = pm_session_info(session);
    struct gathering gathering = {.session = session, .sources = PyList_New(0)};
    processes = PyList_New(0);
    engines = PyList_New(0);
    notes = PyList_New(0);
    if (gathering.sources == NULL || processes == NULL || engines == NULL || notes == NULL ||
        pm_native_tables(session, gather_table, &gathering) != 0)
        goto done;
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        if (pm_binding_add(processes, survey_process(pm_session_process(session, i))) != 0)
            goto done;
    for (size_t i = 0; i < pm_session_engine_count(session); i++)
        if (pm_binding_add(engines, survey_engine(session, i)) != 0)
            goto done;
    for (size_t i = 0; i < pm_session_note_count(session); i++)
        if (pm_binding_add(notes, pm_binding_text(pm_session_note(session, i))) != 0)
            goto done;
    for (int i = 0; i < PM_TOKEN_BYTES; i++)
        snprintf(token + 2 * i, 3, "%02x", info->token[i]);
    dict =
        Py_BuildValue("{s:N,s:s,s:s,s:K,s:K,s:O,s:O,s:O,s:O}", "name", pm_binding_text(info->name),
                      "token", token, "state", pm_session_state(session), "start_real_ns",
                      (unsigned long long)info->start_real_ns, "start_mono_ns",
                      (unsigned long long)info->start_mono_ns, "processes", processes, "engines",
                      engines, "sources", gathering.sources, "notes", notes);
done:
    Py_XDECREF(gathering.sources);
    Py_XDECREF(processes);
    Py_XDECREF(engines);
    Py_XDECREF(notes);
    pm_session_close(session);
    return dict;
}

/* Reads every record, so that all damage is met. */
static int walk_all(const struct pm_session *session)
{
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        for (int s = 0; s < PM_STREAM_COUNT; s++) {
            struct pm_cursor *cursor;
            struct pm_record record;
            int rc = pm_cursor_open(&cursor, pm_session_process(session, i), (enum pm_stream)s);
            if (rc != 0)
                return rc;
            while ((rc = pm_cursor_next(cursor, &record)) == 1)
                continue;
            pm_cursor_close(cursor);
            if (rc < 0)
                return rc;
        }
    return 0;
}

PyObject *pm_binding_notes(PyObject *module, PyObject *args)
{
    const char *path;
    const struct pm_error err = {""};
    int rc;
    (void)module;

    if (!PyArg_ParseTuple(args, "O&", pm_binding_take, &path))
        return NULL;
    struct pm_session *session = pm_binding_session(path);
    if (session == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS rc = walk_all(session);
    Py_END_ALLOW_THREADS PyObject *notes = rc == 0 ? PyList_New(0) : pm_binding_raise(rc, &err);
    for (size_t i = 0; notes != NULL && i < pm_session_note_count(session); i++)
        if (pm_binding_add(notes, pm_binding_text(pm_session_note(session, i))) != 0)
            Py_CLEAR(notes);
    pm_session_close(session);
    return notes;
}

/* ---- how far, and the rows ---- */

PyObject *pm_binding_settled(PyObject *module, PyObject *args)
{
    const char *path, *table, *source;
    struct pm_table_source found;
    struct pm_error err = {""};
    unsigned long long from;
    uint64_t position = 0;
    int rc;
    (void)module;

    if (!PyArg_ParseTuple(args, "O&O&O&K", pm_binding_take, &path, pm_binding_take, &table,
                          pm_binding_take, &source, &from))
        return NULL;
    struct pm_session *session = pm_binding_session(path);
    if (session == NULL)
        return NULL;
    PyThreadState *outside = PyEval_SaveThread();
    rc = pm_table_source(session, table, source, &found);
    if (rc == 0)
        rc = pm_table_settled(session, &found, from, &position);
    pm_session_close(session);
    PyEval_RestoreThread(outside);
    return rc == 0 ? number(position) : pm_binding_raise(rc, &err);
}

/* The names of a sequence of bytes; NULL in *ret_names for None. 0, or -1 with an exception. */
static int take_columns(PyObject *list, const char *names[COLUMNS_MAX],
                        const char *const **ret_names)
{
    *ret_names = NULL;
    if (list == Py_None)
        return 0;
    const Py_ssize_t count = PyList_Size(list);
    if (count < 0)
        return -1;
    if (count >= COLUMNS_MAX) {
        PyErr_SetString(PyExc_ValueError, "more columns than a table can have");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *name;
        if (PyBytes_AsStringAndSize(PyList_GetItem(list, i), &name, NULL) != 0)
            return -1;
        names[i] = name;
    }
    names[count] = NULL;
    *ret_names = names;
    return 0;
}

PyObject *pm_binding_part(PyObject *module, PyObject *args)
{
    const char *path, *table, *source, *names[COLUMNS_MAX];
    const char *const *columns;
    PyObject *list;
    unsigned long long from, to;
    unsigned long rows;
    struct pm_error err = {""};
    int rc;
    (void)module;

    if (!PyArg_ParseTuple(args, "O&O&O&KKOk", pm_binding_take, &path, pm_binding_take, &table,
                          pm_binding_take, &source, &from, &to, &list, &rows) ||
        take_columns(list, names, &columns) != 0)
        return NULL;
    struct ArrowArrayStream *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS rc =
        pm_arrow_stream_part(path, table, source, from, to, columns, rows, made, &err);
    Py_END_ALLOW_THREADS if (rc != 0)
    {
        free(made);
        return pm_binding_raise(rc, &err);
    }
    return pm_binding_stream(made);
}
