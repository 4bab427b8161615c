/* SipHash against the vectors of its reference implementation: key 00..0f, message 00, 00 01, 00 01
 * 02, … */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/siphash.h"

static void vectors(void **state)
{
    (void)state;
    uint8_t key[16], message[64];
    for (unsigned i = 0; i < 16; i++)
        key[i] = (uint8_t)i;
    for (unsigned i = 0; i < 64; i++)
        message[i] = (uint8_t)i;
    assert_true(pm_siphash(key, message, 0) == 0x726fdb47dd0e0e31ull);
    assert_true(pm_siphash(key, message, 1) == 0x74f839c593dc67fdull);
    assert_true(pm_siphash(key, message, 7) == 0xab0200f58b01d137ull);
    assert_true(pm_siphash(key, message, 8) == 0x93f5f5799a932462ull);
    assert_true(pm_siphash(key, message, 15) == 0xa129ca6149be45e5ull);
    assert_true(pm_siphash(key, message, 63) == 0x958a324ceb064572ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(vectors)};
    return cmocka_run_group_tests_name("siphash", tests, NULL, NULL);
}
