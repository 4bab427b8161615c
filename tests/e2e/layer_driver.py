"""Models one after another in one process, eager: the same requests with layers timed, and again after they were switched off.

Arguments: the program, and a folder of weights per model. Prints one line "RESULT {…}": for each model what was generated
both times, how many modules had a `forward` of their own, and what the model is made of.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    program, *models = sys.argv[1:]
    from vllm import LLM, SamplingParams

    def switch(value: int) -> None:
        words = [program, "set", str(os.getpid()), f"layer={value}", "--wait=180"]
        asked = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while asked.poll() is None:  # the switch is thrown between two instructions of this thread
            time.sleep(0.01)
        assert asked.returncode == 0, asked.stdout.read()

    def timed(model) -> int:
        return sum("forward" in vars(module) for module in model.modules())

    found = []
    for folder in models:
        llm = LLM(model=folder, dtype="float32", max_model_len=1024, gpu_memory_utilization=0.2, enforce_eager=True,
                  enable_prefix_caching=False, max_num_seqs=8, max_num_batched_tokens=128)  # fmt: skip
        prompts = [{"prompt_token_ids": [3 + (n * 7 + i) % 40 for i in range(20 + 9 * n)]} for n in range(5)]
        sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=12)

        def generate(llm=llm, prompts=prompts, sampling=sampling):
            return [list(output.outputs[0].token_ids) for output in llm.generate(prompts, sampling, use_tqdm=False)]

        first, (with_timers,) = generate(), llm.apply_model(timed)
        switch(0)
        (without,) = llm.apply_model(timed)
        found.append({"timed": first, "again": generate(), "timers": with_timers, "left": without})
        switch(1)
        del llm, generate
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
    print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
