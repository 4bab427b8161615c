"""An LLM() script, run in a process of its own by serving.run_llm; prints one line `RESULT {json}` on stdout.

The specification is a JSON object in the first argument:
  model      folder                              options    keyword arguments of LLM()
  batches    list of lists of {prompt, max_tokens}: each inner list is one call of generate(); prompt is a text or token
             ids; with "audio" or "image" the prompt has one of those, drawn from that seed (tiny_media.py)
The result: tokens (per batch and prompt) and metrics (vLLM's own counters, by name, summed over labels).
"""

import json
import sys


def prompt_of(request: dict) -> dict:
    prompt = {"prompt" if isinstance(request["prompt"], str) else "prompt_token_ids": request["prompt"]}
    for kind in ("audio", "image"):
        if kind in request:
            import tiny_media

            prompt["multi_modal_data"] = {kind: getattr(tiny_media, kind)(request[kind])}
    return prompt


def main() -> None:
    spec = json.loads(sys.argv[1])
    from vllm import LLM, SamplingParams

    options = {"dtype": "float32", "max_model_len": 1024, "gpu_memory_utilization": 0.2, "disable_log_stats": False}
    llm = LLM(model=spec["model"], **{**options, **spec.get("options", {})})
    tokens = []
    for batch in spec["batches"]:
        outputs = llm.generate(
            [prompt_of(request) for request in batch],
            [SamplingParams(temperature=0, ignore_eos=True, max_tokens=request["max_tokens"]) for request in batch],
            use_tqdm=False,
        )
        tokens.append([list(output.outputs[0].token_ids) for output in outputs])
    metrics: dict[str, float] = {}
    for metric in llm.get_metrics():
        if hasattr(metric, "value"):
            metrics[metric.name] = metrics.get(metric.name, 0) + metric.value
    print("RESULT " + json.dumps({"tokens": tokens, "metrics": metrics}), flush=True)


if __name__ == "__main__":
    main()
