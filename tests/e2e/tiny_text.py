"""Further tiny models of text, made on the spot as tiny.py makes its own: a BERT for embeddings, a GPT-OSS (experts,
sinks, windows of attention), and a LoRA adapter for tiny.py's Llama. The first two get dummy weights (--load-format
dummy).
"""

from __future__ import annotations

from pathlib import Path

import tiny

LORA_RANK = 8


def make_bert(folder: Path) -> None:
    """A BERT of two layers, whose embeddings are those of its first token."""
    ids = tiny.write_tokenizer(folder, 512)
    tiny.write_json(
        folder / "config.json",
        {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "vocab_size": tiny.VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "position_embedding_type": "absolute",
            "torch_dtype": "float32",
            "pad_token_id": ids["pad"],
        },
    )


def make_gpt_oss(folder: Path) -> None:
    """A GPT-OSS of two layers, without its quantization: 8 experts, 2 a token."""
    ids = tiny.write_tokenizer(folder, 2048)
    tiny.write_json(
        folder / "config.json",
        {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "vocab_size": tiny.VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 32,
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 2.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 1024,
            },
            "rms_norm_eps": 1e-5,
            "swiglu_limit": 7.0,
            "hidden_act": "silu",
            "attention_bias": True,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "bos_token_id": ids["bos"],
            "eos_token_id": ids["eos"],
            "pad_token_id": ids["pad"],
        },
    )


def make_llama_lora(folder: Path) -> None:
    """An adapter for tiny.py's Llama that is strong enough to change what it says."""
    from safetensors.numpy import save_file

    hidden, query, value = 64, 128, 64
    tiny.write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "tiny-llama",
            "r": LORA_RANK,
            "lora_alpha": 4 * LORA_RANK,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": ["q_proj", "v_proj"],
        },
    )
    weights = tiny.Weights(seed=24)
    for layer in range(2):
        for name, size in (("q_proj", query), ("v_proj", value)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights.matrix(f"{prefix}.lora_A.weight", LORA_RANK, hidden)
            weights.matrix(f"{prefix}.lora_B.weight", size, LORA_RANK)
    save_file(weights.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


tiny.MAKERS.update({"bert": make_bert, "gpt-oss": make_gpt_oss, "llama-lora": make_llama_lora})
