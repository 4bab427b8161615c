"""LLM() scripts, run in a process of their own by serving.run_llm; prints one line `RESULT {json}` on stdout.

The specification is a JSON object in the first argument (- : on standard input), or a list of them, whose engines run one after another in the
one process; one that fails leaves {"error": …} in place of its result.
  model      folder                              options    keyword arguments of LLM()
  batches    list of lists of {prompt, max_tokens}: each inner list is one call of generate(); prompt is a text or token
             ids; with "audio" or "image" the prompt has one of those, drawn from that seed (tiny_media.py); with "lora"
             it goes to the adapter in that folder
  embed      true: embed() instead of generate()
  environment  variables that vLLM reads when the engine is made
The result: tokens (per batch and prompt; the vectors of embed()), metrics (vLLM's own counters, by name, summed over
labels), histograms (count and sum of each), and finished: vLLM's own account of each request that ended, in their
order, with the moments that its engine core stamped.
"""

from __future__ import annotations

import json
import os
import sys
import traceback


def prompt_of(request: dict) -> dict:
    prompt = {"prompt" if isinstance(request["prompt"], str) else "prompt_token_ids": request["prompt"]}
    for kind in ("audio", "image"):
        if kind in request:
            import tiny_media

            prompt["multi_modal_data"] = {kind: getattr(tiny_media, kind)(request[kind])}
    return prompt


def watch(llm) -> dict[str, dict]:
    """Plugs a stat logger in; what vLLM tells it of each request that ended, by its id."""
    finished: dict[str, dict] = {}

    class Collector:
        def record(self, scheduler_stats, iteration_stats, *_rest, **_more):
            for stats in iteration_stats.finished_requests if iteration_stats else ():
                finished[stats.request_id] = {**vars(stats), "finish_reason": str(stats.finish_reason)}

        def __getattr__(self, _name):
            return lambda *_, **__: None

    llm.llm_engine.logger_manager.stat_loggers.append(Collector())
    return finished


def generate(llm, batch: list[dict]):
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    loras = [LoRARequest("adapter", 1, request["lora"]) if "lora" in request else None for request in batch]
    more = {"lora_request": loras} if any(loras) else {}
    parameters = [SamplingParams(temperature=0, ignore_eos=True, max_tokens=request["max_tokens"]) for request in batch]
    return llm.generate([prompt_of(request) for request in batch], parameters, use_tqdm=False, **more)


def run(spec: dict) -> dict:
    os.environ.update(spec.get("environment", {}))
    from vllm import LLM

    options = {"dtype": "float32", "max_model_len": 1024, "gpu_memory_utilization": 0.2, "disable_log_stats": False}
    llm = LLM(model=spec["model"], **{**options, **spec.get("options", {})})
    finished = watch(llm)
    tokens = []
    for batch in spec["batches"]:
        if spec.get("embed"):
            outputs = llm.embed([prompt_of(request) for request in batch], use_tqdm=False)
            tokens.append([list(output.outputs.embedding) for output in outputs])
            continue
        outputs = generate(llm, batch)
        tokens.append([list(output.outputs[0].token_ids) for output in outputs])
        for output in outputs:
            if output.metrics is not None and output.request_id in finished:
                finished[output.request_id]["moments"] = {
                    name: value for name, value in vars(output.metrics).items() if name.endswith("_ts")
                }
    metrics: dict[str, float] = {}
    histograms: dict[str, dict[str, float]] = {}
    for metric in llm.get_metrics():
        if hasattr(metric, "value"):
            metrics[metric.name] = metrics.get(metric.name, 0) + metric.value
        elif hasattr(metric, "sum"):
            histograms[metric.name] = {"count": metric.count, "sum": metric.sum}
    return {"tokens": tokens, "metrics": metrics, "histograms": histograms, "finished": list(finished.values())}


def main() -> None:
    spec = json.loads(sys.stdin.read() if sys.argv[1] == "-" else sys.argv[1])
    if isinstance(spec, dict):
        result = run(spec)
    else:
        result = {"runs": []}
        for each in spec:
            try:
                result["runs"].append(run(each))
            except Exception:
                traceback.print_exc()
                result["runs"].append({"error": traceback.format_exc()[-3000:]})
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()  # an engine ends with its LLM, which has gone by now
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
