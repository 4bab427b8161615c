/*
 * SIGKILL at any moment: a forked writer is killed 2,000 times (PM_KILLS says another number) while
 * it opens, writes, switches and recycles segments, with the helper thread and without it. Each
 * record that it had reported committed, by a counter in shared memory, must be there or be counted
 * as recycled; nothing may be torn; the totals must be the sums of all of it.
 */
#include "recorder_kit.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define KILLS 400 /* the writer is much slower: fewer of them reach a switch */
#else
#define KILLS 2000
#endif

struct shared {
    _Atomic uint64_t written[KIT_SCHEMAS];
    _Atomic uint32_t phase; /* 1: opening, 2: open */
};

static uint64_t random_state = 88172645463325252ull;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    for (uint64_t n = 0; n < 5 && stream == PM_STREAM_CORE; n++)
        kit_record(rec, KIT_PRESENT, n, 0);
}

static void nap(uint64_t ns)
{
    struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&ts, NULL);
}

static void write_one(struct pm_recorder *rec, struct shared *shared, unsigned schema)
{
    uint64_t n = atomic_load_explicit(&shared->written[schema], memory_order_relaxed);
    uint32_t name = 0;
    if (schema == KIT_STEP) {
        char text[32];
        int bytes = snprintf(text, sizeof text, "name-%llu", (unsigned long long)(n % 50));
        name = pm_recorder_string(rec, PM_STREAM_CORE, text, (size_t)bytes);
    }
    if (kit_record(rec, schema, n, name))
        atomic_store_explicit(&shared->written[schema], n + 1, memory_order_release);
    else
        sched_yield();
}

/* Never returns. */
static void writer(struct shared *shared, const struct pm_recorder_options *options)
{
    struct pm_recorder *rec = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it must not outlive a test that failed */
    atomic_store(&shared->phase, 1);
    if (pm_recorder_open(&rec, options, NULL) != 0)
        _exit(3);
    atomic_store(&shared->phase, 2);
    for (uint64_t i = 0;; i++) {
        write_one(rec, shared, KIT_STEP);
        if (i % 2 == 0)
            write_one(rec, shared, KIT_BLOCK);
        if (i % 4 == 0)
            write_one(rec, shared, KIT_CUSTOM);
        if (i % 64 == 0) {
            write_one(rec, shared, KIT_NOTE);
            pm_recorder_attr(rec, "note.i", "a value");
        }
        if (i % 512 == 511)
            pm_recorder_round(rec);
    }
}

struct tally {
    unsigned no_file, no_header, empty, facts, recycled, many_segments;
    uint64_t records;
};

static void check(const char *dir, struct shared *shared, struct tally *tally, unsigned round)
{
    char path[600];
    struct walk walk;
    struct kit_check *checked = calloc(1, sizeof *checked);
    uint64_t written[KIT_SCHEMAS] = {0}, sum = 0;
    for (unsigned k = 0; k < KIT_SCHEMAS; k++)
        sum += written[k] = atomic_load(&shared->written[k]);
    if (walk_find(dir, path, sizeof path) == 0) {
        tally->no_file++;
        assert_int_equal(sum, 0);
        free(checked);
        return;
    }
    if (walk_open(&walk, path) != 0) {
        tally->no_header++;
        assert_int_equal(sum, 0);
    } else {
        if (walk.fault[0] == '\0')
            kit_check_walked(checked, &walk, written, false);
        if (walk.fault[0] != '\0') {
            char kept[600];
            snprintf(kept, sizeof kept, "/tmp/test_kill-%d.pmrec", (int)getpid());
            (void)!rename(path, kept);
            fail_msg("kill %u: %s (see %s)", round, walk.fault, kept);
        }
        tally->empty += sum == 0;
        tally->facts += sum != 0;
        tally->records += sum;
        tally->recycled += (walk.head->state & PM_STATE_RECYCLED) != 0;
        tally->many_segments += walk.streams[PM_STREAM_CORE].segments > 1;
    }
    walk_free(&walk);
    free(checked);
}

static void nothing_committed_is_lost(void **state)
{
    (void)state;
    const char *text = getenv("PM_KILLS");
    unsigned kills = text != NULL ? (unsigned)strtoul(text, NULL, 10) : KILLS;
    struct tally tally = {0};
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    /* Mostly in memory, for speed; every 8th on the disk. */
    bool memory = access("/dev/shm", W_OK) == 0;
    for (unsigned i = 0; i < kills; i++) {
        char dir[256];
        kit_session(dir, sizeof dir, memory && i % 8 != 0 ? "/dev/shm" : NULL);
        struct pm_recorder_options options = kit_options(dir, i % 2 == 0);
        options.keyframe = keyframe;
        options.ceiling_bytes = (uint64_t)PM_SEGMENT_BYTES_MIN * (i % 3 == 0 ? 0 : i % 3 * 8);
        memset(shared, 0, sizeof *shared);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            writer(shared, &options);
        uint64_t r = random_next();
        if (i % 4 == 0) {
            nap(r % 600000); /* while it opens, mostly */
        } else {
            /* Once it writes: a moment of the first segments, or a later one. */
            while (atomic_load(&shared->phase) < 2 && waitpid(pid, NULL, WNOHANG) == 0)
                nap(50000);
            nap(r % (i % 4 == 1 ? 500000 : 5000000));
        }
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        check(dir, shared, &tally, i);
        kit_remove(dir);
    }
    munmap(shared, sizeof *shared);
    print_message("%u kills: %u before the file, %u before its header, %u before a fact, %u with "
                  "facts (%llu reported), %u after a switch, %u after recycling\n",
                  kills, tally.no_file, tally.no_header, tally.empty, tally.facts,
                  (unsigned long long)tally.records, tally.many_segments, tally.recycled);
    /* The test is worth something only if the kills fell everywhere. */
    assert_true(tally.facts >= kills / 3);
    assert_true(kills < 500 || (tally.recycled > kills / 20 && tally.many_segments > kills / 20 &&
                                tally.empty + tally.no_header + tally.no_file > 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_committed_is_lost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
