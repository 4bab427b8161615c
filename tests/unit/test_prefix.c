/*
 * The reader is total on any bytes: every prefix of a record file and of the file `session` opens
 * or is named in a note, and no changed byte brings it down (run under the sanitizers).
 */
#include "make_session.h"

#include "devour.h"

static struct img image;

static struct pm_session *open_or_null(const char *dir)
{
    struct pm_session *session = NULL;
    struct pm_error err = {""};
    int rc = pm_session_open(&session, dir, &err);
    if (rc != 0) {
        assert_true(err.text[0] != '\0'); /* every error is named */
        return NULL;
    }
    return session;
}

static void every_prefix_of_a_record_file(void **state)
{
    char dir[300], path[400];
    uint64_t facts_before = 0;
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 6);
    img_seal(&image);
    const size_t end = image.at;
    snprintf(path, sizeof path, "%s/records/p77-0.pmrec", dir);
    img_save(&image, dir, "p77-0.pmrec", 0);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (size_t n = 0; n <= end; n++) {
        /* Byte by byte where something stands, in strides through the zeros between. */
        const size_t keep_end = 4096 + PM_SEGMENT_BYTES_MIN;
        const bool zeros = n + 8 < keep_end && n > 4096 + 16384;
        if (n > 0)
            assert_int_equal(pwrite(fd, image.bytes + n - 1, 1, (off_t)n - 1), 1);
        if (zeros && n % 1021 != 0)
            continue;
        struct pm_session *session = open_or_null(dir);
        struct devoured eaten = {0};
        assert_non_null(session); /* the folder is sound: a bad file becomes a note */
        if (n < sizeof(struct pm_file_head)) {
            assert_int_equal(pm_session_process_count(session), 0);
            assert_int_equal(pm_session_note_count(session), 1);
            assert_non_null(strstr(pm_session_note(session, 0), "p77-0.pmrec"));
        } else {
            assert_int_equal(pm_session_process_count(session), 1);
        }
        assert_int_equal(devour_reader(session, &eaten), 0);
        /* What was readable stays readable as the file grows. */
        assert_true(eaten.facts >= facts_before);
        facts_before = eaten.facts;
        if (n % 509 == 0 || n == end)
            assert_int_equal(devour_views(session), 0);
        pm_session_close(session);
    }
    assert_int_equal(facts_before, 18);
    close(fd);
    mk_remove(dir);
}

static void every_prefix_of_the_session_file(void **state)
{
    char dir[300], path[400];
    size_t bytes = 0;
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 3);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    snprintf(path, sizeof path, "%s/session", dir);
    char *text = mk_read(path, &bytes);
    for (size_t n = 0; n <= bytes; n++) {
        struct devoured eaten = {0};
        mk_write(path, text, n);
        struct pm_session *session = open_or_null(dir);
        assert_non_null(session);
        assert_int_equal(devour_reader(session, &eaten), 0);
        assert_int_equal(eaten.steps, 3);
        /* A number cut short would be another number. */
        assert_int_equal(pm_session_info(session)->start_mono_ns, MK_START_MONO);
        pm_session_close(session);
    }
    free(text);
    mk_remove(dir);
}

/* A recorder's own file: live totals, several segments. */
static char *recorded_file(const char *dir, size_t *ret_bytes)
{
    struct mk mk;
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(mk.rec, "model", "tiny");
    for (uint64_t step = 0; step < 600; step++) {
        char name[32];
        snprintf(name, sizeof name, "request-%d", (int)(step % 10));
        struct pm_step_request request = {
            .step = step,
            .at_ns = MK_START_MONO + step,
            .request = pm_recorder_string(mk.rec, PM_STREAM_CORE, name, strlen(name))};
        mk_sched(&mk, mk_sched_of(step, step % 7 == 0, 3));
        mk_put(&mk, MK_REQUEST, &request, sizeof request);
        mk_worker(&mk, mk_worker_of(step, step % 7 == 0, 3, 2000000));
    }
    mk_close(&mk, 77, 1, MK_START_MONO, true);
    char *bytes = mk_read(mk.file, ret_bytes);
    assert_int_equal(unlink(mk.file), 0);
    return bytes;
}

static void prefixes_of_a_recorded_file(void **state)
{
    char dir[300], path[400];
    size_t bytes = 0;
    (void)state;

    mk_folder(dir, sizeof dir);
    char *whole = recorded_file(dir, &bytes);
    snprintf(path, sizeof path, "%s/records/p77-0.pmrec", dir);
    for (size_t n = 0; n <= bytes; n += n == bytes ? 1 : bytes - n < 1999 ? bytes - n : 1999) {
        struct devoured eaten = {0};
        mk_write(path, whole, n);
        struct pm_session *session = open_or_null(dir);
        assert_non_null(session);
        assert_int_equal(devour_reader(session, &eaten), 0);
        if (n == bytes) {
            assert_int_equal(eaten.steps, 600);
            assert_int_equal(pm_session_note_count(session), 0);
        }
        pm_session_close(session);
    }
    free(whole);
    mk_remove(dir);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Bytes that mean something: not the zeros at the ends of segments. */
static void one_byte_changed(void **state)
{
    const unsigned rounds = getenv("PM_TEST_ROUNDS") != NULL
                                ? (unsigned)strtoul(getenv("PM_TEST_ROUNDS"), NULL, 10)
                                : 20000;
    char dir[300], path[400];
    uint64_t seed = 0x9e3779b97f4a7c15ull;
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 12);
    img_seal(&image);
    img_segment(&image, PM_STREAM_CORE, 1, image.ordinal, 36);
    img_schemas(&image);
    img_keyframe(&image);
    img_facts(&image, 12, 16);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    snprintf(path, sizeof path, "%s/records/p77-0.pmrec", dir);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < rounds; i++) {
        const uint64_t r = next_random(&seed);
        const size_t area = r % 3; /* header, segment 1, segment 2 … */
        const size_t base = area == 0 ? 0 : 4096 + (r >> 8) % 3 * PM_SEGMENT_BYTES_MIN;
        const size_t at = base + (r >> 16) % (area == 0 ? sizeof(struct pm_file_head) : 7000);
        const uint8_t byte = (uint8_t)(image.bytes[at] ^ (1 + (r >> 40) % 255));
        struct pm_session *session;
        struct devoured eaten = {0};
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
        session = open_or_null(dir);
        assert_non_null(session);
        assert_int_equal(devour_reader(session, &eaten), 0);
        assert_true(eaten.facts <= 48);
        if (i % 50 == 0)
            assert_int_equal(devour_views(session), 0);
        pm_session_close(session);
        assert_int_equal(pwrite(fd, &image.bytes[at], 1, (off_t)at), 1);
    }
    close(fd);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prefix_of_a_record_file),
        cmocka_unit_test(every_prefix_of_the_session_file),
        cmocka_unit_test(prefixes_of_a_recorded_file),
        cmocka_unit_test(one_byte_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
