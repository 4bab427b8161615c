/*
 * Probe custom: times the callables that the user names in VLLM_PROFILING_CUSTOM, one record per
 * call in the custom stream.
 *
 * Runs in whatever process and thread calls them, under the GIL. The targets are made once from the
 * setting (base/custom.h) and live as long as the process; what must not be hooked is refused with
 * a note that `doctor` shows: by name (base/custom.def) or, when the object is there, as a method
 * of a torch.nn.Module.
 */
#include "probe/probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/custom.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "session/attrs.h"
#include "session/custom_facts.h"

_Static_assert(PM_CUSTOM_CLASSES == PM_CUSTOM_MAX, "each hook has its series");

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_custom_call, member, type, unit, kind, agg, doc)
static const struct pm_field fields[] = {
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "the callable was called"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_SUM, "to its return; of a coroutine, to its end"),
    F(name, STR, "", ID, PM_AGG_NONE, "which one, as the setting names it"),
    F(hook, U8, "", ID, PM_AGG_CLASS, "n-th of the setting, from 0"),
    F(flags, U8, "", FLAGS, PM_AGG_NONE, "1 it raised"),
};
#undef F
/* clang-format on */

static const struct pm_schema custom_call_schema = {
    .name = "custom_call",
    .stream = PM_STREAM_CUSTOM,
    .payload_bytes = sizeof(struct pm_custom_call),
    .classes = PM_CUSTOM_CLASSES,
    .doc = "One per call of a callable named in VLLM_PROFILING_CUSTOM.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};

static const struct pm_schema *const schemas[] = {&custom_call_schema};

static struct {
    struct pm_custom *setting; /* made once */
    struct pm_target targets[PM_CUSTOM_MAX];
    uint8_t hook_of[PM_CUSTOM_MAX];  /* of each target, its number in the setting */
    uint32_t strings[PM_CUSTOM_MAX]; /* of each target, its name in the recorder; 0: not yet */
    size_t n_targets;
} state;

static void reset(void)
{
    memset(state.strings, 0, sizeof state.strings);
}

static void custom_leave(struct pm_call *call)
{
    const size_t i = (size_t)(call->target - state.targets);
    struct pm_recorder *rec = pm_facts();
    if (rec == NULL)
        return;
    const struct pm_custom_hook *hook = &state.setting->hooks[state.hook_of[i]];
    if (state.strings[i] == 0)
        state.strings[i] =
            pm_recorder_string(rec, PM_STREAM_CUSTOM, hook->name, strlen(hook->name));
    struct pm_custom_call *fact = pm_recorder_reserve(rec, pm_facts_schema(&custom_call_schema));
    if (fact == NULL)
        return;
    fact->start_ns = call->start_ns;
    fact->dur_ns = call->end_ns - call->start_ns;
    fact->name = state.strings[i];
    fact->hook = state.hook_of[i];
    fact->flags = call->result == NULL ? PM_CUSTOM_FAILED : 0;
    pm_recorder_commit(rec, fact);
}

/* ---- what is hooked, and what is not --------------------------------------------------------- */

static void PM_PRINTF(2, 3) note(const struct pm_custom_hook *hook, const char *format, ...)
{
    char key[PM_CUSTOM_NAME_MAX + 32], why[512], text[PM_CUSTOM_NAME_MAX + 544];
    va_list args;
    snprintf(key, sizeof key, PM_ATTR_NOTE_PREFIX "custom.%s", hook->name);
    va_start(args, format);
    (void)vsnprintf(why, sizeof why, format, args);
    va_end(args);
    snprintf(text, sizeof text, "the custom hook %s %s", hook->name, why);
    pm_facts_attr(key, text);
}

static const struct pm_target *more(const struct pm_settings *settings, size_t *ret_n)
{
    if (state.setting == NULL) {
        state.setting = malloc(sizeof *state.setting);
        if (state.setting == NULL)
            return NULL;
        pm_custom_parse(settings->custom, state.setting, NULL, NULL);
        for (size_t i = 0; i < state.setting->count; i++) {
            const struct pm_custom_hook *hook = &state.setting->hooks[i];
            if (hook->refused != NULL) {
                note(hook, "was refused: %s", hook->refused);
                continue;
            }
            state.hook_of[state.n_targets] = (uint8_t)i;
            state.targets[state.n_targets++] = (struct pm_target){
                .module = hook->module,
                .qualname = hook->qualname,
                .kind = strchr(hook->qualname, '.') != NULL ? PM_TARGET_METHOD : PM_TARGET_FUNCTION,
                .flags = PM_TARGET_OPTIONAL,
                .versions = "",
                .leave = custom_leave,
            };
        }
    }
    *ret_n = state.n_targets;
    return state.targets;
}

/* Whether one of a class's bases (itself included) has this name and module. */
static bool derives_from(PyObject *class, const char *module, const char *name)
{
    static struct pm_name n_mro = PM_NAME("__mro__"), n_name = PM_NAME("__name__");
    static struct pm_name n_module = PM_NAME("__module__");
    char text[64];
    bool found = false;
    PyObject *mro = pm_read_attr(class, &n_mro);
    const Py_ssize_t count = mro != NULL && PyTuple_Check(mro) ? PyTuple_Size(mro) : 0;
    for (Py_ssize_t i = 0; i < count && !found; i++) {
        PyObject *base = PyTuple_GetItem(mro, i); /* borrowed */
        found = pm_read_text(base, &n_name, text, sizeof text, NULL) && strcmp(text, name) == 0 &&
                pm_read_text(base, &n_module, text, sizeof text, NULL) && strcmp(text, module) == 0;
    }
    Py_XDECREF(mro);
    return found;
}

/* The base that has an attribute which the class itself lacks; out: "pkg.mod:Base.attribute". */
static bool inherited_from(PyObject *class, const char *attribute, char *out, size_t size)
{
    static struct pm_name n_mro = PM_NAME("__mro__"), n_dict = PM_NAME("__dict__");
    static struct pm_name n_qualname = PM_NAME("__qualname__"), n_module = PM_NAME("__module__");
    bool found = false;
    PyObject *mro = pm_read_attr(class, &n_mro);
    const Py_ssize_t count = mro != NULL && PyTuple_Check(mro) ? PyTuple_Size(mro) : 0;
    for (Py_ssize_t i = 1; i < count && !found; i++) {
        PyObject *base = PyTuple_GetItem(mro, i); /* borrowed */
        PyObject *dict = pm_read_attr(base, &n_dict);
        PyObject *value = dict != NULL ? PyMapping_GetItemString(dict, attribute) : NULL;
        char module[128], qualname[128];
        if (value == NULL)
            pm_guard_discard();
        found = value != NULL && pm_read_text(base, &n_module, module, sizeof module, NULL) &&
                pm_read_text(base, &n_qualname, qualname, sizeof qualname, NULL);
        if (found)
            snprintf(out, size, "%s:%s.%s", module, qualname, attribute);
        Py_XDECREF(value);
        Py_XDECREF(dict);
    }
    Py_XDECREF(mro);
    return found;
}

/* A function whose call ends when it hands out its generator. */
static bool is_generator_function(PyObject *function)
{
    static struct pm_name n_code = PM_NAME("__code__"), n_flags = PM_NAME("co_flags");
    enum { GENERATOR = 0x20, ASYNC_GENERATOR = 0x200 }; /* of CPython's code objects */
    uint64_t bits = 0;
    PyObject *code = pm_read_attr(function, &n_code);
    const bool is = code != NULL && pm_read_u64(code, &n_flags, &bits) &&
                    (bits & (GENERATOR | ASYNC_GENERATOR)) != 0;
    Py_XDECREF(code);
    return is;
}

static bool accepts(const struct pm_target *target, PyObject *owner, PyObject *original)
{
    const struct pm_custom_hook *hook =
        &state.setting->hooks[state.hook_of[(size_t)(target - state.targets)]];
    const char *last = strrchr(hook->qualname, '.');
    char base[400];
    last = last != NULL ? last + 1 : hook->qualname;
    if (original == NULL) {
        if (PyType_Check(owner) && inherited_from(owner, last, base, sizeof base))
            note(hook, "is not there: the class inherits it, name it as %s", base);
        return false;
    }
    if (PyType_Check(original)) {
        note(hook, "was refused: it is a class; name a method of it, such as %s.__init__",
             hook->name);
        return false;
    }
    if (!hook->allowed && PyType_Check(owner) &&
        derives_from(owner, "torch.nn.modules.module", "Module")) {
        note(hook, "was refused: it is a method of a torch.nn.Module, which torch.compile may "
                   "trace");
        return false;
    }
    if (is_generator_function(original))
        note(hook, "is a generator function: its time is that of making the generator");
    return true;
}

static bool enabled(const struct pm_settings *settings)
{
    return settings->custom[0] != '\0';
}

const struct pm_probe pm_probe_custom = {
    .name = "custom",
    .component = "custom hooks",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .more = more,
    .accepts = accepts,
    .reset = reset,
};
