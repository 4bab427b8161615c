/*
 * What a process says about itself when its session is born: versions, place, command line,
 * settings; and the first metadata.json, which `profilemate export` completes later. GIL held;
 * imports nothing, owns nothing.
 */
#include "hook/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mask.h"
#include "hook/compat.h"
#include "hook/hook.h"
#include "probe/probe.h"
#include "session/attrs.h"

#define VERSION_MAX 128

/* `__version__` of a module that is imported already; "" else. */
static void version_of(const char *module_name, char *out, size_t size)
{
    out[0] = '\0';
    PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), module_name); /* borrowed */
    PyObject *version =
        module && PyModule_Check(module)
            ? PyDict_GetItemString(PyModule_GetDict(module), "__version__")
            : NULL; /* borrowed; not by getattr, which vLLM's module answers lazily */
    const char *text =
        version && PyUnicode_Check(version) ? PyUnicode_AsUTF8AndSize(version, NULL) : NULL;
    if (text)
        snprintf(out, size, "%s", text);
    PyErr_Clear();
}

static void set_version(const char *module_name, const char *key)
{
    char version[VERSION_MAX];
    version_of(module_name, version, sizeof version);
    if (version[0])
        pm_facts_attr(key, version);
}

static void python_version(char *out, size_t size)
{
    const char *version = Py_GetVersion();
    snprintf(out, size, "%.*s", (int)strcspn(version, " "), version);
}

static void set_executable(void)
{
    PyObject *executable = PySys_GetObject("executable"); /* borrowed */
    const char *text = executable && PyUnicode_Check(executable)
                           ? PyUnicode_AsUTF8AndSize(executable, NULL)
                           : NULL;
    if (text)
        pm_facts_attr(PM_ATTR_EXECUTABLE, text);
    PyErr_Clear();
}

/* The first line of a file that begins with key, without it; "" where there is none. */
static void line_of(const char *path, const char *key, char *out, size_t size)
{
    static char line[4096];
    FILE *file = fopen(path, "re");
    out[0] = '\0';
    while (file != NULL && out[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, key, strlen(key)) == 0)
            snprintf(out, size, "%s", line + strlen(key));
    }
    if (file != NULL)
        (void)fclose(file);
}

/* For the day on which the server dies of its memory limit. */
static void set_cgroup(void)
{
    static char path[2048];
    char group[1024], killed[32];
    line_of("/proc/self/cgroup", "0::", group, sizeof group);
    if (group[0] != '/')
        return;
    pm_facts_attr(PM_ATTR_CGROUP, group);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.events", group);
    line_of(path, "oom_kill ", killed, sizeof killed);
    if (killed[0])
        pm_facts_attr(PM_ATTR_CGROUP_OOM, killed);
}

static void set_command(void)
{
    static char command[4096];
    const char *words[PM_ARGUMENTS_MAX];
    size_t count = pm_hook_arguments(words, PM_ARGUMENTS_MAX);
    if (count > 0 && pm_mask_command(count, words, command, sizeof command) > 0)
        pm_facts_attr(PM_ATTR_COMMAND, command);
}

/* A value as one would write it in the environment. */
static void setting_text(const struct pm_setting_row *row, const void *field, char *out,
                         size_t size)
{
    int number = 0;
    if (strcmp(row->type, "TEXT") == 0) {
        snprintf(out, size, "%s", (const char *)field);
        return;
    }
    memcpy(&number, field, sizeof number);
    if (strcmp(row->type, "PRESET") == 0)
        snprintf(out, size, "%s", number == PM_PRESET_SIMPLE ? "simple" : "full");
    else if (strcmp(row->type, "REQUEST_IDS") == 0)
        snprintf(out, size, "%s", number == PM_REQUEST_IDS_HASH ? "hash" : "plain");
    else if (strcmp(row->type, "MODE") == 0)
        snprintf(out, size, "%04o", (unsigned)number);
    else if (strcmp(row->type, "TRISTATE") == 0 && number < 0)
        snprintf(out, size, "auto");
    else
        snprintf(out, size, "%d", number);
}

static void each_setting(void (*tell)(const struct pm_setting_row *row, const char *value,
                                      void *arg),
                         void *arg)
{
    const struct pm_settings *settings = pm_facts_settings();
    const void *const fields[] = {
#define X(field, type, env, option, def, min, max, metavar, doc) &settings->field,
#include "base/settings.def"
#undef X
    };
    static char value[PM_SETTING_TEXT_MAX];
    for (size_t i = 0; i < pm_setting_rows_count; i++) {
        setting_text(&pm_setting_rows[i], fields[i], value, sizeof value);
        tell(&pm_setting_rows[i], value, arg);
    }
}

static void set_setting(const struct pm_setting_row *row, const char *value, void *arg)
{
    (void)arg;
    char key[128];
    snprintf(key, sizeof key, PM_ATTR_SETTING_PREFIX "%s", row->field);
    pm_facts_attr(key, value);
}

static void set_versions(void)
{
    set_version("vllm", PM_ATTR_VLLM);
    set_version("torch", PM_ATTR_TORCH);
}

void pm_about_process(const char *entry)
{
    char python[VERSION_MAX];
    struct utsname host;
    python_version(python, sizeof python);
    pm_facts_attr(PM_ATTR_PROFILEMATE, PM_VERSION);
    pm_facts_attr(PM_ATTR_PYTHON, python);
    set_versions();
    set_executable();
    set_command();
    set_cgroup();
    pm_facts_attr(PM_ATTR_ENTRY, entry);
    pm_facts_attr(PM_ATTR_EXTENSION, pm_place_file());
    if (uname(&host) == 0)
        pm_facts_attr(PM_ATTR_HOST, host.nodename);
    pm_facts_attr(PM_ATTR_CLOCK, pm_clock_name());
    const char *blocking = getenv("CUDA_LAUNCH_BLOCKING");
    if (blocking && blocking[0] && strcmp(blocking, "0") != 0)
        pm_facts_attr(PM_ATTR_LAUNCH_BLOCKING, blocking);
    each_setting(set_setting, NULL);
}

/* ---- metadata.json ----------------------------------------------------------------------------
 */

/* ISO 8601 with zone, to the millisecond: 2026-11-23T08:25:01.123+01:00 */
static void iso_time(uint64_t real_ns, char *out, size_t size)
{
    time_t seconds = (time_t)(real_ns / 1000000000u);
    struct tm local;
    char date[32], zone[8];
    if (!localtime_r(&seconds, &local) || strftime(date, sizeof date, "%FT%T", &local) == 0 ||
        strftime(zone, sizeof zone, "%z", &local) != 5) {
        out[0] = '\0';
        return;
    }
    snprintf(out, size, "%s.%03u%.3s:%s", date, (unsigned)(real_ns / 1000000u % 1000u), zone,
             zone + 3);
}

static void write_setting(const struct pm_setting_row *row, const char *value, void *arg)
{
    struct pm_json *json = arg;
    pm_json_key(json, row->field);
    if (strcmp(row->type, "BOOL") == 0)
        pm_json_bool(json, value[0] == '1');
    else if (strcmp(row->type, "INT") == 0)
        pm_json_i64(json, atoi(value));
    else
        pm_json_text(json, value);
}

static void member(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value && value[0] ? value : NULL);
}

static void write_versions(struct pm_json *json)
{
    char python[VERSION_MAX], torch[VERSION_MAX], vllm[VERSION_MAX];
    python_version(python, sizeof python);
    version_of("torch", torch, sizeof torch);
    version_of("vllm", vllm, sizeof vllm);
    pm_json_key(json, "versions");
    pm_json_object(json);
    member(json, "profilemate", PM_VERSION);
    member(json, "python", python);
    member(json, "torch", torch);
    member(json, "vllm", vllm);
    pm_json_end(json);
}

void pm_about_write_metadata(void)
{
    const struct pm_settings *settings = pm_facts_settings();
    const char *dir = pm_session_dir(), *name = strrchr(dir, '/');
    char start[64];
    struct utsname host;
    struct pm_buf buf;
    struct pm_json json;
    iso_time(pm_session_birth()->start_real_ns, start, sizeof start);
    pm_buf_init(&buf, 1u << 20);
    pm_json_init(&json, &buf, 2);
    pm_json_object(&json);
    member(&json, "session_id", name ? name + 1 : dir);
    member(&json, "start", start);
    member(&json, "end", NULL);
    member(&json, "host", uname(&host) == 0 ? host.nodename : NULL);
    member(&json, "command", pm_attributes_value(PM_ATTR_COMMAND));
    write_versions(&json);
    member(&json, "preset", settings->preset == PM_PRESET_SIMPLE ? "simple" : "full");
    pm_json_key(&json, "settings");
    pm_json_object(&json);
    each_setting(write_setting, &json);
    pm_json_end(&json);
    pm_json_end(&json);
    if (pm_json_finish(&json) == 0)
        (void)!pm_birth_write_file(dir, "metadata.json", buf.data, buf.used,
                                   (uint32_t)settings->mode);
    pm_buf_release(&buf);
}
