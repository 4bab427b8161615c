/* See model_size.h. Owns nothing. */
#include "probe/model_size.h"

#include <stdio.h>
#include <string.h>

#include "hook/guard.h"
#include "hook/read.h"
#include "probe/probe.h"
#include "session/attrs.h"

/* model_size.<to> from the text model's configuration; the first of the names that is there. */
struct row {
    const char *to;
    struct pm_name names[4];
};
#define NAMES(...)                                                                                 \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
static struct row rows[] = {
    {"hidden_size", NAMES(PM_NAME("hidden_size"))},
    {"num_hidden_layers", NAMES(PM_NAME("num_hidden_layers"))},
    {"num_attention_heads", NAMES(PM_NAME("num_attention_heads"))},
    {"num_key_value_heads", NAMES(PM_NAME("num_key_value_heads"), PM_NAME("num_kv_heads"),
                                  PM_NAME("n_head_kv"), PM_NAME("multi_query_group_num"))},
    {"head_dim", NAMES(PM_NAME("head_dim"))},
    {"intermediate_size", NAMES(PM_NAME("intermediate_size"))},
    {"vocab_size", NAMES(PM_NAME("vocab_size"))},
    {"num_experts", NAMES(PM_NAME("num_experts"), PM_NAME("num_local_experts"),
                          PM_NAME("n_routed_experts"), PM_NAME("moe_num_experts"))},
    {"num_experts_per_tok", NAMES(PM_NAME("num_experts_per_tok"), PM_NAME("num_experts_per_token"),
                                  PM_NAME("top_k_experts"), PM_NAME("moe_topk"))},
    {"moe_intermediate_size", NAMES(PM_NAME("moe_intermediate_size"))},
    {"n_shared_experts", NAMES(PM_NAME("n_shared_experts"), PM_NAME("num_shared_experts"))},
    {"first_k_dense_replace", NAMES(PM_NAME("first_k_dense_replace"))},
    {"moe_layer_freq", NAMES(PM_NAME("moe_layer_freq"))},
    {"interleave_moe_layer_step", NAMES(PM_NAME("interleave_moe_layer_step"))},
    {"decoder_sparse_step", NAMES(PM_NAME("decoder_sparse_step"))},
    {"kv_lora_rank", NAMES(PM_NAME("kv_lora_rank"))},
    {"q_lora_rank", NAMES(PM_NAME("q_lora_rank"))},
    {"qk_nope_head_dim", NAMES(PM_NAME("qk_nope_head_dim"))},
    {"qk_rope_head_dim", NAMES(PM_NAME("qk_rope_head_dim"))},
    {"v_head_dim", NAMES(PM_NAME("v_head_dim"))},
};

static void tell(const char *name, uint64_t value)
{
    char key[64], text[24];
    snprintf(key, sizeof key, PM_ATTR_SIZE_PREFIX "%s", name);
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    pm_facts_attr(key, text);
}

/* How many layers have a window, and how many are of another kind than attention. */
static void tell_layers(PyObject *text_config, PyObject *model_config)
{
    static struct pm_name n_window = PM_NAME("sliding_window");
    static struct pm_name n_types = PM_NAME("layer_types");
    static struct pm_name n_use = PM_NAME("use_sliding_window");
    static struct pm_name n_disable = PM_NAME("disable_sliding_window");
    uint64_t window = 0, windowed = 0, others = 0;
    bool flag;

    if (!pm_read_u64(text_config, &n_window, &window))
        window = 0;
    if ((pm_read_bool(text_config, &n_use, &flag) && !flag) ||
        (pm_read_bool(model_config, &n_disable, &flag) && flag))
        window = 0;
    PyObject *types = pm_read_attr(text_config, &n_types);
    const bool listed = types != NULL && PyList_Check(types);
    for (Py_ssize_t i = 0; listed && i < PyList_Size(types); i++) {
        char type[48];
        if (!pm_text(PyList_GetItem(types, i), type, sizeof type, NULL))
            continue;
        windowed += strstr(type, "sliding") != NULL;
        others += strstr(type, "sliding") == NULL && strcmp(type, "full_attention") != 0;
    }
    Py_XDECREF(types);
    if (others > 0)
        tell("other_layers", others);
    if (window == 0)
        return;
    tell("sliding_window", window);
    if (listed)
        tell("window_layers", windowed);
}

void pm_model_size_tell(PyObject *vllm_config)
{
    static struct pm_name n_model = PM_NAME("model_config");
    static struct pm_name n_text = PM_NAME("hf_text_config");
    PyObject *model_config = pm_read_attr(vllm_config, &n_model);
    PyObject *text_config = model_config != NULL ? pm_read_attr(model_config, &n_text) : NULL;

    for (size_t i = 0; text_config != NULL && i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t value;
        for (size_t k = 0; k < 4 && rows[i].names[k].text != NULL; k++) {
            if (pm_read_u64(text_config, &rows[i].names[k], &value)) {
                tell(rows[i].to, value);
                break;
            }
        }
    }
    if (text_config != NULL)
        tell_layers(text_config, model_config);
    Py_XDECREF(text_config);
    Py_XDECREF(model_config);
}

/* torch.cuda.get_device_name(index): what the driver said when the device was first used. */
void pm_device_name_tell(PyObject *worker)
{
    static struct pm_name n_device = PM_NAME("device"), n_index = PM_NAME("index");
    static struct pm_name n_type = PM_NAME("type"), n_torch = PM_NAME("torch");
    static struct pm_name n_cuda = PM_NAME("cuda"), n_name = PM_NAME("get_device_name");
    char type[16] = "", text[128];
    uint64_t index = 0;
    PyObject *device = pm_read_attr(worker, &n_device);

    if (device != NULL) {
        (void)pm_read_text(device, &n_type, type, sizeof type, NULL);
        (void)pm_read_u64(device, &n_index, &index);
    }
    Py_XDECREF(device);
    PyObject *name = strcmp(type, "cuda") == 0 ? pm_name_object(&n_torch) : NULL;
    PyObject *torch = name != NULL ? PyImport_GetModule(name) : NULL;
    PyObject *cuda = torch != NULL ? pm_read_attr(torch, &n_cuda) : NULL;
    PyObject *function = cuda != NULL ? pm_read_attr(cuda, &n_name) : NULL;
    PyObject *argument = function != NULL ? PyLong_FromUnsignedLongLong(index) : NULL;
    PyObject *told =
        argument != NULL ? PyObject_CallFunctionObjArgs(function, argument, NULL) : NULL;
    if (told != NULL && pm_text(told, text, sizeof text, NULL))
        pm_facts_attr(PM_ATTR_DEVICE_NAME, text);
    pm_guard_discard();
    Py_XDECREF(told);
    Py_XDECREF(argument);
    Py_XDECREF(function);
    Py_XDECREF(cuda);
    Py_XDECREF(torch);
}
