/* Analyses of small traces that were worked out by hand: nesting, launches, idle time, graphs,
 * steps, memory, FLOPs, classes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trace/findings.h"
#include "trace/stacks.h"
#include "trace/steps.h"

/* ---- traces from lines ----------------------------------------------------------------------- */

static char text[65536];

static void begin(void)
{
    snprintf(text, sizeof(text), "{\"traceEvents\": [\n{}");
}

static void add(const char *cat, const char *name, int tid, double ts, double dur, const char *args)
{
    size_t n = strlen(text);
    snprintf(text + n, sizeof(text) - n,
             ",\n{\"ph\": \"X\", \"cat\": \"%s\", \"name\": \"%s\", \"pid\": 1, \"tid\": %d, "
             "\"ts\": %.3f, "
             "\"dur\": %.3f, \"args\": {%s}}",
             cat, name, tid, ts, dur, args);
}

struct all {
    struct pm_trace *trace;
    struct pm_tree tree;
    struct pm_keys keys;
    struct pm_classes classes;
    struct pm_gpu gpu;
    struct pm_steps steps;
};

static void analyse(struct all *all)
{
    struct pm_error err = {""};
    size_t n = strlen(text);
    snprintf(text + n, sizeof(text) - n, "]}");
    if (pm_trace_load_memory(&all->trace, text, strlen(text), "test", NULL, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(all->trace->loss.code, 0);
    assert_int_equal(pm_tree_build(&all->tree, all->trace), 0);
    assert_int_equal(pm_keys_init(&all->keys, false, 0), 0);
    assert_int_equal(pm_keys_add(&all->keys, &all->tree), 0);
    assert_int_equal(pm_classes_init(&all->classes, NULL, NULL), 0);
    assert_int_equal(pm_gpu_build(&all->gpu, &all->tree, &all->classes), 0);
    assert_int_equal(pm_steps_build(&all->steps, &all->tree, &all->classes, NULL), 0);
}

static void release(struct all *all)
{
    pm_steps_release(&all->steps);
    pm_gpu_release(&all->gpu);
    pm_classes_release(&all->classes);
    pm_keys_release(&all->keys);
    pm_tree_release(&all->tree);
    pm_trace_free(all->trace);
}

static const struct pm_key *key(const struct all *all, const char *name)
{
    for (uint32_t i = 0; i < all->keys.n; i++)
        if (strcmp(pm_key_text(&all->keys, all->keys.rows[i].name), name) == 0)
            return &all->keys.rows[i];
    fail_msg("no row %s", name);
    return NULL;
}

#define US(n) ((int64_t)((n)*1000))

static void check_times(const struct all *all, const char *name, uint64_t calls, double self_cpu,
                        double cpu, double self_device, double device)
{
    const struct pm_key *row = key(all, name);
    if (row->calls != calls || row->self_cpu_ns != US(self_cpu) || row->cpu_ns != US(cpu) ||
        row->self_device_ns != US(self_device) || row->device_ns != US(device))
        fail_msg("%s: %llu %lld %lld %lld %lld", name, (unsigned long long)row->calls,
                 (long long)row->self_cpu_ns, (long long)row->cpu_ns,
                 (long long)row->self_device_ns, (long long)row->device_ns);
}

/* ---- nesting --------------------------------------------------------------------------------- */

static void nesting(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("cpu_op", "outer", 1, 0, 100, "");
    add("cpu_op", "inner", 1, 10, 20, "");
    add("cpu_op", "inner", 1, 30, 20, ""); /* begins when the one before ends */
    add("cpu_op", "leaf", 1, 35, 5, "");
    add("cpu_op", "over", 1, 90, 20, "");  /* outlasts outer: no child of it */
    add("cpu_op", "other", 2, 10, 20, ""); /* another thread */
    add("cpu_op", "twin", 3, 0, 10, "");   /* the same time: the first in the file is the parent */
    add("cpu_op", "twin child", 3, 0, 10, "");
    add("user_annotation", "ProfilerStep#4", 4, 0, 10, "");
    add("user_annotation", "ProfilerStep#5", 4, 10, 10, "");
    analyse(&all);
    check_times(&all, "outer", 1, 60, 100, 0, 0);
    check_times(&all, "inner", 2, 35, 40, 0, 0);
    check_times(&all, "leaf", 1, 5, 5, 0, 0);
    check_times(&all, "over", 1, 20, 20, 0, 0);
    check_times(&all, "other", 1, 20, 20, 0, 0);
    check_times(&all, "twin", 1, 0, 10, 0, 0);
    check_times(&all, "twin child", 1, 10, 10, 0, 0);
    check_times(&all, "ProfilerStep*", 2, 20, 20, 0, 0);
    assert_int_equal(all.keys.total_self_cpu_ns, US(60 + 35 + 5 + 20 + 20 + 10 + 20));
    release(&all);
}

/* An only child of the same name goes into its parent, a chain of them too; one of two does not. */
static void merging(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("cpu_op", "a", 1, 0, 100, "\"External id\": 1");
    add("cpu_op", "a", 1, 5, 90, "\"External id\": 2");
    add("cpu_op", "a", 1, 10, 80, "\"External id\": 3");
    add("cpu_op", "b", 1, 20, 10, "");
    add("cpu_op", "c", 1, 200, 100, "");
    add("cpu_op", "c", 1, 210, 10, "");
    add("cpu_op", "c", 1, 230, 10, "");
    add("kernel", "k", 7, 300, 8, "\"External id\": 3, \"correlation\": 9");
    analyse(&all);
    check_times(&all, "a", 1, 90, 100, 8, 8); /* the kernels of the innermost are lifted */
    check_times(&all, "b", 1, 10, 10, 0, 0);
    check_times(&all, "c", 3, 100, 120, 0, 0);
    release(&all);
}

static void shuffled_events_give_the_same(void **state)
{
    (void)state;
    struct all all;
    enum { N = 500 };
    int order[N];
    for (int i = 0; i < N; i++)
        order[i] = i;
    srand(3);
    for (int i = N - 1; i > 0; i--) {
        int k = rand() % (i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    begin();
    for (int i = 0; i < N; i++) { /* pairs: parent of 10, child of 4 in its middle */
        int at = order[i];
        add("cpu_op", at % 2 == 0 ? "parent" : "child", 1, at / 2 * 10 + (at % 2) * 3,
            at % 2 == 0 ? 10 : 4, "");
    }
    analyse(&all);
    check_times(&all, "parent", N / 2, N / 2 * 6, N / 2 * 10, 0, 0);
    check_times(&all, "child", N / 2, N / 2 * 4, N / 2 * 4, 0, 0);
    release(&all);
}

/* ---- launches -------------------------------------------------------------------------------- */

/* "External id" names the operator; a call without one is nobody's child. */
static void launches_by_external_id(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("user_annotation", "step", 1, 0, 1000, "\"External id\": 1");
    add("cpu_op", "aten::mm", 1, 10, 100, "\"External id\": 2");
    add("cpu_op", "aten::empty", 1, 20, 10, "\"External id\": 3");
    add("cuda_runtime", "cudaLaunchKernel", 1, 50, 10, "\"External id\": 2, \"correlation\": 77");
    add("cuda_runtime", "cudaDeviceSynchronize", 1, 500, 100, "\"correlation\": 78");
    add("kernel", "gemm", 7, 70, 40, "\"External id\": 2, \"correlation\": 77, \"device\": 0");
    add("kernel", "lost", 7, 150, 5, "\"correlation\": 1234, \"device\": 0");
    add("gpu_user_annotation", "step", 7, 70, 85, "\"External id\": 1");
    analyse(&all);
    check_times(&all, "aten::mm", 1, 80, 100, 40, 40);
    check_times(&all, "cudaLaunchKernel", 1, 10, 10, 0, 0);
    check_times(&all, "cudaDeviceSynchronize", 1, 100, 100, 0, 0);
    check_times(&all, "gemm", 1, 0, 0, 40, 40);
    /* torch adds the annotation's own span on the device to its children's time. */
    const struct pm_key *step = key(&all, "step");
    assert_true(!step->on_device && step->annotation);
    assert_true(step->self_cpu_ns == US(900) && step->device_ns == US(125) &&
                step->self_device_ns == US(85));
    assert_int_equal(all.keys.total_self_device_ns, US(45)); /* without the annotation */
    assert_int_equal(all.tree.n_unlaunched, 1);
    assert_false(all.tree.old_ids);
    release(&all);
}

/* Traces before 2023: the operator is the one around the call. */
static void launches_by_time(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("python_function", "frame", 1, 0, 1000, "");
    add("cpu_op", "aten::mm", 1, 10, 100, "\"External id\": 77"); /* by chance a correlation too */
    add("cuda_runtime", "cudaLaunchKernel", 1, 50, 10, "\"External id\": 5, \"correlation\": 5");
    add("cuda_runtime", "cudaLaunchKernel", 1, 300, 10, "\"External id\": 77, \"correlation\": 77");
    add("kernel", "gemm", 7, 70, 40, "\"External id\": 5, \"correlation\": 5");
    add("kernel", "bare", 7, 320, 4, "\"External id\": 77, \"correlation\": 77");
    analyse(&all);
    assert_true(all.tree.old_ids);
    check_times(&all, "aten::mm", 1, 90, 100, 40, 40);
    check_times(&all, "frame", 1, 900, 1000, 0, 40); /* the bare call is not its child */
    check_times(&all, "cudaLaunchKernel", 2, 20, 20, 0, 0);
    assert_int_equal(all.tree.n_unlaunched, 1);
    release(&all);
}

/* Kernels of a replay share the correlation of one call. */
static void graph_replays(void **state)
{
    (void)state;
    struct all all;
    begin();
    for (int r = 0; r < 3; r++) {
        char args[128];
        int at = 1000 * r, kernels = r == 2 ? 1 : 3;
        snprintf(args, sizeof(args), "\"External id\": %d", r + 1);
        add("cpu_op", "replay", 1, at, 50, args);
        snprintf(args, sizeof(args), "\"External id\": %d, \"correlation\": %d", r + 1, 100 + r);
        add("cuda_runtime", "cudaGraphLaunch", 1, at + 10, 20, args);
        for (int k = 0; k < kernels; k++)
            add("kernel", "node", 7, at + 100 + 30 * k, 20, args);
    }
    analyse(&all);
    check_times(&all, "replay", 3, 90, 150, 140, 140);
    check_times(&all, "node", 7, 0, 0, 140, 140);
    assert_int_equal(all.gpu.n_graphs, 2);
    assert_int_equal(all.gpu.graphs[0].kernels, 3);
    assert_int_equal(all.gpu.graphs[0].replays, 2);
    assert_true(all.gpu.graphs[0].work_ns == US(120) && all.gpu.graphs[0].span_ns == US(160));
    assert_true(all.gpu.graphs[0].call_ns == US(40));
    assert_int_equal(all.gpu.graphs[1].kernels, 1);
    assert_int_equal(all.gpu.launches.calls, 3);
    assert_int_equal(all.gpu.launches.works, 7);
    assert_true(all.gpu.launches.delay_p50_ns == US(70)); /* to the first kernel only */
    release(&all);
}

/* ---- idle time ------------------------------------------------------------------------------- */

/*
 * CPU   L1 |launch k1, k2|          |sync........|    |launch k3|         |launch k4|
 * GPU        k1  k2 (3 us apart)                         k3   …  k5 (wait)       k4
 */
static void idle_time_and_its_reasons(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("cuda_runtime", "cudaLaunchKernel", 1, 0, 5, "\"correlation\": 1");
    add("cuda_runtime", "cudaLaunchKernel", 1, 5, 5, "\"correlation\": 2");
    add("kernel", "k1", 7, 20, 30, "\"correlation\": 1, \"device\": 0");
    add("kernel", "k2", 7, 53, 47, "\"correlation\": 2, \"device\": 0"); /* 3 of the device's own */
    add("cuda_runtime", "cudaStreamSynchronize", 1, 60, 60, "\"correlation\": 3"); /* to 120 */
    add("cuda_runtime", "cudaLaunchKernel", 1, 150, 10, "\"correlation\": 4");
    add("kernel", "k3", 7, 158, 42, "\"correlation\": 4, \"device\": 0");
    add("cuda_runtime", "cudaLaunchKernel", 1, 162, 2, "\"correlation\": 5");
    add("kernel", "k5", 8, 240, 10, "\"correlation\": 5, \"device\": 0"); /* launched in time */
    add("kernel", "k6", 8, 260, 10, "\"correlation\": 999, \"device\": 0");
    add("kernel", "on another", 8, 0, 10, "\"device\": 1");
    analyse(&all);
    assert_int_equal(all.gpu.n_devices, 2);
    const struct pm_gpu_device *d =
        all.gpu.devices[0].id == 0 ? &all.gpu.devices[0] : &all.gpu.devices[1];
    assert_true(pm_gpu_span_ns(d) == US(250));
    assert_true(d->busy_ns == US(30 + 47 + 42 + 10 + 10));
    assert_true(d->idle_ns[PM_IDLE_KERNEL] == US(3));
    assert_true(d->idle_ns[PM_IDLE_SYNC] == US(20));  /* 100 to 120 */
    assert_true(d->idle_ns[PM_IDLE_HOST] == US(30));  /* 120 to 150 */
    assert_true(d->idle_ns[PM_IDLE_LAUNCH] == US(8)); /* 150 to 158 */
    assert_true(d->idle_ns[PM_IDLE_WAIT] == US(40));  /* 200 to 240 */
    assert_true(d->idle_ns[PM_IDLE_UNKNOWN] == US(10));
    assert_int_equal(d->gaps[PM_IDLE_HOST], 1);
    assert_true(d->longest_gap_ns == US(58));
    assert_int_equal(all.gpu.sync_calls, 1);
    release(&all);
}

static void overlap_of_streams(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("kernel", "gemm", 7, 0, 100, "\"device\": 0");
    add("kernel", "gemm", 8, 50, 30, "\"device\": 0"); /* inside the first */
    add("kernel", "ncclDevKernel_AllReduce", 9, 80, 60, "\"device\": 0");
    add("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 10, 130, 20,
        "\"device\": 0, \"bytes\": 40000");
    add("gpu_memset", "Memset (Device)", 10, 140, 5, "\"device\": 0");
    analyse(&all);
    const struct pm_gpu_device *d = &all.gpu.devices[0];
    assert_true(d->busy_ns == US(150) && d->kernel_ns == US(140) && d->compute_ns == US(100));
    assert_true(d->collective_ns == US(60) && pm_gpu_exposed_ns(d) == US(40));
    assert_true(d->copy_ns == US(20));
    assert_int_equal(all.gpu.classes[PM_CLASS_GEMM].calls, 2);
    assert_true(all.gpu.classes[PM_CLASS_GEMM].ns == US(130));
    assert_int_equal(all.gpu.classes[PM_CLASS_COLLECTIVE].calls, 1);
    assert_int_equal(all.gpu.classes[PM_CLASS_COPY].calls, 2);
    assert_int_equal(all.gpu.n_copies, 2);
    assert_int_equal(all.gpu.copies[0].bytes, 40000);
    release(&all);
}

static void a_copys_size_may_stand_with_its_call(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("cuda_runtime", "hipMemcpyWithStream", 1, 0, 9,
        "\"External id\": 3, \"correlation\": 8, \"size\": \"2560\", \"stream\": \"0x0\"");
    add("gpu_memcpy", "Memcpy HtoD (Host -> Device)", 0, 4, 2, "\"correlation\": 8, \"device\": 2");
    analyse(&all);
    assert_int_equal(all.gpu.copies[0].bytes, 2560);
    assert_int_equal(all.gpu.devices[0].id, 2);
    release(&all);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void steps(void **state)
{
    (void)state;
    struct all all;
    begin();
    add("user_annotation", "ProfilerStep#1", 1, 0, 500, "");
    add("user_annotation", "execute_context_1(9)_generation_0(0)", 1, 100, 50, "");
    add("cuda_runtime", "cudaLaunchKernel", 1, 110, 5, "\"correlation\": 1");
    add("cuda_runtime", "cudaLaunchKernel", 1, 160, 5,
        "\"correlation\": 2"); /* sampling: behind it */
    add("user_annotation", "execute_context_0(0)_generation_1(1)", 1, 200, 40, "");
    add("cuda_runtime", "cudaLaunchKernel", 1, 50, 5, "\"correlation\": 3"); /* before all */
    add("kernel", "gemm", 7, 120, 60, "\"correlation\": 1, \"device\": 0");
    add("kernel", "argmax", 8, 170, 50, "\"correlation\": 2, \"device\": 0"); /* into the next */
    add("kernel", "early", 7, 60, 10, "\"correlation\": 3, \"device\": 0");
    analyse(&all);
    assert_int_equal(all.steps.n, 2);
    const struct pm_step *s = all.steps.steps;
    assert_true(s[0].cpu_ns == US(50) && s[0].period_ns == US(100) && s[0].works == 2);
    assert_true(s[0].device_ns == US(110) && s[0].busy_ns == US(100) && s[0].window_ns == US(80));
    assert_true(s[1].works == 0 && s[1].window_ns == US(20) && s[1].period_ns == US(40));
    assert_int_equal(all.steps.works_outside, 1);
    pm_steps_release(&all.steps);
    assert_int_equal(pm_steps_build(&all.steps, &all.tree, &all.classes, "ProfilerStep"), 0);
    assert_int_equal(all.steps.n, 1);
    release(&all);
}

/* ---- memory, FLOPs, shapes ------------------------------------------------------------------- */

static void memory(void **state)
{
    (void)state;
    struct all all;
    static const struct {
        int ts, bytes, type;
    } records[] = {{5, 100, 0}, {15, 40, 0}, {15, 7, 1}, {20, -40, 0}, {25, -100, 0}, {90, 3, 0}};
    begin();
    add("cpu_op", "outer", 1, 10, 20, "");
    add("cpu_op", "inner", 1, 14, 6, ""); /* up to and with 20 */
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        size_t n = strlen(text);
        snprintf(
            text + n, sizeof(text) - n,
            ",\n{\"ph\": \"i\", \"s\": \"t\", \"cat\": \"cpu_instant_event\", \"name\": "
            "\"[memory]\", "
            "\"pid\": 1, \"tid\": 1, \"ts\": %d, \"args\": {\"Bytes\": %d, \"Device Type\": %d}}",
            records[i].ts, records[i].bytes, records[i].type);
    }
    analyse(&all);
    const struct pm_key *outer = key(&all, "outer"), *inner = key(&all, "inner");
    const struct pm_key *loose = key(&all, "[memory]");
    assert_true(inner->cpu_bytes == 0 && inner->device_bytes == 7);
    assert_true(outer->cpu_bytes == -100 && outer->self_cpu_bytes == -100);
    assert_true(outer->self_device_bytes == 0);
    assert_true(loose->calls == 2 && loose->cpu_bytes == 103);
    release(&all);
}

static void flops(void **state)
{
    (void)state;
    assert_int_equal(pm_flops("aten::mm", "[[2, 3], [3, 5]]", ""), 2 * 2 * 3 * 5);
    assert_int_equal(pm_flops("aten::addmm", "[[5], [2, 3], [3, 5], [], []]", ""), 60);
    assert_int_equal(pm_flops("aten::bmm", "[[7, 2, 3], [7, 3, 5]]", ""), 7 * 60);
    assert_int_equal(pm_flops("aten::baddbmm", "[[7, 2, 5], [7, 2, 3], [7, 3, 5]]", ""), 7 * 60);
    assert_int_equal(pm_flops("aten::add", "[[4, 5], [4, 5], []]", ""), 20);
    assert_int_equal(pm_flops("aten::mul", "[[], []]", ""), 1);
    assert_int_equal(pm_flops("aten::conv2d", "[[1, 3, 8, 8], [4, 3, 3, 3], [4], [], [], [], []]",
                              "[\"\", \"\", \"\", \"[2, 2]\", \"[1, 1]\", \"[1, 1]\", \"1\"]"),
                     2 * 4 * 4 * 9 * 3 * 4);
    /* What does not fit gives none, and never divides by nothing. */
    assert_int_equal(pm_flops("aten::mm", "[[2, 0], [0, 5]]", ""), 0);
    assert_int_equal(pm_flops("aten::mm", "[[2, 3]]", ""), 0);
    assert_int_equal(pm_flops("aten::mm", "[", ""), 0);
    assert_int_equal(pm_flops("aten::conv2d", "[[1, 3, 8, 8], [4, 3, 3, 3]]", ""), 0);
    assert_int_equal(pm_flops("aten::linear", "[[2, 3], [3, 5]]", ""), 0);
}

static void shapes(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"[]", "[]"},
        {"[[32,64], [] ]", "[[32, 64], []]"},
        {"[[1], [[2, 3], [4]], [5]]", "[[1], [], [5]]"},
        {"[[[2, 3], [4]]]", "[[]]"},
        {"[[[]], [[], []]]", "[[], []]"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char out[64];
        pm_shapes_text(pairs[i][0], out, sizeof(out));
        assert_string_equal(out, pairs[i][1]);
    }
    char small[6];
    assert_true(pm_shapes_text("[[32, 64], [32, 64]]", small, sizeof(small)) < sizeof(small));
}

/* ---- classes --------------------------------------------------------------------------------- */

static void classes(void **state)
{
    (void)state;
    static const struct {
        enum pm_class class;
        const char *name;
    } kernels[] = {
        {PM_CLASS_COLLECTIVE,
         "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"},
        {PM_CLASS_COLLECTIVE,
         "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>(vllm::RankData*)"},
        {PM_CLASS_ATTENTION,
         "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64>>"},
        {PM_CLASS_ATTENTION, "kernel_unified_attention_2d"},
        {PM_CLASS_ATTENTION, "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>"},
        {PM_CLASS_ATTENTION, "BatchDecodeWithPagedKVCacheKernel"},
        {PM_CLASS_MOE, "fused_moe_kernel"},
        {PM_CLASS_MOE, "void vllm::moe::topkGatingSoftmax<8, 128>"},
        {PM_CLASS_GEMM, "nvjet_tst_128x64_64x8_1x2_h_bz_coopB_TNT"},
        {PM_CLASS_GEMM, "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64_cublas"},
        {PM_CLASS_GEMM, "Cijk_Alik_Bljk_BBS_BH_Bias_MT64x16x128"},
        {PM_CLASS_GEMM, "void marlin::Marlin<half, 256>"},
        {PM_CLASS_NORM, "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>"},
        {PM_CLASS_NORM, "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0"},
        {PM_CLASS_SAMPLING, "void at::native::reduce_kernel<512, 1, at::native::ArgMaxOps<float>>"},
        {PM_CLASS_SAMPLING, "_topk_topp_kernel"},
        {PM_CLASS_COPY, "void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda>"},
        {PM_CLASS_OTHER, "void vllm::act_and_mul_kernel<c10::BFloat16>"},
        {PM_CLASS_OTHER, ""},
    };
    struct pm_classes rules;
    assert_int_equal(pm_classes_init(&rules, NULL, NULL), 0);
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++) {
        unsigned class = pm_classes_find(&rules, kernels[i].name);
        if (class != kernels[i].class)
            fail_msg("%s is %s", kernels[i].name, rules.names[class]);
    }
    pm_classes_release(&rules);
}

static int write_rules(char path[64], const char *rules)
{
    snprintf(path, 64, "/tmp/pm_rules_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, rules, strlen(rules)) == (ssize_t)strlen(rules));
    return close(fd);
}

static void rules_of_ones_own(void **state)
{
    (void)state;
    struct pm_classes rules;
    struct pm_error err = {""};
    char path[64];
    write_rules(path,
                "# mine\n\nGEMM  my_?emm*   # behind\nrotary *Rope*\r\nother flash*nothing*\n");
    assert_int_equal(pm_classes_init(&rules, path, &err), 0);
    assert_int_equal(pm_classes_find(&rules, "My_gemm_v2"), PM_CLASS_GEMM);
    assert_string_equal(rules.names[pm_classes_find(&rules, "apply_rope_kernel")], "rotary");
    assert_int_equal(pm_classes_find(&rules, "flash_nothing_at_all"), PM_CLASS_OTHER);
    assert_int_equal(pm_classes_find(&rules, "flash_attn"), PM_CLASS_ATTENTION);
    pm_classes_release(&rules);
    unlink(path);
    write_rules(path, "gemm a\nnorm\n");
    assert_int_equal(pm_classes_init(&rules, path, &err), -PM_EINVALID);
    assert_non_null(strstr(err.text, "line 2"));
    unlink(path);
    assert_int_equal(pm_classes_init(&rules, path, &err), -PM_ENOTFOUND);
    assert_non_null(strstr(err.text, path));
}

/* Patterns that backtrack without end in a careless matcher. */
static void patterns_take_no_time(void **state)
{
    (void)state;
    struct pm_classes rules;
    char path[64], name[4096];
    write_rules(path, "gemm *a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b\n");
    memset(name, 'a', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(pm_classes_init(&rules, path, NULL), 0);
    assert_int_equal(pm_classes_find(&rules, name), PM_CLASS_OTHER);
    pm_classes_release(&rules);
    unlink(path);
}

/* ---- findings -------------------------------------------------------------------------------- */

static const struct pm_finding *find(const struct pm_findings *findings, const char *id)
{
    for (unsigned i = 0; i < findings->n; i++)
        if (strcmp(findings->list[i].id, id) == 0)
            return &findings->list[i];
    return NULL;
}

/* n launches: the call takes `call`, its kernel begins `delay` after the call's begin. */
static void launch_many(const char *kernel, double every, double call, double delay, double run)
{
    begin();
    for (int i = 0; i < 60; i++) {
        char args[96];
        snprintf(args, sizeof(args), "\"correlation\": %d, \"device\": 0", i + 1);
        add("cuda_runtime", "cudaLaunchKernel", 1, i * every, call, args);
        add("kernel", kernel, 7, i * every + delay, run, args);
    }
}

static void check_findings(const char *wanted, const char *unwanted)
{
    struct all all;
    struct pm_findings findings = {0};
    analyse(&all);
    pm_findings_add(&findings, all.trace, &all.gpu, &all.classes, &all.keys);
    pm_findings_sort(&findings);
    if (wanted != NULL) {
        const struct pm_finding *finding = find(&findings, wanted);
        if (finding == NULL)
            fail_msg("no finding %s", wanted);
        assert_true(finding->weight > 0 && finding->weight <= 1);
        assert_true(strlen(finding->evidence) > 30 && strpbrk(finding->evidence, "0123456789"));
        assert_true(strlen(finding->remedy) > 20);
    }
    if (unwanted != NULL)
        assert_null(find(&findings, unwanted));
    for (unsigned i = 1; i < findings.n; i++)
        assert_true(findings.list[i - 1].weight >= findings.list[i].weight);
    release(&all);
}

static void findings(void **state)
{
    (void)state;
    launch_many("gemm", 100, 5, 8, 20);
    check_findings("cpu-bound", "long-attention");
    launch_many("gemm", 100, 5, 8, 99);
    check_findings(NULL, "cpu-bound");
    launch_many("flash_fwd", 100, 5, 8, 99);
    check_findings("long-attention", "cpu-bound");
    launch_many("gemm", 100, 90, 8, 20);
    check_findings("launch-blocking", NULL);
    launch_many("gemm", 100, 5, 8, 3);
    check_findings("short-kernels", "launch-blocking");
    launch_many("ncclDevKernel_AllReduce", 100, 5, 8, 90);
    check_findings("communication", NULL);
    launch_many("gemm", 100, 5, 8, 80);
    add("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 9, 0, 2000,
        "\"device\": 0, \"bytes\": 9");
    check_findings("transfers", "communication");
    launch_many("gemm", 100, 5, 8, 80);
    add("cuda_runtime", "cudaMalloc", 2, 0, 1000, "\"correlation\": 5000");
    check_findings("memory-bound", "transfers");
    begin();
    add("cpu_op", "aten::mm", 1, 0, 80, "");
    add("cpu_op", "aten::add", 1, 80, 20, "");
    check_findings("one-operator", "cpu-bound");
}

static void ranks_that_differ(void **state)
{
    (void)state;
    struct pm_findings list = {0};
    const struct pm_rank_times even[] = {{0, 100, 50, 20}, {1, 100, 51, 19}};
    const struct pm_rank_times uneven[] = {{0, 100, 50, 30}, {1, 100, 90, 5}};
    pm_findings_add_ranks(&list, even, 2);
    assert_int_equal(list.n, 0);
    pm_findings_add_ranks(&list, uneven, 2);
    assert_string_equal(list.list[0].id, "straggler");
    assert_non_null(strstr(list.list[0].evidence, "rank 1 computed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nesting),
        cmocka_unit_test(merging),
        cmocka_unit_test(shuffled_events_give_the_same),
        cmocka_unit_test(launches_by_external_id),
        cmocka_unit_test(launches_by_time),
        cmocka_unit_test(graph_replays),
        cmocka_unit_test(idle_time_and_its_reasons),
        cmocka_unit_test(overlap_of_streams),
        cmocka_unit_test(a_copys_size_may_stand_with_its_call),
        cmocka_unit_test(steps),
        cmocka_unit_test(memory),
        cmocka_unit_test(flops),
        cmocka_unit_test(shapes),
        cmocka_unit_test(classes),
        cmocka_unit_test(rules_of_ones_own),
        cmocka_unit_test(patterns_take_no_time),
        cmocka_unit_test(findings),
        cmocka_unit_test(ranks_that_differ),
    };
    return cmocka_run_group_tests_name("trace_analyse", tests, NULL, NULL);
}
