/*
 * profilemate._reader: the C reader for the Python package (python/profilemate/session.py). Plain
 * functions on the path of a session; each opens it for itself, so that nothing is shared between
 * threads, and lets other Python threads run meanwhile.
 *
 * Built against the limited API of 3.10, one file for 3.10 to 3.14. Tables go out as capsules of
 * the Arrow PyCapsule protocol (view/arrow_view.h). Failures are Python exceptions with the
 * reader's sentence. Paths come as bytes, texts go out as str.
 */
#include "binding/binding.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/place.h"
#include "view/arrow_view.h"

PyObject *pm_binding_raise(int code, const struct pm_error *err)
{
    PyObject *type = PyExc_OSError;
    const char *text = err->text[0] != '\0' ? err->text : pm_strerror(code);
    if (code == -PM_ENOMEM)
        return PyErr_NoMemory();
    if (code == -PM_ENOTFOUND)
        type = PyExc_FileNotFoundError;
    else if (code == -PM_EPERMISSION)
        type = PyExc_PermissionError;
    else if (code == -PM_EINVALID || code == -PM_EFORMAT || code == -PM_EVERSION)
        type = PyExc_ValueError;
    PyObject *sentence = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    if (sentence != NULL)
        PyErr_SetObject(type, sentence);
    Py_XDECREF(sentence);
    return NULL;
}

int pm_binding_take(PyObject *object, void *ret_text)
{
    char *text = NULL;
    if (object != Py_None && PyBytes_AsStringAndSize(object, &text, NULL) != 0)
        return 0;
    *(const char **)ret_text = text;
    return 1;
}

int pm_binding_put(PyObject *dict, const char *key, PyObject *value)
{
    int rc = value != NULL ? PyDict_SetItemString(dict, key, value) : -1;
    Py_XDECREF(value);
    return rc;
}

PyObject *pm_binding_text(const char *bytes)
{
    return PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)strlen(bytes), "replace");
}

struct pm_session *pm_binding_session(const char *path)
{
    struct pm_session *session = NULL;
    struct pm_error err = {""};
    int rc;
    Py_BEGIN_ALLOW_THREADS rc = pm_session_open(&session, path, &err);
    Py_END_ALLOW_THREADS if (rc != 0) pm_binding_raise(rc, &err);
    return session;
}

/* ---- which session, and what is in it ---- */

static PyObject *resolve(PyObject *module, PyObject *args)
{
    const char *meant, *dir;
    struct pm_error err = {""};
    (void)module;

    if (!PyArg_ParseTuple(args, "O&O&", pm_binding_take, &meant, pm_binding_take, &dir))
        return NULL;
    struct pm_place *place = malloc(sizeof(*place));
    if (place == NULL)
        return PyErr_NoMemory();
    int rc = pm_place_resolve(dir, meant, place, &err);
    if (rc == 0 && place->old)
        rc = pm_error_set(&err, -PM_EINVALID,
                          "%s has the CSV files of the Python profiler, make a session of it with "
                          "`profilemate convert`",
                          place->path);
    PyObject *path = rc == 0 ? PyBytes_FromString(place->path) : pm_binding_raise(rc, &err);
    free(place);
    return path;
}

PyObject *pm_binding_process(const struct pm_process *process)
{
    const struct pm_process_info *info = pm_process_info(process);
    uint64_t records = 0, lost = 0, recycled = 0;
    char roles[64];
    PyObject *dict = PyDict_New(), *attrs = PyDict_New();

    for (int s = 0; s < PM_STREAM_COUNT; s++) {
        records += info->records[s];
        lost += info->lost[s];
        recycled += info->recycled[s];
    }
    pm_roles_name(info->roles, roles, sizeof(roles));
    if (dict == NULL || attrs == NULL ||
        pm_binding_put(dict, "pid", PyLong_FromUnsignedLong(info->pid)) ||
        pm_binding_put(dict, "role", pm_binding_text(roles)) ||
        pm_binding_put(dict, "engine", PyLong_FromLong(info->engine)) ||
        pm_binding_put(dict, "rank", PyLong_FromLong(info->rank)) ||
        pm_binding_put(dict, "state", pm_binding_text(pm_life_name(info->life))) ||
        pm_binding_put(dict, "records", PyLong_FromUnsignedLongLong(records)) ||
        pm_binding_put(dict, "lost", PyLong_FromUnsignedLongLong(lost)) ||
        pm_binding_put(dict, "recycled", PyLong_FromUnsignedLongLong(recycled)))
        goto failed;
    for (size_t i = 0; i < pm_process_attr_count(process); i++) {
        const char *key, *value;
        pm_process_attr_at(process, i, &key, &value);
        PyObject *name = pm_binding_text(key), *said = pm_binding_text(value);
        int rc = name != NULL && said != NULL ? PyDict_SetItem(attrs, name, said) : -1;
        Py_XDECREF(name);
        Py_XDECREF(said);
        if (rc != 0)
            goto failed;
    }
    if (PyDict_SetItemString(dict, "attributes", attrs) != 0)
        goto failed;
    Py_DECREF(attrs);
    return dict;
failed:
    Py_XDECREF(dict);
    Py_XDECREF(attrs);
    return NULL;
}

int pm_binding_add(PyObject *list, PyObject *item)
{
    int rc = item != NULL ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return rc;
}

static int add_table(const char *name, const char *sentence, void *list)
{
    return pm_binding_add(list,
                          Py_BuildValue("(NN)", pm_binding_text(name), pm_binding_text(sentence)));
}

static PyObject *describe(PyObject *module, PyObject *args)
{
    const char *path;
    PyObject *tables = NULL, *notes = NULL, *processes = NULL, *result = NULL;
    (void)module;

    if (!PyArg_ParseTuple(args, "O&", pm_binding_take, &path))
        return NULL;
    struct pm_session *session = pm_binding_session(path);
    if (session == NULL)
        return NULL;
    const struct pm_session_info *info = pm_session_info(session);
    tables = PyList_New(0);
    notes = PyList_New(0);
    processes = PyList_New(0);
    if (tables == NULL || notes == NULL || processes == NULL ||
        pm_native_tables(session, add_table, tables) != 0)
        goto done;
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        if (pm_binding_add(processes, pm_binding_process(pm_session_process(session, i))) != 0)
            goto done;
    for (size_t i = 0; i < pm_session_note_count(session); i++)
        if (pm_binding_add(notes, pm_binding_text(pm_session_note(session, i))) != 0)
            goto done;
    result = Py_BuildValue("{s:N,s:s,s:K,s:K,s:O,s:O,s:O}", "name", pm_binding_text(info->name),
                           "state", pm_session_state(session), "start_real_ns",
                           (unsigned long long)info->start_real_ns, "start_mono_ns",
                           (unsigned long long)info->start_mono_ns, "tables", tables, "processes",
                           processes, "notes", notes);
done:
    Py_XDECREF(tables);
    Py_XDECREF(notes);
    Py_XDECREF(processes);
    pm_session_close(session);
    return result;
}

/* The report as JSON text. */
static PyObject *report(PyObject *module, PyObject *args)
{
    const char *path;
    struct pm_error err = {""};
    char *json = NULL;
    size_t bytes = 0;
    int rc = -PM_ENOMEM;
    (void)module;

    if (!PyArg_ParseTuple(args, "O&", pm_binding_take, &path))
        return NULL;
    struct pm_session *session = pm_binding_session(path);
    if (session == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS FILE *out = open_memstream(&json, &bytes);
    if (out != NULL) {
        rc = pm_view_report_json(session, NULL, out, &err);
        if (fclose(out) != 0 && rc == 0)
            rc = -PM_ENOMEM;
    }
    pm_session_close(session);
    Py_END_ALLOW_THREADS PyObject *result =
        rc == 0 ? PyUnicode_DecodeUTF8(json, (Py_ssize_t)bytes, "replace")
                : pm_binding_raise(rc, &err);
    free(json);
    return result;
}

/* ---- tables ---- */

static void free_stream(PyObject *capsule)
{
    struct ArrowArrayStream *stream = PyCapsule_GetPointer(capsule, "arrow_array_stream");
    if (stream->release != NULL) /* nobody took it */
        stream->release(stream);
    free(stream);
}

static void free_schema(PyObject *capsule)
{
    struct ArrowSchema *schema = PyCapsule_GetPointer(capsule, "arrow_schema");
    if (schema->release != NULL)
        schema->release(schema);
    free(schema);
}

/* What the two functions below take: path, table, last, steps, request, rows of a batch. */
static int open_stream(PyObject *args, struct ArrowArrayStream *stream)
{
    const char *path, *table;
    struct pm_window_options window = {0};
    struct pm_error err = {""};
    unsigned long rows = 0;
    int rc;

    if (!PyArg_ParseTuple(args, "O&O&O&O&O&|k", pm_binding_take, &path, pm_binding_take, &table,
                          pm_binding_take, &window.last, pm_binding_take, &window.steps,
                          pm_binding_take, &window.request, &rows))
        return -1;
    Py_BEGIN_ALLOW_THREADS rc = pm_arrow_stream(path, table, &window, rows, stream, &err);
    Py_END_ALLOW_THREADS if (rc != 0) pm_binding_raise(rc, &err);
    return rc == 0 ? 0 : -1;
}

PyObject *pm_binding_stream(struct ArrowArrayStream *made)
{
    PyObject *capsule = PyCapsule_New(made, "arrow_array_stream", free_stream);
    if (capsule == NULL) {
        made->release(made);
        free(made);
    }
    return capsule;
}

static PyObject *stream(PyObject *module, PyObject *args)
{
    struct ArrowArrayStream *made = calloc(1, sizeof(*made));
    (void)module;
    if (made == NULL)
        return PyErr_NoMemory();
    if (open_stream(args, made) != 0) {
        free(made);
        return NULL;
    }
    return pm_binding_stream(made);
}

static PyObject *schema(PyObject *module, PyObject *args)
{
    struct ArrowArrayStream stream;
    (void)module;
    if (open_stream(args, &stream) != 0)
        return NULL;
    struct ArrowSchema *made = calloc(1, sizeof(*made));
    const int rc = made != NULL ? stream.get_schema(&stream, made) : -1;
    stream.release(&stream);
    PyObject *capsule =
        rc == 0 ? PyCapsule_New(made, "arrow_schema", free_schema) : PyErr_NoMemory();
    if (capsule == NULL && rc == 0)
        made->release(made);
    if (capsule == NULL)
        free(made);
    return capsule;
}

/* The columns of a table: (name, unit, kind, description) each. */
static PyObject *columns(PyObject *module, PyObject *args)
{
    static const char *const kinds[PM_KIND_COUNT_] = {"id",    "time",  "duration",
                                                      "count", "gauge", "flags"};
    const char *path, *name;
    struct pm_table *table;
    struct pm_error err = {""};
    (void)module;

    if (!PyArg_ParseTuple(args, "O&O&", pm_binding_take, &path, pm_binding_take, &name))
        return NULL;
    struct pm_session *session = pm_binding_session(path);
    if (session == NULL)
        return NULL;
    PyObject *list = NULL;
    int rc = pm_table_open(&table, session, name, &err);
    if (rc != 0) {
        pm_binding_raise(rc, &err);
        goto done;
    }
    list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < table->n_columns; i++) {
        const struct pm_table_column *column = &table->columns[i];
        if (pm_binding_add(list, Py_BuildValue("(NNsN)", pm_binding_text(column->name),
                                               pm_binding_text(column->unit),
                                               kinds[(unsigned)column->kind % PM_KIND_COUNT_],
                                               pm_binding_text(column->doc))) != 0)
            Py_CLEAR(list);
    }
    pm_table_close(table);
done:
    pm_session_close(session);
    return list;
}

/* ---- the module ---- */

static PyMethodDef functions[] = {
    {"resolve", resolve, METH_VARARGS,
     "resolve(meant, dir) -> bytes: the folder of a session, by path, name, start of a name; None: "
     "the newest"},
    {"describe", describe, METH_VARARGS,
     "describe(path) -> dict: name, state, start, tables, processes, notes"},
    {"report", report, METH_VARARGS, "report(path) -> str: the report as JSON"},
    {"columns", columns, METH_VARARGS,
     "columns(path, table) -> list of (name, unit, kind, description)"},
    {"stream", stream, METH_VARARGS,
     "stream(path, table, last, steps, request, batch_rows=0) -> capsule arrow_array_stream"},
    {"schema", schema, METH_VARARGS,
     "schema(path, table, last, steps, request, batch_rows=0) -> capsule arrow_schema"},
    {"survey", pm_binding_survey, METH_VARARGS,
     "survey(path) -> dict: token, engines, processes, and the sources of every table"},
    {"notes", pm_binding_notes, METH_VARARGS,
     "notes(path) -> list of str: all that cannot be read, found by reading everything"},
    {"settled", pm_binding_settled, METH_VARARGS,
     "settled(path, table, source, from) -> int: rows before this position read the same for ever"},
    {"part", pm_binding_part, METH_VARARGS,
     "part(path, table, source, from, to, columns, batch_rows) -> capsule arrow_array_stream"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "profilemate._reader",
    .m_doc = "The C reader: sessions and their tables.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__reader(void);
PyMODINIT_FUNC PyInit__reader(void)
{
    return PyModuleDef_Init(&definition);
}
