/*
 * The recorder and the disk: the ceiling that processes share, a full disk, a limit on file sizes,
 * a directory that is deleted. Nothing of it may end or hold up the process.
 */
#include "recorder_kit.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>

#define SEGMENT ((uint64_t)PM_SEGMENT_BYTES_MIN)

static void nap_ms(long ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

static int wait_status(pid_t pid)
{
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void expect_exit(pid_t pid)
{
    int status = wait_status(pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with %s %d", WIFEXITED(status) ? "code" : "signal",
                 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

/* ---- the ceiling of a session ---- */

static int write_much(const char *dir, uint64_t ceiling, bool thread)
{
    struct pm_recorder_options options = kit_options(dir, thread);
    struct pm_recorder *rec = NULL;
    options.ceiling_bytes = ceiling;
    if (pm_recorder_open(&rec, &options, NULL) != 0)
        return 1;
    uint64_t steps = 0, blocks = 0;
    for (int i = 0; i < 40000; i++) {
        steps += kit_record(rec, KIT_STEP, steps, 0);
        blocks += kit_record(rec, KIT_BLOCK, blocks, 0);
        if (thread && i % 200 == 0)
            nap_ms(1);
    }
    pm_recorder_close(rec);
    return steps > 0 ? 0 : 2;
}

static uint64_t budget_of(const char *dir)
{
    char path[300];
    uint64_t budget = UINT64_MAX;
    snprintf(path, sizeof path, "%.200s/records/budget", dir);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fread(&budget, sizeof budget, 1, file), 1);
    fclose(file);
    return budget;
}

static void processes_share_the_ceiling(void **state)
{
    (void)state;
    enum { PROCESSES = 4 };
    const uint64_t ceiling = 40 * SEGMENT;
    char dir[256], records[300], path[600];
    kit_session(dir, sizeof dir, NULL);
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            _exit(write_much(dir, ceiling, i % 2 == 0));
    }
    for (int i = 0; i < PROCESSES; i++)
        expect_exit(pids[i]);

    uint64_t slots = 0, recycled = 0;
    snprintf(records, sizeof records, "%s/records", dir);
    DIR *folder = opendir(records);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (strstr(entry->d_name, ".pmrec") == NULL)
            continue;
        struct walk walk;
        snprintf(path, sizeof path, "%s/%s", records, entry->d_name);
        assert_int_equal(walk_open(&walk, path), 0);
        walk_records(&walk, NULL, NULL);
        assert_string_equal(walk.fault, "");
        assert_true(walk.n == walk.head->header_bytes + walk.head->slots * SEGMENT);
        slots += walk.head->slots;
        recycled += walk.head->recycled[PM_STREAM_CORE];
        walk_free(&walk);
    }
    closedir(folder);
    assert_int_equal(budget_of(dir), slots * SEGMENT);
    /* Beyond it only what each process may always have. */
    assert_in_range(slots, 40, 40 + 3 * PROCESSES);
    assert_true(recycled > 0);
    kit_remove(dir);
}

/* A process that comes when the others have used it up still records in its least three slots. */
static void a_late_process_gets_its_least(void **state)
{
    (void)state;
    char dir[256], path[300];
    kit_session(dir, sizeof dir, NULL);
    snprintf(path, sizeof path, "%s/records/budget", dir);
    FILE *file = fopen(path, "we");
    uint64_t used = 40 * SEGMENT;
    assert_int_equal(fwrite(&used, sizeof used, 1, file), 1);
    fclose(file);
    assert_int_equal(write_much(dir, 40 * SEGMENT, false), 0);
    struct walk walk;
    char found[600];
    assert_int_equal(walk_find(dir, found, sizeof found), 1);
    assert_int_equal(walk_open(&walk, found), 0);
    walk_records(&walk, NULL, NULL);
    assert_string_equal(walk.fault, "");
    assert_int_equal(walk.head->slots, 3);
    assert_int_equal(walk.streams[PM_STREAM_CORE].facts, 40000);
    assert_int_equal(walk.head->lost[PM_STREAM_CORE], 0);
    assert_int_equal(walk.head->lost[PM_STREAM_BLOCKS], 40000);
    walk_free(&walk);
    kit_remove(dir);
}

/* ---- a full disk ---- */

static char small_disk[64]; /* "": none can be mounted */
static char why_none[128];

/* A tmpfs of its own for this process, which goes with it. */
static int mount_small_disk(const char *size)
{
    static bool separate;
    char data[64];
    if (small_disk[0] != '\0')
        (void)umount2(small_disk, MNT_DETACH);
    if (!separate &&
        (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)) {
        snprintf(why_none, sizeof why_none, "no mount namespace: %s", strerror(errno));
        return -1;
    }
    separate = true;
    snprintf(small_disk, sizeof small_disk, "/tmp/pmdisk-XXXXXX");
    snprintf(data, sizeof data, "size=%s", size);
    if (mkdtemp(small_disk) == NULL || mount("tmpfs", small_disk, "tmpfs", 0, data) != 0) {
        snprintf(why_none, sizeof why_none, "no tmpfs can be mounted: %s", strerror(errno));
        (void)rmdir(small_disk);
        small_disk[0] = '\0';
        return -1;
    }
    return 0;
}

static void drop_small_disk(void)
{
    (void)umount2(small_disk, MNT_DETACH);
    (void)rmdir(small_disk);
    small_disk[0] = '\0';
}

#define NEEDS_SMALL_DISK(size)                                                                     \
    do {                                                                                           \
        if (mount_small_disk(size) != 0) {                                                         \
            print_message("skipped: %s\n", why_none);                                              \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* Leaves so many bytes free on the small disk. Returns the descriptor of the file in the way. */
static int fill_up(uint64_t leave)
{
    char path[300];
    snprintf(path, sizeof path, "%s/filler", small_disk);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    static const char zeros[65536];
    while (write(fd, zeros, sizeof zeros) > 0) {
    }
    off_t size = lseek(fd, 0, SEEK_END);
    assert_int_equal(ftruncate(fd, size > (off_t)leave ? size - (off_t)leave : 0), 0);
    return fd;
}

static void a_disk_too_small_recycles(void **state)
{
    (void)state;
    NEEDS_SMALL_DISK("1m");
    char dir[256];
    struct walk walk;
    uint64_t written[KIT_SCHEMAS] = {0};
    kit_session(dir, sizeof dir, small_disk);
    struct pm_recorder_options options = kit_options(dir, false);
    struct pm_recorder *rec = kit_open(&options);
    for (int i = 0; i < 60000; i++)
        written[KIT_STEP] += kit_record(rec, KIT_STEP, written[KIT_STEP], 0);
    pm_recorder_close(rec);
    assert_int_equal(written[KIT_STEP], 60000); /* recycled, not lost */
    kit_check_session(dir, written, &walk);
    assert_true(walk.head->state & PM_STATE_DISK_FULL);
    assert_true(walk.head->state & PM_STATE_RECYCLED);
    assert_true(walk.head->slots >= 8); /* used up to the 5 % that are left free */
    assert_int_equal(budget_of(dir), walk.head->slots * SEGMENT);
    walk_free(&walk);
    kit_remove(dir);
    drop_small_disk();
}

/* Not even the least segments can be had; later there is room again. */
static void a_full_disk_loses_and_recovers(void **state)
{
    (void)state;
    NEEDS_SMALL_DISK("1m");
    char dir[256];
    struct walk walk;
    uint64_t written[KIT_SCHEMAS] = {0}, refused = 0;
    kit_session(dir, sizeof dir, small_disk);
    int filler = fill_up(2 * SEGMENT + 8192); /* header, budget, and the first KEEP segment */
    struct pm_recorder_options options = kit_options(dir, true);
    struct pm_recorder *rec = kit_open(&options);
    for (int i = 0; i < 2000; i++) {
        if (kit_record(rec, KIT_STEP, written[KIT_STEP], 0))
            written[KIT_STEP]++;
        else
            refused++;
    }
    assert_int_equal(written[KIT_STEP], 0);
    assert_true(atomic_load(&pm_recorder_head(rec)->state) & PM_STATE_DISK_FULL);
    assert_int_equal(atomic_load(&pm_recorder_head(rec)->lost[PM_STREAM_CORE]), refused);
    assert_int_equal(ftruncate(filler, 0), 0);
    close(filler);
    for (int i = 0; i < 1000 && written[KIT_STEP] == 0; i++) { /* retried after 2 s */
        if (kit_record(rec, KIT_STEP, written[KIT_STEP], 0))
            written[KIT_STEP]++;
        else
            refused++;
        nap_ms(10);
    }
    assert_int_equal(written[KIT_STEP], 1);
    pm_recorder_close(rec);
    kit_check_session(dir, written, &walk);
    assert_int_equal(walk.streams[PM_STREAM_CORE].lost, refused);
    walk_free(&walk);
    kit_remove(dir);
    drop_small_disk();
}

static void no_room_for_the_header_is_an_error(void **state)
{
    (void)state;
    NEEDS_SMALL_DISK("1m");
    char dir[256], path[600];
    kit_session(dir, sizeof dir, small_disk);
    int filler = fill_up(8192);
    struct pm_recorder_options options = kit_options(dir, true);
    struct pm_recorder *rec = NULL;
    struct pm_error err = {{0}};
    assert_int_equal(pm_recorder_open(&rec, &options, &err), -PM_ENOSPACE);
    assert_non_null(strstr(err.text, "no room for the header"));
    assert_int_equal(walk_find(dir, path, sizeof path), 0);
    close(filler);
    kit_remove(dir);
    drop_small_disk();
}

/* tmpfs counts its inodes: there is room for the folders and nothing else. */
static void no_inode_is_an_error(void **state)
{
    (void)state;
    NEEDS_SMALL_DISK("1m,nr_inodes=3");
    char dir[256], path[600];
    kit_session(dir, sizeof dir, small_disk);
    struct pm_recorder_options options = kit_options(dir, true);
    struct pm_recorder *rec = NULL;
    struct pm_error err = {{0}};
    int status = pm_recorder_open(&rec, &options, &err);
    assert_int_equal(status, -PM_ENOSPACE);
    assert_null(rec);
    assert_true(err.text[0] != '\0');
    assert_int_equal(walk_find(dir, path, sizeof path), 0);
    kit_remove(dir);
    drop_small_disk();
}

static void a_read_only_disk_is_an_error(void **state)
{
    (void)state;
    NEEDS_SMALL_DISK("1m");
    char dir[256], path[600];
    kit_session(dir, sizeof dir, small_disk);
    if (mount("none", small_disk, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
        skip();
    struct pm_recorder_options options = kit_options(dir, true);
    struct pm_recorder *rec = NULL;
    struct pm_error err = {{0}};
    assert_true(pm_recorder_open(&rec, &options, &err) < 0);
    assert_null(rec);
    assert_true(err.text[0] != '\0');
    assert_int_equal(walk_find(dir, path, sizeof path), 0);
    drop_small_disk();
}

/* ---- a limit on the size of files ---- */

/* The kernel answers an allocation beyond it with SIGXFSZ, whose default is death. */
static int write_under_a_limit(const char *dir, uint64_t limit, bool thread, bool opens)
{
    struct rlimit fsize = {limit, limit};
    struct pm_recorder_options options = kit_options(dir, thread);
    struct pm_recorder *rec = NULL;
    signal(SIGXFSZ, SIG_DFL);
    if (setrlimit(RLIMIT_FSIZE, &fsize) != 0)
        return 1;
    int code = pm_recorder_open(&rec, &options, NULL);
    if (!opens)
        return code == -PM_ELIMIT ? 0 : 2;
    if (code != 0)
        return 3;
    uint64_t steps = 0;
    for (int i = 0; i < 20000; i++) {
        steps += kit_record(rec, KIT_STEP, steps, 0);
        if (thread && i % 200 == 0)
            nap_ms(1);
    }
    int result = steps >= 4000 ? 0 : 4;
    if (!(atomic_load(&pm_recorder_head(rec)->state) & PM_STATE_DISK_FULL))
        result = 5;
    pm_recorder_close(rec);
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGXFSZ) ? 6 : result;
}

static void a_limit_on_file_sizes_is_survived(void **state)
{
    (void)state;
    for (int round = 0; round < 4; round++) {
        char dir[256];
        kit_session(dir, sizeof dir, NULL);
        bool opens = round < 2;
        pid_t pid = fork();
        if (pid == 0)
            _exit(
                write_under_a_limit(dir, opens ? 6 * SEGMENT + 100 : 1000, round % 2 == 0, opens));
        expect_exit(pid);
        kit_remove(dir);
    }
}

/* Where there is room for three slots the second one of the steps goes before the first one of the
 * blocks, whichever record came first: with one alone they would lose what comes while it is taken
 * again. */
static int write_where_three_fit(const char *dir, bool steps_first)
{
    struct pm_recorder_options options = kit_options(dir, true);
    struct pm_recorder *rec = NULL;
    char found[600];
    struct stat st;
    if (pm_recorder_open(&rec, &options, NULL) != 0 || walk_find(dir, found, sizeof found) != 1 ||
        stat(found, &st) != 0)
        return 1;
    const uint64_t more = 3 - atomic_load(&pm_recorder_head(rec)->slots);
    const rlim_t limit = (rlim_t)st.st_size + more * SEGMENT;
    const struct rlimit fsize = {limit, limit};
    if (setrlimit(RLIMIT_FSIZE, &fsize) != 0)
        return 2;
    if ((steps_first && !kit_record(rec, KIT_STEP, 0, 0)) || kit_record(rec, KIT_BLOCK, 0, 0))
        return 3;
    const int result = atomic_load(&pm_recorder_head(rec)->lost[PM_STREAM_BLOCKS]) == 1 ? 0 : 4;
    pm_recorder_close(rec);
    return result;
}

static void steps_have_two_slots_before_blocks_have_one(void **state)
{
    (void)state;
    for (int steps_first = 0; steps_first < 2; steps_first++) {
        char dir[256];
        kit_session(dir, sizeof dir, NULL);
        pid_t pid = fork();
        if (pid == 0)
            _exit(write_where_three_fit(dir, steps_first == 1));
        expect_exit(pid);
        kit_remove(dir);
    }
}

/* ---- things that people do ---- */

static void a_deleted_directory_is_survived(void **state)
{
    (void)state;
    for (int thread = 0; thread < 2; thread++) {
        char dir[256];
        kit_session(dir, sizeof dir, NULL);
        struct pm_recorder_options options = kit_options(dir, thread == 1);
        struct pm_recorder *rec = kit_open(&options);
        uint64_t steps = 0;
        for (int i = 0; i < 3000; i++)
            steps += kit_record(rec, KIT_STEP, steps, 0);
        kit_remove(dir);
        uint64_t slots = atomic_load(&pm_recorder_head(rec)->slots), before = steps;
        for (int i = 0; i < 30000; i++) {
            steps += kit_record(rec, KIT_STEP, steps, 0);
            if (thread == 1 && i % 200 == 0)
                nap_ms(1);
        }
        pm_recorder_attr(rec, "note.after", "the directory is gone");
        /* Space that nobody can see any more is not taken; what there is serves on. One slot may
         * have been under way. */
        struct pm_file_head *head = pm_recorder_head(rec);
        assert_in_range(atomic_load(&head->slots), slots, slots + 1);
        assert_true(atomic_load(&head->state) & PM_STATE_DISK_FULL);
        assert_true(steps > before);
        pm_recorder_close(rec);
    }
}

/* What is recorded later is in the same file, under its new name. */
static void a_renamed_directory_goes_on(void **state)
{
    (void)state;
    for (int thread = 0; thread < 2; thread++) {
        char dir[256], other[256];
        struct walk walk;
        uint64_t written[KIT_SCHEMAS] = {0};
        kit_session(dir, sizeof dir, NULL);
        snprintf(other, sizeof other, "%.200s.renamed", dir);
        struct pm_recorder_options options = kit_options(dir, thread == 1);
        struct pm_recorder *rec = kit_open(&options);
        for (int i = 0; i < 30000; i++) {
            if (i == 3000)
                assert_int_equal(rename(dir, other), 0);
            written[KIT_STEP] += kit_record(rec, KIT_STEP, written[KIT_STEP], 0);
            if (thread == 1 && i % 200 == 0)
                nap_ms(1);
        }
        pm_recorder_close(rec);
        assert_true(written[KIT_STEP] > 3000);
        assert_int_equal(access(dir, F_OK), -1);
        kit_check_session(other, written, &walk);
        assert_false(walk.head->state & PM_STATE_DISK_FULL);
        walk_free(&walk);
        kit_remove(other);
    }
}

static void the_mode_does_not_depend_on_the_umask(void **state)
{
    (void)state;
    char dir[256], path[600];
    struct stat st;
    kit_session(dir, sizeof dir, NULL);
    struct pm_recorder_options options = kit_options(dir, false);
    options.file_mode = 0640;
    mode_t old = umask(0077);
    struct pm_recorder *rec = kit_open(&options);
    umask(old);
    assert_int_equal(walk_find(dir, path, sizeof path), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    pm_recorder_close(rec);
    kit_remove(dir);
}

/* A daemon that closed 0 to 2: what it prints later must not land in the file. */
static void the_standard_descriptors_are_left_alone(void **state)
{
    (void)state;
    char dir[256];
    kit_session(dir, sizeof dir, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(0);
        close(1);
        close(2);
        struct pm_recorder_options options = kit_options(dir, true);
        struct pm_recorder *rec = NULL;
        if (pm_recorder_open(&rec, &options, NULL) != 0)
            _exit(1);
        for (int fd = 0; fd < 3; fd++) {
            if (fcntl(fd, F_GETFD) >= 0)
                _exit(2);
        }
        pm_recorder_close(rec);
        _exit(0);
    }
    expect_exit(pid);
    kit_remove(dir);
}

/* The descriptor was closed behind our back and is another file now: nothing is written there. */
static void a_stolen_descriptor_is_not_written(void **state)
{
    (void)state;
    char dir[256], victim[300];
    kit_session(dir, sizeof dir, NULL);
    snprintf(victim, sizeof victim, "%s/victim", dir);
    pid_t pid = fork();
    if (pid == 0) {
        struct pm_recorder_options options = kit_options(dir, false);
        struct pm_recorder *rec = NULL;
        if (pm_recorder_open(&rec, &options, NULL) != 0)
            _exit(1);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        int fds[16];
        for (int i = 0; i < 16; i++)
            fds[i] = open(victim, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        uint64_t steps = 0;
        for (int i = 0; i < 10000; i++)
            steps += kit_record(rec, KIT_STEP, steps, 0);
        pm_recorder_close(rec);
        for (int i = 0; i < 16; i++) {
            if (fcntl(fds[i], F_GETFD) < 0)
                _exit(2);
        }
        struct stat st;
        _exit(stat(victim, &st) == 0 && st.st_size == 0 ? 0 : 3);
    }
    expect_exit(pid);
    kit_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_share_the_ceiling),
        cmocka_unit_test(a_late_process_gets_its_least),
        cmocka_unit_test(a_disk_too_small_recycles),
        cmocka_unit_test(a_full_disk_loses_and_recovers),
        cmocka_unit_test(no_room_for_the_header_is_an_error),
        cmocka_unit_test(a_limit_on_file_sizes_is_survived),
        cmocka_unit_test(steps_have_two_slots_before_blocks_have_one),
        cmocka_unit_test(no_inode_is_an_error),
        cmocka_unit_test(a_read_only_disk_is_an_error),
        cmocka_unit_test(a_deleted_directory_is_survived),
        cmocka_unit_test(a_renamed_directory_goes_on),
        cmocka_unit_test(the_mode_does_not_depend_on_the_umask),
        cmocka_unit_test(the_standard_descriptors_are_left_alone),
        cmocka_unit_test(a_stolen_descriptor_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
