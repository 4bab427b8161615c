/*
 * fork() in every state: the child's copy is mute and harmless, the parent's file and lock stay as
 * they are, and the child may record into a file of its own.
 */
#include "recorder_kit.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

struct fixture {
    char dir[256], child_dir[256];
    struct pm_recorder_options options;
    struct pm_recorder *rec;
    uint64_t written[KIT_SCHEMAS];
};

static struct fixture *begin(void **state, bool thread)
{
    struct fixture *f = *state;
    kit_session(f->dir, sizeof f->dir, NULL);
    kit_session(f->child_dir, sizeof f->child_dir, NULL);
    f->options = kit_options(f->dir, thread);
    f->rec = kit_open(&f->options);
    return f;
}

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state == NULL;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    kit_remove(f->dir);
    kit_remove(f->child_dir);
    free(f);
    return 0;
}

static void step(struct fixture *f)
{
    char text[32];
    int n =
        snprintf(text, sizeof text, "name-%llu", (unsigned long long)(f->written[KIT_STEP] % 50));
    uint32_t name = pm_recorder_string(f->rec, PM_STREAM_CORE, text, (size_t)n);
    f->written[KIT_STEP] += kit_record(f->rec, KIT_STEP, f->written[KIT_STEP], name);
}

static void check_parent(struct fixture *f)
{
    struct walk walk;
    pm_recorder_close(f->rec);
    kit_check_session(f->dir, f->written, &walk);
    walk_free(&walk);
}

/* In the child: every verb, each of which must do nothing. Returns the number of the one that did
 * not. */
static int verbs_are_mute(struct pm_recorder *rec)
{
    if (!pm_recorder_forked(rec))
        return 1;
    for (unsigned schema = 0; schema < KIT_SCHEMAS; schema++) {
        if (pm_recorder_reserve(rec, schema) != NULL)
            return 2;
    }
    pm_recorder_commit(rec, NULL);
    if (pm_recorder_string(rec, PM_STREAM_CORE, "name-1", 6) != 0)
        return 3;
    pm_recorder_string_drop(rec, PM_STREAM_CORE, 1);
    pm_recorder_attr(rec, "note.child", "x");
    pm_recorder_identify(rec, PM_ROLE_WORKER, 9, 9);
    pm_recorder_round(rec);
    /* Hooks go on counting in the header: in memory of the child. */
    struct pm_file_head *head = pm_recorder_head(rec);
    if (head == NULL)
        return 4;
    atomic_fetch_add(&head->hook_calls, 1000000);
    atomic_fetch_add(&head->faults, 1000000);
    return 0;
}

/* The thread sanitizer allows no threads in a child of a threaded process. */
#if defined(__SANITIZE_THREAD__)
#define CHILD_MAY_HAVE_THREADS false
#else
#define CHILD_MAY_HAVE_THREADS true
#endif

/* In the child: a recorder of its own, whose file is checked there too. */
static int records_of_its_own(struct fixture *f, bool thread)
{
    thread &= CHILD_MAY_HAVE_THREADS;
    struct pm_recorder_options options = kit_options(f->child_dir, thread);
    struct pm_recorder *rec = NULL;
    if (pm_recorder_open(&rec, &options, NULL) != 0)
        return 10;
    uint64_t written[KIT_SCHEMAS] = {0};
    for (int i = 0; i < 500; i++)
        written[KIT_STEP] += kit_record(rec, KIT_STEP, written[KIT_STEP], 0);
    if (written[KIT_STEP] != 500)
        return 11;
    pm_recorder_close(rec);
    char path[600];
    struct walk walk;
    struct kit_check *check = calloc(1, sizeof *check);
    if (walk_find(f->child_dir, path, sizeof path) != 1 || walk_open(&walk, path) != 0)
        return 12;
    if (walk.fault[0] == '\0')
        kit_check_walked(check, &walk, written, true);
    int result = walk.fault[0] == '\0' && walk.head->pid == (uint32_t)getpid() ? 0 : 13;
    walk_free(&walk);
    free(check);
    return result;
}

static void expect_exit(pid_t pid)
{
    int status;
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with %s %d", WIFEXITED(status) ? "code" : "signal",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void child_is_mute(struct fixture *f, bool thread)
{
    pid_t pid = fork();
    if (pid == 0) {
        int code = verbs_are_mute(f->rec);
        if (code == 0)
            code = records_of_its_own(f, thread);
        pm_recorder_abandon(f->rec);
        _exit(code);
    }
    expect_exit(pid);
    assert_false(pm_recorder_forked(f->rec));
    assert_int_equal(atomic_load(&pm_recorder_head(f->rec)->faults), 0);
}

static void before_the_first_record(void **state)
{
    struct fixture *f = begin(state, true);
    child_is_mute(f, true);
    step(f);
    check_parent(f);
}

static void between_records(void **state)
{
    struct fixture *f = begin(state, true);
    for (int i = 0; i < 200; i++)
        step(f);
    child_is_mute(f, true);
    for (int i = 0; i < 200; i++)
        step(f);
    check_parent(f);
}

static void without_a_thread(void **state)
{
    struct fixture *f = begin(state, false);
    for (int i = 0; i < 5000; i++)
        step(f);
    child_is_mute(f, false);
    for (int i = 0; i < 5000; i++)
        step(f);
    assert_int_equal(f->written[KIT_STEP], 10000);
    check_parent(f);
}

/* The child holds a payload that the parent reserved: it fills and commits it, into nothing. */
static void between_reserve_and_commit(void **state)
{
    struct fixture *f = begin(state, true);
    step(f);
    static const unsigned kinds[] = {KIT_STEP, KIT_BLOCK, KIT_CUSTOM, KIT_NOTE};
    for (size_t i = 0; i < 4; i++) {
        void *payload = pm_recorder_reserve(f->rec, kinds[i]);
        assert_non_null(payload);
        pid_t pid = fork();
        if (pid == 0) {
            memset(payload, 0xff, kit_tables[kinds[i]].payload_bytes);
            pm_recorder_commit(f->rec, payload);
            int code = verbs_are_mute(f->rec);
            pm_recorder_close(f->rec); /* in a child the same as abandon */
            _exit(code);
        }
        expect_exit(pid);
        uint64_t n = f->written[kinds[i]]++;
        if (kinds[i] == KIT_STEP)
            kit_step_fill(payload, n, 0);
        else
            *(struct kit_small *)payload = (struct kit_small){n, n % 13};
        pm_recorder_commit(f->rec, payload);
    }
    check_parent(f);
}

/* Many forks while the helper makes, recycles and unmaps segments and another thread makes rounds
 * and attributes: any lock may be held at that moment. */
struct noise {
    struct pm_recorder *rec;
    _Atomic int stop;
};

static void *make_noise(void *arg)
{
    struct noise *noise = arg;
    while (!atomic_load(&noise->stop)) {
        pm_recorder_round(noise->rec);
        pm_recorder_attr(noise->rec, "note.noise", "value");
    }
    return NULL;
}

static void while_everything_works(void **state)
{
    struct fixture *f = *state;
    kit_session(f->dir, sizeof f->dir, NULL);
    kit_session(f->child_dir, sizeof f->child_dir, NULL);
    f->options = kit_options(f->dir, true);
    f->options.ceiling_bytes = 6 * PM_SEGMENT_BYTES_MIN;
    f->rec = kit_open(&f->options);
    struct noise noise = {.rec = f->rec};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, make_noise, &noise), 0);
    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < 300; k++)
            step(f);
        pid_t pid = fork();
        if (pid == 0) {
            int code = verbs_are_mute(f->rec);
            pm_recorder_abandon(f->rec);
            _exit(code);
        }
        expect_exit(pid);
    }
    atomic_store(&noise.stop, 1);
    pthread_join(thread, NULL);
    check_parent(f);
}

/* The lock is the parent's: neither the child's death nor its abandon drops it. */
static void the_lock_stays(void **state)
{
    struct fixture *f = begin(state, true);
    char path[600];
    step(f);
    assert_int_equal(walk_find(f->dir, path, sizeof path), 1);
    for (int round = 0; round < 2; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            pm_recorder_abandon(f->rec);
            int fd = open(path, O_RDWR | O_CLOEXEC);
            struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
            if (fd < 0 || fcntl(fd, F_GETLK, &lock) != 0)
                _exit(1);
            _exit(lock.l_type == F_WRLCK && lock.l_pid == getppid() ? 0 : 2);
        }
        expect_exit(pid);
    }
    check_parent(f);
}

/* A child that closed everything and got another file under our number: abandon leaves it open. */
static void a_reused_descriptor_is_not_closed(void **state)
{
    struct fixture *f = begin(state, true);
    step(f);
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 3; fd < 256; fd++)
            close(fd);
        int fds[64];
        for (int i = 0; i < 64; i++)
            fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        pm_recorder_abandon(f->rec);
        for (int i = 0; i < 64; i++) {
            if (fcntl(fds[i], F_GETFD) < 0)
                _exit(1);
        }
        _exit(0);
    }
    expect_exit(pid);
    check_parent(f);
}

/* A grandchild through a child's own recorder, and two recorders in one process. */
static void generations(void **state)
{
    struct fixture *f = begin(state, true);
    step(f);
    pid_t pid = fork();
    if (pid == 0) {
        pm_recorder_abandon(f->rec);
        struct pm_recorder_options options = kit_options(f->child_dir, CHILD_MAY_HAVE_THREADS);
        struct pm_recorder *own = NULL;
        if (pm_recorder_open(&own, &options, NULL) != 0 || !kit_record(own, KIT_STEP, 0, 0))
            _exit(1);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            int code = verbs_are_mute(own);
            pm_recorder_abandon(own);
            _exit(code);
        }
        int status = 1;
        waitpid(grandchild, &status, 0);
        if (status != 0 || !kit_record(own, KIT_STEP, 1, 0))
            _exit(2);
        pm_recorder_close(own);
        _exit(0);
    }
    expect_exit(pid);
    uint64_t written[KIT_SCHEMAS] = {[KIT_STEP] = 2};
    struct walk walk;
    kit_check_session(f->child_dir, written, &walk);
    walk_free(&walk);
    check_parent(f);
}

/* clone() as a bare system call runs no handlers: the kernel alone makes the child mute. */
static void a_bare_clone_is_mute(void **state)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    (void)state;
    skip(); /* the sanitizers' runtimes do not survive it */
#else
    struct fixture *f = begin(state, true);
    step(f);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0) {
        int code = verbs_are_mute(f->rec);
        pm_recorder_abandon(f->rec);
        _exit(code);
    }
    expect_exit(pid);
    step(f);
    check_parent(f);
#endif
}

/* The helper thread has all signals blocked: one that is sent to the process finds the caller. */
static _Atomic int handled_in;

static void on_signal(int signal_number)
{
    (void)signal_number;
    atomic_store(&handled_in, (int)syscall(SYS_gettid));
}

static void signals_go_to_the_program(void **state)
{
    struct fixture *f = begin(state, true);
    step(f);
    struct sigaction action = {.sa_handler = on_signal}, old;
    sigaction(SIGUSR1, &action, &old);
    sigset_t usr1, mask;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, &mask); /* nobody takes it now */
    kill(getpid(), SIGUSR1);
    pm_recorder_round(f->rec);
    assert_int_equal(atomic_load(&handled_in), 0);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    assert_int_equal(atomic_load(&handled_in), (int)syscall(SYS_gettid));
    sigaction(SIGUSR1, &old, NULL);
    check_parent(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(before_the_first_record),
        TEST(between_records),
        TEST(without_a_thread),
        TEST(between_reserve_and_commit),
        TEST(while_everything_works),
        TEST(the_lock_stays),
        TEST(a_reused_descriptor_is_not_closed),
        TEST(generations),
        TEST(a_bare_clone_is_mute),
        TEST(signals_go_to_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
