/*
 * Probe session: what kind of process this is, and the engine's configuration. The first engine
 * configuration that is built gives birth to the session (its directory and the banner); engine
 * cores and workers join it here, before their first fact.
 *
 * Runs in front ends, engine cores and workers, under the GIL, a few times in a process's life. It
 * records attributes only.
 */
#include "probe/probe.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hook/guard.h"
#include "hook/read.h"
#include "probe/model_size.h"
#include "base/clock.h"
#include "session/attrs.h"
#include "session/switch_facts.h"

#define VALUE_MAX 512
#define KEY_MAX 96

/* ---- values as text ---------------------------------------------------------------------------
 */

/* torch.bfloat16 and other things with a short str(); enums by their name. */
static bool text_of_object(PyObject *value, char *out, size_t size)
{
    static struct pm_name n_name = PM_NAME("name");
    if (pm_read_text(value, &n_name, out, size, NULL))
        return true;
    PyObject *text = PyObject_Str(value);
    char whole[VALUE_MAX];
    bool done = text && pm_text(text, whole, sizeof whole, NULL);
    Py_XDECREF(text);
    pm_guard_discard();
    if (done) {
        static const char torch[] = "torch.";
        bool is_torch = strncmp(whole, torch, sizeof torch - 1) == 0;
        snprintf(out, size, "%s", is_torch ? whole + sizeof torch - 1 : whole);
    }
    return done;
}

static bool text_of(PyObject *value, char *out, size_t size)
{
    if (!value || value == Py_None)
        return false;
    if (PyBool_Check(value)) {
        snprintf(out, size, "%d", value == Py_True);
        return true;
    }
    if (PyUnicode_Check(value))
        return pm_text(value, out, size, NULL);
    return text_of_object(value, out, size);
}

/* A model may be named by an address: the part before "?" without user and password is kept. */
static void mask_address(char *text)
{
    char *scheme = strstr(text, "://");
    if (!scheme)
        return;
    char *host = scheme + 3;
    host[strcspn(host, "?#")] = '\0';
    char *at = memchr(host, '@', strcspn(host, "/"));
    if (at)
        memmove(host, at + 1, strlen(at + 1) + 1);
}

/* ---- the configuration ------------------------------------------------------------------------
 */

/* Attribute `to` from config.<part>.<from>. */
struct row {
    struct pm_name part, from;
    const char *to;
};
#define ROW(part_, from_, to_)                                                                     \
    {                                                                                              \
        .part = PM_NAME(part_), .from = PM_NAME(from_), .to = (to_)                                \
    }
static struct row rows[] = {
    ROW("model_config", "model", PM_ATTR_MODEL),
    ROW("model_config", "served_model_name", PM_ATTR_SERVED_NAME),
    ROW("model_config", "max_model_len", PM_ATTR_CONFIG_PREFIX "max_model_len"),
    ROW("model_config", "dtype", PM_ATTR_CONFIG_PREFIX "dtype"),
    ROW("model_config", "enforce_eager", PM_ATTR_CONFIG_PREFIX "enforce_eager"),
    ROW("model_config", "quantization", PM_ATTR_CONFIG_PREFIX "quantization"),
    ROW("model_config", "seed", PM_ATTR_CONFIG_PREFIX "seed"),
    ROW("model_config", "runner_type", PM_ATTR_CONFIG_PREFIX "runner_type"),
    ROW("scheduler_config", "max_num_seqs", PM_ATTR_CONFIG_PREFIX "max_num_seqs"),
    ROW("scheduler_config", "max_num_batched_tokens",
        PM_ATTR_CONFIG_PREFIX "max_num_batched_tokens"),
    ROW("scheduler_config", "max_num_scheduled_tokens",
        PM_ATTR_CONFIG_PREFIX "max_num_scheduled_tokens"),
    ROW("scheduler_config", "enable_chunked_prefill",
        PM_ATTR_CONFIG_PREFIX "enable_chunked_prefill"),
    ROW("scheduler_config", "async_scheduling", PM_ATTR_CONFIG_PREFIX "async_scheduling"),
    ROW("scheduler_config", "policy", PM_ATTR_CONFIG_PREFIX "policy"),
    ROW("cache_config", "gpu_memory_utilization", PM_ATTR_CONFIG_PREFIX "gpu_memory_utilization"),
    ROW("cache_config", "block_size", PM_ATTR_CONFIG_PREFIX "block_size"),
    ROW("cache_config", "num_gpu_blocks", PM_ATTR_CONFIG_PREFIX "num_gpu_blocks"),
    ROW("cache_config", "enable_prefix_caching", PM_ATTR_CONFIG_PREFIX "enable_prefix_caching"),
    ROW("cache_config", "cache_dtype", PM_ATTR_CONFIG_PREFIX "kv_cache_dtype"),
    ROW("compilation_config", "cudagraph_mode", PM_ATTR_CONFIG_PREFIX "cudagraph_mode"),
    ROW("parallel_config", "tensor_parallel_size", PM_ATTR_PARALLEL_PREFIX "tensor"),
    ROW("parallel_config", "pipeline_parallel_size", PM_ATTR_PARALLEL_PREFIX "pipeline"),
    ROW("parallel_config", "data_parallel_size", PM_ATTR_PARALLEL_PREFIX "data"),
    ROW("parallel_config", "data_parallel_rank", PM_ATTR_PARALLEL_PREFIX "data_rank"),
    ROW("parallel_config", "data_parallel_master_ip", PM_ATTR_PARALLEL_PREFIX "data_master_ip"),
    ROW("parallel_config", "enable_expert_parallel", PM_ATTR_PARALLEL_PREFIX "expert"),
    ROW("parallel_config", "world_size", PM_ATTR_PARALLEL_PREFIX "world"),
    ROW("device_config", "device_type", PM_ATTR_DEVICE),
};

static void read_config(PyObject *config)
{
    static struct pm_name n_instance_id = PM_NAME("instance_id");
    char value[VALUE_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        PyObject *part = pm_read_attr(config, &rows[i].part);
        PyObject *object = part ? pm_read_attr(part, &rows[i].from) : NULL;
        if (text_of(object, value, sizeof value)) {
            if (strcmp(rows[i].to, PM_ATTR_MODEL) == 0 ||
                strcmp(rows[i].to, PM_ATTR_SERVED_NAME) == 0)
                mask_address(value);
            pm_facts_attr(rows[i].to, value);
        }
        Py_XDECREF(object);
        Py_XDECREF(part);
    }
    pm_model_size_tell(config);
    if (pm_read_text(config, &n_instance_id, value, sizeof value, NULL) && value[0])
        pm_facts_attr(PM_ATTR_INSTANCE_ID, value);
}

/* The engine's number in its deployment. Models without experts run each data-parallel engine as
 * if alone, with rank 0; data_parallel_index has its number then. */
static int engine_of(PyObject *config)
{
    static struct pm_name n_parallel_config = PM_NAME("parallel_config");
    static struct pm_name n_index = PM_NAME("data_parallel_index");
    static struct pm_name n_rank = PM_NAME("data_parallel_rank");
    PyObject *parallel = pm_read_attr(config, &n_parallel_config);
    uint64_t number = 0;
    bool known = parallel && (pm_read_u64(parallel, &n_index, &number) ||
                              pm_read_u64(parallel, &n_rank, &number));
    Py_XDECREF(parallel);
    return known && number < 1000000 ? (int)number : -1;
}

/* ---- engines and workers that were made before recording began ------------------------------- */

void pm_session_late(PyObject *self, unsigned role)
{
    static struct pm_name n_vllm_config = PM_NAME("vllm_config"), n_rank = PM_NAME("rank");
    uint64_t rank = 0;
    if (!pm_facts_late())
        return;
    PyObject *config = pm_read_attr(self, &n_vllm_config);
    const bool known =
        role == PM_ROLE_WORKER && pm_read_u64(self, &n_rank, &rank) && rank < 1000000;
    if (config)
        read_config(config);
    (void)pm_facts_identify(role, config ? engine_of(config) : -1, known ? (int)rank : -1);
    Py_XDECREF(config);
}

/* ---- what was switched ------------------------------------------------------------------------
 */

/* clang-format off */
#define F(member, type, kind, agg, doc) PM_FIELD(struct pm_switch_fact, member, type, "", kind, agg, doc)
static const struct pm_field switch_fields[] = {
    PM_FIELD(struct pm_switch_fact, at_ns, U64, "ns", TIME, PM_AGG_NONE, "when it took effect in this process"),
    F(what, STR, ID, PM_AGG_NONE, "the setting's name in settings.def; empty where none is"),
    F(value, STR, ID, PM_AGG_NONE, "its value from then on; of detail: for how many steps"),
    F(kind, U8, ID, PM_AGG_NONE, "1 recording began in a running server, 2 it was ended, 3 a setting, 4 detail begins, 5 detail is over"),
};
#undef F
/* clang-format on */

static const struct pm_schema switch_schema = {
    .name = "switch",
    .stream = PM_STREAM_KEEP,
    .payload_bytes = sizeof(struct pm_switch_fact),
    .classes = 1,
    .doc = "What was switched while the server ran, by profilemate set, start and stop.",
    .fields = switch_fields,
    .n_fields = sizeof switch_fields / sizeof *switch_fields,
};
static const struct pm_schema *const schemas[] = {&switch_schema};

void pm_facts_switched(unsigned kind, const char *what, const char *value)
{
    struct pm_recorder *rec = pm_facts();
    if (!rec)
        return;
    const uint32_t name = pm_recorder_string(rec, PM_STREAM_KEEP, what, strlen(what));
    const uint32_t text = pm_recorder_string(rec, PM_STREAM_KEEP, value, strlen(value));
    struct pm_switch_fact *fact = pm_recorder_reserve(rec, pm_facts_schema(&switch_schema));
    if (!fact)
        return;
    fact->at_ns = pm_clock_now_ns();
    fact->what = name;
    fact->value = text;
    fact->kind = (uint8_t)kind;
    pm_recorder_commit(rec, fact);
}

/* ---- the hooks --------------------------------------------------------------------------------
 */

/* EngineArgs.create_engine_config(self, …) -> VllmConfig */
static void config_leave(struct pm_call *call)
{
    if (!call->result || call->result == Py_None)
        return;
    read_config(call->result); /* the banner tells of the device */
    (void)pm_facts_identify(PM_ROLE_FRONTEND, -1, -1);
}

/* Variables that make every launch wait for its kernel: whoever reads figures must know. */
static void note_environment(void)
{
    static const char *const names[] = {"HIP_LAUNCH_BLOCKING", "AMD_SERIALIZE_KERNEL"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        char key[KEY_MAX], text[16];
        if (!value || !value[0])
            continue;
        snprintf(key, sizeof key, PM_ATTR_ENVIRON_PREFIX "%s", names[i]);
        snprintf(text, sizeof text, "%s", value);
        pm_facts_attr(key, text);
    }
}

static PyObject *config_argument(struct pm_call *call)
{
    static struct pm_name n_vllm_config = PM_NAME("vllm_config");
    return pm_call_arg(call, 1, &n_vllm_config);
}

/* EngineCore.__init__(self, vllm_config, …) */
static void engine_enter(struct pm_call *call)
{
    PyObject *config = config_argument(call);
    if (!config)
        return;
    read_config(config);
    (void)pm_facts_identify(PM_ROLE_ENGINE, engine_of(config), -1);
}

/* It has sized the KV cache by now. */
static void engine_leave(struct pm_call *call)
{
    PyObject *config = config_argument(call);
    if (config && call->result)
        read_config(config);
}

/* Worker.__init__(self, vllm_config, local_rank, rank, …) */
static void worker_enter(struct pm_call *call)
{
    static struct pm_name n_rank = PM_NAME("rank");
    PyObject *config = config_argument(call);
    PyObject *argument = pm_call_arg(call, 3, &n_rank);
    uint64_t rank = 0;
    bool known = argument && pm_u64(argument, &rank) && rank < 1000000;
    if (!config)
        return;
    read_config(config);
    note_environment();
    (void)pm_facts_identify(PM_ROLE_WORKER, engine_of(config), known ? (int)rank : -1);
}

/* MPClient.shutdown(self, …): called by vLLM's monitor when an engine core has ended by itself,
 * with the client's resources marked so while its finalizer still waits; at a stop that vLLM makes,
 * the engine is ended from within the call. */
static void client_end_enter(struct pm_call *call)
{
    static struct pm_name n_resources = PM_NAME("resources"), n_dead = PM_NAME("engine_dead");
    static struct pm_name n_finalizer = PM_NAME("_finalizer"), n_alive = PM_NAME("alive");
    PyObject *client = call->nargs > 0 ? call->args[0] : NULL;
    PyObject *resources = client ? pm_read_attr(client, &n_resources) : NULL;
    PyObject *finalizer = client ? pm_read_attr(client, &n_finalizer) : NULL;
    bool dead = false, alive = false;
    if (resources && finalizer && pm_read_bool(resources, &n_dead, &dead) && dead &&
        pm_read_bool(finalizer, &n_alive, &alive) && alive) {
        char text[24];
        snprintf(text, sizeof text, "%" PRIu64, pm_clock_now_ns());
        pm_facts_attr(PM_ATTR_ENGINE_DIED, text);
    }
    Py_XDECREF(finalizer);
    Py_XDECREF(resources);
}

#define T PM_TARGET_ROW
#define config_enter NULL
#define client_end_leave NULL
#define worker_leave NULL
static const struct pm_target targets[] = {
#include "probe/session.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    (void)settings;
    return true;
}

const struct pm_probe pm_probe_session = {
    .name = "session",
    .control = PM_PROBE_SPINE,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof schemas[0],
    .targets = targets,
    .n_targets = sizeof targets / sizeof targets[0],
};
