/*
 * The control page of this process, the thread that waits for its bell, and the pending call (see
 * control.h). pm_control_arm and the pending call hold the GIL; the thread never does. Owns the
 * page, its descriptor and the thread.
 */
#include "hook/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hook/compat.h"
#include "hook/guard.h"
#include "hook/hook.h"
#include "hook/session.h"
#include "session/attrs.h"

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_SEAL_SEAL 1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#endif

#define STACK_BYTES (128u * 1024u)
#define FD_FROM 64 /* out of the way of programs that count on low numbers */

static struct {
    struct pm_control_page *page; /* NULL: not armed */
    int fd;
    bool grouped;
    uint8_t group[PM_CONTROL_GROUP_BYTES];
    uint32_t root_pid;
    _Atomic bool busy; /* a half was under way: the thread is to ask again, soon */
} control = {.fd = -1};

/* ---- waiting ---- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value,
                  const struct timespec *timeout)
{
    (void)syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

static void nap_ms(long ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL);
}

static int pending_call(void *unused);

/* Sleeps until the bell rings; a shared futex, since the one who rings is another process.
 *
 * ask_again does not change the word that is slept on, so that its wake is lost where it falls
 * between the look at busy and the sleep. While an answer is owed the sleep is therefore a short
 * one, twice as long each time up to a second: a main thread that is idle may owe it for hours. */
static void *wait_for_bell(void *arg)
{
    struct pm_control_page *page = arg;
    struct sched_param none = {0};
    long nap = 1;
    if (sched_getscheduler(0) == SCHED_OTHER)
        (void)sched_setscheduler(0, SCHED_BATCH, &none);
    uint32_t heard = atomic_load(&page->heard);
    for (;;) {
        uint32_t bell = atomic_load_explicit(&page->bell, memory_order_acquire);
        const bool again = atomic_exchange(&control.busy, false);
        if (bell == heard && !again) {
            const struct timespec time = {.tv_sec = nap / 1000, .tv_nsec = nap % 1000 * 1000000};
            const bool owed = atomic_load(&page->answered) != bell;
            futex(&page->bell, FUTEX_WAIT, bell, owed ? &time : NULL);
            nap = !owed ? 1 : nap < 500 ? nap * 2 : 1000;
            continue;
        }
        if (again)
            nap_ms(1);
        nap = 1;
        /* The interpreter has room for 32 such calls. */
        while (Py_AddPendingCall(pending_call, NULL) < 0)
            nap_ms(50);
        heard = bell;
        atomic_store(&page->heard, heard);
        futex(&page->heard, FUTEX_WAKE, INT_MAX, NULL);
    }
    return NULL;
}

/* Has the thread ask again in a moment. */
static void ask_again(struct pm_control_page *page)
{
    atomic_store(&control.busy, true);
    futex(&page->bell, FUTEX_WAKE, INT_MAX, NULL);
}

/* ---- the pending call ---- */

void pm_control_publish(void)
{
    struct pm_control_page *page = control.page;
    if (!page)
        return;
    static char text[PM_CONTROL_STATUS_MAX];
    pm_control_status(text, sizeof text);
    atomic_fetch_add(&page->status_seq, 1);
    memcpy(page->status, text, sizeof text);
    atomic_fetch_add(&page->status_seq, 1);
}

static void answer_one(struct pm_control_page *page, uint32_t number)
{
    static char request[PM_CONTROL_REQUEST_MAX], answer[PM_CONTROL_ANSWER_MAX];
    struct pm_control_slot *slot = &page->slots[number % PM_CONTROL_SLOTS];
    memcpy(request, slot->request, sizeof request);
    request[sizeof request - 1] = '\0'; /* whoever may write there may write anything */
    pm_control_do(request, answer, sizeof answer);
    memcpy(slot->answer, answer, sizeof answer);
    pm_control_publish();
    atomic_store_explicit(&page->answered, number, memory_order_release);
    futex(&page->answered, FUTEX_WAKE, INT_MAX, NULL);
}

/* Never raises: what goes wrong stands in the answer. */
static int pending_call(void *unused)
{
    struct pm_control_page *page = control.page;
    (void)unused;
    if (!page || page->pid != (uint32_t)getpid())
        return 0;
    if (pm_guard_halves > 0 || pm_guard_here.inside > 0) {
        ask_again(page);
        return 0;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    uint32_t done = atomic_load(&page->answered), bell = atomic_load(&page->bell);
    if (bell - done > PM_CONTROL_SLOTS)
        done = bell - 1;
    while (done != bell)
        answer_one(page, ++done);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    return 0;
}

/* ---- arming ---- */

static const char hex_digits[] = "0123456789abcdef";

static void format_mark(char *out, size_t size)
{
    char hex[2 * PM_CONTROL_GROUP_BYTES + 1];
    for (size_t i = 0; i < PM_CONTROL_GROUP_BYTES; i++) {
        hex[2 * i] = hex_digits[control.group[i] >> 4];
        hex[2 * i + 1] = hex_digits[control.group[i] & 15];
    }
    hex[sizeof hex - 1] = '\0';
    snprintf(out, size, "%u:%s", control.root_pid, hex);
}

static bool parse_mark(const char *text)
{
    char *rest;
    const unsigned long pid = strtoul(text, &rest, 10);
    if (rest == text || *rest != ':' || pid == 0 || pid > INT32_MAX ||
        strspn(rest + 1, hex_digits) != 2 * PM_CONTROL_GROUP_BYTES ||
        rest[1 + 2 * PM_CONTROL_GROUP_BYTES] != '\0')
        return false;
    for (size_t i = 0; i < PM_CONTROL_GROUP_BYTES; i++) {
        const char *at = rest + 1 + 2 * i;
        control.group[i] = (uint8_t)((strchr(hex_digits, at[0]) - hex_digits) << 4 |
                                     (strchr(hex_digits, at[1]) - hex_digits));
    }
    control.root_pid = (uint32_t)pid;
    return true;
}

bool pm_control_mark(bool first)
{
    char mark[64];
    const char *value = getenv(PM_CONTROL_ENV);
    if (!control.grouped && value && parse_mark(value)) {
        control.grouped = true;
        return true;
    }
    if (!control.grouped && first) {
        control.root_pid = (uint32_t)getpid();
        if (getrandom(control.group, sizeof control.group, GRND_NONBLOCK) !=
            (ssize_t)sizeof control.group) {
            struct timespec now; /* distinct, if not secret: nothing hangs on that */
            clock_gettime(CLOCK_MONOTONIC, &now);
            memcpy(control.group, &now, sizeof control.group);
        }
        control.grouped = true;
        format_mark(mark, sizeof mark);
        pm_guide_put(PM_CONTROL_ENV, mark);
    }
    return control.grouped;
}

bool pm_control_is_sign(const char *module)
{
    return strcmp(module, "vllm.v1.engine.core") == 0 ||
           strcmp(module, "vllm.v1.worker.worker_base") == 0;
}

/* The group: the mark's where the server began without recording, else the session's token; all of
 * a server's processes have either. */
static void take_group(void)
{
    if (pm_control_mark(false) || control.grouped)
        return;
    if (!pm_session_active()) {
        (void)pm_control_mark(true);
        return;
    }
    const struct pm_birth *birth = pm_session_birth();
    _Static_assert(PM_CONTROL_GROUP_BYTES == PM_TOKEN_BYTES, "a token is a group");
    memcpy(control.group, birth->token, sizeof control.group);
    control.root_pid = birth->root_pid;
    control.grouped = true;
}

static bool make_page(void)
{
    int fd = memfd_create(PM_CONTROL_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return false;
    const int high = fcntl(fd, F_DUPFD_CLOEXEC, FD_FROM);
    if (high >= 0) {
        close(fd);
        fd = high;
    }
    void *page = MAP_FAILED;
    if (fchmod(fd, 0600) == 0 && ftruncate(fd, sizeof(struct pm_control_page)) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        page =
            mmap(NULL, sizeof(struct pm_control_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        close(fd);
        return false;
    }
    control.fd = fd;
    control.page = page;
    control.page->pid = (uint32_t)getpid();
    control.page->root_pid = control.root_pid;
    memcpy(control.page->group, control.group, sizeof control.group);
    control.page->bytes = sizeof *control.page;
    control.page->version = PM_CONTROL_VERSION;
    control.page->magic = PM_CONTROL_MAGIC;
    return true;
}

static bool start_thread(void)
{
    sigset_t all, old;
    pthread_attr_t attr;
    pthread_t thread;
    sigfillset(&all);
    if (pthread_sigmask(SIG_BLOCK, &all, &old) != 0)
        return false;
    int errnum = pthread_attr_init(&attr);
    if (errnum == 0) {
        (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
        errnum = pthread_create(&thread, &attr, wait_for_bell, control.page);
        if (errnum == EINVAL) /* much thread-local storage */
            errnum = pthread_create(&thread, NULL, wait_for_bell, control.page);
        pthread_attr_destroy(&attr);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (errnum != 0)
        return false;
    (void)pthread_setname_np(thread, "profilemate-ctl");
    (void)pthread_detach(thread);
    return true;
}

static void drop_page(void)
{
    if (control.page)
        (void)munmap(control.page, sizeof *control.page);
    if (control.fd >= 0)
        close(control.fd);
    control.page = NULL;
    control.fd = -1;
}

/* os.register_at_fork(after_in_child=): the page is the parent's, and its thread is not here. */
static PyObject *in_child(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (control.page && control.page->pid != (uint32_t)getpid()) {
        /* The descriptor may have been closed, and its number used again, by whoever forked. */
        char path[64], link[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", control.fd);
        if (readlink(path, link, sizeof link - 1) < 0 || !strstr(link, PM_CONTROL_NAME))
            control.fd = -1;
        drop_page();
        pm_control_arm();
    }
    Py_RETURN_NONE;
}

static void register_fork(void)
{
    static PyMethodDef method = {"_profilemate_forked", in_child, METH_NOARGS, NULL};
    static bool registered;
    if (registered)
        return;
    PyObject *os = PyDict_GetItemString(PyImport_GetModuleDict(), "os"); /* borrowed */
    PyObject *function = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *args = PyTuple_New(0), *kwargs = PyDict_New();
    PyObject *callback = PyCFunction_NewEx(&method, NULL, NULL);
    if (function && args && kwargs && callback &&
        PyDict_SetItemString(kwargs, "after_in_child", callback) == 0) {
        PyObject *done = PyObject_Call(function, args, kwargs);
        registered = done != NULL;
        Py_XDECREF(done);
    }
    PyErr_Clear();
    Py_XDECREF(callback);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(function);
}

void pm_control_arm(void)
{
    static struct pm_settings settings;
    if (control.page)
        return;
    pm_session_settings(&settings, NULL);
    if (!settings.control)
        return;
    take_group();
    register_fork();
    if (make_page() && !start_thread())
        drop_page();
    if (!control.page)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "control",
                      "no control page could be made here: `profilemate set`, `start` and `stop` "
                      "do not reach this process");
    pm_control_publish();
}
