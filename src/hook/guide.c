/*
 * Environment variables that torch's and vLLM's guides name and that vLLM cannot take as the guides
 * mean them: each is moved to a name of ours, or to a form that is understood, before anything
 * reads it. Called once per process, when the gate has opened and before the settings are read,
 * while the interpreter starts; GIL held; owns nothing.
 *
 * vLLM puts VLLM_TRACE_FUNCTION and the two scope variables through int() (vllm/envs.py, all
 * releases): a number is left to it, anything else would end the server and becomes a setting.
 * Kineto takes KINETO_LOG_LEVEL through atoi(), so that a word means 0, the noisiest level: the
 * words become the numbers of its enum LoggerOutputType.
 */
#include "hook/session.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hook/compat.h"

/* os.environ, which also sets the C environment; new reference, NULL where nobody imported os. */
static PyObject *os_environ(void)
{
    PyObject *os = PyDict_GetItemString(PyImport_GetModuleDict(), "os"); /* borrowed */
    PyObject *mapping = os ? PyObject_GetAttrString(os, "environ") : NULL;
    PyErr_Clear();
    return mapping;
}

void pm_guide_put(const char *name, const char *value)
{
    PyObject *mapping = os_environ();
    PyObject *key = mapping ? PyUnicode_FromString(name) : NULL;
    PyObject *text = key && value ? PyUnicode_DecodeFSDefault(value) : NULL;
    int status = -1;
    if (key && text)
        status = PyObject_SetItem(mapping, key, text);
    else if (key && !value)
        status = PyObject_DelItem(mapping, key);
    PyErr_Clear();
    if (status < 0 && value)
        (void)setenv(name, value, 1);
    else if (status < 0)
        (void)unsetenv(name);
    Py_XDECREF(text);
    Py_XDECREF(key);
    Py_XDECREF(mapping);
}

/* What Python's int() takes, of ASCII: blanks around, a sign, digits with single underscores. */
static bool is_int(const char *text)
{
    const char *blanks = " \t\n\v\f\r";
    text += strspn(text, blanks);
    if (*text == '-' || *text == '+')
        text++;
    bool digit = false;
    for (; (*text >= '0' && *text <= '9') || (*text == '_' && digit); text++)
        digit = *text != '_';
    return digit && text[strspn(text, blanks)] == '\0';
}

static void move(const char *name, const char *own_name, const char *own_twin)
{
    const char *value = getenv(name);
    if (!value || is_int(value))
        return;
    const char *own = getenv(own_name), *twin = getenv(own_twin);
    char *kept = strdup(value);
    if (!kept)
        return;
    if (kept[strspn(kept, " \t\r\n")] && !(own && own[0]) && !(twin && twin[0]))
        pm_guide_put(own_name, kept);
    pm_guide_put(name, NULL);
    free(kept);
}

static void number_log_level(void)
{
    static const struct {
        const char *word, *number;
    } levels[] = {
        {"VERBOSE", "0"}, {"DEBUG", "0"}, {"INFO", "1"},
        {"WARNING", "2"}, {"WARN", "2"},  {"ERROR", "4"},
    };
    const char *value = getenv("KINETO_LOG_LEVEL");
    for (size_t i = 0; value && i < sizeof levels / sizeof levels[0]; i++)
        if (strcasecmp(value, levels[i].word) == 0) {
            pm_guide_put("KINETO_LOG_LEVEL", levels[i].number);
            return;
        }
}

void pm_guide_take(void)
{
    move("VLLM_TRACE_FUNCTION", "VLLM_PROFILING_TRACE_FUNCTION", "PROFILEMATE_TRACE_FUNCTION");
    move("VLLM_NVTX_SCOPES_FOR_PROFILING", "VLLM_PROFILING_NVTX_SCOPES", "PROFILEMATE_NVTX_SCOPES");
    move("VLLM_CUSTOM_SCOPES_FOR_PROFILING", "VLLM_PROFILING_CUSTOM_SCOPES",
         "PROFILEMATE_CUSTOM_SCOPES");
    number_log_level();
}
