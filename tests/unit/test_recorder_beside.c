/*
 * A reader beside the writer: another process copies segments and live copies as session/layout.h
 * says, while slots are recycled under it. What the protocol lets it believe must be true.
 */
#include "recorder_kit.h"

#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"

struct shared {
    _Atomic int stop;
    _Atomic uint64_t copies, voids, lives;
};

#define SEGMENT ((size_t)PM_SEGMENT_BYTES_MIN)

static uint64_t sum_below(uint64_t n, uint64_t modulus)
{
    uint64_t rest = n % modulus;
    return n / modulus * (modulus * (modulus - 1) / 2) + rest * (rest - 1) / 2;
}

/* Where the committed records of a copy end; 0: they are not as they should be. */
static size_t check_records(const unsigned char *bytes, size_t end, bool payloads)
{
    const struct pm_segment_head *head = (const void *)bytes;
    size_t at = sizeof *head;
    for (uint64_t ordinal = head->first_ordinal; at + 8 <= end; ordinal++) {
        uint64_t word;
        memcpy(&word, bytes + at, sizeof word);
        if (word == 0)
            break;
        size_t size = (size_t)pm_record_words(word) * 8;
        if (size < 8 || at + size > SEGMENT || pm_record_check(word) != (uint32_t)ordinal)
            return 0;
        struct kit_step step, want = {0};
        if (payloads && pm_record_schema(word) == PM_SCHEMA_FIRST + KIT_STEP) {
            memcpy(&step, bytes + at + 8, sizeof step);
            kit_step_fill(&want, step.n, 0);
            if (memcmp(&step, &want, sizeof step) != 0)
                return 0;
        }
        at += size;
    }
    return at;
}

/* 0: a sound copy, 1: void, 2: it looks sound and is not. */
static int read_segment(int fd, off_t offset, unsigned char *bytes)
{
    struct pm_segment_head before, after;
    if (pread(fd, &before, sizeof before, offset) != (ssize_t)sizeof before ||
        before.magic != PM_SEGMENT_MAGIC || pread(fd, bytes, SEGMENT, offset) != (ssize_t)SEGMENT)
        return 1;
    /* Heads of the first copy, payloads of the second: a copy takes bytes in any order. */
    size_t end = check_records(bytes, SEGMENT, false);
    if (end != 0 && pread(fd, bytes, end, offset) != (ssize_t)end)
        return 1;
    size_t again = end != 0 ? check_records(bytes, end, true) : 0;
    if (pread(fd, &after, sizeof after, offset) != (ssize_t)sizeof after ||
        after.magic != PM_SEGMENT_MAGIC || after.index != before.index ||
        after.first_ordinal != before.first_ordinal)
        return 1;
    return again == 0 || again < end ? 2 : 0;
}

static int read_live(const unsigned char *header, struct shared *shared)
{
    const struct pm_file_head *head = (const void *)header;
    uint64_t values[KIT_VALUES];
    struct pm_live_head live;
    uint32_t index = atomic_load_explicit(&head->live_index, memory_order_acquire);
    if (index > 1)
        return 0;
    const unsigned char *copy = header + head->live_offset + (size_t)index * head->live_bytes;
    memcpy(&live, copy, sizeof live);
    memcpy(values, copy + sizeof live, sizeof values);
    uint64_t in_buckets = 0;
    const uint64_t *buckets = (const void *)(copy + sizeof live + sizeof values);
    for (size_t i = 0; i < (size_t)KIT_HISTS * PM_HIST_BUCKETS; i++)
        in_buckets += buckets[i];
#if !defined(__SANITIZE_THREAD__)
    atomic_thread_fence(memory_order_acquire);
#endif
    if (atomic_load_explicit(&head->live_index, memory_order_relaxed) != index ||
        __atomic_load_n((const uint64_t *)(const void *)copy, __ATOMIC_RELAXED) != live.mono_ns)
        return 0;
    atomic_fetch_add(&shared->lives, 1);
    uint64_t steps = values[0] + values[3] + values[6], tokens = values[2] + values[5] + values[8];
    return live.covers[PM_STREAM_CORE] == steps && in_buckets == steps &&
           tokens == sum_below(steps, 97) && values[10] == sum_below(values[9], 13);
}

/* Never returns. 0: all copies were true. */
static void reader(struct shared *shared, const char *path)
{
    unsigned char *bytes = malloc(SEGMENT);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct pm_file_head head;
    if (bytes == NULL || fd < 0 || pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head)
        _exit(2);
    const unsigned char *header = mmap(NULL, head.header_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        _exit(3);
    uint64_t live_seen = 0;
    while (!atomic_load(&shared->stop)) {
        for (unsigned slot = 0; slot < 8; slot++) {
            int result = read_segment(fd, (off_t)(head.header_bytes + slot * SEGMENT), bytes);
            if (result == 2)
                _exit(4);
            atomic_fetch_add(result == 0 ? &shared->copies : &shared->voids, 1);
            uint64_t before = atomic_load(&shared->lives);
            int sound = read_live(header, shared);
            if (!sound && atomic_load(&shared->lives) != before)
                _exit(5);
            live_seen += sound != 0;
        }
    }
    _exit(live_seen > 0 ? 0 : 6);
}

static void copies_are_true_or_void(void **state)
{
    (void)state;
    char dir[256], path[600];
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    for (int thread = 0; thread < 2; thread++) {
        memset(shared, 0, sizeof *shared);
        kit_session(dir, sizeof dir, NULL);
        struct pm_recorder_options options = kit_options(dir, thread == 1);
        options.ceiling_bytes = 8 * SEGMENT;
        struct pm_recorder *rec = kit_open(&options);
        assert_int_equal(walk_find(dir, path, sizeof path), 1);
        pid_t pid = fork();
        if (pid == 0)
            reader(shared, path);
        uint64_t written[KIT_SCHEMAS] = {0}, end_ns = pm_clock_vdso_ns() + 1500000000ull;
        /* At least until the reader has seen something of each kind. */
        for (uint64_t i = 0;
             pm_clock_vdso_ns() < end_ns || (i < 100000000 && (atomic_load(&shared->copies) < 200 ||
                                                               atomic_load(&shared->voids) < 20));
             i++) {
            written[KIT_STEP] += kit_record(rec, KIT_STEP, written[KIT_STEP], 0);
            written[KIT_BLOCK] += kit_record(rec, KIT_BLOCK, written[KIT_BLOCK], 0);
            if (i % 4096 == 0)
                pm_recorder_round(rec);
        }
        atomic_store(&shared->stop, 1);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        print_message("%s: %llu copies, %llu void, %llu live copies; the reader ended with %d\n",
                      thread ? "with the thread" : "without",
                      (unsigned long long)atomic_load(&shared->copies),
                      (unsigned long long)atomic_load(&shared->voids),
                      (unsigned long long)atomic_load(&shared->lives), WEXITSTATUS(status));
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        pm_recorder_close(rec);
        struct walk walk;
        kit_check_session(dir, written, &walk);
        assert_true(walk.head->recycled[PM_STREAM_CORE] > 0);
        walk_free(&walk);
        kit_remove(dir);
    }
    munmap(shared, sizeof *shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(copies_are_true_or_void)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
