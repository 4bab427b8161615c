/* The settings parser: defaults, both names, off over on, and every malformed value's sentence.
 * Also the words of error codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/settings.h"

/* An environment of name, value, …, NULL, and the warnings that came of it. */
struct world {
    const char *const *pairs;
    char warnings[8][600];
    size_t count;
};

static const char *get(const char *name, void *arg)
{
    const struct world *world = arg;
    for (const char *const *pair = world->pairs; *pair != NULL; pair += 2)
        if (strcmp(pair[0], name) == 0)
            return pair[1];
    return NULL;
}

static void warn(const char *sentence, void *arg)
{
    struct world *world = arg;
    assert_true(world->count < 8);
    snprintf(world->warnings[world->count++], 600, "%s", sentence);
}

static struct world world;
static struct pm_settings settings;

static void read_from(const char *const *pairs)
{
    world = (struct world){.pairs = pairs};
    pm_settings_read(&settings, get, &world, warn, &world);
}
#define READ(...) read_from((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static int enable_from(const char *const *pairs)
{
    world = (struct world){.pairs = pairs};
    return pm_settings_enable(get, &world, warn, &world);
}
#define ENABLE(...) enable_from((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void defaults(void **state)
{
    (void)state;
    READ();
    assert_int_equal(world.count, 0);
    assert_string_equal(settings.dir, "/tmp/vllm_profiling");
    assert_string_equal(settings.custom, "");
    assert_int_equal(settings.preset, PM_PRESET_FULL);
    assert_int_equal(settings.request_ids, PM_REQUEST_IDS_PLAIN);
    assert_int_equal(settings.mode, 0600);
    assert_int_equal(settings.moe, -1);
    assert_int_equal(settings.forward_pass, 1);
    assert_int_equal(settings.layer, 0);
    assert_int_equal(settings.log_interval, 100);
    assert_int_equal(settings.keep_mb, 4096);
}

/* Each default is itself well-formed, and stays what it is when it is set explicitly. */
static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < pm_setting_rows_count; i++) {
        const struct pm_setting_row *row = &pm_setting_rows[i];
        char expected[128] = "", name[128];
        assert_true(pm_setting_check(row, row->def, expected, sizeof expected));
        snprintf(name, sizeof name, "VLLM_PROFILING_%s", row->env);
        assert_true(pm_settings_owns(name));
        snprintf(name, sizeof name, "PROFILEMATE_%s", row->env);
        assert_true(pm_settings_owns(name));
        if (strcmp(row->type, "TEXT") != 0) {
            assert_false(pm_setting_check(row, "certainly not", expected, sizeof expected));
            assert_true(strlen(expected) > 0);
            assert_false(pm_setting_check(row, "certainly not", NULL, 0));
            struct pm_settings before;
            READ();
            before = settings;
            READ(name, row->def);
            assert_memory_equal(&before, &settings, sizeof settings);
            assert_int_equal(world.count, 0);
        }
    }
}

static void values(void **state)
{
    (void)state;
    READ("VLLM_PROFILING_DIR", "/data/a b/", "VLLM_PROFILING_LOG_INTERVAL", " 7 ",
         "VLLM_PROFILING_PRESET", "SIMPLE", "VLLM_PROFILING_MODE", "0640",
         "VLLM_PROFILING_REQUEST_IDS", "hash", "VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING", "1",
         "VLLM_PROFILING_VERBOSE", "true", "VLLM_PROFILING_ENABLE_CPU_TIMING", "off",
         "VLLM_PROFILING_CUSTOM", "a.b:C.d,e:f", "PROFILEMATE_MAX_MB", "12");
    assert_int_equal(world.count, 0);
    assert_string_equal(settings.dir, "/data/a b/");
    assert_int_equal(settings.log_interval, 7);
    assert_int_equal(settings.preset, PM_PRESET_SIMPLE);
    assert_int_equal(settings.mode, 0640);
    assert_int_equal(settings.request_ids, PM_REQUEST_IDS_HASH);
    assert_int_equal(settings.moe, 1);
    assert_int_equal(settings.verbose, 1);
    assert_int_equal(settings.cpu_timing, 0);
    assert_string_equal(settings.custom, "a.b:C.d,e:f");
    assert_int_equal(settings.max_mb, 12);

    READ("VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING", "auto", "VLLM_PROFILING_MODE", "0o666");
    assert_int_equal(settings.moe, -1);
    assert_int_equal(settings.mode, 0666);
}

static void empty_is_unset(void **state)
{
    (void)state;
    READ("VLLM_PROFILING_DIR", "", "VLLM_PROFILING_LOG_INTERVAL", "  ", "PROFILEMATE_LOG_INTERVAL",
         "5", "VLLM_PROFILING_VERBOSE", "\t\n");
    assert_int_equal(world.count, 0);
    assert_string_equal(settings.dir, "/tmp/vllm_profiling");
    assert_int_equal(settings.log_interval, 5);
    assert_int_equal(settings.verbose, 0);
}

static void both_names(void **state)
{
    (void)state;
    READ("VLLM_PROFILING_LOG_INTERVAL", "3", "PROFILEMATE_LOG_INTERVAL", "4");
    assert_int_equal(settings.log_interval, 3);
    /* off beats on, whichever name says it */
    READ("VLLM_PROFILING_NVTX", "1", "PROFILEMATE_NVTX", "0");
    assert_int_equal(settings.nvtx, 0);
    READ("VLLM_PROFILING_NVTX", "0", "PROFILEMATE_NVTX", "1");
    assert_int_equal(settings.nvtx, 0);
    READ("VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING", "1", "PROFILEMATE_ENABLE_MOE_EXPERT_TRACKING",
         "0");
    assert_int_equal(settings.moe, 0);
    READ("VLLM_PROFILING_NVTX", "1", "PROFILEMATE_NVTX", "1");
    assert_int_equal(settings.nvtx, 1);
    /* a bad value leaves the word to the other name, and the warning says so */
    READ("VLLM_PROFILING_NVTX", "perhaps", "PROFILEMATE_NVTX", "1");
    assert_int_equal(settings.nvtx, 1);
    assert_int_equal(world.count, 1);
    assert_string_equal(world.warnings[0], "VLLM_PROFILING_NVTX=perhaps is not 0 or 1; using 1");
}

static void malformed(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *sentence;
    } cases[] = {
        {"VLLM_PROFILING_LOG_INTERVAL", "0",
         "VLLM_PROFILING_LOG_INTERVAL=0 is not a whole number from 1 to 1000000000; using 100"},
        {"VLLM_PROFILING_LOG_INTERVAL", "1e3",
         "VLLM_PROFILING_LOG_INTERVAL=1e3 is not a whole number from 1 to 1000000000; using 100"},
        {"VLLM_PROFILING_LOG_INTERVAL", "99999999999999999999999",
         "VLLM_PROFILING_LOG_INTERVAL=99999999999999999999999 is not a whole number from 1 to "
         "1000000000; using 100"},
        {"VLLM_PROFILING_LOG_INTERVAL", "-",
         "VLLM_PROFILING_LOG_INTERVAL=- is not a whole number from 1 to 1000000000; using 100"},
        {"PROFILEMATE_MAX_MB", "-1",
         "PROFILEMATE_MAX_MB=-1 is not a whole number from 0 to 1048576; using 0"},
        {"VLLM_PROFILING_PRESET", "fast",
         "VLLM_PROFILING_PRESET=fast is not simple or full; using full"},
        {"VLLM_PROFILING_MODE", "0700",
         "VLLM_PROFILING_MODE=0700 is not an octal file mode such as 0600, 0640 or 0666; using "
         "0600"},
        {"VLLM_PROFILING_MODE", "0400",
         "VLLM_PROFILING_MODE=0400 is not an octal file mode such as 0600, 0640 or 0666; using "
         "0600"},
        {"VLLM_PROFILING_MODE", "04600",
         "VLLM_PROFILING_MODE=04600 is not an octal file mode such as 0600, 0640 or 0666; using "
         "0600"},
        {"VLLM_PROFILING_MODE", "0668",
         "VLLM_PROFILING_MODE=0668 is not an octal file mode such as 0600, 0640 or 0666; using "
         "0600"},
        {"VLLM_PROFILING_REQUEST_IDS", "sha",
         "VLLM_PROFILING_REQUEST_IDS=sha is not plain or hash; using plain"},
        {"VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING", "2",
         "VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING=2 is not auto, 0 or 1; using auto"},
        {"VLLM_PROFILING_VERBOSE", "a\nb\x1b[31m",
         "VLLM_PROFILING_VERBOSE=a?b?[31m is not 0 or 1; using 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        READ(cases[i].name, cases[i].value);
        assert_int_equal(world.count, 1);
        assert_string_equal(world.warnings[0], cases[i].sentence);
        struct pm_settings got = settings;
        READ();
        assert_memory_equal(&got, &settings, sizeof settings);
    }
    read_from((const char *const[]){"VLLM_PROFILING_VERBOSE", "x", NULL});
    pm_settings_read(&settings, get, &world, NULL, NULL); /* nobody listens */
}

static void long_values(void **state)
{
    (void)state;
    static char text[5000];
    memset(text, 'd', sizeof text - 1);
    READ("VLLM_PROFILING_DIR", text);
    assert_string_equal(settings.dir, "/tmp/vllm_profiling");
    assert_int_equal(world.count, 1);
    assert_non_null(strstr(world.warnings[0], "... is not at most 4095 bytes; using /tmp/vllm_p"));
    text[PM_SETTING_TEXT_MAX - 1] = '\0';
    READ("VLLM_PROFILING_DIR", text);
    assert_int_equal(world.count, 0);
    assert_string_equal(settings.dir, text);
    /* a cut does not halve a character */
    memset(text, 0, sizeof text);
    for (size_t i = 0; i < 40; i++)
        memcpy(text + 2 * i + 1, "\xc3\xa4", 2);
    text[0] = 'x';
    READ("VLLM_PROFILING_VERBOSE", text);
    char *dots = strstr(world.warnings[0], "...");
    assert_non_null(dots);
    assert_int_equal((unsigned char)dots[-1], 0xa4);
}

static void enable(void **state)
{
    (void)state;
    assert_int_equal(ENABLE(), -1);
    assert_int_equal(ENABLE("VLLM_ENABLE_PROFILING", "1"), 1);
    assert_int_equal(ENABLE("VLLM_ENABLE_PROFILING", "0"), 0);
    assert_int_equal(ENABLE("PROFILEMATE_ENABLE", "yes"), 1);
    assert_int_equal(ENABLE("VLLM_ENABLE_PROFILING", "1", "PROFILEMATE_ENABLE", "0"), 0);
    assert_int_equal(ENABLE("VLLM_ENABLE_PROFILING", "0", "PROFILEMATE_ENABLE", "1"), 0);
    assert_int_equal(ENABLE("VLLM_ENABLE_PROFILING", ""), -1);
    assert_int_equal(world.count, 0);
    assert_int_equal(ENABLE("VLLM_ENABLE_PROFILING", "maybe"), -1);
    assert_int_equal(world.count, 1);
    assert_string_equal(
        world.warnings[0],
        "VLLM_ENABLE_PROFILING=maybe is not 0 or 1; using the rule for commands, as "
        "if it were unset");
    assert_int_equal(ENABLE("VLLM_ENABLE_PROFILING", "maybe", "PROFILEMATE_ENABLE", "1"), 1);
    assert_int_equal(world.count, 1);
}

static void real_environment(void **state)
{
    (void)state;
    setenv("VLLM_PROFILING_DEBUG_INTERVAL", "17", 1);
    pm_settings_read(&settings, NULL, NULL, NULL, NULL);
    unsetenv("VLLM_PROFILING_DEBUG_INTERVAL");
    assert_int_equal(settings.debug_interval, 17);
}

static void owns(void **state)
{
    (void)state;
    static const char *const ours[] = {"VLLM_ENABLE_PROFILING", "VLLM_PROFILING_SESSION",
                                       "VLLM_PROFILING_DIR", "PROFILEMATE_ENABLE",
                                       "PROFILEMATE_NVTX"};
    static const char *const not_ours[] = {"",
                                           "VLLM_PROFILING_",
                                           "VLLM_PROFILING_DIRS",
                                           "VLLM_PROFILING_dir",
                                           "VLLM_PORT",
                                           "VLLM_PROFILING_ENABLE",
                                           "PROFILEMATE_",
                                           "PROFILEMATE",
                                           "VLLM_LOGGING_LEVEL",
                                           "VLLM_TORCH_PROFILER_DIR",
                                           "PATH",
                                           "VLLM_PROFILING_SESSION2"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        assert_true(pm_settings_owns(ours[i]));
    for (size_t i = 0; i < sizeof not_ours / sizeof not_ours[0]; i++)
        assert_false(pm_settings_owns(not_ours[i]));
}

static void errors(void **state)
{
    (void)state;
    struct pm_error err = {"before"};
    assert_string_equal(pm_strerror(-PM_ENOSPACE), "no space left");
    assert_string_equal(pm_strerror(PM_ENOSPACE), "no space left");
    assert_string_equal(pm_strerror(0), "no error");
    assert_string_equal(pm_strerror(INT32_MIN), "unknown error");
    assert_int_equal(pm_error_from_errno(ENOSPC), -PM_ENOSPACE);
    assert_int_equal(pm_error_from_errno(ELOOP), -PM_EPERMISSION);
    assert_int_equal(pm_error_from_errno(EINTR), -PM_EIO);
    errno = 77;
    assert_int_equal(pm_error_set(&err, -PM_EIO, "%s at byte %d", "x", 5), -PM_EIO);
    assert_int_equal(errno, 77);
    assert_string_equal(err.text, "x at byte 5");
    assert_int_equal(pm_error_set(NULL, -PM_EIO, "%s", "x"), -PM_EIO);
    assert_int_equal(pm_error_set(&err, -PM_EIO, "%1000d", 1), -PM_EIO);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),    cmocka_unit_test(table),
        cmocka_unit_test(values),      cmocka_unit_test(empty_is_unset),
        cmocka_unit_test(both_names),  cmocka_unit_test(malformed),
        cmocka_unit_test(long_values), cmocka_unit_test(enable),
        cmocka_unit_test(owns),        cmocka_unit_test(real_environment),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
