/* How long the contexts of steps are (reader/contexts.h): who joins, decodes, leaves, and a window,
 * by hand. */
#include "make_session.h"

#include <math.h>

#include "reader/contexts.h"

static void event(struct mk *mk, enum pm_request_event what, uint64_t step, uint32_t request,
                  uint32_t computed, uint32_t tokens)
{
    struct pm_step_request fact = {.step = step,
                                   .at_ns = MK_START_MONO + (step + 1) * 10 * MK_MS,
                                   .request = request,
                                   .computed = computed,
                                   .tokens = tokens,
                                   .event = (uint8_t)what};
    mk_put(mk, MK_REQUEST, &fact, sizeof fact);
}

static void step_of(struct mk *mk, uint64_t step, uint32_t requests, uint32_t tokens)
{
    struct pm_sched_step fact = mk_sched_of(step, 0, requests);
    fact.tokens = tokens;
    mk_sched(mk, fact);
}

static void expect(struct pm_contexts *contexts, uint64_t step, bool known, double context,
                   double pairs, double windowed, double windowed_pairs)
{
    struct pm_context_step found;
    assert_int_equal(pm_contexts_next(contexts, &found), 1);
    assert_int_equal(found.step, step);
    assert_int_equal(found.known, known);
    if (!known)
        return;
    assert_true(fabs(found.context - context) < 1e-9);
    assert_true(fabs(found.pairs - pairs) < 1e-9);
    assert_true(fabs(found.windowed - windowed) < 1e-9);
    assert_true(fabs(found.windowed_pairs - windowed_pairs) < 1e-9);
}

static void requests_come_decode_and_leave(void **state)
{
    struct pm_contexts *contexts;
    char dir[200];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE, 0, -1);
    event(&mk, PM_REQUEST_STARTED, 0, 7, 0, 3);
    step_of(&mk, 0, 1, 3);
    event(&mk, PM_REQUEST_DECODING, 1, 7, 3, 1);
    step_of(&mk, 1, 1, 1);
    step_of(&mk, 2, 1, 1);
    event(&mk, PM_REQUEST_STARTED, 3, 9, 4, 2); /* four of its tokens were cached */
    step_of(&mk, 3, 2, 3);
    event(&mk, PM_REQUEST_DECODING, 4, 9, 6, 1);
    step_of(&mk, 4, 2, 2);
    event(&mk, PM_REQUEST_LEFT, 5, 7, 0, 0);
    step_of(&mk, 5, 1, 1);
    event(&mk, PM_REQUEST_PRESENT, 6, 11, 0, 0); /* of whose beginning nothing is known */
    step_of(&mk, 6, 2, 2);
    event(&mk, PM_REQUEST_LEFT, 7, 11, 0, 0);
    step_of(&mk, 7, 1, 1);
    mk_close(&mk, 30, 20, MK_START_MONO + 5, true);

    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_contexts_open(&contexts, session, 0, 3), 0);
    expect(contexts, 0, true, 3, 1 + 2 + 3, 3, 1 + 2 + 3);
    expect(contexts, 1, true, 4, 4, 3, 3);
    expect(contexts, 2, true, 5, 5, 3, 3);
    /* 7 decodes its sixth token; 9 has its fifth and sixth, of which a window of 3 sees 4 */
    expect(contexts, 3, true, 6 + 6, 6 + 5 + 6, 3 + 4, 3 + 3 + 3);
    expect(contexts, 4, true, 7 + 7, 7 + 7, 3 + 3, 3 + 3);
    expect(contexts, 5, true, 8, 8, 3, 3);
    expect(contexts, 6, false, 0, 0, 0, 0);
    expect(contexts, 7, true, 10, 10, 3, 3);
    struct pm_context_step none;
    assert_int_equal(pm_contexts_next(contexts, &none), 0);
    pm_contexts_close(contexts);
    pm_session_close(session);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(requests_come_decode_and_leave)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
