/*
 * What the kernel may answer besides success, to reads, writes and allocations of the base and of
 * the recorder: interrupted, a part only, no random bytes yet, a file system of the network, one
 * without a size, a descriptor among the first three. cmake/tests.cmake links this program with
 * --wrap for the calls below; each goes to the kernel unless a test says otherwise.
 */
#include "recorder_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "base/dir.h"
#include "recorder/internal.h"
#include "recorder/birth_internal.h"
#include "recorder/table.h"

static struct {
    bool little;         /* every other call is interrupted, and the rest does 3 bytes at most */
    unsigned calls;      /* … of those */
    int fails;           /* errno of every read and write; 0: none */
    bool writes_nothing; /* pwrite returns 0 */
    bool not_random;     /* getrandom has nothing yet */
    int fallocate_fails; /* its errno; 0: it works */
    bool file_system;    /* fstatfs tells this type */
    unsigned long type;  /* … */
    bool sizeless;       /* fstatvfs tells no size, as a tmpfs without one */
} kernel;

static int setup(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof kernel);
    return 0;
}

/* -1: the call fails with errno; else how many of n bytes it is to do. */
static ssize_t share_of(size_t n)
{
    if (kernel.fails != 0) {
        errno = kernel.fails;
        return -1;
    }
    if (!kernel.little || n == 0)
        return (ssize_t)n;
    if (kernel.calls++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return (ssize_t)(n < 3 ? n : 3);
}

#define WRAP_IO(name, parameters, arguments)                                                       \
    ssize_t __real_##name parameters;                                                              \
    ssize_t __wrap_##name parameters;                                                              \
    ssize_t __wrap_##name parameters                                                               \
    {                                                                                              \
        const ssize_t share = share_of(n);                                                         \
        if (share < 0)                                                                             \
            return -1;                                                                             \
        n = (size_t)share;                                                                         \
        return __real_##name arguments;                                                            \
    }
WRAP_IO(read, (int fd, void *out, size_t n), (fd, out, n))
WRAP_IO(write, (int fd, const void *bytes, size_t n), (fd, bytes, n))

ssize_t __real_pwrite(int fd, const void *bytes, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    if (kernel.writes_nothing)
        return 0;
    /* an interruption every other call, but whole blocks: zeros by threes would take long */
    if (kernel.fails != 0 || (kernel.little && kernel.calls++ % 2 == 0)) {
        errno = kernel.fails != 0 ? kernel.fails : EINTR;
        return -1;
    }
    return __real_pwrite(fd, bytes, kernel.little && n > 1000 ? 1000 : n, at);
}

ssize_t __real_getrandom(void *out, size_t n, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t n, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t n, unsigned flags)
{
    if (!kernel.not_random)
        return __real_getrandom(out, n, flags);
    errno = EAGAIN;
    return -1;
}

int __real_fallocate(int fd, int mode, off_t from, off_t n);
int __wrap_fallocate(int fd, int mode, off_t from, off_t n);
int __wrap_fallocate(int fd, int mode, off_t from, off_t n)
{
    if (kernel.fallocate_fails == 0)
        return __real_fallocate(fd, mode, from, n);
    errno = kernel.fallocate_fails;
    return -1;
}

int __real_fstatfs(int fd, struct statfs *out);
int __wrap_fstatfs(int fd, struct statfs *out);
int __wrap_fstatfs(int fd, struct statfs *out)
{
    const int code = __real_fstatfs(fd, out);
    if (code == 0 && kernel.file_system)
        memcpy(&out->f_type, &kernel.type, sizeof out->f_type);
    return code;
}

int __real_fstatvfs(int fd, struct statvfs *out);
int __wrap_fstatvfs(int fd, struct statvfs *out);
int __wrap_fstatvfs(int fd, struct statvfs *out)
{
    const int code = __real_fstatvfs(fd, out);
    if (code == 0 && kernel.sizeless)
        out->f_blocks = out->f_bfree = out->f_bavail = 0;
    return code;
}

static int temporary_file(void)
{
    char path[] = "/tmp/pmkernel-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    return fd;
}

/* ---- bytes ---- */

static void test_written_and_read_by_pieces(void **state)
{
    static const char text[] = "what is written in pieces comes back whole";
    char dir[256], read_back[sizeof text] = "";
    size_t bytes = 0;
    (void)state;
    kit_session(dir, sizeof dir, NULL);
    const int fd = open(dir, O_RDONLY | O_DIRECTORY);
    kernel.little = true;
    assert_int_equal(pm_dir_create_file(fd, "text", text, sizeof text - 1, 0600), 0);
    assert_int_equal(pm_dir_read_file(fd, "text", read_back, sizeof read_back, &bytes), 0);
    kernel.little = false;
    assert_true(kernel.calls > 20);
    assert_int_equal(bytes, sizeof text - 1);
    assert_string_equal(read_back, text);

    kernel.fails = EIO;
    assert_int_equal(pm_dir_read_file(fd, "text", read_back, sizeof read_back, &bytes), -PM_EIO);
    kernel.fails = ENOSPC;
    assert_int_equal(pm_dir_create_file(fd, "other", text, sizeof text, 0600), -PM_ENOSPACE);
    kernel.fails = 0;
    /* what could not be written whole is not there */
    assert_int_equal(pm_dir_read_file(fd, "other", read_back, sizeof read_back, &bytes),
                     -PM_ENOTFOUND);
    close(fd);
    kit_remove(dir);
}

/* A path without a folder lies here, and one with nothing before its slash in the root. */
static void test_where_a_path_lies(void **state)
{
    struct stat found, expected;
    const char *name = NULL;
    int fd = -1;
    (void)state;
    assert_int_equal(pm_dir_open_parent("session", &fd, &name), 0);
    assert_string_equal(name, "session");
    assert_true(fstat(fd, &found) == 0 && stat(".", &expected) == 0);
    assert_true(found.st_ino == expected.st_ino && found.st_dev == expected.st_dev);
    close(fd);
    assert_int_equal(pm_dir_open_parent("/session", &fd, &name), 0);
    assert_string_equal(name, "session");
    assert_true(fstat(fd, &found) == 0 && stat("/", &expected) == 0);
    assert_true(found.st_ino == expected.st_ino && found.st_dev == expected.st_dev);
    close(fd);
    assert_int_equal(pm_dir_open_parent("/", &fd, &name), -PM_EINVALID);
    assert_int_equal(pm_dir_open_parent("a/..", &fd, &name), -PM_EINVALID);
}

static void test_what_an_errno_means(void **state)
{
    static const struct {
        int errnum, code;
    } rows[] = {
        {ENOMEM, PM_ENOMEM},       {ENOTDIR, PM_ENOTFOUND},       {ENOTEMPTY, PM_EEXISTS},
        {EROFS, PM_EPERMISSION},   {EDQUOT, PM_ENOSPACE},         {ENAMETOOLONG, PM_EINVALID},
        {EINVAL, PM_EINVALID},     {EMFILE, PM_ELIMIT},           {EFBIG, PM_ELIMIT},
        {ENOSYS, PM_EUNSUPPORTED}, {EOPNOTSUPP, PM_EUNSUPPORTED}, {EIO, PM_EIO},
        {ESTALE, PM_EIO}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(pm_error_from_errno(rows[i].errnum), -rows[i].code);
}

/* Early in a boot the kernel has no random bytes: what is made instead differs all the same. */
static void test_without_random_bytes(void **state)
{
    unsigned char made[8][300];
    char dir[256];
    (void)state;
    kernel.not_random = true;
    for (size_t i = 0; i < 8; i++)
        pm_dir_random(made[i], sizeof made[i]);
    for (size_t i = 0; i < 8; i++) {
        unsigned seen[256] = {0}, different = 0;
        for (size_t j = 0; j < sizeof made[i]; j++)
            different += seen[made[i][j]]++ == 0;
        assert_true(different > 80); /* of 300 random bytes 177 are expected */
        for (size_t j = 0; j < i; j++)
            assert_true(memcmp(made[i], made[j], 16) != 0);
    }

    /* Two recorders in one folder find names of their own. */
    kit_session(dir, sizeof dir, NULL);
    const struct pm_recorder_options options = kit_options(dir, false);
    struct pm_recorder *one = kit_open(&options), *other = kit_open(&options);
    assert_true(kit_record(one, KIT_STEP, 0, 0) && kit_record(other, KIT_STEP, 0, 0));
    assert_true(one->ino != other->ino);
    pm_recorder_close(one);
    pm_recorder_close(other);
    kit_remove(dir);
}

/* ---- room on the disk ---- */

static void test_zeros_where_nothing_can_be_allocated(void **state)
{
    static const int without[] = {EOPNOTSUPP, EINTR}; /* EINTR: at each of its tries */
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        unsigned char bytes[5000];
        const int fd = temporary_file();
        assert_int_equal(pwrite(fd, "kept", 4, 0), 4);
        kernel.fallocate_fails = without[i];
        kernel.little = true;
        assert_int_equal(pm_rec_file_extend(fd, 4, sizeof bytes - 4), 0);
        kernel.little = false;
        assert_int_equal(lseek(fd, 0, SEEK_END), sizeof bytes);
        assert_int_equal(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
        assert_memory_equal(bytes, "kept", 4);
        for (size_t at = 4; at < sizeof bytes; at++)
            assert_int_equal(bytes[at], 0);
        kernel.writes_nothing = true;
        assert_int_equal(pm_rec_file_extend(fd, sizeof bytes, 100), -PM_ENOSPACE);
        kernel.writes_nothing = false;
        kernel.fails = EDQUOT;
        assert_int_equal(pm_rec_file_extend(fd, sizeof bytes, 100), -PM_ENOSPACE);
        kernel.fails = 0;
        close(fd);
    }
}

/* A limit on the size of files sends a signal that ends a process: held back, and taken away again,
 * but for one that was there before. In a child: the limit cannot be lifted again. */
static int beyond_the_limit(bool one_before)
{
    const struct rlimit limit = {4096, 4096};
    sigset_t xfsz, pending;
    const int fd = temporary_file();
    sigemptyset(&xfsz);
    sigaddset(&xfsz, SIGXFSZ);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 1;
    if (one_before && (pthread_sigmask(SIG_BLOCK, &xfsz, NULL) != 0 || raise(SIGXFSZ) != 0))
        return 2;
    for (int i = 0; i < 2; i++) {
        kernel.fallocate_fails = i == 0 ? 0 : EOPNOTSUPP;
        if (pm_rec_file_extend(fd, 0, 8192) != -PM_ELIMIT)
            return 3 + i;
        sigemptyset(&pending);
        if (sigpending(&pending) != 0 || (sigismember(&pending, SIGXFSZ) == 1) != one_before)
            return 5 + i;
    }
    return 0;
}

static void test_a_limit_on_the_size_of_files(void **state)
{
    (void)state;
    for (int before = 0; before < 2; before++) {
        int status = -1;
        const pid_t pid = fork();
        if (pid == 0)
            _exit(beyond_the_limit(before == 1));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

/* A tmpfs without a size says that it has 0 blocks: that is no full disk. */
static void test_a_file_system_without_a_size(void **state)
{
    char dir[256];
    (void)state;
    kit_session(dir, sizeof dir, NULL);
    kernel.sizeless = true;
    const struct pm_recorder_options options = kit_options(dir, false);
    struct pm_recorder *rec = kit_open(&options);
    assert_int_equal(pm_rec_budget_claim(rec, 4096, false), 0);
    pm_rec_budget_return(rec, 4096);
    pm_recorder_close(rec);
    kit_remove(dir);
}

static void test_file_systems_of_a_network(void **state)
{
    /* NFS, SMB2 (its sign bit is set), FUSE, Lustre, Ceph; then ext4, tmpfs, XFS, overlayfs, btrfs
     */
    static const unsigned long remote[] = {0x6969,     0xfe534d42, 0xfffffffffe534d42,
                                           0x65735546, 0x0bd00bd0, 0x00c36400};
    static const unsigned long local[] = {0xef53, 0x01021994, 0x58465342, 0x794c7630, 0x9123683e};
    const int fd = temporary_file();
    (void)state;
    kernel.file_system = true;
    for (size_t i = 0; i < sizeof remote / sizeof remote[0]; i++) {
        kernel.type = remote[i];
        assert_true(pm_birth_is_remote(fd));
    }
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
        kernel.type = local[i];
        assert_false(pm_birth_is_remote(fd));
    }
    kernel.file_system = false;
    close(fd);
    assert_false(pm_birth_is_remote(fd)); /* what cannot be asked is taken for local */
}

/* ---- a table beside the record file ---- */

static void test_a_table_and_a_child(void **state)
{
    char dir[256];
    struct pm_table table = {0}, again = {0};
    struct pm_error err = {""};
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    int status = -1;
    (void)state;
    kit_session(dir, sizeof dir, NULL);
    const struct pm_recorder_options options = kit_options(dir, false);
    struct pm_recorder *rec = kit_open(&options);
    const uint64_t before = *rec->budget;
    assert_int_equal(pm_table_make(&table, rec, ".pmtest", 8192, &err), 0);
    assert_int_equal(*rec->budget, before + 8192);
    *(char *)table.base = 'p';
    /* the same once more: refused with what is wrong, and nothing of it counts */
    assert_int_equal(pm_table_make(&again, rec, ".pmtest", 4096, &err), -PM_EEXISTS);
    assert_non_null(strstr(err.text, ".pmtest: cannot be made: File exists"));
    assert_int_equal(pm_table_make(&again, rec, ".pmmore", 128u << 20, &err), -PM_ELIMIT);
    assert_non_null(strstr(err.text, "131072 KiB do not fit"));
    kernel.fallocate_fails = ENOSPC;
    assert_int_equal(pm_table_make(&again, rec, ".pmmore", 4096, &err), -PM_ENOSPACE);
    kernel.fallocate_fails = 0;
    assert_int_equal(*rec->budget, before + 8192);
    assert_null(again.base);
    assert_int_equal(pm_table_make(&again, rec, ".pmmore", 4096, &err), 0); /* the name is free */

    const pid_t pid = fork();
    if (pid == 0) {
        const int fd = table.fd;
        pm_table_forget(&table);
        pm_table_forget(&table); /* once is enough */
        _exit(table.base != NULL || table.fd != -1 || fcntl(fd, F_GETFD) >= 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* the parent's goes on, and another process still sees its lock */
    assert_int_equal(*(char *)table.base, 'p');
    const pid_t other = fork();
    if (other == 0)
        _exit(fcntl(table.fd, F_GETLK, &lock) != 0 || lock.l_type != F_WRLCK ||
              lock.l_pid != getppid());
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_int_equal(status, 0);
    pm_table_forget(&again);
    pm_table_forget(&table);
    pm_recorder_close(rec);
    kit_remove(dir);
}

/* A program may have closed its standard streams: what it prints must not land in our files. And
 * where no descriptor is left to move to, no file stays behind. */
static int without_standard_streams(const char *dir)
{
    const struct pm_recorder_options options = kit_options(dir, false);
    struct pm_recorder *rec = NULL;
    struct pm_table table = {0};
    struct rlimit limit;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    if (pm_recorder_open(&rec, &options, NULL) != 0 || rec->fd < 3)
        return 1;
    if (pm_table_make(&table, rec, ".pmtest", 4096, NULL) != 0 || table.fd < 3)
        return 2;
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            return 3;
    limit = (struct rlimit){3, 3};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 4;
    for (int i = 0; i < 2; i++) { /* the second time, too: the first left nothing in its way */
        struct pm_error err = {""};
        if (pm_table_make(&table, rec, ".pmlate", 4096, &err) == 0 || strstr(err.text, "exists"))
            return 5 + i;
    }
    return 0;
}

static void test_without_standard_streams(void **state)
{
    char dir[256];
    int status = -1;
    (void)state;
    kit_session(dir, sizeof dir, NULL);
    const pid_t pid = fork();
    if (pid == 0)
        _exit(without_standard_streams(dir));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    kit_remove(dir);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_written_and_read_by_pieces),
        TEST(test_where_a_path_lies),
        TEST(test_what_an_errno_means),
        TEST(test_without_random_bytes),
        TEST(test_zeros_where_nothing_can_be_allocated),
        TEST(test_a_limit_on_the_size_of_files),
        TEST(test_a_file_system_without_a_size),
        TEST(test_file_systems_of_a_network),
        TEST(test_a_table_and_a_child),
        TEST(test_without_standard_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
