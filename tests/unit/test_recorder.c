/*
 * The recorder: what is recorded is read back by an independent walker, through segment switches,
 * recycling, losses, strings, attributes and quotas.
 */
#include "recorder_kit.h"

#include <limits.h>
#include <pthread.h>

#include "base/clock.h"
#include "recorder/internal.h" /* to turn the clocks of roll-ups and triples */

struct fixture {
    char dir[256];
    struct pm_recorder_options options;
    struct pm_recorder *rec;
    uint64_t written[KIT_SCHEMAS];
    struct walk walk;
};

static struct fixture *begin(void **state, bool thread)
{
    struct fixture *f = *state;
    kit_session(f->dir, sizeof f->dir, NULL);
    f->options = kit_options(f->dir, thread);
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
    walk_free(&f->walk);
    if (f->dir[0] != '\0')
        kit_remove(f->dir);
    free(f);
    return 0;
}

static bool record(struct fixture *f, unsigned schema)
{
    uint32_t name = 0;
    if (schema == KIT_STEP) {
        char text[32];
        int n = snprintf(text, sizeof text, "name-%llu",
                         (unsigned long long)(f->written[KIT_STEP] % 50));
        name = pm_recorder_string(f->rec, PM_STREAM_CORE, text, (size_t)n);
    }
    bool done = kit_record(f->rec, schema, f->written[schema], name);
    f->written[schema] += done;
    return done;
}

static void close_and_check(struct fixture *f)
{
    pm_recorder_close(f->rec);
    f->rec = NULL;
    kit_check_session(f->dir, f->written, &f->walk);
    assert_true(f->walk.head->state & PM_STATE_CLOSED);
    assert_true(f->walk.head->closed_ns > 0);
}

static void an_empty_file_is_whole(void **state)
{
    struct fixture *f = begin(state, true);
    f->rec = kit_open(&f->options);
    close_and_check(f);
    const struct pm_file_head *head = f->walk.head;
    assert_int_equal(head->pid, getpid());
    assert_int_equal(head->ppid, getppid());
    assert_memory_equal(head->token, kit_token, PM_TOKEN_BYTES);
    assert_true(head->process_start_ticks > 0);
    assert_true(head->comm[0] != '\0');
    assert_int_equal(head->engine, -1);
    assert_int_equal(head->rank, -1);
    assert_true(head->opened.mono_ns > 0 && head->opened.real_ns > head->opened.mono_ns);
    /* KEEP has all schemas and a clock triple. */
    assert_int_equal(f->walk.streams[PM_STREAM_KEEP].kinds[PM_SCHEMA_SCHEMA], KIT_SCHEMAS);
    assert_int_equal(f->walk.streams[PM_STREAM_KEEP].kinds[PM_SCHEMA_CLOCK], 1);
    assert_int_equal(f->walk.streams[PM_STREAM_CORE].segments, 0);
}

static void facts_are_read_back(void **state)
{
    struct fixture *f = begin(state, false);
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 10000; i++) {
        assert_true(record(f, KIT_STEP));
        if (i % 3 == 0)
            assert_true(record(f, KIT_BLOCK));
        if (i % 5 == 0)
            assert_true(record(f, KIT_CUSTOM));
        if (i % 100 == 0)
            assert_true(record(f, KIT_NOTE));
    }
    close_and_check(f);
    assert_true(f->walk.streams[PM_STREAM_CORE].segments > 5);
    assert_true(f->walk.streams[PM_STREAM_BLOCKS].segments > 1);
    for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
        assert_int_equal(f->walk.head->lost[s], 0);
        assert_int_equal(f->walk.streams[s].kinds[PM_SCHEMA_KEYFRAME], f->walk.streams[s].segments);
    }
    assert_int_equal(f->walk.streams[PM_STREAM_BLOCKS].kinds[PM_SCHEMA_SCHEMA],
                     f->walk.streams[PM_STREAM_BLOCKS].segments);
}

static void the_payload_is_zero_before_use(void **state)
{
    struct fixture *f = begin(state, false);
    f->options.ceiling_bytes = 4 * PM_SEGMENT_BYTES_MIN; /* so that slots are used again */
    f->rec = kit_open(&f->options);
    static const struct kit_small zero;
    for (uint64_t n = 0; n < 20000; n++) {
        struct kit_small *small = pm_recorder_reserve(f->rec, KIT_BLOCK);
        assert_non_null(small);
        assert_memory_equal(small, &zero, sizeof zero);
        *small = (struct kit_small){n, n % 13};
        pm_recorder_commit(f->rec, small);
        f->written[KIT_BLOCK]++;
    }
    close_and_check(f);
    assert_true(f->walk.head->recycled[PM_STREAM_BLOCKS] > 10000);
}

/* The thread makes the segments; the writer gives it the time, so nothing may be lost. */
static void the_thread_keeps_up(void **state)
{
    struct fixture *f = begin(state, true);
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 20000; i++) {
        while (!record(f, KIT_STEP)) {
            struct timespec ts = {0, 1000000};
            nanosleep(&ts, NULL);
        }
    }
    uint64_t heartbeat = atomic_load(&pm_recorder_head(f->rec)->heartbeat_ns);
    assert_true(heartbeat > 0);
    close_and_check(f);
    assert_true(f->walk.streams[PM_STREAM_CORE].segments > 10);
}

/* A writer faster than the thread: what is lost is counted, and said where it is missing. */
static void losses_are_counted_and_placed(void **state)
{
    struct fixture *f = begin(state, true);
    f->options.ceiling_bytes = 1u << 30;
    f->rec = kit_open(&f->options);
    uint64_t refused = 0;
    for (int i = 0; i < 3000000 && (refused == 0 || i % 1024 != 0); i++)
        refused +=
            !kit_record(f->rec, KIT_STEP, f->written[KIT_STEP], 0) || !++f->written[KIT_STEP];
    /* Let it fit again, so that the LOST record can be placed. */
    for (int i = 0; i < 200000; i++) {
        if (kit_record(f->rec, KIT_STEP, f->written[KIT_STEP], 0)) {
            f->written[KIT_STEP]++;
            break;
        }
        refused++;
        struct timespec ts = {0, 1000000};
        nanosleep(&ts, NULL);
    }
    close_and_check(f);
    assert_true(refused > 0);
    assert_int_equal(f->walk.head->lost[PM_STREAM_CORE], refused);
    assert_int_equal(f->walk.streams[PM_STREAM_CORE].lost, refused);
}

static void the_oldest_detail_goes_first(void **state)
{
    struct fixture *f = begin(state, false);
    f->options.ceiling_bytes = 8 * PM_SEGMENT_BYTES_MIN;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 40000; i++) {
        assert_true(record(f, KIT_STEP));
        assert_true(record(f, KIT_BLOCK));
        record(f, KIT_CUSTOM);
    }
    close_and_check(f); /* the totals are those of everything, in spite of the recycling */
    const struct pm_file_head *head = f->walk.head;
    assert_true(head->state & PM_STATE_RECYCLED);
    assert_true(head->slots <= 8);
    for (unsigned s = PM_STREAM_CORE; s < PM_STREAM_COUNT; s++) {
        assert_int_equal(head->lost[s], 0);
        assert_true(head->recycled[s] > 0);
        assert_int_equal(head->recycled[s], f->walk.streams[s].first_fact);
    }
    assert_true(f->walk.streams[PM_STREAM_BLOCKS].segments <= 4);
    assert_true(f->walk.streams[PM_STREAM_CUSTOM].segments <= 2);
    assert_true(f->walk.streams[PM_STREAM_KEEP].segments == 1);
}

/* The same with the thread, which zeroes slots while the writer goes on. */
static void recycling_beside_the_writer(void **state)
{
    struct fixture *f = begin(state, true);
    f->options.ceiling_bytes = 6 * PM_SEGMENT_BYTES_MIN;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 60000; i++) {
        record(f, KIT_STEP);
        record(f, KIT_BLOCK);
        if (i % 500 == 0) {
            struct timespec ts = {0, 1000000};
            nanosleep(&ts, NULL);
            if (i % 5000 == 0)
                pm_recorder_round(f->rec);
        }
    }
    close_and_check(f);
    assert_true(f->walk.head->recycled[PM_STREAM_CORE] > 0);
}

/* KEEP is never recycled; when the ceiling is reached it takes slots from the detail. */
static void what_is_kept_stays(void **state)
{
    struct fixture *f = begin(state, false);
    char value[4000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    f->options.ceiling_bytes = 8 * PM_SEGMENT_BYTES_MIN;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 20000; i++)
        assert_true(record(f, KIT_STEP)); /* the ceiling is reached */
    for (int i = 0; i < 30; i++) {
        char key[32];
        snprintf(key, sizeof key, "key.%d", i);
        pm_recorder_attr(f->rec, key, value);
    }
    for (int i = 0; i < 20000; i++)
        assert_true(record(f, KIT_STEP));
    close_and_check(f);
    const struct walk_stream *keep = &f->walk.streams[PM_STREAM_KEEP];
    assert_true(keep->segments >= 2);
    assert_int_equal(keep->first_fact, 0);
    assert_int_equal(keep->kinds[PM_SCHEMA_ATTR], 30);
    assert_int_equal(f->walk.head->lost[PM_STREAM_KEEP], 0);
    assert_true(f->walk.head->slots <= 8);
}

/* A stream that begins when another has filled the ceiling still gets a part of it. */
static void a_late_stream_gets_its_part(void **state)
{
    struct fixture *f = begin(state, false);
    f->options.ceiling_bytes = 24 * PM_SEGMENT_BYTES_MIN;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 50000; i++)
        assert_true(record(f, KIT_STEP));
    assert_int_equal(atomic_load(&pm_recorder_head(f->rec)->slots), 24);
    for (int i = 0; i < 20000; i++)
        assert_true(record(f, KIT_CUSTOM));
    for (int i = 0; i < 50000; i++)
        assert_true(record(f, KIT_STEP));
    close_and_check(f);
    assert_int_equal(f->walk.head->slots, 24);
    assert_int_equal(f->walk.streams[PM_STREAM_CUSTOM].segments, 3); /* an eighth */
    assert_true(f->walk.streams[PM_STREAM_CORE].segments >= 19);
}

static void with_the_least_ceiling_it_still_records(void **state)
{
    struct fixture *f = begin(state, false);
    f->options.ceiling_bytes = 0;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 5000; i++)
        assert_true(record(f, KIT_STEP)); /* in the two segments that it always has */
    assert_false(record(f, KIT_BLOCK));
    assert_false(record(f, KIT_BLOCK));
    close_and_check(f);
    assert_int_equal(f->walk.head->slots, 3);
    assert_int_equal(f->walk.head->lost[PM_STREAM_BLOCKS], 2);
}

static void attributes(void **state)
{
    struct fixture *f = begin(state, true);
    f->rec = kit_open(&f->options);
    char big[20000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    pm_recorder_attr(f->rec, "version.vllm", "0.32.0");
    pm_recorder_attr(f->rec, "", "");
    pm_recorder_attr(f->rec, "note.big", big);
    pm_recorder_attr(f->rec, NULL, "x");
    pm_recorder_identify(f->rec, PM_ROLE_ENGINE, 3, -1);
    pm_recorder_identify(f->rec, PM_ROLE_WORKER, -1, 7);
    close_and_check(f);
    assert_int_equal(f->walk.streams[PM_STREAM_KEEP].kinds[PM_SCHEMA_ATTR], 3);
    assert_int_equal(f->walk.head->roles, PM_ROLE_ENGINE | PM_ROLE_WORKER);
    assert_int_equal(f->walk.head->engine, 3);
    assert_int_equal(f->walk.head->rank, 7);
}

static void strings_keep_their_ids(void **state)
{
    struct fixture *f = begin(state, false);
    f->rec = kit_open(&f->options);
    struct pm_recorder *rec = f->rec;
    uint32_t a = pm_recorder_string(rec, PM_STREAM_CORE, "request-a", 9);
    uint32_t b = pm_recorder_string(rec, PM_STREAM_CORE, "request-b", 9);
    assert_true(a != 0 && b > a);
    assert_int_equal(pm_recorder_string(rec, PM_STREAM_CORE, "request-a", 9), a);
    assert_int_equal(pm_recorder_string(rec, PM_STREAM_CORE, "", 0), 0);
    assert_int_equal(pm_recorder_string(rec, PM_STREAM_CORE, NULL, 5), 0);
    assert_int_equal(pm_recorder_string(rec, PM_STREAM_COUNT, "x", 1), 0);
    uint32_t other = pm_recorder_string(rec, PM_STREAM_BLOCKS, "request-a", 9);
    assert_true(other != 0);
    pm_recorder_string_drop(rec, PM_STREAM_CORE, a);
    pm_recorder_string_drop(rec, PM_STREAM_CORE, a);
    pm_recorder_string_drop(rec, PM_STREAM_CORE, 0);
    pm_recorder_string_drop(rec, PM_STREAM_CORE, 12345);
    uint32_t again = pm_recorder_string(rec, PM_STREAM_CORE, "request-a", 9);
    assert_true(again > b); /* never an id twice */
    assert_int_equal(pm_recorder_string(rec, PM_STREAM_CORE, "request-b", 9), b);
    /* Cut at 256 bytes, and not within a character. */
    char text[400];
    memset(text, 'y', sizeof text);
    memcpy(text + 255, "\xc3\xa9", 2);
    uint32_t cut = pm_recorder_string(rec, PM_STREAM_CORE, text, sizeof text);
    assert_int_equal(pm_recorder_string(rec, PM_STREAM_CORE, text, 255), cut);
    close_and_check(f);
}

/* A model with a plain array beside the table: thousands of holds and drops. */
static void strings_come_and_go(void **state)
{
    struct fixture *f = begin(state, false);
    f->options.ceiling_bytes = 16 * PM_SEGMENT_BYTES_MIN;
    f->rec = kit_open(&f->options);
    enum { TEXTS = 3000 };
    static uint32_t ids[TEXTS];
    memset(ids, 0, sizeof ids);
    uint64_t random = 12345;
    uint32_t last = 0;
    for (int i = 0; i < 60000; i++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        unsigned k = (unsigned)(random >> 33) % TEXTS;
        char text[300];
        int n = snprintf(text, sizeof text, "request-%u-%*s", k, (int)(k % 200), "");
        if (random >> 60 < 6 && ids[k] != 0) {
            pm_recorder_string_drop(f->rec, PM_STREAM_CORE, ids[k]);
            ids[k] = 0;
        } else {
            uint32_t id = pm_recorder_string(f->rec, PM_STREAM_CORE, text, (size_t)n);
            assert_true(id != 0);
            if (ids[k] != 0)
                assert_int_equal(id, ids[k]);
            else
                assert_true(id > last);
            ids[k] = id;
            last = id > last ? id : last;
        }
    }
    close_and_check(f);
}

/* More strings than a keyframe has room for: it stops at half of the segment and says so. */
static void a_keyframe_has_its_limit(void **state)
{
    struct fixture *f = begin(state, false);
    f->rec = kit_open(&f->options);
    char text[64];
    for (int i = 0; i < 70000; i++) {
        int n = snprintf(text, sizeof text, "text-%05d-%030d", i, 0);
        uint32_t id = pm_recorder_string(f->rec, PM_STREAM_CORE, text, (size_t)n);
        assert_true(id != 0 || i >= 65536);
        assert_true(id == 0 || i < 65536);
    }
    assert_true(kit_record(f->rec, KIT_STEP, f->written[KIT_STEP]++, 0));
    close_and_check(f);
    assert_true(f->walk.head->lost[PM_STREAM_CORE] > 0);
    assert_true(f->walk.streams[PM_STREAM_CORE].lost > 0);
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    unsigned *calls = arg;
    assert_int_not_equal(stream, PM_STREAM_KEEP);
    calls[stream]++;
    if (stream != PM_STREAM_CORE)
        return;
    for (uint64_t n = 0; n < 5; n++)
        assert_true(kit_record(rec, KIT_PRESENT, n, 0));
    assert_true(pm_recorder_string(rec, stream, "present", 7) != 0);
}

struct present {
    uint64_t in_keyframe, outside;
};

static void count_present(void *arg, const struct walk_segment *segment, uint32_t schema,
                          uint64_t fact, const unsigned char *payload, size_t bytes,
                          int in_keyframe)
{
    struct present *present = arg;
    (void)segment, (void)fact, (void)payload, (void)bytes;
    if (schema == PM_SCHEMA_FIRST + KIT_PRESENT)
        *(in_keyframe ? &present->in_keyframe : &present->outside) += 1;
}

static void each_segment_stands_alone(void **state)
{
    struct fixture *f = begin(state, false);
    unsigned calls[PM_STREAM_COUNT] = {0};
    f->options.keyframe = keyframe;
    f->options.keyframe_arg = calls;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 6000; i++)
        assert_true(record(f, KIT_STEP));
    assert_true(record(f, KIT_BLOCK));
    close_and_check(f); /* resolves each step's name within its segment */
    uint64_t segments = f->walk.streams[PM_STREAM_CORE].segments;
    struct present present = {0};
    walk_records(&f->walk, count_present, &present);
    assert_true(segments > 3);
    assert_int_equal(calls[PM_STREAM_CORE], segments);
    assert_int_equal(calls[PM_STREAM_BLOCKS], 1);
    assert_int_equal(present.in_keyframe, 5 * segments);
    assert_int_equal(present.outside, 0);
}

/* A keyframe callback that never has enough must not take more than half, nor recurse. */
static void greedy(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    uint64_t *refused = arg;
    for (uint64_t n = 0; n < 4000; n++) {
        if (!kit_record(rec, stream == PM_STREAM_CORE ? KIT_PRESENT : KIT_BLOCK, n, 0))
            ++*refused;
    }
}

static void a_greedy_keyframe_is_held_back(void **state)
{
    struct fixture *f = begin(state, false);
    uint64_t refused = 0;
    f->options.keyframe = greedy;
    f->options.keyframe_arg = &refused;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 3000; i++)
        assert_true(kit_record(f->rec, KIT_STEP, f->written[KIT_STEP]++, 0));
    close_and_check(f);
    assert_true(refused > 0);
    assert_int_equal(f->walk.head->lost[PM_STREAM_CORE], refused);
    assert_int_equal(f->walk.streams[PM_STREAM_CORE].lost, refused);
}

static void bad_options_are_refused(void **state)
{
    struct fixture *f = begin(state, false);
    struct pm_recorder *rec = NULL;
    struct pm_error err = {{0}};
    struct pm_recorder_options options = f->options;
    options.segment_bytes = 12345;
    assert_int_equal(pm_recorder_open(&rec, &options, &err), -PM_EINVALID);
    assert_non_null(strstr(err.text, "12345"));
    options = f->options;
    options.session_dir = "/nonexistent/session";
    assert_int_equal(pm_recorder_open(&rec, &options, &err), -PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nonexistent/session"));
    struct pm_schema large = kit_tables[KIT_STEP];
    large.payload_bytes = 60000;
    const struct pm_schema *const schemas[] = {&large};
    options = f->options;
    options.schemas = schemas;
    options.n_schemas = 1;
    assert_int_equal(pm_recorder_open(&rec, &options, &err), -PM_EINVALID);
    assert_null(rec);
    assert_int_equal(walk_find(f->dir, err.text, sizeof err.text), 0); /* nothing is left behind */
}

static void a_planted_link_is_not_followed(void **state)
{
    struct fixture *f = begin(state, false);
    char records[300], elsewhere[300];
    snprintf(records, sizeof records, "%s/records", f->dir);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", f->dir);
    assert_int_equal(rename(records, elsewhere), 0);
    assert_int_equal(symlink(elsewhere, records), 0);
    struct pm_recorder *rec = NULL;
    assert_true(pm_recorder_open(&rec, &f->options, NULL) < 0);
    assert_null(rec);
}

/* Everything outside the range of schemas is refused without harm. */
static void misuse_is_harmless(void **state)
{
    struct fixture *f = begin(state, false);
    f->rec = kit_open(&f->options);
    assert_null(pm_recorder_reserve(f->rec, KIT_SCHEMAS));
    assert_null(pm_recorder_reserve(f->rec, UINT_MAX));
    pm_recorder_commit(f->rec, NULL);
    assert_true(record(f, KIT_STEP));
    pm_recorder_commit(f->rec, f->dir); /* nothing is reserved */
    assert_true(record(f, KIT_STEP));
    pm_recorder_close(NULL);
    pm_recorder_abandon(NULL);
    close_and_check(f);
}

/* Rounds in the caller while the thread works and attributes come from both. */
static void rounds_from_two_threads(void **state)
{
    struct fixture *f = begin(state, true);
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 200; i++) {
        record(f, KIT_STEP);
        pm_recorder_round(f->rec);
        pm_recorder_attr(f->rec, "note.x", "y");
        record(f, KIT_NOTE);
    }
    close_and_check(f);
    assert_int_equal(f->walk.streams[PM_STREAM_KEEP].kinds[PM_SCHEMA_ATTR], 200);
}

/* The schemas' texts must fit: small segments grow. */
static void segments_grow_to_their_schemas(void **state)
{
    struct fixture *f = begin(state, false);
    static struct pm_schema many[60];
    static const struct pm_schema *list[60];
    static char doc[2000];
    memset(doc, 'd', sizeof doc - 1);
    for (size_t i = 0; i < 60; i++) {
        many[i] = kit_tables[KIT_BLOCK];
        many[i].doc = doc;
        list[i] = &many[i];
    }
    f->options.schemas = list;
    f->options.n_schemas = 60;
    f->rec = kit_open(&f->options);
    void *payload = pm_recorder_reserve(f->rec, 59);
    assert_non_null(payload);
    pm_recorder_commit(f->rec, payload);
    pm_recorder_close(f->rec);
    char path[600];
    assert_int_equal(walk_find(f->dir, path, sizeof path), 1);
    assert_int_equal(walk_open(&f->walk, path), 0);
    walk_records(&f->walk, NULL, NULL);
    assert_string_equal(f->walk.fault, "");
    assert_int_equal(f->walk.head->segment_bytes, 512 << 10);
    assert_int_equal(f->walk.streams[PM_STREAM_BLOCKS].kinds[PM_SCHEMA_SCHEMA], 60);
}

struct rollups {
    unsigned n;
    uint64_t steps, blocks, bucket_sum; /* of the last one */
};

static void read_rollup(void *arg, const struct walk_segment *segment, uint32_t schema,
                        uint64_t fact, const unsigned char *payload, size_t bytes, int in_keyframe)
{
    struct rollups *rollups = arg;
    (void)segment, (void)fact, (void)in_keyframe;
    if (schema != PM_SCHEMA_ROLLUP)
        return;
    struct pm_rollup_head head;
    uint64_t values[KIT_VALUES];
    memcpy(&head, payload, sizeof head);
    assert_int_equal(head.n_values, KIT_VALUES);
    assert_true(sizeof head + sizeof values + head.n_buckets * sizeof(struct pm_rollup_bucket) <=
                bytes);
    memcpy(values, payload + sizeof head, sizeof values);
    rollups->n++;
    rollups->steps = values[0] + values[3] + values[6];
    rollups->blocks = values[9];
    rollups->bucket_sum = 0;
    assert_int_equal(head.covers[PM_STREAM_CORE], rollups->steps);
    for (uint32_t i = 0; i < head.n_buckets; i++) {
        struct pm_rollup_bucket bucket;
        memcpy(&bucket, payload + sizeof head + sizeof values + i * sizeof bucket, sizeof bucket);
        assert_true(bucket.hist < KIT_HISTS && bucket.bucket < PM_HIST_BUCKETS && bucket.count > 0);
        rollups->bucket_sum += bucket.count;
    }
}

/* Once a minute the totals of everything so far, which stay when the detail is gone. */
static void roll_ups_hold_the_totals(void **state)
{
    struct fixture *f = begin(state, false);
    f->options.ceiling_bytes = 4 * PM_SEGMENT_BYTES_MIN;
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 10000; i++)
        assert_true(record(f, KIT_STEP));
    assert_true(record(f, KIT_BLOCK));
    pm_recorder_round(f->rec); /* not due yet */
    f->rec->rollup_ns -= 61000000000ull;
    pm_recorder_round(f->rec);
    pm_recorder_round(f->rec);
    assert_true(record(f, KIT_STEP));
    f->rec->rollup_ns -= 61000000000ull;
    pm_recorder_round(f->rec);
    close_and_check(f);
    struct rollups rollups = {0};
    walk_records(&f->walk, read_rollup, &rollups);
    assert_int_equal(rollups.n, 2);
    assert_int_equal(rollups.steps, 10001);
    assert_int_equal(rollups.blocks, 1);
    assert_int_equal(rollups.bucket_sum, 10001);
    assert_true(f->walk.head->recycled[PM_STREAM_CORE] > 0);
}

/* As KEEP nears its share of the ceiling, roll-ups come further apart. */
static void roll_ups_stretch_as_room_goes(void **state)
{
    struct fixture *f = begin(state, false);
    char value[8000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    f->options.ceiling_bytes = 8 * PM_SEGMENT_BYTES_MIN; /* KEEP may have four */
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 17; i++)
        pm_recorder_attr(f->rec, "note.big", value);
    f->rec->rollup_ns -= 61000000000ull;
    pm_recorder_round(f->rec); /* three of four are used: every two minutes */
    f->rec->rollup_ns -= 61000000000ull;
    pm_recorder_round(f->rec);
    close_and_check(f);
    assert_int_equal(f->walk.streams[PM_STREAM_KEEP].segments, 3);
    assert_int_equal(f->walk.streams[PM_STREAM_KEEP].kinds[PM_SCHEMA_ROLLUP], 1);
}

static void a_clock_triple_every_minute(void **state)
{
    struct fixture *f = begin(state, false);
    f->rec = kit_open(&f->options);
    for (int i = 0; i < 3; i++) {
        pm_recorder_round(f->rec); /* within a second: neither steered nor recorded */
        f->rec->steered_ns -= 1100000000ull;
        f->rec->clock_ns -= 61000000000ull;
        pm_recorder_round(f->rec);
    }
    close_and_check(f);
    assert_int_equal(f->walk.streams[PM_STREAM_KEEP].kinds[PM_SCHEMA_CLOCK], 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_file_is_whole),
        TEST(facts_are_read_back),
        TEST(the_payload_is_zero_before_use),
        TEST(the_thread_keeps_up),
        TEST(losses_are_counted_and_placed),
        TEST(the_oldest_detail_goes_first),
        TEST(recycling_beside_the_writer),
        TEST(what_is_kept_stays),
        TEST(a_late_stream_gets_its_part),
        TEST(with_the_least_ceiling_it_still_records),
        TEST(attributes),
        TEST(strings_keep_their_ids),
        TEST(strings_come_and_go),
        TEST(a_keyframe_has_its_limit),
        TEST(each_segment_stands_alone),
        TEST(a_greedy_keyframe_is_held_back),
        TEST(bad_options_are_refused),
        TEST(a_planted_link_is_not_followed),
        TEST(misuse_is_harmless),
        TEST(rounds_from_two_threads),
        TEST(segments_grow_to_their_schemas),
        TEST(roll_ups_hold_the_totals),
        TEST(roll_ups_stretch_as_room_goes),
        TEST(a_clock_triple_every_minute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
