/*
 * Custom hooks: the setting read from any bytes, what is refused, and custom_timing.csv of a
 * session of several processes.
 */
#include "make_session.h"

#include "base/custom.h"
#include "session/custom_facts.h"
#include "view/view.h"

static struct pm_custom custom;
static char warnings[70000];
static unsigned n_warnings;

static void keep(const char *sentence, void *arg)
{
    (void)arg;
    n_warnings++;
    const size_t used = strlen(warnings);
    snprintf(warnings + used, sizeof warnings - used, "%s\n", sentence);
}

static void parse(const char *text)
{
    warnings[0] = '\0';
    n_warnings = 0;
    pm_custom_parse(text, &custom, keep, NULL);
}

static void names(void **state)
{
    (void)state;
    parse(" pkg.mod:Class.method ,pkg:func,, \n\té.ü:Ä.ß , ");
    assert_int_equal(n_warnings, 0);
    assert_int_equal(custom.count, 3);
    assert_string_equal(custom.hooks[0].name, "pkg.mod:Class.method");
    assert_string_equal(custom.hooks[0].module, "pkg.mod");
    assert_string_equal(custom.hooks[0].qualname, "Class.method");
    assert_string_equal(custom.hooks[1].module, "pkg");
    assert_string_equal(custom.hooks[2].qualname, "Ä.ß");
    assert_null(custom.hooks[0].refused);
    parse("");
    assert_int_equal(custom.count, 0);
    parse("a:b");
    assert_int_equal(custom.count, 1);
}

static void bad_names(void **state)
{
    static const char *const bad[] = {
        "a",    "a:",   ":b",    "a:b:c", "a..b:c", ".a:b",  "a.:b",   "a:.b",   "a:b.",
        "1a:b", "a:1b", "a-b:c", "a:b()", "a b:c",  "a:b c", "a:\xff", "\xc3:b", "a:b\x1b[31m",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        parse(bad[i]);
        if (custom.count != 0 || n_warnings != 1)
            fail_msg("'%s': %zu hooks, %u warnings", bad[i], custom.count, n_warnings);
        assert_non_null(strstr(warnings, "names no callable"));
        assert_null(strchr(warnings, '\x1b'));
        assert_null(strchr(warnings, '\xff'));
    }
    parse("a:b,a:b,c:d");
    assert_int_equal(custom.count, 2);
    assert_string_equal(warnings, "VLLM_PROFILING_CUSTOM: 'a:b' is named twice; once is enough\n");
}

static void limits(void **state)
{
    char text[PM_SETTING_TEXT_MAX];
    size_t used = 0;
    (void)state;
    for (int i = 0; i < PM_CUSTOM_MAX + 5; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "m:f%d,", i);
    parse(text);
    assert_int_equal(custom.count, PM_CUSTOM_MAX);
    assert_int_equal(n_warnings, 1);
    assert_non_null(
        strstr(warnings, "'m:f64' and what follows is left out: 64 hooks are the most"));
    for (size_t bytes = PM_CUSTOM_NAME_MAX; bytes <= PM_CUSTOM_NAME_MAX + 1; bytes++) {
        memset(text, 'x', bytes);
        text[1] = ':';
        text[bytes] = '\0';
        parse(text);
        assert_int_equal(custom.count, bytes == PM_CUSTOM_NAME_MAX);
        assert_int_equal(n_warnings, bytes != PM_CUSTOM_NAME_MAX);
    }
}

/* vLLM's traced places, and others that look like them. */
static void refused(void **state)
{
    static const struct {
        const char *name;
        bool refused, allowed;
    } cases[] = {
        {"torch:matmul", true, false},
        {"torch.nn.functional:linear", true, false},
        {"torch.cuda:synchronize", false, true},
        {"torch.cuda.graphs:CUDAGraph.replay", false, true},
        {"torchvision.ops:nms", false, false},
        {"builtins:len", true, false},
        {"mathematics:f", false, false},
        {"vllm.distributed.parallel_state:GroupCoordinator.all_reduce", true, false},
        {"vllm.distributed.parallel_state:GroupCoordinator._all_reduce_out_place", true, false},
        {"vllm.distributed.parallel_state:GroupCoordinator.send_tensor_dict", false, false},
        {"vllm.distributed.parallel_state:get_tp_group", true, false},
        {"vllm.distributed.parallel_state:init_distributed_environment", false, true},
        {"vllm.distributed.communication_op:tensor_model_parallel_all_reduce", true, false},
        {"vllm.model_executor.layers.attention.attention:Attention.forward", true, false},
        {"vllm.model_executor.layers.fused_moe.layer:FusedMoE.forward", true, false},
        {"vllm.model_executor.models.llama:LlamaModel.forward", true, false},
        {"vllm.model_executor.models.llama:LlamaForCausalLM.load_weights", false, true},
        {"vllm.model_executor.models.llama:LlamaForCausalLM.compute_logits", false, true},
        {"vllm.model_executor.custom_op:CustomOp.forward", true, false},
        {"vllm.model_executor.model_loader.utils:initialize_model", false, false},
        {"vllm._custom_ops:rms_norm", true, false},
        {"vllm.v1.core.sched.scheduler:Scheduler.schedule", false, false},
        {"vllm.v1.engine.async_llm:AsyncLLM.add_request", false, false},
        {"vllm.v1.sample.sampler:Sampler.forward", false, true},
        {"my.package:Server.handle", false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        parse(cases[i].name);
        assert_int_equal(custom.count, 1);
        const struct pm_custom_hook *hook = &custom.hooks[0];
        if ((hook->refused != NULL) != cases[i].refused || hook->allowed != cases[i].allowed)
            fail_msg("%s: refused %s, allowed %d", hook->name,
                     hook->refused != NULL ? hook->refused : "not", hook->allowed);
        assert_int_equal(n_warnings, cases[i].refused);
    }
}

static void any_bytes(void **state)
{
    static const char pieces[] = "a.b:_,\t \xc3\xa9\xff\x80\x01~9";
    uint64_t seed = 88172645463325252ull;
    (void)state;
    for (int round = 0; round < 50000; round++) {
        char text[400];
        size_t bytes = 0;
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        const size_t want = seed % sizeof text;
        for (; bytes + 1 < want; bytes++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            text[bytes] = pieces[seed % (sizeof pieces - 1)];
        }
        text[bytes] = '\0';
        parse(text);
        assert_true(custom.count <= PM_CUSTOM_MAX);
        for (size_t i = 0; i < custom.count; i++) {
            const struct pm_custom_hook *hook = &custom.hooks[i];
            char whole[2 * PM_CUSTOM_NAME_MAX + 4];
            snprintf(whole, sizeof whole, "%s:%s", hook->module, hook->qualname);
            assert_string_equal(whole, hook->name);
            assert_non_null(strstr(text, hook->name));
        }
    }
}

/* ---- the file ---- */

#define C(member, type, kind, agg) PM_FIELD(struct pm_custom_call, member, type, "", kind, agg, "")
static const struct pm_field call_fields[] = {
    C(start_ns, U64, TIME, PM_AGG_NONE), C(dur_ns, U64, DURATION, PM_AGG_SUM),
    C(name, STR, ID, PM_AGG_NONE),       C(hook, U8, ID, PM_AGG_CLASS),
    C(flags, U8, FLAGS, PM_AGG_NONE),
};
#undef C
static const struct pm_schema call_schema = {.name = "custom_call",
                                             .stream = PM_STREAM_CUSTOM,
                                             .payload_bytes = sizeof(struct pm_custom_call),
                                             .classes = PM_CUSTOM_CLASSES,
                                             .doc = "",
                                             .fields = call_fields,
                                             .n_fields = 5};
static const struct pm_schema *const call_schemas[] = {&call_schema};

static void call(struct mk *mk, uint8_t hook, const char *name, uint64_t at_us, uint64_t dur_us)
{
    const uint32_t id = pm_recorder_string(mk->rec, PM_STREAM_CUSTOM, name, strlen(name));
    struct pm_custom_call *fact = pm_recorder_reserve(mk->rec, 0);
    assert_non_null(fact);
    *fact = (struct pm_custom_call){.start_ns = MK_START_MONO + at_us * MK_US,
                                    .dur_ns = dur_us * MK_US,
                                    .name = id,
                                    .hook = hook,
                                    .flags = dur_us > 4000 ? PM_CUSTOM_FAILED : 0};
    pm_recorder_commit(mk->rec, fact);
}

static void file_of_processes(void **state)
{
    char dir[300], path[400];
    struct mk mk;
    (void)state;
    mk_folder(dir, sizeof dir);
    for (unsigned p = 0; p < 2; p++) {
        struct pm_recorder_options options = {.session_dir = dir,
                                              .token = mk_token,
                                              .schemas = call_schemas,
                                              .n_schemas = 1,
                                              .ceiling_bytes = 8u << 20,
                                              .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                              .file_mode = 0600};
        struct pm_error err = {""};
        memset(&mk, 0, sizeof mk);
        snprintf(mk.dir, sizeof mk.dir, "%s", dir);
        if (pm_recorder_open(&mk.rec, &options, &err) != 0)
            fail_msg("%s", err.text);
        mk_find_file(&mk);
        pm_recorder_attr(mk.rec, "setting.custom", "m:f,m:C.g");
        if (p == 0) {
            pm_recorder_identify(mk.rec, PM_ROLE_FRONTEND, -1, -1);
            call(&mk, 1, "m:C.g", 2000, 1000); /* ends first, began second */
            call(&mk, 0, "m:f", 1000, 5000);
            call(&mk, 0, "m:f", 9000, 250);
        } else {
            pm_recorder_identify(mk.rec, PM_ROLE_ENGINE, 0, -1);
            call(&mk, 0, "m:f", 4000, 1);
        }
        mk_close(&mk, 70 + p, 1, MK_START_MONO + 1000 + p, false);
    }
    struct pm_session *session = mk_session(dir);
    struct pm_error err = {""};
    if (pm_export_seed(session, &(struct pm_export_options){.preset = -1}, NULL, &err) != 0)
        fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/custom_timing.csv", dir);
    char *text = mk_read(path, NULL);
    assert_non_null(text);
    assert_string_equal(text, "timestamp_sec,name,duration_ms\n"
                              "0.002000,m:C.g,1.000\n"
                              "0.004000,m:f,0.001\n"
                              "0.001000,m:f,5.000\n"
                              "0.009000,m:f,0.250\n");
    free(text);

    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (pm_view_report_text(session, &(struct pm_report_options){0}, out, &err) != 0)
        fail_msg("%s", err.text);
    fclose(out);
    const char *section = strstr(text, "Custom hooks, ms\n");
    if (section == NULL)
        fail_msg("no section: %s", text);
    assert_non_null(strstr(section, "  m:f\n         3     1.750     0.250     4.905     5.000"
                                    "         5.3  (1 raised)\n"));
    assert_non_null(strstr(section, "  m:C.g\n         1     1.000"));
    free(text);
    pm_session_close(session);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),   cmocka_unit_test(bad_names), cmocka_unit_test(limits),
        cmocka_unit_test(refused), cmocka_unit_test(any_bytes), cmocka_unit_test(file_of_processes),
    };
    return cmocka_run_group_tests_name("custom", tests, NULL, NULL);
}
