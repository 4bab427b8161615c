/*
 * doctor, the command line: which Python would run it, and what the gate would decide about it.
 */
#include "cmd/doctor.h"
#include "cmd/cmd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/settings.h"
#include "hook/gate.h"
#include "recorder/birth.h"

/* ---- which Python ---------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* The file that execvp would run. */
static bool in_path(const char *name, char *out, size_t size)
{
    const char *path = getenv("PATH");
    if (strchr(name, '/') != NULL) {
        snprintf(out, size, "%s", name);
        return access(name, X_OK) == 0;
    }
    if (path == NULL)
        path = "/usr/local/bin:/usr/bin:/bin";
    for (;;) {
        size_t bytes = strcspn(path, ":");
        struct stat st;
        int n = snprintf(out, size, "%.*s%s%s", (int)bytes, path, bytes > 0 ? "/" : "./", name);
        if (n > 0 && (size_t)n < size && stat(out, &st) == 0 && S_ISREG(st.st_mode) &&
            access(out, X_OK) == 0)
            return true;
        if (path[bytes] == '\0')
            return false;
        path += bytes + 1;
    }
}

static bool is_python_name(const char *path)
{
    const char *name = base_name(path);
    return strncmp(name, "python", 6) == 0 || strncmp(name, "pypy", 4) == 0;
}

/* Options of the interpreter before -m, -c or the script: those that change what it loads. */
static void take_flags(struct pm_subject *subject, char *const *words, size_t count)
{
    static const char *const matter[] = {"-E", "-I", "-s", "-S"};
    for (size_t i = 0; i < count && words[i][0] == '-' && words[i][1] != '\0'; i++) {
        const char *word = words[i];
        if (word[1] == '-')
            break;
        for (const char *letter = word + 1; *letter != '\0'; letter++) {
            if (*letter == 'm' || *letter == 'c')
                return;
            if (*letter == 'W' || *letter == 'X') { /* with a value, here or in the next word */
                i += letter[1] == '\0';
                break;
            }
            for (size_t k = 0; k < sizeof(matter) / sizeof(matter[0]); k++)
                if (*letter == matter[k][1] && subject->n_flags < 8)
                    subject->flags[subject->n_flags++] = matter[k];
        }
    }
}

/* The interpreter that a script's first line names; also the two-line form that pip writes where
 * the path is long: #!/bin/sh and '''exec' /path/python "$0" "$@". */
static bool from_script(struct pm_subject *subject, const char *path)
{
    char text[1024];
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n < 3 || text[0] != '#' || text[1] != '!')
        return false;
    text[n] = '\0';
    char *rest = text, *first = strsep(&rest, "\n"),
         *second = rest != NULL ? strsep(&rest, "\n") : "";
    char *words = first + 2;
    if (strncmp(second, "'''exec' ", 9) == 0)
        words = second + 9;
    words += strspn(words, " \t\"");
    char *interpreter = strsep(&words, " \t\"\r");
    if (strcmp(base_name(interpreter), "env") == 0 && words != NULL) {
        do
            interpreter = strsep(&words, " \t\r");
        while (words != NULL && (interpreter[0] == '\0' || interpreter[0] == '-'));
    }
    if (!is_python_name(interpreter))
        return false;
    snprintf(subject->python_buf, sizeof(subject->python_buf), "%s", interpreter);
    if (words != NULL && words[strspn(words, " \t")] == '-') {
        char *flag[] = {words + strspn(words, " \t")};
        take_flags(subject, flag, 1);
    }
    return true;
}

void pm_doctor_subject(struct pm_subject *subject, char *const *command, size_t count,
                       const char *asked)
{
    *subject = (struct pm_subject){.command = command, .count = count};
    subject->python = "python3";
    if (count > 0 && is_python_name(command[0])) {
        subject->is_python = true;
        subject->python = command[0];
        take_flags(subject, command + 1, count - 1);
    } else if (count > 0 && in_path(command[0], subject->path_word, sizeof(subject->path_word))) {
        if (from_script(subject, subject->path_word)) {
            subject->is_python = true;
            subject->python = subject->python_buf;
            snprintf(subject->script, sizeof(subject->script), "%s", subject->path_word);
        }
    } else if (count > 0) {
        subject->path_word[0] = '\0';
    }
    char found[PATH_MAX];
    if (!subject->is_python && !in_path("python3", found, sizeof(found)) &&
        in_path("python", found, sizeof(found)))
        subject->python = "python";
    if (asked != NULL)
        subject->python = asked;
}

/* ---- the gate -------------------------------------------------------------------------------- */

static void switch_alone(struct pm_findings *findings, int enable)
{
    if (enable == 0)
        pm_find(findings, PM_MARK_PROBLEM, "gate-switch",
                "unset VLLM_ENABLE_PROFILING (and PROFILEMATE_ENABLE), or set it to 1",
                "VLLM_ENABLE_PROFILING is 0: nothing is profiled, whatever else is set");
    else if (enable == 1)
        pm_find(findings, PM_MARK_FINE, "gate-switch", NULL,
                "VLLM_ENABLE_PROFILING is 1: every Python process that runs a vLLM engine is "
                "profiled");
    else
        pm_find(findings, PM_MARK_FINE, "gate-switch", NULL,
                "VLLM_ENABLE_PROFILING is unset: `vllm serve` and `python -m vllm.entrypoints...` "
                "are profiled, an LLM() script of your own needs it set to 1");
}

/* The words as sys.orig_argv will have them. */
static struct pm_gate_verdict decide(const struct pm_subject *subject, int enable)
{
    const char *words[512];
    size_t n = 0;
    struct pm_birth birth;
    const char *session = getenv(PM_SESSION_ENV);
    if (subject->script[0] != '\0') {
        words[n++] = subject->python;
        words[n++] = subject->script;
    }
    for (size_t i = subject->script[0] != '\0' ? 1 : 0;
         i < subject->count && n < sizeof(words) / sizeof(words[0]); i++)
        words[n++] = subject->command[i];
    return pm_gate_decide(&(struct pm_gate_input){
        .argc = n,
        .argv = words,
        .enable = enable,
        .session = session != NULL && pm_birth_parse(session, &birth) == 0,
    });
}

void pm_doctor_command(struct pm_findings *findings, const struct pm_subject *subject)
{
    findings->section = subject->count > 0 ? "Command" : "Activation";
    int enable = pm_settings_enable(NULL, NULL, NULL, NULL);
    if (subject->count == 0 || enable == 0) {
        switch_alone(findings, enable);
        return;
    }
    if (!subject->is_python && subject->path_word[0] == '\0') {
        pm_find(findings, PM_MARK_PROBLEM, "command-found",
                "check its name, or activate the environment that it is installed in",
                "the command %s was not found", subject->command[0]);
        return;
    }
    if (!subject->is_python) {
        pm_find(findings, PM_MARK_NOTE, "command-python",
                "if it starts vLLM, ask about that command line; name its Python with --python",
                "%s is no Python program: what is started by it is decided by its own command line",
                subject->command[0]);
        return;
    }
    struct pm_gate_verdict verdict = decide(subject, enable);
    switch (verdict.reason) {
    case PM_GATE_COMMAND:
        pm_find(findings, PM_MARK_FINE, "gate", NULL,
                "the command would be profiled: it starts a vLLM engine");
        break;
    case PM_GATE_SWITCH_ON:
        pm_find(findings, PM_MARK_FINE, "gate", NULL,
                "the command would be profiled%s: VLLM_ENABLE_PROFILING is 1",
                verdict.server ? "" : " if it makes a vLLM engine");
        break;
    case PM_GATE_SESSION:
        pm_find(findings, PM_MARK_FINE, "gate", NULL,
                "the command would be profiled: it joins the session in " PM_SESSION_ENV);
        break;
    case PM_GATE_SWITCH_OFF:
    case PM_GATE_NOTHING:
        pm_find(
            findings, PM_MARK_PROBLEM, "gate",
            "set VLLM_ENABLE_PROFILING=1, or start it with `profilemate run -- ...`, if it makes "
            "a vLLM engine",
            "the command would not be profiled: it is not one of those that start a vLLM engine "
            "(`vllm serve`, `run-batch`, `bench latency`, `bench throughput`, `python -m "
            "vllm.entrypoints...`)");
        break;
    }
}
