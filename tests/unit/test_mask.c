/* Masked command lines: what is kept, what must never be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mask.h"

static char text[4096];

static const char *masked(const char *const *argv)
{
    size_t argc = 0;
    while (argv[argc] != NULL)
        argc++;
    size_t bytes = pm_mask_command(argc, argv, text, sizeof text);
    assert_int_equal(bytes, strlen(text));
    return text;
}
#define CHECK(want, ...) assert_string_equal(masked((const char *const[]){__VA_ARGS__, NULL}), want)

static void kept(void **state)
{
    (void)state;
    CHECK("/usr/bin/vllm serve meta/Llama --port 8000 -tp 2", "/usr/bin/vllm", "serve",
          "meta/Llama", "--port", "8000", "-tp", "2");
    CHECK("python -m vllm.entrypoints.openai.api_server --model=/models/x --max_num_seqs 64 "
          "--enforce-eager",
          "python", "-m", "vllm.entrypoints.openai.api_server", "--model=/models/x",
          "--max_num_seqs", "64", "--enforce-eager");
    CHECK("/venv/bin/python3.12 -u -X utf8 /venv/bin/vllm serve --enforce-eager org/m",
          "/venv/bin/python3.12", "-u", "-X", "utf8", "/venv/bin/vllm", "serve", "--enforce-eager",
          "org/m");
    CHECK("vllm bench latency --input-len 32 --seed -1", "vllm", "bench", "latency", "--input-len",
          "32", "--seed", "-1");
    CHECK("vllm serve m --cudagraph-capture-sizes 1 2 4 --served-model-name a b", "vllm", "serve",
          "m", "--cudagraph-capture-sizes", "1", "2", "4", "--served-model-name", "a", "b");
    CHECK("vllm serve 'my model' --served-model-name 'it'\\''s' ''", "vllm", "serve", "my model",
          "--served-model-name", "it's", "");
    CHECK("vllm serve m -O3 -O.mode ***", "vllm", "serve", "m", "-O3", "-O.mode", "3");
    CHECK("python -m vllm serve m", "python", "-m", "vllm", "serve", "m");
    CHECK("python --version", "python", "--version");
    CHECK("python --check-hash-based-pycs never -m vllm serve m", "python",
          "--check-hash-based-pycs", "never", "-m", "vllm", "serve", "m");
    CHECK("python --check-hash-based-pycs", "python", "--check-hash-based-pycs");
    CHECK("python", "python");
    assert_int_equal(pm_mask_command(0, NULL, text, sizeof text), 0);
    assert_string_equal(text, "");
}

static void masked_values(void **state)
{
    (void)state;
    CHECK("vllm serve m --api-key *** --hf-token=*** --port 1", "vllm", "serve", "m", "--api-key",
          "SECRET", "--hf-token=SECRET", "--port", "1");
    CHECK("vllm serve m --api-key *** *** --port=1", "vllm", "serve", "m", "--api-key", "SECRET",
          "SECRET", "--port=1");
    /* the model after an unknown flag cannot be told from its value */
    CHECK("vllm serve --api-key *** ***", "vllm", "serve", "--api-key", "SECRET", "m");
    /* one value is one value */
    CHECK("vllm serve m --port 80 ***", "vllm", "serve", "m", "--port", "80", "SECRET");
    CHECK("vllm serve m --enforce-eager ***", "vllm", "serve", "m", "--enforce-eager", "SECRET");
    CHECK("vllm serve m -- *** *** ***", "vllm", "serve", "m", "--", "SECRET", "--port", "8");
    CHECK("vllm *** --port 8", "vllm", "SECRET", "--port", "8");
    CHECK("vllm bench *** ***", "vllm", "bench", "SECRET", "SECRET");
    CHECK("python my.py *** --token *** -k *** -p***", "python", "my.py", "SECRET", "--token",
          "SECRET", "-k", "SECRET", "-pSECRET");
    CHECK("python -c *** ***", "python", "-c", "SECRET = 1", "SECRET");
    CHECK("python -Ic *** ***", "python", "-Ic", "SECRET = 1", "SECRET");
    CHECK("python -c***", "python", "-cSECRET");
    CHECK("sh -c ***", "sh", "-c", "SECRET vllm serve m");
    CHECK("x *** ***", "x", "--***", "--a b SECRET");
}

static void not_flags(void **state)
{
    (void)state;
    /* what only looks like a flag is a value: no part of it shows */
    CHECK("vllm serve m --api-key ***", "vllm", "serve", "m", "--api-key", "--my secret");
    CHECK("vllm serve m --api-key ***", "vllm", "serve", "m", "--api-key", "--$ecret");
    CHECK("vllm serve m --api-key ***", "vllm", "serve", "m", "--api-key", "-0secret");
    CHECK("vllm serve m --api-key ***", "vllm", "serve", "m", "--api-key", "-");
    CHECK("vllm serve m --api-key ***", "vllm", "serve", "m", "--api-key",
          "--aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
}

static void urls(void **state)
{
    (void)state;
    CHECK("vllm serve ***", "vllm", "serve", "https://user:SECRET@host/m");
    CHECK("vllm --model=***", "vllm", "--model=s3://SECRET@bucket/m");
    CHECK("vllm --model ***", "vllm", "--model", "https://host/m?X-Amz-Signature=SECRET");
    CHECK("vllm --model ***", "vllm", "--model", "https://host/m#SECRET");
    CHECK("vllm --model s3://bucket/m", "vllm", "--model", "s3://bucket/m");
    CHECK("vllm --model user@host", "vllm", "--model", "user@host");
    CHECK("***", "http://u:SECRET@h/");
    CHECK("python ***", "python", "http://u:SECRET@h/");
    CHECK("vllm --model ***", "vllm", "--model", "a\nb");
    char wide[300];
    memset(wide, 'w', sizeof wide - 1);
    wide[sizeof wide - 1] = '\0';
    CHECK("vllm --model ***", "vllm", "--model", wide);
    wide[256] = '\0';
    masked((const char *const[]){"vllm", "--model", wide, NULL});
    assert_non_null(strstr(text, wide));
    memset(wide, '\'', 256); /* the quoting's worst case */
    masked((const char *const[]){"vllm", "--model", wide, NULL});
    assert_int_equal(strlen(text), 13 + 4 * 256 + 2);
}

static void cut(void **state)
{
    (void)state;
    const char *const argv[] = {"vllm", "serve", "model", "--port", "8000", "--dtype=auto"};
    char whole[256];
    size_t bytes = pm_mask_command(6, argv, whole, sizeof whole);
    for (size_t size = 8; size <= bytes + 8; size++) {
        char *out = malloc(size); /* exact, for the sanitizer */
        size_t used = pm_mask_command(6, argv, out, size);
        assert_true(used < size);
        assert_int_equal(strlen(out), used);
        if (strcmp(out, whole) != 0) {
            assert_string_equal(out + used - 4, " ...");
            assert_memory_equal(out, whole, used - 4);
            assert_true(whole[used - 4] == ' ' || used == 4);
        } else {
            assert_true(size > bytes);
        }
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept), cmocka_unit_test(masked_values), cmocka_unit_test(not_flags),
        cmocka_unit_test(urls), cmocka_unit_test(cut),
    };
    return cmocka_run_group_tests_name("mask", tests, NULL, NULL);
}
