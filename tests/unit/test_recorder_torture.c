/*
 * The recorder when the system refuses: the n-th allocation, mapping, file operation or thread
 * fails, for every n, in a life of open, records, rounds and close. Whatever fails, the process
 * goes on, the file is whole, what was reported committed is there, and nothing is leaked (address
 * sanitizer).
 *
 * The calls are wrapped by the linker (--wrap, see cmake/tests.cmake).
 */
#include "recorder_kit.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

static _Thread_local long countdown = -1; /* the call that fails, from 0; -1: none does */
static _Thread_local long calls;
static _Thread_local bool armed, and_all_after;

static bool fails(void)
{
    if (!armed)
        return false;
    long call = calls++;
    return countdown >= 0 && (call == countdown || (and_all_after && call > countdown));
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : __real_calloc(n, bytes);
}

void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes)
{
    return fails() ? NULL : __real_realloc(old, bytes);
}

void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
    if (fails()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap(at, bytes, prot, flags, fd, offset);
}

int __real_fallocate(int fd, int mode, off_t from, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t from, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t from, off_t bytes)
{
    static const int errors[] = {ENOSPC, EIO, EINTR, EOPNOTSUPP, EDQUOT};
    if (fails()) {
        errno = errors[(unsigned long)calls % (sizeof errors / sizeof *errors)];
        return -1;
    }
    return __real_fallocate(fd, mode, from, bytes);
}

int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice)
{
    if (fails()) {
        errno = calls % 2 == 0 ? EINVAL : EFAULT; /* an old kernel; no room for the page */
        return -1;
    }
    return __real_madvise(at, bytes, advice);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                          void *arg)
{
    return fails() ? EAGAIN : __real_pthread_create(thread, attr, fn, arg);
}

int __real_openat(int dir, const char *path, int flags, mode_t mode);
int __wrap_openat(int dir, const char *path, int flags, mode_t mode);
int __wrap_openat(int dir, const char *path, int flags, mode_t mode)
{
    if (fails()) {
        errno = EMFILE;
        return -1;
    }
    return __real_openat(dir, path, flags, mode);
}

int __real_fcntl(int fd, int command, void *arg);
int __wrap_fcntl(int fd, int command, void *arg);
int __wrap_fcntl(int fd, int command, void *arg)
{
    if (fails()) {
        errno = ENOLCK;
        return -1;
    }
    return __real_fcntl(fd, command, arg);
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    for (uint64_t n = 0; n < 3 && stream == PM_STREAM_CORE; n++)
        kit_record(rec, KIT_PRESENT, n, 0);
}

/* One life; false: it could not even be opened. */
static bool live(const struct pm_recorder_options *options, uint64_t written[KIT_SCHEMAS])
{
    struct pm_recorder *rec = NULL;
    struct pm_error err = {{0}};
    int code = pm_recorder_open(&rec, options, &err);
    if (code != 0) {
        assert_null(rec);
        assert_true(code < 0 && err.text[0] != '\0');
        return false;
    }
    for (int i = 0; i < 8000; i++) {
        uint32_t name = 0;
        char text[32];
        int n =
            snprintf(text, sizeof text, "name-%llu", (unsigned long long)(written[KIT_STEP] % 50));
        name = pm_recorder_string(rec, PM_STREAM_CORE, text, (size_t)n);
        written[KIT_STEP] += kit_record(rec, KIT_STEP, written[KIT_STEP], name);
        written[KIT_BLOCK] += kit_record(rec, KIT_BLOCK, written[KIT_BLOCK], 0);
        written[KIT_NOTE] += i % 10 == 0 && kit_record(rec, KIT_NOTE, written[KIT_NOTE], 0);
        if (i % 500 == 0) {
            pm_recorder_attr(rec, "note.i", "value");
            pm_recorder_round(rec);
        }
    }
    for (int i = 0; i < 600; i++) { /* the string table grows */
        char text[300];
        int n = snprintf(text, sizeof text, "other-%d%*s", i, i % 150, "");
        uint32_t id = pm_recorder_string(rec, PM_STREAM_BLOCKS, text, (size_t)n);
        if (i % 3 == 0)
            pm_recorder_string_drop(rec, PM_STREAM_BLOCKS, id);
    }
    pm_recorder_close(rec);
    return true;
}

static void torture(bool thread, bool all_after)
{
    long total = 1;
    unsigned opened = 0;
    for (long n = -1; n < total; n++) {
        char dir[256], path[600];
        kit_session(dir, sizeof dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
        struct pm_recorder_options options = kit_options(dir, thread);
        options.keyframe = keyframe;
        options.ceiling_bytes = 8 * PM_SEGMENT_BYTES_MIN;
        uint64_t written[KIT_SCHEMAS] = {0};
        calls = 0;
        countdown = n;
        and_all_after = all_after;
        armed = true;
        bool done = live(&options, written);
        armed = false;
        if (n == -1)
            total = calls; /* nothing failed: so many calls there are */
        if (done) {
            struct walk walk;
            struct kit_check *check = calloc(1, sizeof *check);
            opened++;
            assert_int_equal(walk_find(dir, path, sizeof path), 1);
            assert_int_equal(walk_open(&walk, path), 0);
            if (walk.fault[0] == '\0')
                kit_check_walked(check, &walk, written, true);
            if (walk.fault[0] != '\0')
                fail_msg("call %ld of %ld failed: %s", n, total, walk.fault);
            if (n == -1 && !thread) {
                assert_int_equal(written[KIT_STEP], 8000);
                assert_true(walk.head->state & PM_STATE_RECYCLED);
            }
            walk_free(&walk);
            free(check);
        } else {
            assert_int_equal(walk_find(dir, path, sizeof path), 0);
        }
        kit_remove(dir);
    }
    assert_true(total > 30);
    assert_true(opened > 1 && opened < (unsigned)total + 1);
    print_message("%ld calls, each failed once; %u of the lives could open\n", total, opened);
}

static void each_call_fails_once(void **state)
{
    (void)state;
    torture(false, false);
}

static void each_call_and_all_after_it_fail(void **state)
{
    (void)state;
    torture(false, true);
}

static void each_call_of_the_caller_fails_beside_the_thread(void **state)
{
    (void)state;
    torture(true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_fails_once),
        cmocka_unit_test(each_call_and_all_after_it_fail),
        cmocka_unit_test(each_call_of_the_caller_fails_beside_the_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
