/* See proc.h. */
#include "live/proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_MAX 16384

/* A small file as text; its length, 0 where it cannot be read. */
static size_t read_text(const char *path, char *out, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    while (fd >= 0 && used + 1 < size) {
        const ssize_t got = read(fd, out + used, size - 1 - used);
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    if (fd >= 0)
        close(fd);
    out[used] = '\0';
    return used;
}

/* The n-th word of a stat line behind the comm, which may hold anything; n from 3 as in proc(5). */
static const char *stat_word(const char *text, unsigned n)
{
    const char *at = strrchr(text, ')');
    for (unsigned i = 2; at != NULL && i < n; i++) {
        at = strchr(at, ' ');
        at = at != NULL ? at + 1 : NULL;
    }
    return at;
}

static uint64_t stat_number(const char *text, unsigned n)
{
    const char *word = stat_word(text, n);
    return word != NULL ? strtoull(word, NULL, 10) : 0;
}

bool pm_proc_read(uint32_t pid, struct pm_proc *ret_proc)
{
    char path[64], text[2048];
    struct pm_proc proc = {.pid = pid, .exit_status = -1};

    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    if (pid == 0 || read_text(path, text, sizeof(text)) == 0)
        return false;
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    const char *state = stat_word(text, 3);
    if (open == NULL || close == NULL || close < open || state == NULL)
        return false;
    snprintf(proc.comm, sizeof(proc.comm), "%.*s", (int)(close - open - 1), open + 1);
    proc.state = *state;
    proc.ppid = (uint32_t)stat_number(text, 4);
    proc.cpu_ticks = stat_number(text, 14) + stat_number(text, 15);
    proc.threads = (uint32_t)stat_number(text, 20);
    proc.start_ticks = stat_number(text, 22);
    proc.rss_bytes = stat_number(text, 24) * (uint64_t)sysconf(_SC_PAGESIZE);
    /* 0 is also what is told to those who may not know. */
    if (proc.state == 'Z' && stat_number(text, 52) != 0)
        proc.exit_status = (int)stat_number(text, 52);
    snprintf(path, sizeof(path), "/proc/%u/wchan", pid);
    if (read_text(path, text, sizeof(text)) > 0 && strcmp(text, "0") != 0)
        snprintf(proc.wchan, sizeof(proc.wchan), "%.47s", text);
    *ret_proc = proc;
    return true;
}

bool pm_proc_of(const struct pm_process_info *info, struct pm_proc *ret_proc)
{
    if (info->owner_pid != 0)
        return pm_proc_read(info->owner_pid, ret_proc);
    return info->start_ticks != 0 && pm_proc_read(info->pid, ret_proc) &&
           ret_proc->start_ticks == info->start_ticks;
}

/* Whether a thread's id in its innermost namespace is this one. */
static bool inner_id_is(const char *status, uint32_t tid)
{
    const char *line = strstr(status, "\nNSpid:");
    if (line == NULL)
        return false;
    const char *end = strchr(line + 1, '\n');
    const char *last = end;
    while (last != NULL && last > line && last[-1] != '\t' && last[-1] != ' ')
        last--;
    return last != NULL && strtoul(last, NULL, 10) == tid;
}

char pm_proc_thread_state(const struct pm_proc *proc, const struct pm_process_info *info,
                          uint32_t tid)
{
    char path[320], text[4096];

    if (proc->pid == 0)
        return 0;
    if (proc->pid == info->pid) {
        snprintf(path, sizeof(path), "/proc/%u/task/%u/stat", proc->pid, tid);
        const char *state = read_text(path, text, sizeof(text)) > 0 ? stat_word(text, 3) : NULL;
        return state != NULL ? *state : 0;
    }
    snprintf(path, sizeof(path), "/proc/%u/task", proc->pid);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    char found = 0;
    while (dir != NULL && found == 0 && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%u/task/%.16s/status", proc->pid, entry->d_name);
        if (read_text(path, text, sizeof(text)) == 0 || !inner_id_is(text, tid))
            continue;
        const char *state = strstr(text, "\nState:\t");
        found = state != NULL ? state[8] : 0;
    }
    if (dir != NULL)
        closedir(dir);
    return found;
}

const char *pm_proc_state_text(char state)
{
    switch (state) {
    case 'R':
        return "running";
    case 'S':
        return "sleeping";
    case 'D':
        return "in uninterruptible sleep";
    case 'T':
        return "stopped by a signal";
    case 't':
        return "stopped by a debugger";
    case 'Z':
        return "dead, its parent has not noticed";
    case 'X':
        return "dead";
    case 'I':
        return "idle";
    default:
        return "state not known";
    }
}

void pm_proc_status_text(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        snprintf(out, size, "killed by signal %d (SIG%s)%s", WTERMSIG(status),
                 name != NULL ? name : "?", WCOREDUMP(status) ? ", core dumped" : "");
    } else {
        snprintf(out, size, "exited with %d", WEXITSTATUS(status));
    }
}

/* The number behind a key at the start of a line. */
static uint64_t number_of(const char *text, const char *key)
{
    const size_t bytes = strlen(key);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, key, bytes) == 0)
            return strtoull(line + bytes, NULL, 10);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return UINT64_MAX;
}

static uint64_t kb(const char *text, const char *key)
{
    const uint64_t value = number_of(text, key);
    return value < UINT64_MAX / 1024 ? value * 1024 : UINT64_MAX;
}

static uint64_t group_number(const char *group, const char *file, const char *key)
{
    char path[4400], text[4096];
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s/%s", group, file);
    if (read_text(path, text, sizeof(text)) == 0 || strncmp(text, "max", 3) == 0)
        return UINT64_MAX;
    return key != NULL ? number_of(text, key) : strtoull(text, NULL, 10);
}

void pm_memory_read(const char *cgroup, struct pm_memory *ret_memory)
{
    char text[FILE_MAX], own[4096] = "";

    read_text("/proc/meminfo", text, sizeof(text));
    *ret_memory = (struct pm_memory){
        .total = kb(text, "MemTotal:"),
        .available = kb(text, "MemAvailable:"),
        .swap_total = kb(text, "SwapTotal:"),
        .swap_free = kb(text, "SwapFree:"),
    };
    if (cgroup == NULL || cgroup[0] != '/') {
        const char *line = NULL;
        if (read_text("/proc/self/cgroup", text, sizeof(text)) > 0) {
            line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
            line = line != NULL ? strchr(line, '/') : NULL;
        }
        if (line != NULL)
            snprintf(own, sizeof(own), "%.*s", (int)strcspn(line, "\n"), line);
        cgroup = own;
    }
    if (strstr(cgroup, "..") != NULL) /* of another namespace: no folder of ours */
        cgroup = "";
    ret_memory->group_used = group_number(cgroup, "memory.current", NULL);
    ret_memory->group_limit = group_number(cgroup, "memory.max", NULL);
    ret_memory->group_oom_kills = group_number(cgroup, "memory.events", "oom_kill ");
}
