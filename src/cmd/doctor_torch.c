/*
 * doctor, torch's profiler: what its variables ask for, whether its folder can be written and has
 * room, and what makes its figures unusual. Says nothing where nothing asks for it.
 */
#include "cmd/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cmd/output_dir.h"

#define ROOM_BYTES (2ull << 30) /* a flush of a big model writes some hundred MB a rank */
#define MANY_BYTES (1ull << 30)

static const char *const switches[] = {
    "VLLM_TORCH_PROFILER_RECORD_SHAPES",
    "VLLM_TORCH_PROFILER_WITH_FLOPS",
    "VLLM_TORCH_PROFILER_WITH_PROFILE_MEMORY",
    "VLLM_TORCH_PROFILER_WITH_STACK",
};

static const char *value_of(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool is_on(const char *name)
{
    const char *value = value_of(name);
    return value != NULL && strcmp(value, "0") != 0;
}

/* The folder that an entry of this path would lie in. */
static void parent_of(const char *path, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%.4000s", path);
    size_t bytes = strlen(out);
    while (bytes > 1 && out[bytes - 1] == '/')
        out[--bytes] = '\0';
    char *slash = strrchr(out, '/');
    if (slash == NULL)
        snprintf(out, PATH_MAX, ".");
    else
        slash[slash == out] = '\0';
}

static void check_room(struct pm_findings *findings, const char *dir, const char *there)
{
    struct pm_trace_files files;
    struct statvfs fs;
    pm_trace_files(dir, 0, &files);
    if (files.bytes > MANY_BYTES)
        pm_find(findings, PM_MARK_WARNING, "torch-size",
                "remove what is no longer needed; `profilemate run --size-limit=SIZE` keeps to a "
                "limit",
                "%zu traces in %s take %.1f GB", files.count, dir, (double)files.bytes / (1 << 30));
    else if (files.count > 0)
        pm_find(findings, PM_MARK_FINE, "torch-size", NULL, "%zu traces in %s take %.1f MB",
                files.count, dir, (double)files.bytes / (1 << 20));
    pm_trace_files_release(&files);
    if (statvfs(there, &fs) != 0)
        return;
    const uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room < ROOM_BYTES)
        pm_find(findings, PM_MARK_WARNING, "torch-room",
                "make room, or give --size-limit: a trace that does not fit is lost",
                "%.1f GB are free where torch's traces go (%s)", (double)room / (1 << 30), there);
}

static void check_folder(struct pm_findings *findings, const char *dir)
{
    static const char advice[] = "make the folder writable for the server, or set "
                                 "VLLM_TORCH_PROFILER_DIR (--trace-dir) to another";
    char parent[PATH_MAX];
    struct stat st;
    if (strstr(dir, "://") != NULL) {
        pm_find(findings, PM_MARK_NOTE, "torch-folder", NULL,
                "torch's traces go to %s, which is not looked at", dir);
        return;
    }
    if (dir[0] != '/')
        pm_find(findings, PM_MARK_WARNING, "torch-relative",
                "give VLLM_TORCH_PROFILER_DIR as a path that begins with /",
                "VLLM_TORCH_PROFILER_DIR=%s depends on the folder in which the server is started",
                dir);
    const bool exists = stat(dir, &st) == 0;
    snprintf(parent, sizeof(parent), "%.4000s", dir);
    while (!exists && strcmp(parent, "/") != 0 && strcmp(parent, ".") != 0) {
        char above[PATH_MAX];
        parent_of(parent, above);
        memcpy(parent, above, sizeof(parent));
        if (stat(parent, &st) == 0)
            break;
    }
    if (!S_ISDIR(st.st_mode))
        pm_find(findings, PM_MARK_PROBLEM, "torch-folder", advice,
                "torch's traces cannot be written to %s: %s is not a folder", dir, parent);
    else if (eaccess(parent, W_OK | X_OK) != 0)
        pm_find(findings, PM_MARK_PROBLEM, "torch-folder", advice,
                "torch's traces cannot be written to %s: %s", dir, strerror(errno));
    else
        pm_find(findings, PM_MARK_FINE, "torch-folder", NULL, "torch's traces go to %s%s", dir,
                exists ? "" : ", which is made");
    check_room(findings, dir, parent);
}

static bool has_profiler_config(const struct pm_subject *subject)
{
    for (size_t i = 0; i < subject->count; i++)
        if (strncmp(subject->command[i], "--profiler-config", 17) == 0 ||
            strncmp(subject->command[i], "--profiler_config", 17) == 0)
            return true;
    return false;
}

static void check_words(struct pm_findings *findings)
{
    static const char *const scopes[] = {"VLLM_NVTX_SCOPES_FOR_PROFILING",
                                         "VLLM_CUSTOM_SCOPES_FOR_PROFILING"};
    const char *trace = value_of("VLLM_TRACE_FUNCTION");
    if (trace != NULL && trace[strspn(trace, "0123456789")] == '\0' && strcmp(trace, "0") != 0)
        pm_find(findings, PM_MARK_WARNING, "torch-trace-function",
                "name functions instead, VLLM_TRACE_FUNCTION=all or module names: then they are "
                "traced by ProfileMate",
                "VLLM_TRACE_FUNCTION=%s turns on vLLM's own tracing of every line, which slows a "
                "server down by orders of magnitude",
                trace);
    for (size_t i = 0; i < 2; i++) {
        const char *scope = value_of(scopes[i]);
        if (scope != NULL && scope[strspn(scope, "0123456789")] != '\0')
            pm_find(findings, PM_MARK_NOTE, "torch-scopes", NULL,
                    "%s=%s is kept as a setting of ProfileMate; vLLM itself takes 0 or 1 only",
                    scopes[i], scope);
    }
    if (is_on("CUDA_LAUNCH_BLOCKING"))
        pm_find(findings, PM_MARK_WARNING, "launch-blocking",
                "unset CUDA_LAUNCH_BLOCKING unless you look for a failing kernel",
                "CUDA_LAUNCH_BLOCKING is set: each kernel launch waits for its end, times and gaps "
                "are not those of normal operation");
}

void pm_doctor_torch(struct pm_findings *findings, const struct pm_subject *subject)
{
    const char *dir = value_of("VLLM_TORCH_PROFILER_DIR");
    size_t on = 0;
    findings->section = "Torch profiler";
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
        on += is_on(switches[i]);
    if (dir == NULL && on > 0)
        pm_find(findings, PM_MARK_WARNING, "torch-no-folder",
                "set VLLM_TORCH_PROFILER_DIR as well, or use `profilemate run --torch-profile`",
                "VLLM_TORCH_PROFILER_… is set without VLLM_TORCH_PROFILER_DIR: nothing is "
                "profiled");
    if (dir != NULL && has_profiler_config(subject))
        pm_find(findings, PM_MARK_NOTE, "torch-config", NULL,
                "the command's --profiler-config wins over VLLM_TORCH_PROFILER_DIR");
    if (dir != NULL)
        check_folder(findings, dir);
    if (dir != NULL && is_on("VLLM_TORCH_PROFILER_WITH_STACK") &&
        is_on("VLLM_TORCH_PROFILER_WITH_PROFILE_MEMORY"))
        pm_find(
            findings, PM_MARK_NOTE, "torch-cost", NULL,
            "stacks and memory are recorded: steps are slower inside of a window, and its trace "
            "is large; keep windows short");
    check_words(findings);
}
