/* Operations and bytes of a step (view/compute_model.h), by hand on small models; what devices can
 * do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "view/compute_model.h"

/* Llama, two layers, grouped queries: 4 heads, 2 of keys and values; 32-bit. */
static const struct pm_model_sizes llama = {
    .hidden = 64,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head = 32,
    .inner = 128,
    .vocabulary = 512,
    .weight_bytes = 4,
    .head_bytes = 4,
    .cache_bytes = 4,
    .tensor = 1,
    .pipeline = 1,
    .data = 1,
};

static struct pm_step_work work_of(const struct pm_model_sizes *sizes, double tokens, double rows,
                                   struct pm_context_step context)
{
    struct pm_step_work work;
    pm_model_work(sizes, tokens, rows, &context, &work);
    return work;
}

#define NEAR(a, b) assert_true(fabs((a) - (double)(b)) < 1e-6 * fabs((double)(b)) + 1e-9)

static void a_prompt_of_three_tokens(void **state)
{
    (void)state;
    /* q, k, v: 64 (4 + 2 * 2) 32 = 16384; o: 4 * 32 * 64 = 8192; MLP: 3 * 64 * 128 = 24576: 49152 a
     * layer. Pairs 1 + 2 + 3. */
    const struct pm_step_work work =
        work_of(&llama, 3, 1, (struct pm_context_step){.context = 3, .pairs = 6});
    NEAR(work.operations, 2 * 3 * 2 * 49152 + 4 * 4 * 32 * 6 * 2 + 2 * 64 * 512);
    NEAR(work.weight_bytes, 4 * (2 * 49152 + 64 * 512));
    NEAR(work.cache_read_bytes, 4 * (2 * 2 * 32) * 3 * 2);
    NEAR(work.cache_written_bytes, 4 * (2 * 2 * 32) * 3 * 2);
}

static void two_decodes_with_long_contexts(void **state)
{
    struct pm_model_sizes all_heads = llama;
    (void)state;
    const struct pm_context_step context = {.context = 1500, .pairs = 1500}; /* 1000 and 500 */
    const struct pm_step_work grouped = work_of(&llama, 2, 2, context);
    all_heads.kv_heads = 4;
    const struct pm_step_work all = work_of(&all_heads, 2, 2, context);
    NEAR(grouped.operations, 2 * 2 * 2 * 49152 + 4 * 4 * 32 * 1500 * 2 + 2 * 2 * 64 * 512);
    NEAR(all.cache_read_bytes, 2 * grouped.cache_read_bytes); /* grouped queries: half the cache */
    NEAR(all.operations - grouped.operations, 2 * 2 * 2 * (64 * 2 * 2 * 32));
}

static void experts_are_read_as_far_as_tokens_choose_them(void **state)
{
    struct pm_model_sizes mixtral = llama;
    (void)state;
    mixtral.inner = 64;
    mixtral.experts = 8;
    mixtral.top_k = 2;
    mixtral.expert_inner = 64;
    mixtral.moe_layers = 2;
    const double attention = 24576, expert = 3 * 64 * 64, head = 64 * 512;
    const struct pm_context_step context = {.context = 1, .pairs = 1};
    struct pm_step_work work = work_of(&mixtral, 1, 1, context);
    NEAR(work.operations, 2 * 2 * (attention + 2 * expert) + 4 * 4 * 32 * 2 + 2 * head);
    NEAR(work.weight_bytes, 4 * (2 * (attention + 2 * expert) + head));
    work = work_of(&mixtral, 2, 1, context); /* 8 (1 - (6/8)^2) = 3.5 experts */
    NEAR(work.weight_bytes, 4 * (2 * (attention + 3.5 * expert) + head));
    work = work_of(&mixtral, 4000, 1, context); /* all of them */
    NEAR(work.weight_bytes, 4 * (2 * (attention + 8 * expert) + head));
    mixtral.shared = 1;
    mixtral.moe_layers = 1; /* the other one is dense */
    work = work_of(&mixtral, 1, 1, context);
    NEAR(work.weight_bytes, 4 * (2 * attention + 3 * expert + 3 * 64 * 64 + head));
}

static void ranks_share(void **state)
{
    struct pm_model_sizes sizes = llama;
    const struct pm_context_step context = {.context = 100, .pairs = 100};
    (void)state;
    const struct pm_step_work whole = work_of(&sizes, 4, 4, context);
    sizes.tensor = 2;
    struct pm_step_work half = work_of(&sizes, 4, 4, context);
    NEAR(half.operations, whole.operations / 2);
    NEAR(half.weight_bytes, whole.weight_bytes / 2);
    NEAR(half.cache_read_bytes, whole.cache_read_bytes / 2);
    sizes.tensor = 1;
    sizes.pipeline = 2; /* the last stage has the head */
    half = work_of(&sizes, 4, 4, context);
    NEAR(half.weight_bytes, 4 * (49152 + 64 * 512));
    NEAR(half.cache_read_bytes, whole.cache_read_bytes / 2);
}

static void experts_of_ranks(void **state)
{
    struct pm_model_sizes sizes = llama;
    const struct pm_context_step context = {.context = 1, .pairs = 1};
    (void)state;
    /* One dense layer, one of 8 experts (2 a token) and a shared one. */
    sizes.inner = 128;
    sizes.experts = 8;
    sizes.top_k = 2;
    sizes.expert_inner = 64;
    sizes.moe_layers = sizes.shared = 1;
    const double attention = 24576, dense = 3 * 64 * 128, expert = 3 * 64 * 64, head = 64 * 512;
    const double scores = 4 * 4 * 32 * 2;
    /* Two data-parallel ranks: half of each expert here, but the other rank's token as well. */
    sizes.data = 2;
    struct pm_step_work work = work_of(&sizes, 1, 1, context);
    NEAR(work.operations,
         2 * (2 * attention + dense + expert + 2 * 2 * expert / 2) + scores + 2 * head);
    /* 2 tokens choose 8 (1 - (6/8)^2) = 3.5 experts. */
    NEAR(work.weight_bytes, 4 * (2 * attention + dense + expert + 3.5 * expert / 2) + 4 * head);
    sizes.expert_parallel = true; /* four whole experts here: half of those that are chosen */
    work = work_of(&sizes, 1, 1, context);
    NEAR(work.operations,
         2 * (2 * attention + dense + expert + 2 * 2 * expert / 2) + scores + 2 * head);
    NEAR(work.weight_bytes, 4 * (2 * attention + dense + expert + 3.5 / 2 * expert) + 4 * head);
    /* Tensor-parallel ranks see the same tokens. */
    sizes.data = 1;
    sizes.tensor = 2;
    work = work_of(&sizes, 1, 1, context);
    NEAR(work.operations,
         (2 * (2 * attention + dense + expert + 2 * expert) + scores + 2 * head) / 2);
}

static void the_matrix_of_logits_is_not_quantised(void **state)
{
    struct pm_model_sizes sizes = llama;
    (void)state;
    sizes.weight_bytes = 0.5;
    sizes.head_bytes = 2;
    const struct pm_step_work work =
        work_of(&sizes, 1, 1, (struct pm_context_step){.context = 1, .pairs = 1});
    NEAR(work.weight_bytes, 2 * 49152 / 2 + 2 * 64 * 512);
}

static void windows_and_latent_attention(void **state)
{
    struct pm_model_sizes sizes = llama;
    (void)state;
    sizes.window = 10;
    sizes.window_layers = 1; /* and one full */
    struct pm_step_work work =
        work_of(&sizes, 1, 1,
                (struct pm_context_step){
                    .context = 100, .pairs = 100, .windowed = 10, .windowed_pairs = 10});
    NEAR(work.cache_read_bytes, 4 * 128 * (100 + 10));
    NEAR(work.operations, 2 * 2 * 49152 + 4 * 4 * 32 * 110 + 2 * 64 * 512);
    sizes = llama;
    sizes.kv_rank = 16;
    sizes.rope = 8;
    sizes.nope = 24;
    sizes.value = 32;
    sizes.q_rank = 20;
    /* q: 64 * 20 + 20 * 4 * 32; kv: 64 * 24 + 16 * 4 * 56; o: 4 * 32 * 64 */
    const double matrices = 1280 + 2560 + 1536 + 3584 + 8192, mlp = 24576;
    work = work_of(&sizes, 1, 1, (struct pm_context_step){.context = 50, .pairs = 50});
    NEAR(work.operations, 2 * 2 * (matrices + mlp) + 2 * 4 * 64 * 50 * 2 + 2 * 64 * 512);
    NEAR(work.cache_read_bytes, 4 * 24 * 50 * 2);
}

static void devices_by_torchs_names(void **state)
{
    static const struct {
        const char *name;
        double tflops, gbps;
    } known[] = {{"NVIDIA H200", 989, 4800},
                 {"NVIDIA H100 80GB HBM3", 989, 3350},
                 {"NVIDIA H100 PCIe", 756, 2000},
                 {"NVIDIA GH200 480GB", 989, 4000},
                 {"NVIDIA A100-SXM4-80GB", 312, 2039},
                 {"NVIDIA A100 80GB PCIe", 312, 1935},
                 {"NVIDIA A100-SXM4-40GB", 312, 1555},
                 {"NVIDIA A10G", 70, 600},
                 {"NVIDIA L4", 121, 300},
                 {"Tesla T4", 65, 320},
                 {"AMD Instinct MI300X", 1307, 5300}};
    struct pm_device_peak peak;
    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        assert_true(pm_device_peak_of(known[i].name, &peak));
        NEAR(peak.operations, known[i].tflops * 1e12);
        NEAR(peak.bytes, known[i].gbps * 1e9);
    }
    assert_false(pm_device_peak_of("NVIDIA RTX A3000", &peak));
    assert_false(pm_device_peak_of("cpu", &peak));
    assert_true(pm_device_peak_parse("1.5,40", &peak));
    NEAR(peak.operations, 1.5e12);
    NEAR(peak.bytes, 40e9);
    static const char *const wrong[] = {"", "1", "1,", ",1", "1,2,3", "0,5", "5,-1", "a,b"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        assert_false(pm_device_peak_parse(wrong[i], &peak));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_of_three_tokens),
        cmocka_unit_test(two_decodes_with_long_contexts),
        cmocka_unit_test(experts_are_read_as_far_as_tokens_choose_them),
        cmocka_unit_test(ranks_share),
        cmocka_unit_test(experts_of_ranks),
        cmocka_unit_test(the_matrix_of_logits_is_not_quantised),
        cmocka_unit_test(windows_and_latent_attention),
        cmocka_unit_test(devices_by_torchs_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
