/*
 * doctor, what the Python says: its version, the ways by which the extension gets into it, its
 * vLLM, and the hooks that this vLLM has. The answers come from doctor_probe.py; nothing of vLLM is
 * imported for them.
 */
#include "cmd/doctor.h"
#include "cmd/ask.h"
#include "cmd/cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PM_PYTHON_OLDEST "3.10"
#define PM_PYTHON_NEWEST "3.14"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Whether a file is a copy of our extension under the name of sitecustomize. */
static bool is_ours(const char *path)
{
    return strcmp(base_name(path), PM_EXTENSION_FILE) == 0;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* ---- the interpreter ------------------------------------------------------------------------- */

/* false: the extension cannot work in it, there is no use in going on about it. */
static bool check_python(struct pm_findings *findings, const struct pm_answers *answers)
{
    const char *version = pm_answer(answers, "python.version");
    const char *exe = pm_answer(answers, "python.executable");
    const char *kind = pm_answer(answers, "python.implementation");
    if (strcmp(kind, "cpython") != 0) {
        pm_find(findings, PM_MARK_PROBLEM, "python-kind", "run vLLM with CPython",
                "%s is %s %s: the extension works in CPython only, elsewhere it stays out", exe,
                kind, version);
        return false;
    }
    if (pm_version_compare(version, PM_PYTHON_OLDEST) < 0) {
        pm_find(findings, PM_MARK_PROBLEM, "python-version",
                "run vLLM with CPython " PM_PYTHON_OLDEST " to " PM_PYTHON_NEWEST,
                "%s is CPython %s: the extension needs " PM_PYTHON_OLDEST
                " or newer and stays out of "
                "it, silently",
                exe, version);
        return false;
    }
    if (strcmp(pm_answer(answers, "python.free_threaded"), "1") == 0) {
        pm_find(findings, PM_MARK_PROBLEM, "python-free-threaded",
                "run vLLM with the build of CPython that has a GIL",
                "%s is a free-threaded build of CPython %s: the extension stays out of it", exe,
                version);
        return false;
    }
    char minor[16];
    snprintf(minor, sizeof(minor), "%.*s", (int)(strcspn(version, ".") + 1), version);
    const char *rest = version + strlen(minor);
    size_t used = strlen(minor);
    snprintf(minor + used, sizeof(minor) - used, "%.*s", (int)strcspn(rest, "."), rest);
    if (pm_version_compare(minor, PM_PYTHON_NEWEST) > 0)
        pm_find(findings, PM_MARK_WARNING, "python-version",
                "if something is wrong, try CPython " PM_PYTHON_NEWEST,
                "%s is CPython %s, newer than this ProfileMate was tested with (" PM_PYTHON_OLDEST
                " to " PM_PYTHON_NEWEST ")",
                exe, version);
    else
        pm_find(findings, PM_MARK_FINE, "python-version", NULL, "%s is CPython %s", exe, version);
    return true;
}

/* ---- the ways in ----------------------------------------------------------------------------- */

/* What is known about how the extension gets in. */
struct ways {
    const char *first;        /* the sitecustomize that Python takes, NULL: there is none */
    const char *ours;         /* the first of ours on sys.path, NULL: none */
    const char *foreign;      /* the first that is not ours */
    const char *loaded;       /* the file of the sitecustomize that was imported, NULL: none */
    const char *pth, *module; /* of the wheel */
    const char *entry_point;
    char built[PATH_MAX]; /* the folder beside this program, "" where there is none */
};

static struct ways find_ways(const struct pm_answers *answers)
{
    struct ways ways = {0};
    for (size_t i = 0; i < answers->count; i++) {
        const char *key = answers->lines[i].key, *value = answers->lines[i].value[0];
        if (strcmp(key, "candidate") == 0) {
            if (ways.first == NULL)
                ways.first = value;
            if (is_ours(value) && ways.ours == NULL)
                ways.ours = value;
            if (!is_ours(value) && ways.foreign == NULL)
                ways.foreign = value;
        } else if (strcmp(key, "loaded.sitecustomize") == 0) {
            ways.loaded = value;
        } else if (strcmp(key, "pth") == 0 && ways.pth == NULL) {
            ways.pth = value;
        } else if (strcmp(key, "module") == 0 && ways.module == NULL) {
            ways.module = value;
        } else if (strcmp(key, "entry_point") == 0 && ways.entry_point == NULL &&
                   strstr(answers->lines[i].value[1], "profilemate") != NULL) {
            ways.entry_point = value;
        }
    }
    if (!pm_site_dir(ways.built, sizeof(ways.built)))
        ways.built[0] = '\0';
    return ways;
}

static void check_flags(struct pm_findings *findings, const struct pm_subject *subject,
                        const struct pm_answers *answers)
{
    const char *path = getenv("PYTHONPATH");
    if (strcmp(pm_answer(answers, "python.no_site"), "1") == 0)
        pm_find(findings, PM_MARK_PROBLEM, "python-no-site", "leave out -S",
                "the option -S keeps Python from importing sitecustomize and from reading .pth "
                "files");
    if (strcmp(pm_answer(answers, "python.ignore_environment"), "1") == 0 && path != NULL)
        pm_find(findings, PM_MARK_PROBLEM, "python-isolated",
                "leave out -I or -E, or install the wheel, which needs no PYTHONPATH",
                "the option %s makes Python ignore PYTHONPATH, the extension there is not found",
                subject->n_flags > 0 ? subject->flags[0] : "-E");
}

/* Entries of PYTHONPATH that look as if they were meant for the extension and are not. */
static void check_pythonpath(struct pm_findings *findings)
{
    const char *path = getenv("PYTHONPATH");
    for (; path != NULL && *path != '\0';
         path += path[strcspn(path, ":")] == ':' ? strcspn(path, ":") + 1 : strcspn(path, ":")) {
        static const char *const below[] = {"site", "build/release/site", "build/debug/site",
                                            "release/site"};
        char entry[PATH_MAX], file[PATH_MAX + 64];
        struct stat st;
        size_t bytes = strcspn(path, ":");
        if (bytes == 0 || bytes >= sizeof(entry))
            continue;
        snprintf(entry, sizeof(entry), "%.*s", (int)bytes, path);
        if (stat(entry, &st) != 0 || !S_ISDIR(st.st_mode)) {
            pm_find(findings, PM_MARK_WARNING, "pythonpath-entry",
                    "correct PYTHONPATH if that was meant to be the extension's folder",
                    "PYTHONPATH names %s, which is no folder", entry);
            continue;
        }
        snprintf(file, sizeof(file), "%s/" PM_EXTENSION_FILE, entry);
        if (access(file, F_OK) == 0)
            continue;
        for (size_t i = 0; i < sizeof(below) / sizeof(below[0]); i++) {
            snprintf(file, sizeof(file), "%s/%s/" PM_EXTENSION_FILE, entry, below[i]);
            if (access(file, F_OK) != 0)
                continue;
            pm_find(findings, PM_MARK_WARNING, "pythonpath-entry", NULL,
                    "PYTHONPATH names %s, but the extension lies below it", entry);
            pm_advise(findings, "name %s/%s instead", entry, below[i]);
            break;
        }
    }
}

/* Whether VLLM_PLUGINS lets our plug-in through. */
static bool plugin_allowed(const char *entry_point)
{
    const char *list = getenv("VLLM_PLUGINS");
    if (list == NULL)
        return true;
    while (*list != '\0') {
        size_t bytes = strcspn(list, ",");
        const char *word = list;
        size_t word_bytes = bytes;
        while (word_bytes > 0 && *word == ' ')
            word++, word_bytes--;
        while (word_bytes > 0 && word[word_bytes - 1] == ' ')
            word_bytes--;
        if (strlen(entry_point) == word_bytes && memcmp(entry_point, word, word_bytes) == 0)
            return true;
        list += bytes + (list[bytes] == ',');
    }
    return false;
}

/* Returns whether this way works. */
static bool check_plugin(struct pm_findings *findings, const struct ways *ways, bool other_way)
{
    if (ways->entry_point == NULL)
        return false;
    if (plugin_allowed(ways->entry_point)) {
        pm_find(findings, PM_MARK_FINE, "way-plugin", NULL,
                "vLLM's plug-in `%s` (entry point vllm.general_plugins) is installed",
                ways->entry_point);
        return true;
    }
    pm_find(findings, other_way ? PM_MARK_NOTE : PM_MARK_PROBLEM, "way-plugin", NULL,
            "VLLM_PLUGINS=%.200s keeps vLLM from loading the plug-in `%s`", getenv("VLLM_PLUGINS"),
            ways->entry_point);
    pm_advise(findings, "add %s to VLLM_PLUGINS, or unset it", ways->entry_point);
    return false;
}

/* The extension as sitecustomize. Returns whether this way works. */
static bool check_sitecustomize(struct pm_findings *findings, const struct ways *ways,
                                const struct pm_answers *answers, bool other_way)
{
    if (ways->ours == NULL)
        return false;
    if (!is_ours(ways->first)) {
        pm_find(findings, other_way ? PM_MARK_WARNING : PM_MARK_PROBLEM, "way-shadowed", NULL,
                "%s comes first on sys.path and shadows the extension %s, which is not loaded by "
                "this way",
                ways->first, ways->ours);
        pm_advise(
            findings,
            "put the extension's folder first in PYTHONPATH (the other sitecustomize is run by "
            "it): export PYTHONPATH=\"%.*s:$PYTHONPATH\"",
            (int)(strlen(ways->ours) - strlen(PM_EXTENSION_FILE) - 1), ways->ours);
        return false;
    }
    if (ways->loaded == NULL || !is_ours(ways->loaded)) {
        const char *why = pm_answer(answers, "import.error");
        if (strcmp(pm_answer(answers, "python.no_site"), "1") == 0)
            return false; /* told already */
        pm_find(findings, PM_MARK_PROBLEM, "way-load",
                "build it again for this machine (cmake --build), or reinstall the wheel",
                "%s was found but not loaded%s%s", ways->first, why[0] != '\0' ? ": " : "", why);
        return false;
    }
    pm_find(findings, PM_MARK_FINE, "way-sitecustomize", NULL,
            "Python loads the extension as sitecustomize from %s", ways->loaded);
    if (ways->foreign != NULL)
        pm_find(findings, PM_MARK_NOTE, "way-shadows", NULL, "it shadows %s, and runs that too",
                ways->foreign);
    return true;
}

static void check_copies(struct pm_findings *findings, const struct ways *ways,
                         const struct pm_answers *answers)
{
    for (size_t i = 0; i < answers->count; i++) {
        const char *key = answers->lines[i].key, *value = answers->lines[i].value[0];
        bool copy = (strcmp(key, "candidate") == 0 && is_ours(value)) || strcmp(key, "module") == 0;
        const char *first =
            ways->loaded != NULL && is_ours(ways->loaded) ? ways->loaded : ways->ours;
        if (!copy || first == NULL || same_file(first, value))
            continue;
        pm_find(findings, PM_MARK_WARNING, "way-copies",
                "keep one of them, so that it is clear which release is in force",
                "there are two copies of the extension, %s and %s: the first that is loaded is in "
                "force",
                first, value);
        return;
    }
}

static void check_ways(struct pm_findings *findings, const struct pm_subject *subject,
                       const struct pm_answers *answers)
{
    struct ways ways = find_ways(answers);
    findings->section = "Extension";
    check_flags(findings, subject, answers);
    check_pythonpath(findings);
    bool no_site = strcmp(pm_answer(answers, "python.no_site"), "1") == 0;
    bool pth = ways.pth != NULL && ways.module != NULL && !no_site;
    bool plugin_there = ways.entry_point != NULL && plugin_allowed(ways.entry_point);
    bool works = check_sitecustomize(findings, &ways, answers, pth || plugin_there);
    if (pth)
        pm_find(findings, PM_MARK_FINE, "way-pth", NULL,
                "the installed package loads the extension at every start (%s)", ways.pth);
    else if (ways.pth != NULL && !no_site)
        pm_find(findings, PM_MARK_PROBLEM, "way-pth", "reinstall the package",
                "%s is there, but the module _profilemate that it loads is not", ways.pth);
    works |= pth;
    works |= check_plugin(findings, &ways, works);
    check_copies(findings, &ways, answers);
    if (works || ways.ours != NULL || ways.entry_point != NULL || no_site)
        return;
    pm_find(findings, PM_MARK_PROBLEM, "way-none", NULL,
            "this Python does not find the extension: it is not on PYTHONPATH, and the package is "
            "not installed");
    if (ways.built[0] != '\0')
        pm_advise(findings,
                  "start the server with `profilemate run -- COMMAND`, or export "
                  "PYTHONPATH=\"%s:$PYTHONPATH\"",
                  ways.built);
    else
        pm_advise(findings, "build it (cmake --preset release && cmake --build --preset release), "
                            "or pip install profilemate into this Python");
}

/* ---- vLLM and the hooks ---------------------------------------------------------------------- */

static void hook_finding(struct pm_findings *findings, const struct pm_hook_row *row,
                         const char *answer, const char *version, size_t *found)
{
    if (strcmp(answer, "found") == 0 || strcmp(answer, "elsewhere") == 0) {
        (*found)++;
        return;
    }
    bool too_new = version[0] != '\0' && pm_version_compare(version, row->versions) < 0;
    if (too_new)
        pm_find(findings, PM_MARK_NOTE, "hook", NULL,
                "%s is not there: vLLM has it in %s, this is %s", row->target, row->versions,
                version);
    else if (row->optional)
        pm_find(findings, PM_MARK_NOTE, "hook", NULL,
                "%s is not there (%s): ProfileMate does without it", row->target, answer);
    else
        pm_find(findings, PM_MARK_PROBLEM, "hook",
                "look for a newer ProfileMate that knows this vLLM, or tell its makers",
                "%s is not there (%s): the probe %s will miss what it needs", row->target, answer,
                row->probe);
}

static void check_hooks(struct pm_findings *findings, const struct pm_answers *answers,
                        const char *version)
{
    size_t found = 0, asked = 0;
    for (size_t i = 0; i < pm_hook_rows_count; i++) {
        const char *answer = NULL;
        for (size_t k = 0; k < answers->count && answer == NULL; k++)
            if (strcmp(answers->lines[k].key, "hook") == 0 &&
                strcmp(answers->lines[k].value[0], pm_hook_rows[i].target) == 0)
                answer = answers->lines[k].value[1];
        if (answer == NULL || pm_hook_row_repeats(i))
            continue;
        asked++;
        hook_finding(findings, &pm_hook_rows[i], answer, version, &found);
    }
    pm_find(findings, found > 0 ? PM_MARK_FINE : PM_MARK_PROBLEM, "hooks", NULL,
            "%zu of %zu hooks exist in this vLLM", found, asked);
}

static void check_vllm(struct pm_findings *findings, const struct pm_answers *answers)
{
    const char *path = pm_answer(answers, "vllm.path");
    const char *version = pm_answer(answers, "vllm.version");
    const char *torch = pm_answer(answers, "torch.version");
    findings->section = "vLLM";
    if (path[0] == '\0') {
        pm_find(findings, PM_MARK_PROBLEM, "vllm",
                "name the Python that runs vLLM with --python, or activate its environment",
                "vLLM is not installed in %s", pm_answer(answers, "python.executable"));
        return;
    }
    if (version[0] == '\0')
        pm_find(findings, PM_MARK_WARNING, "vllm", "reinstall vLLM if it does not start",
                "vLLM is in %s, its version is not to be found", path);
    else if (pm_version_compare(version, PM_VLLM_OLDEST) < 0)
        pm_find(findings, PM_MARK_PROBLEM, "vllm", "use vLLM " PM_VLLM_OLDEST " or newer",
                "vLLM %s in %s is too old, ProfileMate knows the engine of " PM_VLLM_OLDEST
                " and newer",
                version, path);
    else if (pm_version_compare(version, PM_VLLM_NEWEST) > 0)
        pm_find(findings, PM_MARK_NOTE, "vllm", NULL,
                "vLLM %s in %s is newer than the releases that the hooks were checked against "
                "(" PM_VLLM_OLDEST " to " PM_VLLM_NEWEST ")",
                version, path);
    else
        pm_find(findings, PM_MARK_FINE, "vllm", NULL, "vLLM %s in %s%s%s", version, path,
                torch[0] != '\0' ? ", torch " : "", torch);
    check_hooks(findings, answers, version);
}

void pm_doctor_python(struct pm_findings *findings, const struct pm_subject *subject)
{
    struct pm_answers answers;
    struct pm_error err = {""};
    struct pm_custom *custom = pm_doctor_custom_asked();
    const size_t n_custom = custom != NULL ? custom->count : 0;
    const char **targets = calloc(pm_hook_rows_count + n_custom + 1, sizeof(targets[0]));
    findings->section = "Python";
    if (targets == NULL) {
        findings->failed = true;
        free(custom);
        return;
    }
    for (size_t i = 0; i < pm_hook_rows_count; i++)
        targets[i] = pm_hook_rows[i].target;
    for (size_t i = 0; i < n_custom; i++)
        targets[pm_hook_rows_count + i] = custom->hooks[i].name;
    int error = pm_ask(subject->python, subject->flags, subject->n_flags, targets,
                       pm_hook_rows_count + n_custom, &answers, &err);
    free(targets);
    if (error != 0) {
        pm_find(findings, PM_MARK_PROBLEM, "python", NULL, "%s", err.text);
        free(custom);
        return;
    }
    if (check_python(findings, &answers))
        check_ways(findings, subject, &answers);
    for (size_t i = 0; i < answers.count; i++)
        if (strcmp(answers.lines[i].key, "trouble") == 0)
            pm_find(findings, PM_MARK_WARNING, "python-trouble", NULL,
                    "a part of this check failed in Python: %s", answers.lines[i].value[1]);
    check_vllm(findings, &answers);
    pm_doctor_custom_python(findings, custom, &answers);
    pm_doctor_ray(findings, subject, &answers);
    free(custom);
    pm_answers_release(&answers);
}
