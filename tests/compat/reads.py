"""Whose the attributes are that probes read: name, the classes that may have it (one must), and the releases that do.

A name that stands for something of Python's, torch's or the user's own is in NOT_VLLM, with whose it is.
"""

SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
OUTPUT = "vllm.v1.core.sched.output:SchedulerOutput"
REQUEST = "vllm.v1.request:Request"
RUNNER_OUTPUT = "vllm.v1.outputs:ModelRunnerOutput"
CORE_OUTPUTS = "vllm.v1.engine:EngineCoreOutputs"
CORE_OUTPUT = "vllm.v1.engine:EngineCoreOutput"
KV_MANAGER = "vllm.v1.core.kv_cache_manager:KVCacheManager"
KV_BLOCKS = "vllm.v1.core.kv_cache_manager:KVCacheBlocks"
POOL = "vllm.v1.core.block_pool:BlockPool"
FREE_QUEUE = "vllm.v1.core.kv_cache_utils:FreeKVCacheBlockQueue"
BLOCK = "vllm.v1.core.kv_cache_utils:KVCacheBlock"
KV_CONFIG = "vllm.v1.kv_cache_interface:KVCacheConfig"
COORDINATOR = "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator"
SINGLE = "vllm.v1.core.single_type_kv_cache_manager:SingleTypeKVCacheManager"
WORKER = "vllm.v1.worker.gpu_worker:Worker"
WORKER_BASE = "vllm.v1.worker.worker_base:WorkerBase"
ENGINE_CORE = "vllm.v1.engine.core:EngineCore"
CLIENT = "vllm.v1.engine.core_client:MPClient"
CONFIG = "vllm.config.vllm:VllmConfig", "vllm.config:VllmConfig"
MODEL_CONFIG = ("vllm.config.model:ModelConfig",)
PARALLEL = ("vllm.config.parallel:ParallelConfig",)
COMPILATION = ("vllm.config.compilation:CompilationConfig",)
SCHEDULER_CONFIG = ("vllm.config.scheduler:SchedulerConfig",)
DEVICE_CONFIG = ("vllm.config.device:DeviceConfig",)
PROFILER_CONFIG = ("vllm.config.profiler:ProfilerConfig",)
CONTEXT = "vllm.forward_context:ForwardContext"
DESCRIPTOR = "vllm.forward_context:BatchDescriptor"
DP = "vllm.forward_context:DPMetadata"
BATCH_DESC = "vllm.v1.worker.gpu.cudagraph_utils:BatchExecutionDescriptor"
GRAPH_MANAGER = "vllm.v1.worker.gpu.cudagraph_utils:CudaGraphManager"
ENCODER_GRAPHS = "vllm.v1.worker.encoder_cudagraph:EncoderCudaGraphManager"
MOE_LAYER = "vllm.model_executor.layers.fused_moe.layer:FusedMoE", "vllm.model_executor.layers.fused_moe.layer:MoERunner", "vllm.model_executor.layers.fused_moe.runner.moe_runner:MoERunner"
MOE_CONFIG = ("vllm.model_executor.layers.fused_moe.config:FusedMoEConfig",)
ROUTER = "vllm.model_executor.layers.fused_moe.router.base_router:BaseRouter", "vllm.model_executor.layers.fused_moe.router.fused_moe_router:FusedMoERouter", "vllm.model_executor.layers.fused_moe.fused_moe_router:FusedMoERouter"
ATTENTION = "vllm.model_executor.layers.attention.attention:Attention", "vllm.attention.layer:Attention"
CORE_REQUEST = "vllm.v1.engine:EngineCoreRequest"
CONNECTOR = "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1"
COORDINATOR_OF_RANKS = "vllm.distributed.parallel_state:GroupCoordinator"

SAMPLING = ("vllm.sampling_params:SamplingParams",)

SPECULATOR = (
    "vllm.v1.worker.gpu.spec_decode.speculator:DraftModelSpeculator",
    "vllm.v1.worker.gpu.spec_decode.eagle.speculator:EagleSpeculator",
    "vllm.v1.worker.gpu.spec_decode.eagle:EagleSpeculator",
)

# name, owners (one of them must have it), releases in which one does
READS = [
    # the front end's client of its engine cores
    ("resources", (CLIENT,), "0.11.0+"),
    ("_finalizer", (CLIENT,), "0.11.0+"),
    ("engine_dead", ("vllm.v1.engine.core_client:BackgroundResources",), "0.11.0+"),
    # the scheduler and what it hands out
    ("requests", (SCHEDULER,), "0.11.0+"),
    ("running", (SCHEDULER,), "0.11.0+"),
    ("waiting", (SCHEDULER,), "0.11.0+"),
    ("get_request_counts", (SCHEDULER,), "0.11.0+"),
    ("skipped_waiting", (SCHEDULER,), "0.18.0 to 0.30.0"),
    ("kv_holding_waiting", (SCHEDULER,), "0.31.0+"),
    ("max_num_running_reqs", (SCHEDULER,), "0.11.0+"),
    ("max_num_scheduled_tokens", (SCHEDULER,), "0.11.0+"),
    ("num_sampled_tokens_per_step", (SCHEDULER,), "0.24.0+"),
    ("kv_cache_manager", (SCHEDULER,), "0.11.0+"),
    ("kv_cache_config", (SCHEDULER,), "0.11.0+"),
    ("num_scheduled_tokens", (OUTPUT,), "0.11.0+"),
    ("total_num_scheduled_tokens", (OUTPUT,), "0.11.0+"),
    ("scheduled_new_reqs", (OUTPUT,), "0.11.0+"),
    ("scheduled_spec_decode_tokens", (OUTPUT,), "0.11.0+"),
    ("scheduled_encoder_inputs", (OUTPUT,), "0.11.0+"),
    ("finished_req_ids", (OUTPUT,), "0.11.0+"),
    ("num_invalid_spec_tokens", (OUTPUT,), "0.14.0+"),
    ("req_id", ("vllm.v1.core.sched.output:NewRequestData",), "0.11.0+"),
    ("sampled_token_ids", (RUNNER_OUTPUT,), "0.11.0+"),
    ("req_id_to_index", (RUNNER_OUTPUT,), "0.11.0+"),
    ("outputs", (CORE_OUTPUTS,), "0.11.0+"),
    ("new_token_ids", (CORE_OUTPUT,), "0.11.0+"),
    # a request
    ("request_id", (REQUEST,), "0.11.0+"),
    ("status", (REQUEST,), "0.11.0+"),
    ("priority", (REQUEST,), "0.11.0+"),
    ("arrival_time", (REQUEST,), "0.11.0+"),
    ("arrival_time", (CORE_REQUEST,), "0.11.0+"),
    ("prompt_token_ids", (CORE_REQUEST,), "0.11.0+"),
    ("max_tokens", (REQUEST,), "0.11.0+"),
    ("num_tokens", (REQUEST,), "0.11.0+"),
    ("num_prompt_tokens", (REQUEST,), "0.11.0+"),
    ("num_output_tokens", (REQUEST,), "0.11.0+"),
    ("num_computed_tokens", (REQUEST,), "0.11.0+"),
    ("num_preemptions", (REQUEST,), "0.11.1+"),
    ("is_prefill_chunk", (REQUEST,), "0.16.0+"),
    ("drop_stale_output", (REQUEST,), "0.27.0+"),
    ("skip_reading_prefix_cache", (REQUEST,), "0.11.1+"),
    ("_output_token_ids", (REQUEST,), "0.11.0+"),
    ("sampling_params", (REQUEST,), "0.11.0+"),
    # what it asks of sampling
    *((name, SAMPLING, "0.11.0+") for name in (
        "temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "presence_penalty", "frequency_penalty", "logprobs",
        "prompt_logprobs", "structured_outputs", "logit_bias", "bad_words", "allowed_token_ids", "min_tokens",
    )),
    ("guided_decoding", SAMPLING, "0.11.0 to 0.11.2"),
    ("logprob_token_ids", SAMPLING, "0.20.0+"),
    # the KV cache
    ("block_pool", (KV_MANAGER,), "0.11.0+"),
    ("enable_caching", (KV_MANAGER,), "0.11.0+"),
    ("coordinator", (KV_MANAGER,), "0.11.0+"),
    ("record_prefix_cache_stats", (KV_MANAGER,), "0.27.0+"),
    ("single_type_managers", (COORDINATOR,), "0.11.0+"),
    ("req_to_blocks", (SINGLE,), "0.11.0+"),
    ("free_block_queue", (POOL,), "0.11.0+"),
    ("num_gpu_blocks", (POOL,), "0.11.0+"),
    ("num_free_blocks", (FREE_QUEUE,), "0.11.0+"),
    ("block_id", (BLOCK,), "0.11.0+"),
    ("_block_hash", (BLOCK,), "0.11.0+"),
    ("blocks", (KV_BLOCKS,), "0.11.0+"),
    ("kv_cache_groups", (KV_CONFIG,), "0.11.0+"),
    # the worker and its configuration
    ("model_runner", (WORKER, WORKER_BASE), "0.11.0+"),
    ("device", (WORKER, WORKER_BASE), "0.11.0+"),
    ("rank", (WORKER, WORKER_BASE), "0.11.0+"),
    ("device_config", (WORKER, WORKER_BASE), "0.11.0+"),
    ("vllm_config", (WORKER, WORKER_BASE), "0.11.0+"),
    ("vllm_config", (ENGINE_CORE,), "0.11.0+"),
    ("instance_id", CONFIG, "0.11.0+"),
    ("model_config", CONFIG, "0.11.0+"),
    ("parallel_config", CONFIG, "0.11.0+"),
    ("scheduler_config", CONFIG, "0.11.0+"),
    ("compilation_config", CONFIG, "0.11.0+"),
    ("device_config", CONFIG, "0.11.0+"),
    ("additional_config", CONFIG, "0.11.0+"),
    ("profiler_config", CONFIG, "0.13.0+"),
    ("profiler", PROFILER_CONFIG, "0.13.0+"),
    ("torch_profiler_dir", PROFILER_CONFIG, "0.13.0+"),
    ("device_type", DEVICE_CONFIG, "0.11.0+"),
    ("max_num_batched_tokens", SCHEDULER_CONFIG, "0.11.0+"),
    ("data_parallel_size", PARALLEL, "0.11.0+"),
    ("data_parallel_rank", PARALLEL, "0.11.0+"),
    ("data_parallel_index", PARALLEL, "0.14.0+"),
    ("enable_dbo", PARALLEL, "0.11.0+"),
    ("cudagraph_mode", COMPILATION, "0.11.0+"),
    ("static_forward_context", COMPILATION, "0.11.0+"),
    ("mode", COMPILATION, "0.11.1+"),
    ("level", COMPILATION, "0.11.0 to 0.17.1"),
    ("hf_config", MODEL_CONFIG, "0.11.0+"),
    ("hf_text_config", MODEL_CONFIG, "0.11.0+"),
    ("disable_sliding_window", MODEL_CONFIG, "0.11.0+"),
    ("is_encoder_decoder", MODEL_CONFIG, "0.11.0+"),
    ("is_multimodal_model", MODEL_CONFIG, "0.11.0+"),
    ("attn_type", MODEL_CONFIG, "0.12.0+"),
    ("get_num_experts", MODEL_CONFIG, "0.11.1+"),
    # drafters
    ("drafter", ("vllm.v1.worker.gpu_model_runner:GPUModelRunner",), "0.11.0+"),
    ("speculator", ("vllm.v1.worker.gpu.model_runner:GPUModelRunner",), "0.12.0+"),
    ("model", ("vllm.v1.spec_decode.eagle:EagleProposer",), "0.11.0+"),
    ("model", SPECULATOR, "0.12.0+"),
    # the model whose layers are timed, and what vLLM puts round it
    ("model", ("vllm.v1.worker.gpu_model_runner:GPUModelRunner",), "0.11.0+"),
    ("model", ("vllm.v1.worker.gpu.model_runner:GPUModelRunner",), "0.12.0+"),
    ("runnable", ("vllm.compilation.cuda_graph:CUDAGraphWrapper",), "0.11.0+"),
    # graphs
    ("batch_descriptor", (CONTEXT,), "0.11.0+"),
    ("cudagraph_runtime_mode", (CONTEXT,), "0.11.0+"),
    ("dp_metadata", (CONTEXT,), "0.11.0+"),
    ("skip_compiled", (CONTEXT,), "0.15.0+"),
    ("num_tokens_across_dp_cpu", (DP,), "0.11.0+"),
    ("num_tokens", (DESCRIPTOR,), "0.11.0+"),
    ("num_reqs", (DESCRIPTOR,), "0.12.0+"),
    ("uniform", (DESCRIPTOR,), "0.12.0+"),
    ("uniform_decode", (DESCRIPTOR,), "0.11.0 to 0.11.2"),
    ("has_lora", (DESCRIPTOR,), "0.11.1+"),
    ("num_active_loras", (DESCRIPTOR,), "0.16.0+"),
    ("cg_mode", (BATCH_DESC,), "0.18.0+"),
    ("uniform_token_count", (BATCH_DESC,), "0.18.0+"),
    ("graphs", (GRAPH_MANAGER,), "0.12.0+"),
    ("max_batch_size", (ENCODER_GRAPHS,), "0.19.0+"),
    # experts
    ("router", MOE_LAYER, "0.14.0+"),
    ("moe_config", MOE_LAYER, "0.11.0+"),
    ("runner", MOE_LAYER, "0.17.0 to 0.23.0"),
    ("forward_impl", MOE_LAYER, "0.11.0 to 0.16.0"),
    ("_forward_impl", MOE_LAYER, "0.20.0+"),
    ("is_monolithic", MOE_LAYER, "0.24.0+"),
    ("logical_num_experts", MOE_LAYER, "0.11.1 to 0.23.0"),
    ("num_experts", MOE_CONFIG, "0.11.0+"),
    ("num_logical_experts", MOE_CONFIG, "0.17.0+"),
    ("experts_per_token", MOE_CONFIG, "0.11.0+"),
    ("capture_fn", ROUTER, "0.16.0+"),
    ("set_capture_fn", ROUTER, "0.16.0+"),
    ("top_k", ROUTER, "0.15.0+"),
    ("global_num_experts", ROUTER, "0.15.0+"),
    # KV connectors
    ("_vllm_config", (CONNECTOR,), "0.11.0+"),
    ("cache_config", CONFIG, "0.11.0+"),
    ("block_size", ("vllm.config.cache:CacheConfig",), "0.11.0+"),
    ("num_gpu_blocks", ("vllm.config.cache:CacheConfig",), "0.11.0+"),
    # groups of ranks
    ("unique_name", (COORDINATOR_OF_RANKS,), "0.11.0+"),
    ("world_size", (COORDINATOR_OF_RANKS,), "0.11.0+"),
    ("use_custom_op_call", (COORDINATOR_OF_RANKS,), "0.11.0+"),
    # encoders
    ("impl", ATTENTION, "0.11.0+"),
    ("use_direct_call", ATTENTION, "0.11.0+"),
]

# What is read too, and is not vLLM's.
NOT_VLLM = {
    "Python": "__class__ __code__ __dict__ __func__ __module__ __mro__ __name__ __qualname__ _name_ _value_ co_code co_filename "
    "co_firstlineno co_flags co_name co_qualname f_back f_lasti fget name _active _name alive",
    "torch": "_cuda_getCurrentRawStream _C _cuda_memoryStats _modules all allocated_bytes cuda get_device_name current data_ptr element_size forward index is_cpu modules named_modules nbytes peak reserved_bytes shape stride type with_stack",
    "a model's own configuration": "audio_config decoder_sparse_step first_k_dense_replace head_dim hidden_size "
    "interleave_moe_layer_step intermediate_size kv_lora_rank layer_types moe_intermediate_size moe_layer_freq moe_num_experts moe_topk multi_query_group_num n_head_kv "
    "n_routed_experts n_shared_experts num_attention_heads num_experts_per_tok num_experts_per_token num_hidden_layers num_kv_heads top_k_experts num_key_value_heads num_local_experts "
    "num_shared_experts q_lora_rank qk_nope_head_dim qk_rope_head_dim sliding_window use_sliding_window v_head_dim vision_config vocab_size",
    "an argument, held against signatures": "args block engine_core_outputs engine_core_timestamp kv_caches model_runner_output num_external_tokens num_hits request "
    "scheduler_output session structured_output_request_ids token_budget",
    "a module or its variable": "torch vllm.forward_context _forward_context",
    "several classes of outputs": "get_output",
}

# Methods that a probe hooks on classes that come about while vLLM runs; these are what they override.
HOOKED_LATER = [
    (CONNECTOR.split(":")[0], f"{CONNECTOR.split(':')[1]}.{method}")
    for method in ("update_state_after_alloc", "register_kv_caches")
]

# Arguments that came later than the hooks that have them.
ARGUMENTS_SINCE = {"drop_stale_output": "0.27.0+", "num_hits": "0.27.0+", "session": "0.15.0+", "token_budget": "0.19.0+"}
