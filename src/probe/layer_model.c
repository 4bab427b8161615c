/* See layer_model.h. */
#include "probe/layer_model.h"

#include <ctype.h>
#include <stdio.h>

#include "hook/guard.h"
#include "hook/read.h"
#include "probe/layer_sums.h"
#include "probe/layer_timer.h"

#define NAME_MAX_BYTES 256
#define INSIDE_MAX 16      /* modules told apart that a module lies in */
#define WRAPPERS_MAX 4     /* round a model */
#define MODULES_MAX 200000 /* more are not looked at */

static struct pm_name n_runner = PM_NAME("model_runner");
static struct pm_name n_model = PM_NAME("model");
static struct pm_name n_runnable = PM_NAME("runnable");
static struct pm_name n_named_modules = PM_NAME("named_modules");
static struct pm_name n_modules = PM_NAME("_modules");
static struct pm_name n_name = PM_NAME("__name__");
static struct pm_name n_vllm_config = PM_NAME("vllm_config");
static struct pm_name n_compilation = PM_NAME("compilation_config");
static struct pm_name n_mode = PM_NAME("mode");
static struct pm_name n_level = PM_NAME("level");

static PyObject *installed; /* a weak reference to the model; owned */

/* ---- what a module is ------------------------------------------------------------------------ */

static bool has_word(const char *text, const char *word)
{
    const size_t length = strlen(word);
    for (; *text != '\0'; text++) {
        size_t i = 0;
        while (i < length && tolower((unsigned char)text[i]) == word[i])
            i++;
        if (i == length)
            return true;
    }
    return false;
}

static bool has_any(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (has_word(text, words[i]))
            return true;
    return false;
}
#define HAS_ANY(text, words) has_any(text, words, sizeof(words) / sizeof *(words))

enum pm_layer_kind pm_layer_kind_of(const char *place, const char *class_name, bool experts)
{
    static const char *const attention[] = {"attention", "attn"};
    static const char *const mlp[] = {"mlp", "feedforward", "feed_forward", "ffn"};
    static const char *const projections[] = {"fc1", "fc2"}; /* of layers that have no block */
    if (has_word(class_name, "norm"))
        return PM_LAYER_NORM;
    if (experts)
        return PM_LAYER_MOE;
    if (HAS_ANY(class_name, attention))
        return PM_LAYER_ATTENTION;
    if (HAS_ANY(class_name, mlp))
        return PM_LAYER_MLP;
    if (has_word(class_name, "moe") && !has_word(class_name, "layer"))
        return PM_LAYER_MOE;
    if (HAS_ANY(place, attention))
        return PM_LAYER_ATTENTION;
    if (HAS_ANY(place, mlp) || HAS_ANY(place, projections))
        return PM_LAYER_MLP;
    return PM_LAYER_OTHER;
}

int32_t pm_layer_number_in(const char *name)
{
    for (const char *at = name; *at != '\0';) {
        const size_t digits = strspn(at, "0123456789"), length = strcspn(at, ".");
        if (digits > 0 && digits == length && digits < 7) {
            int32_t value = 0;
            for (size_t i = 0; i < digits; i++)
                value = value * 10 + (at[i] - '0');
            return value;
        }
        at += length + (at[length] == '.');
    }
    return PM_LAYER_OUTSIDE;
}

/* ---- the walk -------------------------------------------------------------------------------- */

struct walk {
    char inside[INSIDE_MAX][NAME_MAX_BYTES]; /* blocks that the module at hand lies in */
    unsigned depth;
    unsigned modules, layers;
    int32_t last_layer;
};

static bool lies_in(const char *name, const char *block)
{
    const size_t bytes = strlen(block);
    return strncmp(name, block, bytes) == 0 && name[bytes] == '.';
}

static bool has_experts(PyObject *module)
{
    PyObject *children = pm_read_attr(module, &n_modules);
    const bool has = children != NULL && PyDict_Check(children) &&
                     PyDict_GetItemString(children, "experts") != NULL;
    Py_XDECREF(children);
    return has;
}

static void put(struct walk *walk, PyObject *module, int32_t layer, enum pm_layer_kind kind,
                bool root)
{
    const uint32_t cell = pm_layer_cell(layer, kind);
    (void)pm_layer_timer_take(module); /* of an earlier time, whose end was not seen */
    if (cell != PM_LAYER_NONE && pm_layer_timer_put(module, cell, root))
        walk->modules++;
}

/* One module, in the order of named_modules(): each before those inside of it. */
static void look(struct walk *walk, const char *name, PyObject *module)
{
    char class_name[128];
    const char *dot = strrchr(name, '.'), *place = dot != NULL ? dot + 1 : name;
    const int32_t layer = pm_layer_number_in(name);

    if (!pm_read_text((PyObject *)Py_TYPE(module), &n_name, class_name, sizeof class_name, NULL) ||
        strcmp(class_name, "PPMissingLayer") == 0 || strcmp(class_name, "ModuleList") == 0)
        return;
    while (walk->depth > 0 && !lies_in(name, walk->inside[walk->depth - 1]))
        walk->depth--;
    const bool numbered = place[0] >= '0' && place[0] <= '9';
    if (name[0] == '\0') {
        put(walk, module, PM_LAYER_OUTSIDE, PM_LAYER_OTHER, true);
        return;
    }
    const bool in_block = walk->depth > 0;
    const enum pm_layer_kind kind =
        pm_layer_kind_of(place, class_name, !in_block && !numbered && has_experts(module));
    if (kind == PM_LAYER_NORM) {
        put(walk, module, layer, PM_LAYER_NORM, false);
    } else if (numbered && !in_block && pm_layer_number_in(place) == layer) {
        put(walk, module, layer, PM_LAYER_OTHER, false);
        walk->layers += layer != walk->last_layer;
        walk->last_layer = layer;
        return; /* what lies in a layer is told apart */
    } else if (!in_block && layer != PM_LAYER_OUTSIDE && kind != PM_LAYER_OTHER) {
        put(walk, module, layer, kind, false);
    } else {
        return;
    }
    if (walk->depth < INSIDE_MAX)
        (void)snprintf(walk->inside[walk->depth++], NAME_MAX_BYTES, "%s", name);
}

/* The model itself, of whatever vLLM put round it; a new reference or NULL. */
static PyObject *find_model(PyObject *worker)
{
    static const char *const wrappers[] = {"CUDAGraphWrapper", "UBatchWrapper",
                                           "BreakableCUDAGraphWrapper"};
    PyObject *runner = pm_read_attr(worker, &n_runner);
    PyObject *model = runner != NULL ? pm_read_attr(runner, &n_model) : NULL;
    for (unsigned i = 0; i < WRAPPERS_MAX && model != NULL; i++) {
        char class_name[64];
        bool wrapper = false;
        if (pm_read_text((PyObject *)Py_TYPE(model), &n_name, class_name, sizeof class_name, NULL))
            for (size_t w = 0; w < sizeof wrappers / sizeof *wrappers; w++)
                wrapper = wrapper || strcmp(class_name, wrappers[w]) == 0;
        if (!wrapper)
            break;
        PyObject *inner = pm_read_attr(model, &n_runnable);
        Py_DECREF(model);
        model = inner;
    }
    Py_XDECREF(runner);
    return model;
}

/* A list of pairs of name and module; NULL without an exception. */
static PyObject *modules_of(PyObject *model)
{
    PyObject *method = pm_read_attr(model, &n_named_modules);
    PyObject *iterator = method != NULL ? pm_vectorcall(method, NULL, 0, NULL) : NULL;
    PyObject *list = iterator != NULL ? PySequence_List(iterator) : NULL;
    Py_XDECREF(iterator);
    Py_XDECREF(method);
    if (list == NULL)
        pm_guard_discard();
    return list;
}

static bool is_compiled(PyObject *worker)
{
    uint64_t mode = 1;
    PyObject *config = pm_read_attr(worker, &n_vllm_config);
    PyObject *compilation = config != NULL ? pm_read_attr(config, &n_compilation) : NULL;
    if (compilation != NULL && !pm_read_u64(compilation, &n_mode, &mode))
        (void)pm_read_u64(compilation, &n_level, &mode);
    Py_XDECREF(compilation);
    Py_XDECREF(config);
    return mode != 0;
}

/* ---- in and out ------------------------------------------------------------------------------ */

const void *pm_layer_model_of(PyObject *worker)
{
    PyObject *runner = pm_read_attr(worker, &n_runner);
    PyObject *model = runner != NULL ? pm_read_attr(runner, &n_model) : NULL;
    const void *address = model;
    Py_XDECREF(model); /* the runner holds it */
    Py_XDECREF(runner);
    return address;
}

enum pm_layer_install pm_layer_install(PyObject *worker, unsigned *ret_modules,
                                       unsigned *ret_layers)
{
    static struct walk walk; /* large; GIL held */
    PyObject *model = find_model(worker), *list = NULL;
    enum pm_layer_install result = PM_LAYER_UNKNOWN;

    pm_layer_remove();
    if (model == NULL)
        goto out;
    if (is_compiled(worker)) {
        result = PM_LAYER_COMPILED;
        goto out;
    }
    list = modules_of(model);
    installed = list != NULL ? PyWeakref_NewRef(model, NULL) : NULL;
    if (installed == NULL) {
        pm_guard_discard();
        goto out;
    }
    memset(&walk, 0, sizeof walk);
    walk.last_layer = PM_LAYER_OUTSIDE;
    for (Py_ssize_t i = 0; i < PyList_Size(list) && i < MODULES_MAX; i++) {
        char name[NAME_MAX_BYTES];
        PyObject *pair = PyList_GetItem(list, i); /* borrowed */
        if (PyTuple_Check(pair) && PyTuple_Size(pair) == 2 &&
            pm_text(PyTuple_GetItem(pair, 0), name, sizeof name, NULL))
            look(&walk, name, PyTuple_GetItem(pair, 1));
    }
    *ret_modules = walk.modules;
    *ret_layers = walk.layers;
    result = PM_LAYER_INSTALLED;
out:
    Py_XDECREF(list);
    Py_XDECREF(model);
    return result;
}

void pm_layer_remove(void)
{
    PyObject *reference = installed;
    installed = NULL;
    if (reference == NULL)
        return;
    PyObject *model = pm_vectorcall(reference, NULL, 0, NULL); /* None where it has gone */
    PyObject *list = model != NULL && model != Py_None ? modules_of(model) : NULL;
    for (Py_ssize_t i = 0; list != NULL && i < PyList_Size(list); i++) {
        PyObject *pair = PyList_GetItem(list, i);
        if (PyTuple_Check(pair) && PyTuple_Size(pair) == 2)
            (void)pm_layer_timer_take(PyTuple_GetItem(pair, 1));
    }
    if (PyErr_Occurred() != NULL)
        pm_guard_discard();
    Py_XDECREF(list);
    Py_XDECREF(model);
    Py_DECREF(reference);
}

void pm_layer_forget(void)
{
    PyObject *reference = installed;
    installed = NULL;
    Py_XDECREF(reference);
}
