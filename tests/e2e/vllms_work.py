"""What vLLM itself estimates of steps (--enable-mfu-metrics, vllm/v1/metrics/perf.py), for models that are only configurations.

Reads a JSON list of cases on stdin, {"config": of Hugging Face, "dtype", "cache_dtype", "quantization", "tensor", "pipeline", "data", "expert",
"steps": [[[tokens, computed before], …], …]}, and writes for each the configuration's values as model_size has them and, of each step, the
operations, bytes read and bytes written by vLLM's names of their parts. Runs in a process of its own: vLLM is imported.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]


def rows():
    """The names that src/probe/model_size.c reads, in its order."""
    source = (ROOT / "src" / "probe" / "model_size.c").read_text()
    table = source[source.index("static struct row rows[]") : source.index("static void tell(")]
    found = re.findall(r'\{\s*("\w+"),\s*NAMES\((.*?)\)\}', table, re.S)
    return {ast.literal_eval(to): re.findall(r'PM_NAME\("(\w+)"\)', names) for to, names in found}


def sizes(text_config, disabled):
    """model_size.* as pm_model_size_tell gives it: whole numbers alone, the first name that has one."""
    told = {}
    for to, names in rows().items():
        values = [getattr(text_config, name, None) for name in names]
        numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value >= 0]
        if numbers:
            told[to] = numbers[0]
    window = getattr(text_config, "sliding_window", None) or 0
    if disabled or getattr(text_config, "use_sliding_window", None) is False:
        window = 0
    types = getattr(text_config, "layer_types", None)
    others = [one for one in types or [] if "sliding" not in one and one != "full_attention"]
    if others:
        told["other_layers"] = len(others)
    if window:
        told["sliding_window"] = window
        if types is not None:
            told["window_layers"] = sum("sliding" in one for one in types)
    return told


def estimate(case):
    import torch
    from transformers import AutoConfig
    from vllm.config import ModelConfig
    from vllm.transformers_utils.model_arch_config_convertor import (
        MODEL_ARCH_CONFIG_CONVERTORS,
        ModelArchConfigConvertorBase,
    )
    from vllm.v1.metrics.perf import ExecutionContext, ModelMetrics

    values = dict(case["config"])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    text = config.get_text_config()
    convertor = MODEL_ARCH_CONFIG_CONVERTORS.get(config.model_type, ModelArchConfigConvertorBase)(config, text)
    model = object.__new__(ModelConfig)  # its own constructor wants a folder, a tokenizer and the model's class
    model.__dict__.update(
        hf_config=config, hf_text_config=text, dtype=getattr(torch, case["dtype"]), disable_sliding_window=False,
        model_arch_config=SimpleNamespace(
            vocab_size=convertor.get_vocab_size(), hidden_size=convertor.get_hidden_size(),
            head_size=convertor.get_head_size(), total_num_kv_heads=convertor.get_total_num_kv_heads(),
            num_experts=convertor.get_num_experts(), num_experts_per_token=convertor.get_num_experts_per_token(),
            is_deepseek_mla=convertor.is_deepseek_mla(),
        ),
    )  # fmt: skip
    name = case["quantization"]
    metrics = ModelMetrics(
        SimpleNamespace(
            model_config=model,
            cache_config=SimpleNamespace(cache_dtype=case["cache_dtype"], sliding_window=None),
            quant_config=SimpleNamespace(get_name=lambda: name) if name else None,
            parallel_config=SimpleNamespace(
                data_parallel_size=case["data"], tensor_parallel_size=case["tensor"],
                pipeline_parallel_size=case["pipeline"], enable_expert_parallel=case["expert"],
            ),
        )
    )  # fmt: skip
    steps = []
    for step in case["steps"]:
        context = ExecutionContext()
        for tokens, computed in step:
            context.add(tokens, computed + tokens, is_prefill=tokens > 1)
        steps.append([metrics.get_num_flops_breakdown(context), metrics.get_read_bytes_breakdown(context),
                      metrics.get_write_bytes_breakdown(context)])  # fmt: skip
    return {"sizes": sizes(text, False), "steps": steps,
            "components": sorted(metric.component_type() for metric in metrics.metrics)}  # fmt: skip


def main():
    out = sys.stdout
    sys.stdout = sys.stderr  # vLLM and its friends may print
    answers = [estimate(case) for case in json.load(sys.stdin)]
    json.dump(answers, out)


if __name__ == "__main__":
    main()
