"""Tiny models, made on the spot: a configuration, a tokenizer trained here, and seeded weights.

Used by the tests, the demo and the benches; needs no network. The weights are real (safetensors, drawn from
a seed, wide enough that the most likely token depends on the prompt), so greedy outputs of two runs can be
compared token by token. A step takes a few milliseconds on a CPU.

    python tests/e2e/tiny.py llama [FOLDER]
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy

VOCABULARY = 512
BOS, EOS, PAD = "<s>", "</s>", "<pad>"

# What the tokenizer learns from; demo prompts come from here too.
CORPUS = (
    "The server batches requests and the scheduler picks the next tokens.",
    "A prefill reads the whole prompt at once; a decode adds one token at a time.",
    "Numbers 0 1 2 3 4 5 6 7 8 9 and words are split into pieces that come back often.",
    "Blocks of the cache are shared by requests that begin with the same words.",
    "When memory runs out the youngest request gives its blocks back and waits.",
)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_tokenizer(folder: Path, model_max_length: int) -> dict[str, int]:
    """Trains a byte-level BPE tokenizer into the folder; returns the ids of the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "model_max_length": model_max_length,
            "clean_up_tokenization_spaces": False,
            "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
        },
    )
    return {name: tokenizer.token_to_id(token) for name, token in (("bos", BOS), ("eos", EOS), ("pad", PAD))}


class Weights:
    """Seeded random matrices by name, saved as one safetensors file."""

    def __init__(self, seed: int):
        self.random = numpy.random.default_rng(seed)
        self.tensors: dict[str, numpy.ndarray] = {}

    def matrix(self, name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        values = self.random.standard_normal((rows, columns)) * (scale / numpy.sqrt(columns))
        self.tensors[name] = values.astype(numpy.float32)

    def ones(self, name: str, size: int) -> None:
        self.tensors[name] = numpy.ones(size, dtype=numpy.float32)

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file(self.tensors, folder / "model.safetensors", metadata={"format": "pt"})


def attention(weights: Weights, prefix: str, hidden: int, head: int, heads: int, kv_heads: int) -> None:
    weights.matrix(f"{prefix}.q_proj.weight", heads * head, hidden, 2.0)
    weights.matrix(f"{prefix}.k_proj.weight", kv_heads * head, hidden, 2.0)
    weights.matrix(f"{prefix}.v_proj.weight", kv_heads * head, hidden, 2.0)
    weights.matrix(f"{prefix}.o_proj.weight", hidden, heads * head, 2.0)


def make_llama(folder: Path, seed: int = 20) -> None:
    """A Llama of two layers with four heads (so that it splits over two ranks)."""
    hidden, layers, heads, kv_heads, head, inner, positions = 64, 2, 4, 2, 32, 128, 2048
    ids = write_tokenizer(folder, positions)
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head,
            "max_position_embeddings": positions,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "bos_token_id": ids["bos"],
            "eos_token_id": ids["eos"],
            "pad_token_id": ids["pad"],
        },
    )
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["pad"]},
    )

    weights = Weights(seed)
    weights.matrix("model.embed_tokens.weight", VOCABULARY, hidden, 8.0)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        weights.ones(f"{prefix}.input_layernorm.weight", hidden)
        attention(weights, f"{prefix}.self_attn", hidden, head, heads, kv_heads)
        weights.ones(f"{prefix}.post_attention_layernorm.weight", hidden)
        weights.matrix(f"{prefix}.mlp.gate_proj.weight", inner, hidden)
        weights.matrix(f"{prefix}.mlp.up_proj.weight", inner, hidden)
        weights.matrix(f"{prefix}.mlp.down_proj.weight", hidden, inner)
    weights.ones("model.norm.weight", hidden)
    weights.matrix("lm_head.weight", VOCABULARY, hidden, 4.0)
    weights.save(folder)


def experts(weights: Weights, prefix: str, names: tuple[str, str, str], count: int, hidden: int, inner: int) -> None:
    """One layer's experts, each of three matrices: gate, up and down by the model's own names."""
    gate, up, down = names
    for expert in range(count):
        weights.matrix(f"{prefix}.experts.{expert}.{gate}.weight", inner, hidden)
        weights.matrix(f"{prefix}.experts.{expert}.{up}.weight", inner, hidden)
        weights.matrix(f"{prefix}.experts.{expert}.{down}.weight", hidden, inner)


def make_moe(folder: Path, qwen: bool, seed: int, known: bool = False) -> None:
    """A Mixtral of two layers with 8 experts, 2 a token, or a Qwen3-MoE with 16 experts, 4 a token.

    known: the experts of a token follow from its id: in each layer token t goes to t % count and the one after it.
    """
    hidden, layers, heads, kv_heads, head, inner, positions = 64, 2, 4, 2, 32, 64, 2048
    count, top_k = (16, 4) if qwen else (8, 2)
    ids = write_tokenizer(folder, positions)
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "num_experts_per_tok": top_k,
        "max_position_embeddings": positions,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["pad"],
    }
    own = (
        {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "num_experts": count,
            "moe_intermediate_size": inner,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
        if qwen
        else {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": count}
    )
    write_json(folder / "config.json", {**own, **common})
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["pad"]},
    )

    weights = Weights(seed)
    weights.matrix("model.embed_tokens.weight", VOCABULARY, hidden, 8.0)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        block = f"{prefix}.mlp" if qwen else f"{prefix}.block_sparse_moe"
        weights.ones(f"{prefix}.input_layernorm.weight", hidden)
        attention(weights, f"{prefix}.self_attn", hidden, head, heads, kv_heads)
        if qwen:
            weights.ones(f"{prefix}.self_attn.q_norm.weight", head)
            weights.ones(f"{prefix}.self_attn.k_norm.weight", head)
        weights.ones(f"{prefix}.post_attention_layernorm.weight", hidden)
        weights.matrix(f"{block}.gate.weight", count, hidden, 4.0)
        names = ("gate_proj", "up_proj", "down_proj") if qwen else ("w1", "w3", "w2")
        experts(weights, block, names, count, hidden, inner)
    weights.ones("model.norm.weight", hidden)
    weights.matrix("lm_head.weight", VOCABULARY, hidden, 4.0)
    if known:
        know(weights.tensors, count)
    weights.save(folder)


def know(tensors: dict[str, numpy.ndarray], count: int) -> None:
    """Attention and experts add nothing, so that each layer's router sees the token's own unit vector."""
    embedding = tensors["model.embed_tokens.weight"]
    embedding[:] = 0
    embedding[numpy.arange(VOCABULARY), numpy.arange(VOCABULARY) % count] = 8
    for name, values in tensors.items():
        if name.endswith((".o_proj.weight", ".w2.weight", ".down_proj.weight")):
            values[:] = 0
        elif name.endswith(".gate.weight"):
            values[:] = 0
            for expert in range(count):
                values[expert, expert] = 4
                values[expert, (expert - 1) % count] = 2


def make_mixtral(folder: Path) -> None:
    make_moe(folder, qwen=False, seed=21)


def make_mixtral_known(folder: Path) -> None:
    make_moe(folder, qwen=False, seed=23, known=True)


def make_qwen3_moe(folder: Path) -> None:
    make_moe(folder, qwen=True, seed=22)


# A new model is one function and one row here.
MAKERS = {"llama": make_llama, "mixtral": make_mixtral, "mixtral-known": make_mixtral_known, "qwen3-moe": make_qwen3_moe}


def make(name: str, folder: str | Path | None = None) -> Path:
    """Makes the model called `name`, unless it is there already; returns its folder (default: build/models/NAME)."""
    folder = Path(folder or Path(__file__).resolve().parents[2] / "build" / "models" / name)
    if not folder.exists():
        # Made aside and renamed, so that two processes may ask for it at once.
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        aside.mkdir(parents=True)
        MAKERS[name](aside)
        try:
            aside.rename(folder)
        except OSError:
            shutil.rmtree(aside)
            if not folder.exists():
                raise
    return folder


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in MAKERS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(MAKERS)} [FOLDER]")
    print(make(*sys.argv[1:]))
