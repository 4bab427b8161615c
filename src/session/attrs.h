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
/* "cuda", "hip": events of the device's driver are used; "off: <why>" on a device without them */
#define PM_ATTR_DEVICE_EVENTS "device_events"
/* LAYER_TIMING: "modules: <how many> of <n> layers", or "off: <why>" */
#define PM_ATTR_LAYERS "layers"
/* whose times layers and collective operations have: "host" (nothing is asynchronous), "device"
 * (its events), "launch" (the host's, on a device without events); absent: none so far */
#define PM_ATTR_LAYER_CLOCK "layer_clock"
#define PM_ATTR_COLLECTIVE_CLOCK "collective_clock"
/* what a token of the KV cache takes, of all layers of this rank: where a KV connector is */
#define PM_ATTR_KV_TOKEN_BYTES "kv_transfer.token_bytes"
#define PM_ATTR_RUNNER "runner" /* module of the model runner class */
#define PM_ATTR_MODEL "model"
#define PM_ATTR_SERVED_NAME "served_model_name" /* the first of them: model_name of the metrics */
#define PM_ATTR_INSTANCE_ID "instance_id"
#define PM_ATTR_DEVICE_NAME "device_name" /* torch's name of the device: "NVIDIA H200" */
/* model_size.<name of Hugging Face's configuration>: hidden_size, num_hidden_layers, …; and
 * window_layers, other_layers, counted from its layer_types */
#define PM_ATTR_SIZE_PREFIX "model_size."
/* encoder_decoder, vision_language, audio_language, multimodal, encoder_only, decoder_only; of
 * further workers of one process: model_type.<n> */
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
#define PM_ATTR_TORCH_PROFILER "torch_profiler"         /* vLLM's own: torch, cuda, proton */
#define PM_ATTR_TORCH_PROFILER_DIR "torch_profiler.dir" /* where its traces go */
#define PM_ATTR_LAUNCH_BLOCKING "cuda_launch_blocking"  /* CUDA_LAUNCH_BLOCKING, where it is set */
/* env.<variable> = <value>: its likes on other devices, where they are set */
#define PM_ATTR_ENVIRON_PREFIX "env."
/* rival.<module> = 1: another profiler seen in the process */
/* raised.<schedule|update|execute_model|sample_tokens> = "<type of the exception> at step <n>": the
 * last time that the call raised */
#define PM_ATTR_RAISED_PREFIX "raised."
/* of a front end: vLLM told it that its engine core had ended before the front end itself began to
 * end, mono ns; where vLLM stops its own engine it is not there */
#define PM_ATTR_ENGINE_DIED "engine_died"
/* memory limits that the process was under when the session was born: its cgroup (version 2), and
 * how many of its processes the kernel had killed for want of memory by then */
#define PM_ATTR_CGROUP "cgroup"
#define PM_ATTR_CGROUP_OOM "cgroup.oom_kill"
/* Where recording began late: mark.<side>.<instance>.<n> = "<step> <digest of a request's id>", of
 * the first PM_ATTR_MARKS steps in which a request was new (probe/step_mark.h, reader/steps.c) */
#define PM_ATTR_MARK_PREFIX "mark."
#define PM_ATTR_MARK_SCHED "mark.sched."
#define PM_ATTR_MARK_WORKER "mark.worker."
#define PM_ATTR_MARKS 16
#define PM_ATTR_NOTE_PREFIX "note." /* anything worth telling, a sentence */

#endif
