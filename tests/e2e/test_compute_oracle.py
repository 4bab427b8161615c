"""Operations and bytes of a step against vLLM's own estimate (vllm/v1/metrics/perf.py), for models of many kinds and ranks: experts, latent
attention, windows, quantised weights. vLLM's classes are the oracle; every difference is one that docs/BANDWIDTH_AND_COMPUTE.md tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("PM_BUILD", HERE.parents[1] / "build" / "release"))

LLAMA = {"model_type": "llama", "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 8,
         "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 16}  # fmt: skip
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
QWEN3_MOE = {**LLAMA, "model_type": "qwen3_moe", "num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 64,
             "decoder_sparse_step": 1, "mlp_only_layers": []}  # fmt: skip
MLA = {"model_type": "deepseek_v3", "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 8,
       "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 24,
       "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 2,
       "moe_intermediate_size": 64, "first_k_dense_replace": 2, "moe_layer_freq": 1}  # fmt: skip
MODELS = {
    "llama": LLAMA,
    "all-heads": {**LLAMA, "num_key_value_heads": 16},
    "one-kv-head": {**LLAMA, "num_key_value_heads": 1},
    "falcon": {"model_type": "falcon", "vocab_size": 1024, "hidden_size": 128, "num_hidden_layers": 8, "num_attention_heads": 8,
               "num_kv_heads": 4, "ffn_hidden_size": 512, "intermediate_size": 512, "new_decoder_architecture": True},
    "mistral-window": {**LLAMA, "model_type": "mistral", "sliding_window": 16},
    "gemma2": {**LLAMA, "model_type": "gemma2", "sliding_window": 16},
    "gemma3": {**LLAMA, "model_type": "gemma3_text", "sliding_window": 16},
    "gpt-oss": {**LLAMA, "model_type": "gpt_oss", "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 16},
    "mixtral": MIXTRAL,
    "olmoe": {**LLAMA, "model_type": "olmoe", "num_experts": 16, "num_experts_per_tok": 4},
    "qwen3-moe": QWEN3_MOE,
    "glm4-moe": {**LLAMA, "model_type": "glm4_moe", "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 1,
                 "moe_intermediate_size": 64, "first_k_dense_replace": 0},
    "deepseek": MLA,
    "deepseek-all-moe": {**MLA, "first_k_dense_replace": 0},
    "deepseek-v2-lite": {**MLA, "model_type": "deepseek_v2", "q_lora_rank": None},
    "deepseek-every-2nd": {**MLA, "first_k_dense_replace": 0, "moe_layer_freq": 2},
}  # fmt: skip
ONE = {"dtype": "bfloat16", "cache_dtype": "auto", "quantization": None, "tensor": 1, "pipeline": 1, "data": 1, "expert": False}
WAYS = {
    "one": {},
    "float32": {"dtype": "float32"},
    "fp8-cache": {"cache_dtype": "fp8"},
    "fp8": {"quantization": "fp8"},
    "awq": {"quantization": "awq"},
    "tp2": {"tensor": 2},
    "tp4-pp2": {"tensor": 4, "pipeline": 2},
    "pp2": {"pipeline": 2},
    "tp2-ep": {"tensor": 2, "expert": True},
    "dp2": {"data": 2},
    "tp2-dp2-ep": {"tensor": 2, "data": 2, "expert": True},
}
ALL_WAYS = ("llama", "gemma3", "gpt-oss", "mixtral", "qwen3-moe", "deepseek")
FEW_WAYS = ("one", "fp8", "tp4-pp2")  # of the other models
STEPS = [
    [[1, 40]],
    [[1, 0], [1, 5], [1, 300], [1, 15], [1, 16]],
    [[13, 0]],
    [[13, 0], [20, 30], [1, 77]],
    [[4096, 0], [4096, 4096]],  # enough for all experts
]


def counts(step, window):
    """Tokens, rows of logits, contexts and pairs of a step as reader/contexts.c counts them, and pairs as vLLM does."""
    def pairs(n, m, most):
        return sum(min(m + i, most) for i in range(1, n + 1))

    most = window or 10**9
    return {
        "tokens": sum(n for n, _ in step), "rows": len(step), "context": sum(m + n for n, m in step),
        "pairs": sum(pairs(n, m, 10**9) for n, m in step),
        "windowed": sum(min(m + n, most + n - 1) for n, m in step) if window else 0,
        "windowed_pairs": sum(pairs(n, m, most) for n, m in step) if window else 0,
        "their_pairs": sum(n * (m + n) for n, m in step),
        "their_windowed_pairs": sum(n * min(m + n, most) for n, m in step) if window else 0,
    }  # fmt: skip


def ours(session, lines):
    text = "".join(" ".join(f"{value}" for value in line) + "\n" for line in lines)
    done = subprocess.run([BUILD / "tests" / "step_work", session], input=text, capture_output=True, text=True, timeout=600, check=True)
    return [[float(value) for value in line.split()] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Of each model and way: what vLLM says of each step, and what ProfileMate does with its own pairs and with vLLM's."""
    made = [{"model": model, "way": way, "config": config, "steps": STEPS, **ONE, **more}
            for model, config in MODELS.items() for way, more in WAYS.items() if model in ALL_WAYS or way in FEW_WAYS]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PROFILEMATE_"))}
    environment |= {"VLLM_ENABLE_PROFILING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, HERE / "vllms_work.py"], input=json.dumps(made), capture_output=True, text=True,
                          env=environment, timeout=1200)  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    folder = tmp_path_factory.mktemp("sizes")
    for number, (case, answer) in enumerate(zip(made, json.loads(done.stdout), strict=True)):
        case.update(answer)
        attributes = {f"model_size.{name}": value for name, value in answer["sizes"].items()}
        attributes |= {"config.dtype": f"torch.{case['dtype']}", "config.kv_cache_dtype": case["cache_dtype"],
                       "config.quantization": case["quantization"] or "None", "parallel.tensor": case["tensor"],
                       "parallel.pipeline": case["pipeline"], "parallel.data": case["data"],
                       "parallel.expert": int(case["expert"])}  # fmt: skip
        session = subprocess.run(
            [BUILD / "tests" / "make_session", f"dir={folder}", f"name=session_20260101_{number:06}", "steps=1",
             *(f"attr.{name}={value}" for name, value in attributes.items())],
            capture_output=True, text=True, timeout=600, check=True,
        ).stdout.strip()  # fmt: skip
        case["counts"] = [counts(step, answer["sizes"].get("sliding_window")) for step in STEPS]
        lines = [[c[name] for name in ("tokens", "rows", "context", "pairs", "windowed", "windowed_pairs")] for c in case["counts"]]
        theirs = [[c[name] for name in ("tokens", "rows", "context", "their_pairs", "windowed", "their_windowed_pairs")]
                  for c in case["counts"]]  # fmt: skip
        found = ours(session, lines + theirs)
        assert len(found) == 2 * len(STEPS), f"{case['model']} {case['way']}: not computed"
        case["ours"], case["with_their_pairs"] = found[: len(STEPS)], found[len(STEPS) :]
    return made


def part_of(case, name):
    """How much of what vLLM counts a part is here, where the two take ranks apart otherwise: a layer's dense MLP and its shared experts are split
    over the tensor-parallel ranks alone, and the experts of data-parallel ranks get the tokens of all of them."""
    if not name.startswith("ffn."):
        return 1
    if name.startswith("ffn.routed"):
        return case["data"]
    return 1 / case["tensor"] if case["expert"] else case["data"]


def routed(case, of, name, i):
    """vLLM rounds down how many tokens come to a rank's experts: its figure of the step with many tokens, for a token."""
    return case["steps"][-1][of][name] * case["counts"][i]["tokens"] / case["counts"][-1]["tokens"]


def told(case, step):
    return f"{case['model']} {case['way']} {STEPS[step]}"


def test_the_cases_are_what_they_are_called(cases):
    by = {(case["model"], case["way"]): case for case in cases}
    assert len(by) == len(ALL_WAYS) * len(WAYS) + (len(MODELS) - len(ALL_WAYS)) * len(FEW_WAYS) >= 90
    assert by["deepseek", "one"]["components"] == ["ffn", "mla_attn", "unembed"]
    assert by["mixtral", "one"]["components"] == ["attn", "ffn", "unembed"]
    assert by["falcon", "one"]["sizes"]["num_key_value_heads"] == 4
    assert by["gemma2", "one"]["sizes"]["window_layers"] == 4 and "other_layers" not in by["gemma3", "one"]["sizes"]


def test_operations_are_vllms(cases):
    """With vLLM's pairs (no causal mask) every operation is; with the mask's there are never more."""
    for case in cases:
        for i, (operations, _, _) in enumerate(case["steps"]):
            expected = sum(
                (routed(case, 0, name, i) if name.startswith("ffn.routed") else value) * part_of(case, name)
                for name, value in operations.items()
            )
            assert case["with_their_pairs"][i][0] == pytest.approx(expected, rel=1e-9), told(case, i)
            assert case["ours"][i][0] <= case["with_their_pairs"][i][0]
        assert case["ours"][0][0] == case["with_their_pairs"][0][0], "a decode has no masked pairs"


def test_weights_are_vllms_but_for_experts_that_several_tokens_choose(cases):
    for case in cases:
        for i, (_, read, _) in enumerate(case["steps"]):
            weights = {name: value for name, value in read.items() if "weight" in name}
            sizes, tokens = case["sizes"], case["counts"][i]["tokens"]
            expected = 0.0
            for name, value in weights.items():
                if not name.startswith("ffn.routed"):
                    expected += value * part_of(case, name)
                    continue
                experts, top_k = sizes["num_experts"], sizes["num_experts_per_tok"]
                share = 1 - (1 - top_k / experts) ** (tokens * case["data"])  # of the experts that are here
                expected += case["steps"][-1][1][name] * share
                if tokens == 1 and case["tensor"] * case["data"] == 1:
                    assert value == pytest.approx(case["steps"][-1][1][name] * share), "a token reads the experts that it chooses"
            assert case["ours"][i][1] == pytest.approx(expected, rel=1e-9), told(case, i)


def test_the_cache_is_vllms(cases):
    """Written: always. Read: of decodes; a prompt's keys and values vLLM takes from activations, here they are read from the cache."""
    for case in cases:
        for i, (_, read, written) in enumerate(case["steps"]):
            (kv,) = (value for name, value in written.items() if name.endswith(".kv_cache"))
            assert case["ours"][i][3] == pytest.approx(kv, rel=1e-9), told(case, i)
            if any(tokens > 1 for tokens, _ in STEPS[i]):
                continue
            (given,) = (value for name, value in read.items() if name.endswith("attn_input"))
            bytes_ = 4 if case["dtype"] == "float32" else 2
            sizes, tokens = case["sizes"], case["counts"][i]["tokens"]
            heads = max(1, sizes["num_attention_heads"] // case["tensor"])
            size = sizes.get("head_dim") or sizes["hidden_size"] // sizes["num_attention_heads"]
            if "kv_lora_rank" in sizes:
                size = sizes["qk_nope_head_dim"] + sizes["qk_rope_head_dim"]
            queries = tokens * heads * size * bytes_ * sizes["num_hidden_layers"] / case["pipeline"]
            assert case["ours"][i][2] == pytest.approx(given - queries, rel=1e-9), told(case, i)
