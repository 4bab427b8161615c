/*
 * Golden bytes of encoder_decoder_timing.csv and its summary, and of the front end's operations in
 * cpu_operations_timing.csv: in order, of several processes, with detail that had to go.
 */
#include "make_session.h"

#include "session/encoder_facts.h"
#include "session/frontend_facts.h"
#include "view/view.h"

#define E(member, type, kind, agg) PM_FIELD(struct pm_encoder_step, member, type, "", kind, agg, "")
static const struct pm_field encoder_fields[] = {
    E(step, U64, ID, PM_AGG_NONE),
    E(encoder_start_ns, U64, TIME, PM_AGG_NONE),
    E(encoder_ns, U64, DURATION, PM_AGG_HIST),
    E(cross_start_ns, U64, TIME, PM_AGG_NONE),
    E(cross_ns, U64, DURATION, PM_AGG_HIST),
    E(items, U32, COUNT, PM_AGG_SUM),
    E(cross_calls, U32, COUNT, PM_AGG_SUM),
    E(instance, U16, ID, PM_AGG_NONE),
};
#undef E
#define O(member, type, kind, agg) PM_FIELD(struct pm_frontend_op, member, type, "", kind, agg, "")
static const struct pm_field op_fields[] = {
    O(start_ns, U64, TIME, PM_AGG_NONE),     O(dur_ns, U64, DURATION, PM_AGG_HIST),
    O(delay_ns, U64, DURATION, PM_AGG_HIST), O(outputs, U32, COUNT, PM_AGG_SUM),
    O(tokens, U32, COUNT, PM_AGG_SUM),       O(op, U8, ID, PM_AGG_CLASS),
};
#undef O
static const struct pm_schema encoder_schema =
    MK_TABLE("encoder_step", pm_encoder_step, 1, encoder_fields);
static const struct pm_schema op_schema =
    MK_TABLE("frontend_op", pm_frontend_op, PM_FRONTEND_CLASSES, op_fields);
enum { ENCODER = MK_SCHEMAS, OP };
static const struct pm_schema *const schemas[] = {&mk_tables[0], &mk_tables[1],   &mk_tables[2],
                                                  &mk_tables[3], &encoder_schema, &op_schema};

static void begin(struct mk *mk, const char *dir, uint64_t ceiling_bytes, bool thread)
{
    struct pm_recorder_options options = {.session_dir = dir,
                                          .token = mk_token,
                                          .schemas = schemas,
                                          .n_schemas = sizeof schemas / sizeof *schemas,
                                          .ceiling_bytes = ceiling_bytes,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600,
                                          .thread = thread};
    struct pm_error err = {""};
    memset(mk, 0, sizeof *mk);
    snprintf(mk->dir, sizeof mk->dir, "%s", dir);
    if (pm_recorder_open(&mk->rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    mk_find_file(mk);
}

static void export_all(const char *dir)
{
    struct pm_session *session = mk_session(dir);
    struct pm_error err = {""};
    if (pm_export_seed(session, &(struct pm_export_options){.preset = -1}, NULL, &err) != 0)
        fail_msg("%s", err.text);
    pm_session_close(session);
}

static char *file_of(const char *dir, const char *name)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return mk_read(path, NULL);
}

static void expect(const char *dir, const char *name, const char *expected)
{
    char *text = file_of(dir, name);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void put_encoder(struct mk *mk, uint64_t step, uint64_t encoder_us, uint64_t cross_us)
{
    const uint64_t start = MK_START_MONO + (step + 1) * 10 * MK_MS + 1 * MK_MS;
    struct pm_encoder_step fact = {.step = step,
                                   .encoder_start_ns = encoder_us ? start + 10 * MK_US : 0,
                                   .encoder_ns = encoder_us * MK_US,
                                   .cross_start_ns = cross_us ? start + 300 * MK_US : 0,
                                   .cross_ns = cross_us * MK_US,
                                   .items = encoder_us ? 2 : 0,
                                   .cross_calls = cross_us ? 4 : 0};
    mk_put(mk, ENCODER, &fact, sizeof fact);
}

/* Three steps: an encoder in the first, cross-attention in all; step 3 without tokens. */
static void make(const char *dir, const char *model_type)
{
    struct mk mk;
    begin(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    if (model_type != NULL)
        pm_recorder_attr(mk.rec, "model_type", model_type);
    for (uint64_t step = 0; step < 4; step++) {
        const uint32_t p = step == 0, d = step == 0 || step == 3 ? 0 : 2;
        mk_sched(&mk, mk_sched_of(step, p, d));
        put_encoder(&mk, step, step == 0 ? 150 : 0, step < 3 ? 400 + 100 * step : 0);
        mk_worker(&mk, mk_worker_of(step, p, d, step == 3 ? 0 : 2000000));
    }
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
}

static void encoder_decoder(void **state)
{
    char dir[300];
    (void)state;
    mk_folder(dir, sizeof dir);
    make(dir, "encoder_decoder");
    export_all(dir);
    expect(dir, "encoder_decoder_timing.csv",
           "timestamp_sec,component,duration_ms,context\n"
           "0.011010,encoder,0.150,step=0;items=2\n"
           "0.011200,decoder,2.000,step=0;num_seqs=1;num_tokens=100\n"
           "0.011300,cross_attention,0.400,step=0;calls=4\n"
           "0.021200,decoder,2.000,step=1;num_seqs=2;num_tokens=2\n"
           "0.021300,cross_attention,0.500,step=1;calls=4\n"
           "0.031200,decoder,2.000,step=2;num_seqs=2;num_tokens=2\n"
           "0.031300,cross_attention,0.600,step=2;calls=4\n");
    expect(dir, "encoder_decoder_summary.json",
           "{\n"
           "  \"model_type\": \"encoder_decoder\",\n"
           "  \"encoder\": {\n"
           "    \"count\": 1,\n    \"total_ms\": 0.150,\n    \"mean_ms\": 0.150,\n"
           "    \"std_ms\": 0.000\n  },\n"
           "  \"decoder\": {\n"
           "    \"count\": 3,\n    \"total_ms\": 6.000,\n    \"mean_ms\": 2.000,\n"
           "    \"std_ms\": 0.000\n  },\n"
           "  \"cross_attention\": {\n"
           "    \"count\": 3,\n    \"total_ms\": 1.500,\n    \"mean_ms\": 0.500,\n"
           "    \"std_ms\": 0.082\n  },\n"
           "  \"encoder_pct\": 2.44,\n  \"decoder_pct\": 97.56,\n"
           "  \"cross_attention_pct\": 24.39\n}\n");
    mk_remove(dir);
}

static void other_kinds(void **state)
{
    static const struct {
        const char *model_type, *shown;
        unsigned encoders, decoders;
    } cases[] = {
        {"decoder_only", "decoder_only", 0, 0},
        {NULL, "unknown", 0, 0},
        {"vision_language", "vision_language", 1, 3},
        {"encoder_only", "encoder_only", 4, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[300], words[64];
        mk_folder(dir, sizeof dir);
        make(dir, cases[i].model_type);
        export_all(dir);
        char *text = file_of(dir, "encoder_decoder_timing.csv");
        assert_non_null(text);
        unsigned encoders = 0, decoders = 0;
        for (const char *at = text; (at = strstr(at, ",encoder,")) != NULL; at++)
            encoders++;
        for (const char *at = text; (at = strstr(at, ",decoder,")) != NULL; at++)
            decoders++;
        assert_int_equal(encoders, cases[i].encoders);
        assert_int_equal(decoders, cases[i].decoders);
        free(text);
        text = file_of(dir, "encoder_decoder_summary.json");
        snprintf(words, sizeof words, "\"model_type\": \"%s\"", cases[i].shown);
        assert_non_null(strstr(text, words));
        if (encoders + decoders == 0)
            assert_non_null(strstr(text, "\"encoder_pct\": null"));
        free(text);
        mk_remove(dir);
    }
}

/* Older steps had to go: the totals stand in for them. */
static void recycled(void **state)
{
    const unsigned steps = 20000;
    char dir[300], words[64];
    struct mk mk;
    (void)state;
    mk_folder(dir, sizeof dir);
    begin(&mk, dir, 1u << 20, true);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(mk.rec, "model_type", "encoder_decoder");
    for (uint64_t step = 0; step < steps; step++) {
        mk_sched(&mk, mk_sched_of(step, 0, 2));
        put_encoder(&mk, step, step % 10 == 0 ? 150 : 0, 400);
        mk_worker(&mk, mk_worker_of(step, 0, 2, 2000000));
    }
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    export_all(dir);
    char *text = file_of(dir, "encoder_decoder_summary.json");
    assert_non_null(text);
    for (unsigned part = 0; part < 2; part++) {
        snprintf(words, sizeof words, "\"count\": %u", part == 0 ? steps / 10 : steps);
        if (strstr(text, words) == NULL)
            fail_msg("no %s in %s", words, text);
    }
    assert_non_null(strstr(text, "\"percentiles\": \"histogram\""));
    free(text);
    mk_remove(dir);
}

/* ---- the front end ---- */

static void op(struct mk *mk, enum pm_frontend_kind kind, uint64_t at_us, uint64_t dur_us,
               uint32_t count)
{
    const bool out = kind == PM_FRONTEND_DETOKENIZATION;
    struct pm_frontend_op fact = {.start_ns = MK_START_MONO + at_us * MK_US,
                                  .dur_ns = dur_us * MK_US,
                                  .delay_ns = out && count > 1 ? 250 * MK_US : 0,
                                  .outputs = out ? count : 0,
                                  .tokens = out ? 0 : count,
                                  .op = (uint8_t)kind};
    mk_put(mk, OP, &fact, sizeof fact);
}

static void frontend(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;
    mk_folder(dir, sizeof dir);
    make(dir, "decoder_only");
    for (unsigned p = 0; p < 2; p++) {
        begin(&mk, dir, 64u << 20, false);
        pm_recorder_identify(mk.rec, PM_ROLE_FRONTEND, -1, -1);
        if (p == 0) { /* the admission ends last and began first */
            op(&mk, PM_FRONTEND_TOKENIZATION, 2000, 300, 7);
            op(&mk, PM_FRONTEND_ADMISSION, 1900, 900, 7);
            op(&mk, PM_FRONTEND_DETOKENIZATION, 14000, 50, 3);
        } else {
            op(&mk, PM_FRONTEND_TOKENIZATION, 1950, 10, 0);
            op(&mk, PM_FRONTEND_DETOKENIZATION, 13000, 40, 1);
        }
        mk_close(&mk, 80 + p, 1, MK_START_MONO + 500 + p, false);
    }
    export_all(dir);
    char *text = file_of(dir, "cpu_operations_timing.csv");
    assert_non_null(text);
    const char *const rows[] = {
        "0.001900,admission,0.900000,num_tokens=7\n",
        "0.001950,tokenization,0.010000,\n",
        "0.002000,tokenization,0.300000,num_tokens=7\n",
        "0.010000,scheduling,",
        "0.013000,detokenization,0.040000,outputs=1\n",
        "0.014000,detokenization,0.050000,outputs=3;delay_ms=0.250\n",
    };
    const char *at = text;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at = strstr(at, rows[i]);
        if (at == NULL)
            fail_msg("no '%s', or too early, in\n%s", rows[i], text);
    }
    free(text);
    text = file_of(dir, "cpu_timing_summary.json");
    assert_non_null(
        strstr(text, "\"tokenization\": {\n    \"count\": 2,\n    \"mean_ms\": 0.155000,"));
    assert_non_null(strstr(text, "\"admission\": {\n    \"count\": 1,"));
    free(text);
    mk_remove(dir);
}

/* More operations at a time than the view holds back are still all there, and in order but for
 * those. */
static void frontend_long(void **state)
{
    const unsigned count = 20000;
    char dir[300];
    struct mk mk;
    unsigned found = 0;
    (void)state;
    mk_folder(dir, sizeof dir);
    begin(&mk, dir, 64u << 20, true);
    pm_recorder_identify(mk.rec, PM_ROLE_FRONTEND, -1, -1);
    for (unsigned i = 0; i < count; i++) /* each second one began 1000 others before */
        op(&mk, PM_FRONTEND_TOKENIZATION, 100 * i + (i % 2 ? 200000 : 100000), i % 2 ? 1 : 100000,
           1);
    mk_close(&mk, 77, 1, MK_START_MONO + 500, false);
    export_all(dir);
    char *text = file_of(dir, "cpu_operations_timing.csv"), *at = text;
    double last = -1;
    while ((at = strchr(at, '\n')) != NULL && *++at != '\0') {
        const double time = strtod(at, NULL);
        assert_true(time >= last);
        last = time;
        found++;
    }
    assert_int_equal(found, count);
    free(text);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoder_decoder), cmocka_unit_test(other_kinds),
        cmocka_unit_test(recycled),        cmocka_unit_test(frontend),
        cmocka_unit_test(frontend_long),
    };
    return cmocka_run_group_tests_name("view_parts", tests, NULL, NULL);
}
