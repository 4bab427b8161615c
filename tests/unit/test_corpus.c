/*
 * The inputs that fuzzing the reader found worth keeping (tests/fuzz/corpus_session.tar.xz: one for
 * each piece of code that it reached), read and shown once more: in each build, and under the
 * sanitizers.
 *
 * The corpus is unpacked by the build into PM_CORPUS; after a long run it is made anew as
 * CONTRIBUTING.md says.
 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t input[1u << 20];

static void every_kept_input_is_read(void **state)
{
    (void)state;
    size_t inputs = 0;
    DIR *dir = opendir(PM_CORPUS);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", PM_CORPUS, entry->d_name);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        const size_t bytes = fread(input, 1, sizeof(input), file);
        fclose(file);
        assert_int_equal(LLVMFuzzerTestOneInput(input, bytes), 0);
        inputs++;
    }
    closedir(dir);
    assert_true(inputs > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kept_input_is_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
