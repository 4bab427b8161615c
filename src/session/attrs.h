/*
 * Keys of ATTR records: what a process says about itself once. The writer is the extension, the
 * readers are metadata.json, `doctor` and `report`. Values are text; numbers in decimal, booleans 0
 * or 1; absent where not known.
 */
#ifndef PM_SESSION_ATTRS_H
#define PM_SESSION_ATTRS_H

#define PM_ATTR_PROFILEMATE "version.profilemate"
#define PM_ATTR_PYTHON "version.python"
#define PM_ATTR_TORCH "version.torch"
#define PM_ATTR_VLLM "version.vllm"
#define PM_ATTR_EXECUTABLE "python.executable"
#define PM_ATTR_ENTRY "entry"         /* pythonpath, pth, plugin */
#define PM_ATTR_EXTENSION "extension" /* path of the loaded extension */
#define PM_ATTR_COMMAND "command"     /* masked command line */
#define PM_ATTR_HOST "host"
#define PM_ATTR_DEVICE "device"               /* vLLM's device type: cpu, cuda, rocm, … */
#define PM_ATTR_CLOCK "clock"                 /* tsc, cntvct, monotonic */
#define PM_ATTR_FORWARD_CLOCK "forward_clock" /* wall, sync, events: what forward_time_ms is */
#define PM_ATTR_RUNNER "runner"               /* module of the model runner class */
#define PM_ATTR_MODEL "model"
#define PM_ATTR_INSTANCE_ID "instance_id"
/* encoder_decoder, vision_language, audio_language, multimodal, encoder_only, decoder_only */
#define PM_ATTR_MODEL_TYPE "model_type"
/* engine configuration: config.<vLLM's name>: max_num_seqs, max_num_batched_tokens, max_model_len,
 * gpu_memory_utilization, block_size, num_gpu_blocks, enable_prefix_caching,
 * enable_chunked_prefill, async_scheduling, cudagraph_mode, enforce_eager, dtype, kv_cache_dtype,
 * quantization, seed */
#define PM_ATTR_CONFIG_PREFIX "config."
/* parallel.<tensor|pipeline|data|data_rank|…> sizes */
#define PM_ATTR_PARALLEL_PREFIX "parallel."
/* setting.<field of settings.def> */
#define PM_ATTR_SETTING_PREFIX "setting."
/* hook.<module>:<qualname> = patched | missing | refused | off;  fired.<module>:<qualname> = mono
 * ns of the first call */
#define PM_ATTR_HOOK_PREFIX "hook."
#define PM_ATTR_FIRED_PREFIX "fired."
/* probe.<name> = on | off | disarmed: <why> */
#define PM_ATTR_PROBE_PREFIX "probe."
/* rival.<module> = 1: another profiler seen in the process */
#define PM_ATTR_NOTE_PREFIX "note." /* anything worth telling, a sentence */

#endif
