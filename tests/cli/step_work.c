/*
 * What the views compute of made-up steps of a session's model (view/compute_model.h), for the
 * comparison with vLLM's own estimate (tests/e2e/test_compute_oracle.py):
 *
 *   step_work SESSION < steps
 *
 * A line "TOKENS ROWS CONTEXT PAIRS WINDOWED WINDOWED_PAIRS" gives one of operations, bytes of
 * weights, of the cache read, of the cache written.
 */
#include <stdio.h>
#include <stdlib.h>

#include "view/compute_model.h"

int main(int argc, char **argv)
{
    struct pm_error err = {""};
    struct pm_model_sizes sizes;
    struct pm_session *session;
    struct pm_context_step context = {0};
    struct pm_step_work work;
    double tokens, rows;
    char why[160];

    if (argc != 2 || pm_session_open(&session, argv[1], &err) != 0) {
        fprintf(stderr, "step_work: %s\n", argc == 2 ? err.text : "one argument: a session");
        return 1;
    }
    if (pm_model_sizes_read(session, &sizes, why, sizeof why) != 0) {
        printf("not computed: %s\n", why);
        pm_session_close(session);
        return 0;
    }
    while (scanf("%lf %lf %lf %lf %lf %lf", &tokens, &rows, &context.context, &context.pairs,
                 &context.windowed, &context.windowed_pairs) == 6) {
        pm_model_work(&sizes, tokens, rows, &context, &work);
        printf("%.17g %.17g %.17g %.17g\n", work.operations, work.weight_bytes,
               work.cache_read_bytes, work.cache_written_bytes);
    }
    pm_session_close(session);
    return 0;
}
