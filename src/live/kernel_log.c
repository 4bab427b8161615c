/* What the kernel's log says of some processes, and what `run` noted (see autopsy.h). */
#include "live/autopsy.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether a line tells of the end of this process. */
static bool tells_of(const char *text, uint32_t pid, bool *ret_oom)
{
    char killed[48], fault[48];
    snprintf(killed, sizeof(killed), "Killed process %u ", pid);
    snprintf(fault, sizeof(fault), "[%u]", pid);
    *ret_oom = strstr(text, killed) != NULL;
    if (*ret_oom)
        return true;
    return strstr(text, fault) != NULL &&
           (strstr(text, "segfault") != NULL || strstr(text, "general protection") != NULL ||
            strstr(text, "trap ") != NULL || strstr(text, "traps:") != NULL);
}

/* A record: "priority,number,usec,flags;text\n context…". */
static void take_record(char *record, const uint32_t *pids, size_t n_pids, uint64_t since_ns,
                        struct pm_kernel_log *log)
{
    unsigned long long usec = 0;
    char *text = strchr(record, ';');
    bool oom;
    if (text == NULL || sscanf(record, "%*u,%*u,%llu", &usec) != 1)
        return;
    text++;
    text[strcspn(text, "\n")] = '\0';
    if (usec * 1000 < since_ns)
        return;
    for (size_t i = 0; i < n_pids && log->n_lines < PM_KERNEL_LINES; i++) {
        if (!tells_of(text, pids[i], &oom))
            continue;
        log->lines[log->n_lines].pid = pids[i];
        log->lines[log->n_lines].oom = oom;
        snprintf(log->lines[log->n_lines].text, sizeof(log->lines[0].text), "%.200s", text);
        log->n_lines++;
        return;
    }
}

void pm_kernel_log_read(const uint32_t *pids, size_t n_pids, uint64_t since_ns,
                        struct pm_kernel_log *ret_log)
{
    struct pm_kernel_log log = {0};
    char record[8192];
    const int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    /* A minute's grace: its clock stands still while the machine sleeps. */
    since_ns = since_ns > 60000000000ull ? since_ns - 60000000000ull : 0;
    for (int n = 0; fd >= 0 && n < 100000; n++) {
        const ssize_t got = read(fd, record, sizeof(record) - 1);
        if (got < 0)
            break; /* EAGAIN: the end; EPERM: not for us */
        log.readable = true;
        record[got] = '\0';
        take_record(record, pids, n_pids, since_ns, &log);
    }
    if (fd >= 0)
        close(fd);
    *ret_log = log;
}

int pm_run_record_write(const char *path, const struct pm_run_record *record)
{
    char file[4200];
    snprintf(file, sizeof(file), "%s/ended", path);
    const int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *stream = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (stream == NULL) {
        if (fd >= 0)
            close(fd);
        return -PM_EIO;
    }
    fprintf(stream, "pid %u\nstatus %d\nasked %d\nreal_ns %llu\n", record->pid, record->status,
            record->asked, (unsigned long long)record->real_ns);
    return fclose(stream) == 0 ? 0 : -PM_EIO;
}

void pm_run_record_read(const char *path, struct pm_run_record *ret_record)
{
    struct pm_run_record record = {.status = -1};
    char file[4200], line[128];
    unsigned long long value;
    snprintf(file, sizeof(file), "%s/ended", path);
    FILE *stream = fopen(file, "re");
    while (stream != NULL && fgets(line, sizeof(line), stream) != NULL) {
        if (sscanf(line, "pid %llu", &value) == 1)
            record.pid = (uint32_t)value;
        else if (sscanf(line, "status %llu", &value) == 1) {
            record.status = (int)(value & 0xffffu);
            record.found = true;
        } else if (sscanf(line, "asked %llu", &value) == 1)
            record.asked = (int)(value & 0x7fu);
        else if (sscanf(line, "real_ns %llu", &value) == 1)
            record.real_ns = value;
    }
    if (stream != NULL)
        fclose(stream);
    *ret_record = record;
}
