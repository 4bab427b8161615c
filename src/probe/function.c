/*
 * Probe functions: function tracing, where VLLM_TRACE_FUNCTION (the setting trace_function) asks
 * for it. Begins with the first engine configuration, engine core or worker of a process, under
 * the GIL; from then on the tracers (function_monitor.c, function_profile.c) see every call.
 *
 * Owns the table beside the record file. A child of fork() begins anew when it becomes an engine or
 * worker itself; until then nothing is counted in it.
 */
#include "probe/function.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hook/read.h"
#include "recorder/table.h"
#include "session/attrs.h"

struct pm_tracer pm_tracer;
struct pm_tracer_last pm_tracer_last;
_Thread_local struct pm_calls_thread pm_tracer_here;

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_function_call, member, type, unit, kind, agg, doc)
static const struct pm_field fields[] = {
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "the function was called, or resumed"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_NONE, "to its return or yield"),
    F(node, U32, "", ID, PM_AGG_NONE, "its call path: the node in the table of functions"),
    F(tid, U32, "", ID, PM_AGG_NONE, "thread"),
};
#undef F
/* clang-format on */

static const struct pm_schema function_call_schema = {
    .name = "function_call",
    .stream = PM_STREAM_CUSTOM,
    .payload_bytes = sizeof(struct pm_function_call),
    .classes = 1,
    .doc = "The longest calls of traced functions, at most about 10000 a second.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};
static const struct pm_schema *const schemas[] = {&function_call_schema};

static struct {
    struct pm_table table;
    unsigned schema;
    pid_t tried; /* the process that has begun, or could not */
    pthread_key_t key;
    bool watched;
} state = {.table.fd = -1};

/* ---- threads ---------------------------------------------------------------------------------
 */

static void thread_ends(void *thread)
{
    const void *self = pm_tracer_self();
    (void)atomic_compare_exchange_strong(&pm_tracer_last.self, &self, NULL);
    pm_calls_thread_release(thread);
}

/* The name that threading knows this thread by; false where it does not (yet). */
static bool thread_name(char *out, size_t size)
{
    static struct pm_name n_active = PM_NAME("_active"), n_name = PM_NAME("_name");
    PyObject *threading = PyDict_GetItemString(PyImport_GetModuleDict(), "threading");
    PyObject *active = threading ? pm_read_attr(threading, &n_active) : NULL;
    PyObject *ident = active ? PyLong_FromUnsignedLong(PyThread_get_thread_ident()) : NULL;
    PyObject *thread = ident ? pm_dict_item(active, ident) : NULL; /* borrowed */
    bool known = false;
    if (thread) {
        Py_INCREF(thread);
        known = pm_read_text(thread, &n_name, out, size, NULL) && out[0] != '\0';
        Py_DECREF(thread);
    }
    Py_XDECREF(ident);
    Py_XDECREF(active);
    pm_guard_discard();
    return known;
}

static bool meet(struct pm_calls_thread *here, uint64_t now_ns)
{
    char name[64];
    const pid_t tid = (pid_t)syscall(SYS_gettid);
    (void)pthread_setspecific(state.key, here);
    const char *known = thread_name(name, sizeof name) ? name : NULL;
    if (!known && tid == getpid())
        known = "MainThread"; /* before threading was imported */
    return pm_calls_thread_begin(&pm_tracer.calls, here, (uint32_t)tid, known, now_ns);
}

struct pm_calls_thread *pm_tracer_find(uint64_t now_ns)
{
    struct pm_calls_thread *here = &pm_tracer_here;
    struct pm_guard_thread *guard = &pm_guard_here;
    if (guard->inside != 0)
        return NULL;
    if (here->epoch != pm_tracer.calls.epoch) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        guard->inside++;
        bool met = meet(here, now_ns);
        guard->inside--;
        PyErr_Restore(type, value, traceback);
        if (!met)
            return NULL;
        here->gap = pm_tracer.gap;
    }
    if (here->gap != pm_tracer.gap) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        guard->inside++;
        pm_profile_after_pause(here, now_ns);
        here->gap = pm_tracer.gap;
        guard->inside--;
        PyErr_Restore(type, value, traceback);
    }
    pm_tracer_last.here = here;
    pm_tracer_last.guard = guard;
    atomic_store_explicit(&pm_tracer_last.self, pm_tracer_self(), memory_order_relaxed);
    return here;
}

void pm_tracer_name(struct pm_calls_thread *here)
{
    char name[64];
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pm_guard_here.inside++;
    if (thread_name(name, sizeof name))
        pm_calls_thread_name(&pm_tracer.calls, here, name);
    else if (++here->asked == PM_TRACER_ASK)
        here->named = true; /* nobody knows it */
    pm_guard_here.inside--;
    PyErr_Restore(type, value, traceback);
}

/* ---- records ---------------------------------------------------------------------------------
 */

static void record(uint64_t start_ns, uint64_t dur_ns, uint32_t node, uint32_t tid)
{
    struct pm_recorder *rec = pm_facts();
    struct pm_function_call *fact = rec ? pm_recorder_reserve(rec, state.schema) : NULL;
    if (!fact)
        return;
    *fact =
        (struct pm_function_call){.start_ns = start_ns, .dur_ns = dur_ns, .node = node, .tid = tid};
    pm_recorder_commit(rec, fact);
}

/* ---- begin -----------------------------------------------------------------------------------
 */

/* The parent's table is the parent's. Only what a signal handler could do. */
static void in_child(void)
{
    pm_tracer.live = false;
    pm_pause_forget();
    pm_table_forget(&state.table);
}

static bool make_table(struct pm_recorder *rec, char *why, size_t size)
{
    struct pm_error err = {{0}};
    const struct pm_file_head *file = pm_recorder_head(rec);
    if (pm_table_make(&state.table, rec, PM_FUNCTION_SUFFIX, pm_calls_table_bytes(), &err) != 0) {
        snprintf(why, size, "its table could not be made: %s", err.text);
        return false;
    }
    pm_calls_release(&pm_tracer.calls);
    free(pm_tracer.fresh);
    pm_tracer.fresh = calloc(PM_FUNCTION_ROWS, sizeof *pm_tracer.fresh);
    if (!pm_tracer.fresh || !pm_calls_begin(&pm_tracer.calls, state.table.base, record)) {
        snprintf(why, size, "no memory");
        return false;
    }
    struct pm_function_head *head = pm_tracer.calls.head;
    memcpy(head->token, file->token, sizeof head->token);
    head->pid = file->pid;
    head->by = pm_monitor_exists() ? PM_FUNCTION_BY_MONITORING : PM_FUNCTION_BY_PROFILE;
    head->start_ns = head->last_ns = pm_clock_now_ns();
    snprintf(head->filter, sizeof head->filter, "%.511s", pm_facts_settings()->trace_function);
    __atomic_store_n(&head->magic, PM_FUNCTION_MAGIC, __ATOMIC_RELEASE);
    return true;
}

static bool start(struct pm_recorder *rec, char *why, size_t size)
{
    if (!state.watched) {
        if (pthread_key_create(&state.key, thread_ends) != 0 ||
            pthread_atfork(NULL, NULL, in_child) != 0) {
            snprintf(why, size, "no memory");
            return false;
        }
        state.watched = true;
    }
    if (!make_table(rec, why, size))
        return false;
    pm_tracer.live = true;
    pm_tracer.live =
        pm_monitor_exists() ? pm_monitor_start(why, size) : pm_profile_start(why, size);
    return pm_tracer.live;
}

static void begin(void)
{
    struct pm_recorder *rec = pm_facts();
    if (!rec || state.tried == getpid())
        return;
    state.tried = getpid();
    state.schema = pm_facts_schema(&function_call_schema);
    char why[640] = "", text[768];
    if (start(rec, why, sizeof why)) {
        pm_facts_attr(PM_ATTR_FUNCTIONS,
                      pm_monitor_exists() ? "sys.monitoring" : "PyEval_SetProfile");
        return;
    }
    snprintf(text, sizeof text, "off: %s", why);
    pm_facts_attr(PM_ATTR_FUNCTIONS, text);
    snprintf(text, sizeof text, "functions are not traced in this process: %s", why);
    pm_facts_attr(PM_ATTR_NOTE_PREFIX "functions", text);
    pm_guard_discard();
}

static void finish(struct pm_recorder *rec, uint64_t now_ns)
{
    (void)rec;
    if (pm_tracer.live)
        pm_tracer.calls.head->last_ns = now_ns;
    pm_pause_finish(now_ns);
    pm_tracer.live = false;
}

/* ---- the probe --------------------------------------------------------------------------------
 */

static void enter(struct pm_call *call)
{
    (void)call;
    begin();
}

/* A front end is one when it has configured an engine. */
static void leave(struct pm_call *call)
{
    if (call->result && call->result != Py_None)
        begin();
}

/* The places that the probe session looks at as well: here a process becomes what it is. */
static const struct pm_target targets[] = {
    {.module = "vllm.engine.arg_utils",
     .qualname = "EngineArgs.create_engine_config",
     .kind = PM_TARGET_METHOD,
     .flags = PM_TARGET_OPTIONAL,
     .versions = "0.11.0+",
     .leave = leave},
    {.module = "vllm.v1.engine.core",
     .qualname = "EngineCore.__init__",
     .kind = PM_TARGET_METHOD,
     .flags = PM_TARGET_OPTIONAL,
     .versions = "0.11.0+",
     .enter = enter},
    {.module = "vllm.v1.worker.gpu_worker",
     .qualname = "Worker.__init__",
     .kind = PM_TARGET_METHOD,
     .flags = PM_TARGET_OPTIONAL,
     .versions = "0.11.0+",
     .enter = enter},
};

static const struct pm_target *more(const struct pm_settings *settings, size_t *ret_n)
{
    const struct pm_function_filter *filter = &pm_tracer.filter;
    (void)settings;
    if (filter->custom)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "functions.custom",
                      "VLLM_TRACE_FUNCTION=custom traces what VLLM_PROFILING_CUSTOM names, which "
                      "is empty: the functions of vllm are traced");
    if (filter->beyond > 0)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "functions.names",
                      "VLLM_TRACE_FUNCTION names more than 128 things: those beyond are left out");
    static struct pm_target all[8];
    size_t n_pause;
    const struct pm_target *pausing = pm_pause_targets(&n_pause);
    memcpy(all, targets, sizeof targets);
    memcpy(all + sizeof targets / sizeof *targets, pausing, n_pause * sizeof *pausing);
    *ret_n = sizeof targets / sizeof *targets + n_pause;
    return all;
}

static bool enabled(const struct pm_settings *settings)
{
    pm_function_filter_parse(settings->trace_function, settings->custom, &pm_tracer.filter);
    return pm_tracer.filter.on;
}

const struct pm_probe pm_probe_functions = {
    .name = "functions",
    .control = PM_PROBE_SPINE | PM_PROBE_EARLY | PM_PROBE_STAYS,
    .early = "threads are traced from their first call",
    .component = "function tracing",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .more = more,
    .finish = finish,
};
