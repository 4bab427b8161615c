/*
 * libFuzzer target: the input is a torch trace, plain or gzip; its first byte chooses the size of
 * the pieces. All of it is read, in two ways that must agree, and analysed.
 *
 *   cmake -S . -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DPM_SANITIZE=address,undefined \
 *         -DPM_FUZZ=ON && cmake --build build/fuzz --target fuzz_trace
 *   build/fuzz/tests/fuzz_trace -max_total_time=60 -max_len=20000 CORPUS      (any small traces)
 */
#include "devour_trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pm_classes classes;
    if (classes.n == 0 && pm_classes_init(&classes, NULL, NULL) != 0)
        abort();
    if (size > 0)
        devour_trace(data + 1, size - 1, (size_t)data[0] * 4, &classes);
    return 0;
}
