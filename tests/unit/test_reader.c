/*
 * Opening sessions, processes, cursors, strings, totals, and the reader beside a live writer.
 */
#include "make_session.h"

#include "devour.h"

#include <signal.h>
#include <sys/wait.h>

static struct img image;

static bool has_note(const struct pm_session *session, const char *words)
{
    for (size_t i = 0; i < pm_session_note_count(session); i++)
        if (strstr(pm_session_note(session, i), words) != NULL)
            return true;
    return false;
}

static void opens_by_folder_or_file(void **state)
{
    char dir[300], path[400];
    struct pm_session *session;
    struct pm_error err = {""};
    (void)state;

    mk_folder(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/metadata.json", dir);
    mk_write(path, "{}", 2);
    session = mk_session(path);
    assert_string_equal(pm_session_info(session)->path, dir);
    assert_string_equal(pm_session_info(session)->name, strrchr(dir, '/') + 1);
    assert_int_equal(pm_session_info(session)->root_pid, 77);
    assert_int_equal(pm_session_process_count(session), 0);
    assert_int_equal(pm_session_note_count(session), 0);
    assert_int_equal(pm_session_engine_count(session), 0);
    pm_session_close(session);

    snprintf(path, sizeof path, "%s/no-such", dir);
    assert_int_equal(pm_session_open(&session, path, &err), -PM_ENOTFOUND);
    snprintf(path, sizeof path, "%s/records", dir);
    assert_int_equal(pm_session_open(&session, path, &err), -PM_EFORMAT);
    assert_non_null(strstr(err.text, "not a session"));
    snprintf(path, sizeof path, "%s/other", dir);
    mk_write(path, "x", 1);
    assert_int_equal(pm_session_open(&session, path, &err), -PM_EFORMAT);
    assert_int_equal(pm_session_open(&session, "", &err), -PM_EINVALID);
    snprintf(path, sizeof path, "%s/session", dir);
    mk_write(path, "version 2\n", 10);
    assert_int_equal(pm_session_open(&session, dir, &err), -PM_EVERSION);
    assert_non_null(strstr(err.text, "use a newer profilemate"));
    mk_remove(dir);
}

static void foreign_files_are_left_out(void **state)
{
    char dir[300], path[600];
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 4);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    img_save(&image, dir, "notes.txt", 100);
    img_save(&image, dir, "budget", 8);
    image.bytes[offsetof(struct pm_file_head, token)] ^= 1;
    img_save(&image, dir, "p78-0.pmrec", img_bytes(&image));
    image.bytes[offsetof(struct pm_file_head, version)] = 9;
    img_save(&image, dir, "p79-0.pmrec", img_bytes(&image));
    snprintf(path, sizeof path, "%s/records/p80-0.pmrec", dir);
    mk_write(path, "hello, world", 12);
    snprintf(path, sizeof path, "%s/records/p81-0.pmrec", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(path, sizeof path, "%s/records/p82-0.pmrec", dir);
    assert_int_equal(symlink("/etc/passwd", path), 0);

    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_session_process_count(session), 1);
    assert_true(has_note(session, "p78-0.pmrec: at byte 40: belongs to another session"));
    assert_true(has_note(session, "p79-0.pmrec: format version 9"));
    assert_true(has_note(session, "p80-0.pmrec: at byte 0: not a record file"));
    assert_true(has_note(session, "p81-0.pmrec: not a regular file"));
    assert_true(has_note(session, "p82-0.pmrec: cannot be opened"));
    assert_int_equal(pm_session_note_count(session), 5);
    pm_session_close(session);
    mk_remove(dir);
}

static void a_process_tells_of_itself(void **state)
{
    char dir[300];
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 4);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    struct pm_session *session = mk_session(dir);
    const struct pm_process *process = pm_session_process(session, 0);
    const struct pm_process_info *info = pm_process_info(process);
    assert_int_equal(info->pid, 77);
    assert_int_equal(info->roles, PM_ROLE_ENGINE | PM_ROLE_WORKER);
    assert_int_equal(info->life, PM_LIFE_KILLED);
    assert_int_equal(info->records[PM_STREAM_CORE], 12);
    assert_int_equal(info->first_fact[PM_STREAM_CORE], 0);
    /* The newest moment is the last worker step's model start. */
    assert_int_equal(info->last_ns, mk_worker_of(3, 0, 2, 0).model_ns_at);
    assert_string_equal(pm_process_attr(process, "model"), "tiny-2");
    assert_null(pm_process_attr(process, "mode"));
    assert_int_equal(pm_process_attr_count(process), 1);
    assert_string_equal(pm_session_attr(session, "model"), "tiny-2");
    assert_int_equal(pm_process_schema_count(process), MK_SCHEMAS);
    assert_int_equal(pm_process_schema_find(process, "worker_step"), MK_WORKER);
    assert_int_equal(pm_process_schema_find(process, "nothing"), -1);
    pm_session_close(session);
    mk_remove(dir);
}

static void a_cursor_gives_facts_and_strings(void **state)
{
    char dir[300];
    struct pm_cursor *cursor;
    struct pm_record record;
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 2);
    img_string(&image, 7, "another text for seven");
    img_facts(&image, 2, 3);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_cursor_open(&cursor, pm_session_process(session, 0), PM_STREAM_CORE), 0);
    for (unsigned i = 0; i < 9; i++) {
        assert_int_equal(pm_cursor_next(cursor, &record), 1);
        assert_int_equal(record.fact, i);
        assert_false(record.keyframe);
        assert_int_equal(record.schema, i % 3 == 0   ? MK_SCHED
                                        : i % 3 == 1 ? MK_REQUEST
                                                     : MK_WORKER);
        if (record.schema == MK_REQUEST)
            assert_string_equal(pm_cursor_string(cursor, 7),
                                i < 6 ? "request-seven" : "another text for seven");
    }
    assert_int_equal(pm_cursor_next(cursor, &record), 0);
    assert_int_equal(pm_cursor_next(cursor, &record), 0);
    assert_string_equal(pm_cursor_string(cursor, 8), "");
    assert_string_equal(pm_cursor_string(cursor, 0), "");
    pm_cursor_close(cursor);
    pm_session_close(session);
    mk_remove(dir);
}

static void damage_stays_in_its_segment(void **state)
{
    char dir[300], words[64];
    struct devoured eaten = {0};
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 2);
    const size_t damaged_at = image.at;
    img_facts(&image, 2, 10);
    img_seal(&image);
    const uint64_t ordinal = image.ordinal;
    img_segment(&image, PM_STREAM_CORE, 1, ordinal, 30);
    img_string(&image, 7, "seven again");
    img_keyframe(&image);
    img_facts(&image, 10, 12);
    image.bytes[damaged_at + 5] ^= 1; /* the check field of fact 6 */
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));

    struct pm_session *session = mk_session(dir);
    assert_int_equal(devour_reader(session, &eaten), 0);
    /* Twice over all: facts 0 to 5 and 30 to 35 are left. */
    assert_int_equal(eaten.facts, 12);
    assert_int_equal(eaten.strings, 4 + 1);
    snprintf(words, sizeof words, "p77-0.pmrec: at byte %zu: expected the next record", damaged_at);
    assert_true(has_note(session, words));
    assert_int_equal(pm_session_note_count(session), 1); /* told once, however often it is met */
    assert_int_equal(pm_process_info(pm_session_process(session, 0))->damaged_segments, 1);
    pm_session_close(session);
    mk_remove(dir);
}

/* Slots in another order than their numbers, a gap, and a slot that claims a number again. */
static void segments_go_by_their_numbers(void **state)
{
    static const uint64_t firsts[] = {9, 3, 12};
    char dir[300];
    struct pm_cursor *cursor;
    struct pm_record record;
    (void)state;

    mk_folder(dir, sizeof dir);
    img_begin(&image);
    for (unsigned i = 0; i < 3; i++) {
        img_segment(&image, PM_STREAM_CORE, firsts[i] / 3, firsts[i] + 100, firsts[i]);
        img_schemas(&image);
        img_facts(&image, firsts[i] / 3, firsts[i] / 3 + 1);
    }
    img_segment(&image, PM_STREAM_CORE, 1, 500, 400);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_process_info(pm_session_process(session, 0))->first_fact[PM_STREAM_CORE],
                     3);
    assert_true(has_note(session, "a second segment with the same number"));
    assert_int_equal(pm_cursor_open(&cursor, pm_session_process(session, 0), PM_STREAM_CORE), 0);
    for (uint64_t fact = 3; fact < 15; fact += fact == 5 ? 4 : 1) {
        assert_int_equal(pm_cursor_next(cursor, &record), 1);
        assert_int_equal(record.fact, fact);
        assert_true(record.keyframe); /* these segments have no end of a keyframe */
    }
    assert_int_equal(pm_cursor_next(cursor, &record), 0);
    pm_cursor_close(cursor);
    pm_session_close(session);
    mk_remove(dir);
}

/* Sums, counts and buckets of everything, whatever the live copy covers. */
static void check_totals(const struct pm_session *session, uint64_t steps)
{
    const struct pm_process *process = pm_session_process(session, 0);
    struct pm_totals totals;
    uint32_t value, hist;
    uint64_t counted = 0, tokens = 0, bucketed = 0;

    assert_int_equal(pm_process_totals(process, &totals), 0);
    pm_process_series(process, MK_SCHED, &value, &hist);
    assert_int_equal(value, 0);
    for (unsigned c = 0; c < PM_PHASE_CLASSES; c++) {
        /* count, dur, requests, tokens, eight more sums */
        const uint64_t *values = totals.values + value + c * 12;
        counted += values[0];
        tokens += values[3];
        for (unsigned b = 0; b < PM_HIST_BUCKETS; b++)
            bucketed += totals.hists[hist + c * 3].buckets[b];
    }
    assert_int_equal(counted, steps);
    assert_int_equal(bucketed, steps);
    uint64_t expected = 0;
    for (uint64_t i = 0; i < steps; i++)
        expected += mk_sched_of(i, i % 7 == 0, 3).tokens;
    assert_int_equal(tokens, expected);
    pm_totals_free(&totals);
}

static void totals_are_exact_where_detail_is_gone(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    mk_open(&mk, dir, 1u << 20, false); /* some ten segments in all */
    for (uint64_t step = 0; step < 20000; step++) {
        mk_sched(&mk, mk_sched_of(step, step % 7 == 0, 3));
        if (step % 100 == 0)
            pm_recorder_round(mk.rec);
        if (step == 50) {
            struct pm_session *session = mk_session(dir);
            check_totals(session, 51); /* some in the live copy, some after it */
            pm_session_close(session);
        }
    }
    mk_close(&mk, 77, 1, MK_START_MONO, false);
    struct pm_session *session = mk_session(dir);
    const struct pm_process_info *info = pm_process_info(pm_session_process(session, 0));
    assert_int_equal(info->life, PM_LIFE_CLOSED);
    assert_int_equal(info->lost[PM_STREAM_CORE], 0);
    assert_true(info->recycled[PM_STREAM_CORE] > 1000);
    assert_true(info->first_fact[PM_STREAM_CORE] > 1000);
    assert_int_equal(info->first_fact[PM_STREAM_CORE] + info->records[PM_STREAM_CORE], 20000);
    check_totals(session, 20000);
    assert_int_equal(pm_session_note_count(session), 0);
    pm_session_close(session);
    mk_remove(dir);
}

/* A child writes until it is killed; the parent reads all the while. */
static void a_live_writer_may_go_on(void **state)
{
    char dir[300];
    int ready[2];
    char byte;
    (void)state;

    mk_folder(dir, sizeof dir);
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct mk mk;
        mk_open(&mk, dir, 2u << 20, true);
        for (uint64_t step = 0;; step++) {
            struct pm_sched_step fact = mk_sched_of(step, 0, 3);
            fact.running = ~(uint32_t)step; /* a torn record would not have it */
            void *payload = pm_recorder_reserve(mk.rec, MK_SCHED);
            if (payload != NULL) {
                memcpy(payload, &fact, sizeof fact);
                pm_recorder_commit(mk.rec, payload);
            }
            if (step == 1000 && write(ready[1], "x", 1) != 1)
                _exit(1);
            if (step % 1000 == 0)
                usleep(200);
        }
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    uint64_t newest = 0, facts = 0;
    struct pm_cursor *cursor = NULL;
    struct pm_session *session = NULL;
    for (unsigned round = 0; round < 300; round++) {
        struct pm_record record;
        int rc;
        if (round % 100 == 0) {
            pm_cursor_close(cursor);
            pm_session_close(session);
            session = mk_session(dir);
            assert_int_equal(pm_session_process_count(session), 1);
            assert_int_equal(pm_process_info(pm_session_process(session, 0))->life,
                             PM_LIFE_RUNNING);
            assert_int_equal(
                pm_cursor_open(&cursor, pm_session_process(session, 0), PM_STREAM_CORE), 0);
            newest = 0;
        }
        while ((rc = pm_cursor_next(cursor, &record)) == 1) {
            struct pm_sched_step fact;
            memcpy(&fact, record.payload, sizeof fact);
            assert_int_equal(fact.running, ~(uint32_t)fact.step);
            assert_int_equal(fact.start_ns, mk_sched_of(fact.step, 0, 3).start_ns);
            assert_true(newest == 0 || fact.step > newest);
            newest = fact.step;
            facts++;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(pm_session_note_count(session), 0);
        usleep(500);
    }
    assert_true(facts > 1000);
    pm_cursor_close(cursor);
    pm_session_close(session);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    session = mk_session(dir);
    assert_int_equal(pm_process_info(pm_session_process(session, 0))->life, PM_LIFE_KILLED);
    struct devoured eaten = {0};
    assert_int_equal(devour_reader(session, &eaten), 0);
    assert_int_equal(pm_session_note_count(session), 0);
    pm_session_close(session);
    close(ready[0]);
    close(ready[1]);
    mk_remove(dir);
}

static void a_spool_is_read_beside_records(void **state)
{
    char dir[300], spool[300], path[700], text[600];
    size_t bytes = 0;
    (void)state;

    mk_folder(dir, sizeof dir);
    mk_folder(spool, sizeof spool);
    img_example(&image, 3);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    img_save(&image, spool, "p77-0.pmrec", 100); /* came home already */
    img_save(&image, spool, "p78-0.pmrec", img_bytes(&image));
    snprintf(path, sizeof path, "%s/session", dir);
    char *old = mk_read(path, &bytes);
    snprintf(text, sizeof text, "%sspool %s/records\n", old, spool);
    mk_write(path, text, strlen(text));
    free(old);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_session_process_count(session), 2);
    assert_int_equal(pm_session_note_count(session), 0);
    pm_session_close(session);
    mk_remove(dir);
    mk_remove(spool);
}

static void huge_claims_cost_nothing(void **state)
{
    char dir[300], path[400];
    struct devoured eaten = {0};
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 3);
    const uint64_t huge = UINT64_MAX / 2;
    memcpy(image.bytes + offsetof(struct pm_file_head, slots), &huge, 8);
    memcpy(image.bytes + offsetof(struct pm_file_head, lost), &huge, 8);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    snprintf(path, sizeof path, "%s/records/p77-0.pmrec", dir);
    assert_int_equal(truncate(path, 1ll << 33), 0); /* a sparse tail: slots made ahead */
    struct pm_session *session = mk_session(dir);
    assert_int_equal(devour_reader(session, &eaten), 0);
    assert_int_equal(eaten.steps, 3);
    pm_session_close(session);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_by_folder_or_file),
        cmocka_unit_test(foreign_files_are_left_out),
        cmocka_unit_test(a_process_tells_of_itself),
        cmocka_unit_test(a_cursor_gives_facts_and_strings),
        cmocka_unit_test(damage_stays_in_its_segment),
        cmocka_unit_test(segments_go_by_their_numbers),
        cmocka_unit_test(totals_are_exact_where_detail_is_gone),
        cmocka_unit_test(a_live_writer_may_go_on),
        cmocka_unit_test(a_spool_is_read_beside_records),
        cmocka_unit_test(huge_claims_cost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
