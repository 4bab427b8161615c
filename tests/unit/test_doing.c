/*
 * What threads do, as they say it in their process's header: one word each, taken by the first that
 * come, read back whole; a child of fork() and a recorder opened later have words of their own.
 */
#include "recorder_kit.h"

#include <pthread.h>
#include <unistd.h>

#include "reader/reader.h"
#include "session/doing.h"

static struct pm_recorder *open_one(const char *dir)
{
    const struct pm_recorder_options options = kit_options(dir, false);
    return kit_open(&options);
}

struct speaker {
    struct pm_recorder *rec;
    uint64_t at_ns;
};

static void *speak(void *arg)
{
    struct speaker *speaker = arg;
    pm_recorder_doing(speaker->rec, PM_DOING_MODEL, speaker->at_ns);
    return NULL;
}

/* What the only process of the session says. */
static size_t read_threads(const char *dir, struct pm_thread_state threads[PM_THREAD_WORDS])
{
    struct pm_session *session;
    assert_int_equal(pm_session_open(&session, dir, NULL), 0);
    assert_int_equal(pm_session_process_count(session), 1);
    const size_t count = pm_process_threads(pm_session_process(session, 0), threads);
    pm_session_close(session);
    return count;
}

static void test_a_word_is_read_back(void **state)
{
    struct pm_thread_state threads[PM_THREAD_WORDS];
    const char *dir = *state;
    struct pm_recorder *rec = open_one(dir);
    assert_int_equal(read_threads(dir, threads), 0);
    pm_recorder_doing(rec, PM_DOING_SCHEDULE, 1000000);
    pm_recorder_doing(rec, PM_DOING_SAMPLE | PM_DOING_RAISED, 2000000);
    assert_int_equal(read_threads(dir, threads), 1);
    assert_int_equal(threads[0].tid, gettid());
    assert_int_equal(threads[0].doing, PM_DOING_SAMPLE);
    assert_true(threads[0].raised);
    assert_in_range(threads[0].since_ns, 2000000 - 63, 2000000);
    pm_recorder_close(rec);
}

static void test_threads_have_a_word_each_until_there_are_no_more(void **state)
{
    struct pm_thread_state threads[PM_THREAD_WORDS];
    const char *dir = *state;
    struct pm_recorder *rec = open_one(dir);
    for (unsigned i = 0; i < PM_THREAD_WORDS + 4; i++) {
        struct speaker speaker = {.rec = rec, .at_ns = 64 * (i + 1ull)};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, speak, &speaker), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    assert_int_equal(read_threads(dir, threads), PM_THREAD_WORDS);
    for (unsigned i = 0; i < PM_THREAD_WORDS; i++) {
        assert_int_equal(threads[i].doing, PM_DOING_MODEL);
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(threads[i].tid, threads[k].tid);
    }
    pm_recorder_close(rec);
}

static void test_a_child_says_nothing_into_its_parents_file(void **state)
{
    struct pm_thread_state threads[PM_THREAD_WORDS];
    const char *dir = *state;
    struct pm_recorder *rec = open_one(dir);
    pm_recorder_doing(rec, PM_DOING_SCHEDULE, 6400);
    const pid_t child = fork();
    if (child == 0) {
        pm_recorder_doing(rec, PM_DOING_UPDATE, 12800);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(read_threads(dir, threads), 1);
    assert_int_equal(threads[0].doing, PM_DOING_SCHEDULE);
    pm_recorder_close(rec);
}

static void test_another_recorder_has_words_of_its_own(void **state)
{
    const char *dir = *state;
    struct pm_recorder *first = open_one(dir);
    pm_recorder_doing(first, PM_DOING_SCHEDULE, 6400);
    pm_recorder_close(first);
    struct pm_recorder *second = open_one(dir); /* most likely at the same address */
    pm_recorder_doing(second, PM_DOING_UPDATE, 12800);
    const struct pm_thread_word *word = &pm_recorder_head(second)->threads[0];
    assert_int_equal(atomic_load(&word->tid), gettid());
    assert_int_equal(pm_doing_of(atomic_load(&word->state)), PM_DOING_UPDATE);
    pm_recorder_close(second);
}

static int set_up(void **state)
{
    static char dir[256];
    kit_session(dir, sizeof dir, "/tmp");
    *state = dir;
    return 0;
}

static int tear_down(void **state)
{
    kit_remove(*state);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_word_is_read_back),
        TEST(test_threads_have_a_word_each_until_there_are_no_more),
        TEST(test_a_child_says_nothing_into_its_parents_file),
        TEST(test_another_recorder_has_words_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
