/* See control.h. */
#include "live/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "live/proc.h"

#define STILL_NS 1500000000ull /* so long a main thread must not have moved to be called asleep */
#define SLICE_NS 50000000ull
#define FDS_MAX 65536

/* ---- finding ---- */

/* A line "Key:\t…" of /proc/<pid>/<file>; out is the rest of it. */
static bool proc_line(uint32_t pid, const char *file, const char *key, char *out, size_t size)
{
    char path[96], line[512];
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%u/%s", pid, file);
    FILE *stream = fopen(path, "re");
    while (stream != NULL && !found && fgets(line, sizeof(line), stream) != NULL) {
        found = strncmp(line, key, strlen(key)) == 0;
        if (found) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, size, "%s", line + strlen(key));
        }
    }
    if (stream != NULL)
        fclose(stream);
    return found;
}

/* Its pid in its own, innermost, namespace. */
static uint32_t inner_pid(uint32_t pid)
{
    char line[256];
    if (!proc_line(pid, "status", "NSpid:", line, sizeof(line)))
        return pid;
    const char *last = line + strlen(line);
    while (last > line && last[-1] != '\t' && last[-1] != ' ')
        last--;
    return (uint32_t)strtoul(last, NULL, 10);
}

/* The page behind a descriptor of another process: not one that can be cut short under us, nor one
 * that a child of fork() has only inherited. */
static struct pm_control_page *map_page(uint32_t pid, int fd)
{
    struct stat st;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
        st.st_size < (off_t)sizeof(struct pm_control_page) || seals < 0 ||
        (seals & F_SEAL_SHRINK) == 0)
        return NULL;
    struct pm_control_page *page =
        mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (page->magic == PM_CONTROL_MAGIC && page->version == PM_CONTROL_VERSION &&
        page->pid == inner_pid(pid))
        return page;
    munmap(page, sizeof(*page));
    return NULL;
}

/* Looks through the descriptors of a process. errno of opendir where it may not be looked at. */
static int open_page(uint32_t pid, struct pm_control_process *process)
{
    char path[64], name[320], link[64];
    const struct dirent *entry;
    unsigned looked = 0;
    snprintf(path, sizeof(path), "/proc/%u/fd", pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return errno;
    while (process->page == NULL && looked++ < FDS_MAX && (entry = readdir(dir)) != NULL) {
        const ssize_t bytes = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);
        if (bytes <= 0)
            continue;
        link[bytes] = '\0';
        if (strncmp(link, "/memfd:" PM_CONTROL_NAME, strlen("/memfd:" PM_CONTROL_NAME)) != 0)
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        process->fd = open(name, O_RDWR | O_CLOEXEC);
        if (process->fd < 0)
            continue;
        process->page = map_page(pid, process->fd);
        if (process->page == NULL)
            close(process->fd);
    }
    closedir(dir);
    return 0;
}

static void close_page(struct pm_control_process *process)
{
    munmap(process->page, sizeof(*process->page));
    close(process->fd);
}

int pm_controls_find(struct pm_controls *ret_controls)
{
    struct pm_controls controls = {0};
    const struct dirent *entry;
    DIR *dir = opendir("/proc");
    int rc = 0;
    if (dir == NULL)
        return pm_error_from_errno(errno);
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        struct pm_proc proc;
        if (controls.count == controls.capacity) {
            const size_t want = controls.capacity != 0 ? controls.capacity * 2 : 16;
            struct pm_control_process *more = realloc(controls.rows, want * sizeof(*more));
            if (more == NULL) {
                rc = -PM_ENOMEM;
                break;
            }
            controls.rows = more;
            controls.capacity = want;
        }
        struct pm_control_process *row = &controls.rows[controls.count];
        memset(row, 0, sizeof(*row));
        row->pid = (uint32_t)strtoul(entry->d_name, NULL, 10);
        if (row->pid == 0 || open_page(row->pid, row) != 0 || row->page == NULL)
            continue;
        if (!pm_proc_read(row->pid, &proc)) {
            close_page(row);
            continue;
        }
        row->start_ticks = proc.start_ticks;
        memcpy(row->comm, proc.comm, sizeof(row->comm));
        pm_control_look(row);
        controls.count++;
    }
    closedir(dir);
    if (rc != 0)
        pm_controls_release(&controls);
    else
        *ret_controls = controls;
    return rc;
}

void pm_controls_release(struct pm_controls *controls)
{
    for (size_t i = 0; i < controls->count; i++)
        close_page(&controls->rows[i]);
    free(controls->rows);
    *controls = (struct pm_controls){0};
}

void pm_controls_keep_group(struct pm_controls *controls, const struct pm_control_process *like)
{
    uint8_t group[PM_CONTROL_GROUP_BYTES];
    size_t kept = 0;
    memcpy(group, like->page->group, sizeof(group));
    for (size_t i = 0; i < controls->count; i++) {
        if (memcmp(controls->rows[i].page->group, group, sizeof(group)) == 0)
            controls->rows[kept++] = controls->rows[i];
        else
            close_page(&controls->rows[i]);
    }
    controls->count = kept;
}

static bool descends(uint32_t pid, uint32_t from)
{
    struct pm_proc proc;
    for (unsigned depth = 0; depth < 16 && pid > 1; depth++) {
        if (pid == from)
            return true;
        if (!pm_proc_read(pid, &proc))
            return false;
        pid = proc.ppid;
    }
    return pid == from;
}

struct pm_control_process *pm_controls_of_pid(const struct pm_controls *controls, uint32_t pid)
{
    for (size_t i = 0; i < controls->count; i++)
        if (controls->rows[i].pid == pid)
            return &controls->rows[i];
    for (size_t i = 0; i < controls->count; i++)
        if (descends(controls->rows[i].pid, pid))
            return &controls->rows[i];
    return NULL;
}

void pm_control_explain(uint32_t pid, char *out, size_t size)
{
    struct pm_proc proc;
    struct pm_control_process process = {0};
    struct stat st;
    char path[64];
    out[0] = '\0';
    if (!pm_proc_read(pid, &proc)) {
        snprintf(out, size, "there is no process %u", pid);
        return;
    }
    const int errnum = open_page(pid, &process);
    snprintf(path, sizeof(path), "/proc/%u", pid);
    if (process.page != NULL) {
        close_page(&process);
    } else if (errnum == EACCES || errnum == EPERM) {
        if (stat(path, &st) == 0 && st.st_uid != geteuid())
            snprintf(out, size,
                     "process %u belongs to user %u: only that user, and root, may control it", pid,
                     (unsigned)st.st_uid);
        else
            snprintf(out, size, "the kernel does not let us look into process %u", pid);
    } else {
        snprintf(out, size,
                 "process %u (%s) is no vLLM process that ProfileMate is in, or was started with "
                 "VLLM_PROFILING_CONTROL=0",
                 pid, proc.comm);
    }
}

/* ---- status ---- */

void pm_control_look(struct pm_control_process *process)
{
    struct pm_control_page *page = process->page;
    for (unsigned tries = 0; tries < 1000; tries++) {
        const uint32_t before = atomic_load_explicit(&page->status_seq, memory_order_acquire);
        memcpy(process->status, page->status, sizeof(process->status));
        atomic_thread_fence(memory_order_acquire);
        if ((before & 1) == 0 &&
            atomic_load_explicit(&page->status_seq, memory_order_relaxed) == before)
            break;
        sched_yield();
    }
    process->status[sizeof(process->status) - 1] = '\0';
}

bool pm_control_line(const char *text, const char *key, size_t n, char *out, size_t size)
{
    const size_t bytes = strlen(key);
    for (const char *line = text; *line != '\0';) {
        const size_t length = strcspn(line, "\n");
        if (length >= bytes && strncmp(line, key, bytes) == 0 &&
            (line[bytes] == ' ' || length == bytes) && n-- == 0) {
            const size_t skip = length > bytes ? bytes + 1 : bytes;
            snprintf(out, size, "%.*s", (int)(length - skip), line + skip);
            return true;
        }
        line += length + (line[length] == '\n');
    }
    return false;
}

bool pm_control_value(const struct pm_control_process *process, const char *key, char *out,
                      size_t size)
{
    return pm_control_line(process->status, key, 0, out, size);
}

bool pm_control_records(const struct pm_control_process *process)
{
    char state[32];
    return pm_control_value(process, "state", state, sizeof(state)) &&
           strcmp(state, "recording") == 0;
}

/* ---- asking ---- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value, uint64_t ns)
{
    const struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000u),
                                     .tv_nsec = (long)(ns % 1000000000u)};
    (void)syscall(SYS_futex, word, operation, value, ns != 0 ? &timeout : NULL, NULL, 0);
}

static void nap(uint64_t ns)
{
    const struct timespec time = {.tv_nsec = (long)ns};
    (void)nanosleep(&time, NULL);
}

void pm_control_ask(struct pm_control_process *process, const char *request)
{
    struct pm_control_page *page = process->page;
    const uint64_t give_up_ns = pm_clock_vdso_ns() + 2000000000ull;
    process->state = PM_CONTROL_REFUSED;
    process->answer[0] = '\0';
    if (strlen(request) >= PM_CONTROL_REQUEST_MAX) {
        snprintf(process->why, sizeof(process->why), "too much was asked at once");
        return;
    }
    while (flock(process->fd, LOCK_EX | LOCK_NB) != 0) {
        if (pm_clock_vdso_ns() > give_up_ns) {
            snprintf(process->why, sizeof(process->why), "another profilemate is at it");
            return;
        }
        nap(10000000);
    }
    const uint32_t number = atomic_load(&page->bell) + 1;
    if (number - atomic_load(&page->answered) > PM_CONTROL_SLOTS) {
        snprintf(process->why, sizeof(process->why),
                 "%u requests wait already for its main thread to run Python", PM_CONTROL_SLOTS);
    } else {
        struct pm_control_slot *slot = &page->slots[number % PM_CONTROL_SLOTS];
        memset(slot->answer, 0, sizeof(slot->answer));
        snprintf(slot->request, sizeof(slot->request), "%s", request);
        atomic_store_explicit(&page->bell, number, memory_order_release);
        futex(&page->bell, FUTEX_WAKE, INT32_MAX, 0);
        process->number = number;
        process->state = PM_CONTROL_ASKED;
        process->moves = UINT64_MAX;
    }
    (void)flock(process->fd, LOCK_UN);
}

/* How often the main thread has left the processor, and how long it has used one: a number that
 * changes whenever it does anything. *ret_asleep: it sleeps now. */
static uint64_t moves_of(const struct pm_control_process *process, bool *ret_asleep)
{
    char file[64], line[64];
    uint64_t moves = 0;
    static const char *const keys[] = {"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"};
    snprintf(file, sizeof(file), "task/%u/status", process->pid);
    for (size_t i = 0; i < 2; i++)
        if (proc_line(process->pid, file, keys[i], line, sizeof(line)))
            moves += strtoull(line, NULL, 10);
    *ret_asleep =
        proc_line(process->pid, file, "State:", line, sizeof(line)) && strchr(line, 'S') != NULL;
    return moves;
}

static bool is_gone(const struct pm_control_process *process)
{
    struct pm_proc proc;
    return !pm_proc_read(process->pid, &proc) || proc.start_ticks != process->start_ticks ||
           proc.state == 'Z';
}

static bool newer_or_same(uint32_t number, uint32_t than)
{
    return (int32_t)(number - than) >= 0;
}

static void look_for_answer(struct pm_control_process *process)
{
    struct pm_control_page *page = process->page;
    const uint64_t now_ns = pm_clock_vdso_ns();
    bool asleep = false;
    if (newer_or_same(atomic_load_explicit(&page->answered, memory_order_acquire),
                      process->number)) {
        memcpy(process->answer, page->slots[process->number % PM_CONTROL_SLOTS].answer,
               sizeof(process->answer));
        process->answer[sizeof(process->answer) - 1] = '\0';
        process->state = PM_CONTROL_DONE;
        pm_control_look(process);
        return;
    }
    if (is_gone(process)) {
        process->state = PM_CONTROL_GONE;
        return;
    }
    const uint64_t moves = moves_of(process, &asleep);
    if (moves != process->moves || !asleep) {
        process->moves = moves;
        process->still_since_ns = now_ns;
    } else if (now_ns - process->still_since_ns >= STILL_NS &&
               newer_or_same(atomic_load(&page->heard), process->number)) {
        process->state = PM_CONTROL_QUEUED;
    }
}

static void give_up(struct pm_control_process *process)
{
    struct pm_proc proc;
    process->state = PM_CONTROL_SILENT;
    if (!newer_or_same(atomic_load(&process->page->heard), process->number))
        snprintf(process->why, sizeof(process->why),
                 "its thread that waits for controls did not hear (is the process stopped?)");
    else
        snprintf(process->why, sizeof(process->why),
                 "its main thread has not come back to Python; it is %s",
                 pm_proc_read(process->pid, &proc) ? pm_proc_state_text(proc.state) : "gone");
}

void pm_controls_wait(struct pm_controls *controls, uint64_t limit_ns)
{
    const uint64_t end_ns = pm_clock_vdso_ns() + limit_ns;
    for (;;) {
        struct pm_control_process *waiting = NULL;
        for (size_t i = 0; i < controls->count; i++) {
            struct pm_control_process *process = &controls->rows[i];
            if (process->state == PM_CONTROL_ASKED)
                look_for_answer(process);
            if (process->state == PM_CONTROL_ASKED)
                waiting = process;
        }
        if (waiting == NULL)
            return;
        if (pm_clock_vdso_ns() >= end_ns)
            break;
        const uint32_t answered = atomic_load(&waiting->page->answered);
        if (!newer_or_same(answered, waiting->number))
            futex(&waiting->page->answered, FUTEX_WAIT, answered, SLICE_NS);
    }
    for (size_t i = 0; i < controls->count; i++)
        if (controls->rows[i].state == PM_CONTROL_ASKED)
            give_up(&controls->rows[i]);
}
