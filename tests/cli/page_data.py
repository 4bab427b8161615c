"""Data for the page of a report (web/DATA.md) with something in every panel: a small simulation of an engine.

The shapes are those that src/html writes; tests/cli/test_report.py holds them against each other.
"""

from __future__ import annotations

import random

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=\'document.title="taken"\'>'


def spread(values):
    """As pm_spread_json, in microseconds; the bins are left to a few round ones."""
    if not values:
        return None
    values = sorted(values)

    def at(q):
        return values[min(len(values) - 1, int(q * (len(values) - 1) + 0.5))]

    bins: dict[int, int] = {}
    for value in values:
        k = max(1, (int(value * 1000) or 1).bit_length() * 8 - 6)
        bins[k] = bins.get(k, 0) + 1
    return {
        "count": len(values), "exact": True, "mean": sum(values) / len(values), "min": values[0], "p50": at(0.5),
        "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": values[-1], "bins": sorted(map(list, bins.items())),
    }  # fmt: skip


def differences(times):
    return [b - a for a, b in zip([0, *times], times, strict=False)]


def rows(times, cols):
    return {"exact": True, "rows": len(times), "t": differences(times), "cols": cols}


def simulate(steps=1500, requests=90, seed=4):
    rng = random.Random(seed)
    waiting = [
        {"id": f"cmpl-{rng.randrange(1 << 40):010x}", "at": 2_000_000 + i * 90_000 + rng.randrange(60_000),
         "prompt": rng.choice((40, 90, 600, 1500)), "out": rng.randrange(20, 220)}
        for i in range(requests)
    ]  # fmt: skip
    waiting[3]["id"] = HOSTILE
    for request in waiting:
        request.update(done=0, got=0, started=None, first=None, last=None, gap=0, preemptions=0, away=[], recomputed=0,
                       lost=0)  # fmt: skip
    queue, running, over, gone = list(waiting), [], [], []
    names = "step lead sched pre model post sample total fwd kind req tok ptok rtok dtok running waiting".split()
    cols = {name: [] for name in names}
    kv = {name: [] for name in "used cached alloc freed evicted queried hit".split()}
    updates = {name: [] for name in "gap cont outputs otok took drafted accepted".split()}
    times, ends, now, previous = [], [], 2_000_000, None
    for step in range(steps):
        now += rng.randrange(60, 500)
        while queue and queue[0]["at"] <= now and len(running) < 32:
            request = queue.pop(0)
            request["started"] = request["started"] or now
            if request["away"] and request["away"][-1][1] is None:
                request["away"][-1][1] = now
            running.append(request)
        if not running:
            now = queue[0]["at"] if queue else now + 1000
            continue
        used = sum((r["done"] + r["got"]) // 16 + 1 for r in running)
        if used > 690 and len(running) > 4:
            victim = running.pop()
            victim["preemptions"] += 1
            victim["lost"] += victim["done"] + victim["got"]
            victim["recomputed"] += victim["done"] + victim["got"]
            victim["away"].append([now, None])
            victim["done"] = 0
            gone.append((now, victim["lost"], used - 690))
            queue.insert(0, victim)
            victim["at_again"] = now
        budget, prompt, again, decodes = 2048 - len(running), 0, 0, 0
        for request in running:
            if request["done"] < request["prompt"]:
                chunk = min(budget, request["prompt"] - request["done"])
                request["done"] += chunk
                budget -= chunk
                prompt += 0 if request["preemptions"] else chunk
                again += chunk if request["preemptions"] else 0
            else:
                decodes += 1
        kind = 3 if prompt + again and decodes else 1 if prompt + again else 2
        model = int(6000 + 9 * (prompt + again) + 40 * decodes + rng.randrange(900)) * (9 if step == 700 else 1)
        one = {"step": step, "lead": 400, "sched": rng.randrange(80, 300), "pre": rng.randrange(300, 600), "model": model,
               "post": rng.randrange(60, 120), "sample": rng.randrange(200, 500), "kind": kind, "req": len(running),
               "tok": prompt + again + decodes, "ptok": prompt, "rtok": again, "dtok": decodes, "running": len(running),
               "waiting": sum(r["at"] <= now for r in queue)}  # fmt: skip
        one["total"] = one["pre"] + one["model"] + one["post"] + one["sample"] + rng.randrange(20, 90)
        one["fwd"] = one["model"]
        for name in names:
            cols[name].append(one[name])
        times.append(now)
        for name, value in (("used", used), ("cached", 40), ("alloc", 3), ("freed", 2), ("evicted", int(used > 600)),
                            ("queried", prompt), ("hit", prompt // 3)):  # fmt: skip
            kv[name].append(value)
        now += one["total"]
        given = [r for r in running if r["done"] >= r["prompt"]]
        for request in given:
            request["got"] += 1
            request["first"] = request["first"] or now
            request["gap"] = max(request["gap"], now - (request["last"] or now))
            request["last"] = now
        ends.append(now)
        for name, value in (("gap", now - previous if previous else 0), ("cont", max(0, len(given) - 1)),
                            ("outputs", len(given)), ("otok", len(given)), ("took", 90), ("drafted", 2 * len(given)),
                            ("accepted", len(given))):  # fmt: skip
            updates[name].append(value)
        previous = now
        for request in [r for r in running if r["got"] >= r["out"]]:
            running.remove(request)
            request["end"] = now
            over.append(request)
    return times, ends, cols, kv, updates, over + running + queue, gone


def request_cols(lives):
    names = ("id at queued started first last end ttft tpot gap queue e2e gone prompt cached out recomputed lost"
             " preemptions state").split()  # fmt: skip
    cols = {name: [] for name in names}
    away = {}
    for i, r in enumerate(lives):
        since = {name: r.get(name) - r["at"] if r.get(name) else None for name in ("started", "first", "last", "end")}
        row = {
            "id": r["id"], "at": r["at"], "queued": 300, **since, "ttft": since["first"],
            "tpot": (r["last"] - r["first"]) // (r["got"] - 1) if r["got"] > 1 else None, "gap": r["gap"] or None,
            "queue": since["started"] - 300 if since["started"] else None, "e2e": since["end"],
            "gone": sum((b or r["last"] or a) - a for a, b in r["away"]) or None, "prompt": r["prompt"],
            "cached": r["prompt"] // 4, "out": r["got"], "recomputed": r["recomputed"], "lost": r["lost"],
            "preemptions": r["preemptions"], "state": "length" if since["end"] else "running",
        }  # fmt: skip
        for name in names:
            cols[name].append(row[name])
        if r["away"]:
            away[str(i)] = [[a - r["at"], b - r["at"] if b else None] for a, b in r["away"]]
    return cols, away


def thinned(exact, width, sums, mins, maxs, top=()):
    """Rows as buckets, as pm_thin does."""
    t, at = [], 0
    for step in exact["t"]:
        t.append(at := at + step)
    start = t[0]
    n = int((t[-1] - start) // width) + 1
    made = {"exact": False, "rows": len(t), "from": start, "width": width, "n": [0] * n,
            "sum": {k: [0] * n for k in sums}, "min": {k: [0] * n for k in mins},
            "max": {k: [0] * n for k in maxs}}  # fmt: skip
    for i, time in enumerate(t):
        b = int((time - start) // width)
        for k in sums:
            made["sum"][k][b] += exact["cols"][k][i]
        for k in mins:
            value = exact["cols"][k][i]
            made["min"][k][b] = value if not made["n"][b] else min(value, made["min"][k][b])
        for k in maxs:
            made["max"][k][b] = max(made["max"][k][b], exact["cols"][k][i])
        made["n"][b] += 1
    if top:
        order = sorted(sorted(range(len(t)), key=lambda i: -exact["cols"][top][i])[:40])
        made["top"] = {"t": differences([t[i] for i in order]),
                       "cols": {k: [v[i] for i in order] for k, v in exact["cols"].items()}}  # fmt: skip
    return made


def by_kind(steps):
    for key, kind in (("p", 1), ("d", 2), ("m", 3)):
        here = [k == kind for k in steps["cols"]["kind"]]
        steps["cols"][f"n_{key}"] = [int(h) for h in here]
        for name in ("busy", "max"):
            steps["cols"][f"{name}_{key}"] = [v if h else 0 for v, h in zip(steps["cols"]["total"], here, strict=True)]


def machine_of(times):
    """Device, memory, exchange between ranks and layers, as `report --json` has them."""
    readings = times[::50] or times[:1]
    phases = {"weights": (0, 16e9, 21.5), "profile_run": (16e9, 17e9, 3.25), "kv_cache": (17e9, 60e9, 0.5),
              "warm_up": (60e9, 61e9, 30.0)}  # fmt: skip
    operation = {"p50_ms": 0.2, "p95_ms": 0.4, "p99_ms": 0.5, "max_ms": 9.0, "captured_calls": 0, "captured_bytes": 0}
    groups = {
        "tp": {"all_reduce": {"calls": 6500, "bytes": 1 << 30, "steps": 100, "total_ms": 512.0, "mean_ms": 5.12, **operation},
               "gather": {"calls": 100, "bytes": 1 << 20, "steps": 100, "total_ms": 40.0, "mean_ms": 0.4, **operation}},
        "pp": {"send": {"calls": 0, "bytes": 0, "steps": 0, "total_ms": 0.0, "mean_ms": None, **operation,
                        "p50_ms": None, "p95_ms": None, "p99_ms": None, "max_ms": None, "captured_calls": 64,
                        "captured_bytes": 4096}},
    }  # fmt: skip
    times_of = {"attention": 300.0, "mlp": 200.0, "moe": 400.0, "norm": 60.0, "other": 40.0}
    kinds = {kind: {"calls": 800, "total_ms": ms, "mean_per_pass_ms": ms / 100, "share_pct": ms / 10}
             for kind, ms in times_of.items()}  # fmt: skip
    one = {"passes": 50, "forward_ms": 500.0,
           "kinds": {kind: {**row, "total_ms": row["total_ms"] / 2} for kind, row in kinds.items()}}  # fmt: skip
    layers = [{"layer_idx": n, "total_ms": 120.0, "share_pct": 12.0, "attention_ms": 37.5, "norm_ms": 7.5, "other_ms": 2.5,
               **({"mlp_ms": 72.5} if n < 3 else {"moe_ms": 72.5})} for n in range(8)]  # fmt: skip
    layers.append({"layer_idx": None, "total_ms": 40.0, "share_pct": 4.0, "norm_ms": 20.0, "other_ms": 20.0})
    return {
        "device": {"steps": 100, "wait_ms": 2.5, "model_ms": 7.0, "after_ms": 0.25, "sample_ms": 0.25, "launch_ms": 1.5,
                   "wait_total_ms": 250.0, "without_work_ms": 12.0},
        "memory": {"samples": 4 + len(readings), "source": "torch", "allocated_bytes": 61 * 10**9,
                   "reserved_bytes": 64 * 10**9, "max_reserved_bytes": 64 * 10**9, "peak_allocated_bytes": 62 * 10**9,
                   "serving_min_bytes": 60 * 10**9, "serving_max_bytes": 61 * 10**9, "fragmentation_pct": 4.69,
                   "phases": {name: {"before_bytes": int(before), "after_bytes": int(after), "duration_sec": took}
                              for name, (before, after, took) in phases.items()}},
        "memory_series": rows(readings, {"allocated": [60 * 10**9 + 10**7 * i for i in range(len(readings))],
                                         "reserved": [64 * 10**9] * len(readings), "peak": [62 * 10**9] * len(readings)}),
        "collectives": {"clock": "host", "calls": 6600, "bytes": (1 << 30) + (1 << 20), "total_ms": 552.0,
                        "captured_calls": 64, "captured_bytes": 4096, "groups": groups,
                        "outside_steps": {"calls": 12, "bytes": 6144}},
        "layers": {"source": "modules", "hooks": "modules: 60 of 8 layers", "clock": "host", "passes": 100,
                   "passes_without_times": 0, "steps_not_seen": 3, "forward_ms": 1000.0, "kinds": kinds,
                   "phases": {"prefill": one, "decode": one}, "layers": layers},
    }  # fmt: skip


SETTINGS = (
    "greedy temperature top_p top_k min_p seed penalties logprobs prompt_logprobs structured_output token_rules"
    " spec_verification"
).split()  # fmt: skip


def sampling_of(times, requests):
    """Sampling: top_p is dear, top_k always comes with it, penalties came too seldom, seed makes no difference."""
    at_random = [max(0, n - 1 - i // 200 % 4) for i, n in enumerate(requests)]
    narrow = [n // 2 if i // 100 % 2 else 0 for i, n in enumerate(at_random)]
    some = [1 if n and i % 9 == 0 else 0 for i, n in enumerate(at_random)]
    mix = {"greedy": [n - r for n, r in zip(requests, at_random, strict=True)], "temperature": at_random, "top_p": narrow,
           "top_k": narrow, "seed": some, "penalties": [int(i == 300) for i in range(len(requests))]}  # fmt: skip
    took = [120 + 9 * n + (400 if p else 0) + 7 * (i % 13) for i, (n, p) in enumerate(zip(requests, narrow, strict=True))]
    all_steps, all_requests = len(times), sum(requests)

    def setting(name):
        steps, asked = sum(map(bool, mix.get(name, ()))), sum(mix.get(name, ()))
        row = {"steps": steps, "steps_pct": 100 * steps / all_steps, "request_steps": asked,
               "request_steps_pct": 100 * asked / all_requests}  # fmt: skip
        if name == "greedy":
            return row
        verdict, cost, error, together = {
            "temperature": ("told", 0.0512, 0.004, []), "top_p": ("told", 0.4013, 0.011, ["top_k"]),
            "top_k": ("told", 0.4013, 0.011, ["top_p"]), "seed": ("no difference seen", 0.002, 0.013, []),
            "penalties": ("too few steps", None, None, []),
        }.get(name, ("never used", None, None, []))  # fmt: skip
        return {**row, "cost": verdict, "cost_ms_per_step": cost, "error_ms": error,
                "matched_with": 0 if cost is None else 612, "matched_without": 0 if cost is None else 587,
                "together_with": together}  # fmt: skip

    def strategy(steps, share, ms):
        return {"steps": steps, "mean_batch_size": 12.5, "total_ms": steps * ms, "share_pct": share, "mean_ms": ms,
                "p50_ms": ms, "p95_ms": 1.25 * ms, "p99_ms": 1.5 * ms}  # fmt: skip

    return {
        "sampling": {"steps": all_steps, "clock": "wall", "total_ms": sum(took) / 1e3, "mean_ms": 0.42,
                     "share_of_step_pct": 6.2,
                     "strategies": {"greedy+temperature+top_p+top_k": strategy(640, 70.5, 0.62),
                                    "greedy+temperature": strategy(860, 29.5, 0.2)},
                     "settings": {name: setting(name) for name in SETTINGS},
                     "grammar_bitmasks": {"count": 12, "requests": 14, "engine_total_ms": 3.5}},
        "sampling_series": rows(times, {"req": requests, "took": took, "unknown": [0] * all_steps, **mix}),
    }  # fmt: skip


def transfers_of(times):
    """A KV connector that is asked for every tenth step's prompt and has a third of it."""
    def operation(**more):
        return {"steps": 100, "total_ms": 40.0, "mean_ms": 0.4, "p95_ms": 0.9, "max_ms": 2.5, "failed_steps": 0, **more}

    at = times[::10]
    return {
        "kv_transfers": {"clock": "host", "token_bytes": 131072, "connectors": {"ExampleConnector": {
            "lookup": operation(calls=120, tokens=7680), "load": operation(requests=40, tokens=5120, bytes=5120 * 131072),
            "start_load": operation(calls=100), "wait_load": operation(calls=3200, total_ms=820.0, mean_ms=8.2),
            "save": operation(calls=3200), "wait_save": operation(calls=100, failed_steps=2), "finished": operation(calls=100),
        }}},
        "kv_transfer_series": rows(at, {"found": [64 if i % 3 == 0 else 0 for i in range(len(at))],
                                        "loaded": [64 if i % 4 == 0 else 0 for i in range(len(at))],
                                        "loads": [1 if i % 4 == 0 else 0 for i in range(len(at))],
                                        "sched": [50 + i % 7 for i in range(len(at))],
                                        "load": [600 + 900 * (i // 20 % 2) for i in range(len(at))],
                                        "save": [300] * len(at), "ask": [5] * len(at)}),
    }  # fmt: skip


def engine(number=0, seed=4, thin=False, **more):
    times, ends, cols, kv, updates, lives, gone = simulate(seed=seed, **more)
    shown, away = request_cols(lives)
    steps, out, cache = rows(times, cols), rows(ends, updates), rows(times, kv)
    taken = rows([g[0] for g in gone], {"lost": [g[1] for g in gone], "blocks": [g[2] for g in gone],
                                        "reset": [0] * len(gone)})  # fmt: skip
    kinds = {
        name: {"steps": cols["kind"].count(k),
               "forward": spread([f for f, one in zip(cols["fwd"], cols["kind"], strict=True) if one == k])}
        for k, name in enumerate(("empty", "prefill", "decode", "mixed"))
    }  # fmt: skip
    latency = {k: spread([v for v in shown[k] if v]) for k in ("ttft", "tpot", "queue", "e2e")}
    latency["itl"] = spread([g for g, c in zip(updates["gap"], updates["cont"], strict=True) for _ in range(c) if g])
    hist = {key: [[v, v, cols[c].count(v)] for v in sorted(set(cols[c]))] for key, c in
            (("req_hist", "req"), ("tok_hist", "tok"))}  # fmt: skip
    if thin:
        by_kind(steps)
        add = [n for n in cols if n not in ("step", "lead", "kind") and not n.startswith("max_")]
        most = ["step", "sched", "total", "fwd", "req", "tok", "running", "waiting", "max_p", "max_d", "max_m"]
        steps = thinned(steps, 40_000.5, add, ["step", "total", "req", "tok"], most, "total")
        out = thinned(out, 40_000.5, ["cont", "outputs", "otok", "took", "drafted", "accepted"], [], ["gap", "took"], "gap")
        cache = thinned(cache, 40_000.5, ["used", "alloc", "freed", "evicted", "queried", "hit"], ["used"],
                        ["used", "cached"])  # fmt: skip
        cache["max"]["total"] = [700] * len(cache["n"])
    rng = random.Random(seed)
    layers = []
    for layer in range(8):
        n = [rng.randrange(800, 1200) for _ in range(16)]
        n[layer] = 0
        n[(layer + 5) % 16] = 6000
        total = sum(n)
        layers.append({"layer": layer, "name": f"model.layers.{layer}.mlp.experts", "observed": "host", "experts": 16,
                       "top_k": 2, "selections": total, "coverage_pct": 93.75, "mean": total / 16, "std": 900.0, "min": 0,
                       "max": max(n), "load_balance_ratio": total / 16 / max(n), "coselection": True, "timed_calls": 0,
                       "mean_ms": None, "n": n})  # fmt: skip
    graph = [
        {"descriptor": f"FULL|{n}|{n}|True|False", "mode": "FULL", "num_tokens": n, "num_reqs": n, "uniform": True,
         "has_lora": False, "replays": 900 // n, "pieces": 1, "captured": 900_000, "capture_ms": 12.5, "at_runtime": 0,
         "held": 900 // n, "tokens": 700, "padding": 150, "mean_ms": 7.2}
        for n in (1, 2, 4, 8, 16, 32)
    ]  # fmt: skip
    machine = machine_of(times) | sampling_of(times, cols["req"]) | transfers_of(times)
    if thin:
        for name, most in (("sampling_series", ["took"]), ("kv_transfer_series", [])):
            machine[name] = thinned(machine[name], 40_000.5, list(machine[name]["cols"]), [], most, *most)
    return {
        "engine": number, "recycled": False, "sampler": 0, **machine,
        "ranks": [{"rank": 0, "clock": "wall", "steps": steps}], "kinds": kinds, **hist, "max_requests": 32,
        "max_tokens": 2048, "drafted": sum(updates["drafted"]), "accepted": sum(updates["accepted"]),
        "output_tokens": sum(updates["otok"]), "updates": out,
        "kv": {"total": 700, "peak": max(kv["used"]), "caching": True, "evictions": sum(kv["evicted"]),
               "lifetime": spread([4e6, 9e6, 12e6]), "idle": spread([1e6, 2e6]), "steps": cache},
        "requests": {"total": len(lives), "exact": True, "every": 1, "worst": 500, "not_over": 0, "never_ran": 0,
                     "preempted": sum(r["preemptions"] > 0 for r in lives), "prompt_tokens": sum(shown["prompt"]),
                     "cached_tokens": 100, "output_tokens": sum(shown["out"]), "recomputed_tokens": sum(shown["recomputed"]),
                     "lost_tokens": sum(shown["lost"]), "aborted_tokens": 0, "finished": {"length": len(lives)},
                     "cols": shown, "away": away},
        "preemptions": taken, "latency": latency,
        "host": [{"operation": name, "count": 1000, "total_ms": ms * 1000, "mean_ms": ms, "p50_ms": ms, "p99_ms": 2 * ms,
                  "max_ms": 4 * ms} for name, ms in (("scheduling", 0.2), ("batch_prep", 0.5), ("model_execution", 7.0))],
        "graphs": {"captures": 6, "captures_at_runtime": 0, "capture_ms": 75.0, "replays": 1700, "graphs": 6,
                   "outcomes": [
                       {"outcome": "full", "sentence": "replayed whole", "replayed": True, "steps": 1200, "tokens": 9000,
                        "padding": 800},
                       {"outcome": "too_large", "sentence": "more tokens than the largest captured size",
                        "replayed": False, "steps": 300, "tokens": 60000, "padding": 0}],
                   "rows": graph},
        "moe": {"observable": True, "reason": None, "selections": 100000, "layers": layers},
        "encoder": {"model_type": "encoder_decoder", "items": 12, "device": False,
                    "components": [{"name": n, "count": 50, "total_ms": t, "mean_ms": t / 50, "p50_ms": t / 50,
                                    "p99_ms": t / 20, "max_ms": t / 10}
                                   for n, t in (("encoder", 400.0), ("decoder", 900.0), ("cross_attention", 120.0))]},
    }  # fmt: skip


def page_data(engines=1, thin=False, **more):
    made = [engine(i, seed=4 + i, thin=thin, **more) for i in range(engines)]
    return {
        "version": 1, "made": "2026-11-23T12:00:00.000+00:00", "made_by": "0.1.0", "window": None,
        "findings": [
            {"rule": "preemption", "area": "KV cache", "severity": "high", "confidence": 1.0, "sure": "certain",
             "title": f"Preemptions of {HOSTILE}", "evidence": ["33 of 150 requests were preempted"],
             "advice": "More room in the KV cache.",
             "changes": [{"flag": "--gpu-memory-utilization", "direction": "raise", "value": "0.95", "now": "0.9"}],
             "cost_sec": 3.2, "cost_of": "waiting of requests", "cost_tokens": 4120, "share_pct": 3.6, "engine": 0,
             "rank": None, "from_sec": 4.0, "to_sec": 6.0, "requests": 33, "request_ids": [HOSTILE], "numbers": {},
             "units": {}},
            {"rule": "stall", "area": "scheduling", "severity": "low", "confidence": 0.7, "sure": "likely",
             "title": "Long prefills stall decodes", "evidence": [], "advice": None, "changes": [], "cost_sec": None,
             "cost_of": None, "cost_tokens": None, "share_pct": None, "engine": None, "rank": None, "from_sec": None,
             "to_sec": None, "requests": 0, "request_ids": [], "numbers": {}, "units": {}},
        ],
        "engines": made,
        "processes": [{"role": "engine+worker", "engine": 0, "rank": 0, "pid": 4242, "life": "closed", "from": 100_000,
                       "to": 12_000_000, "records": 12000, "lost": 0, "recycled": 0, "damaged": 0, "faults": 0,
                       "hook_calls": 30000, "hook_ms": 12.5, "hook_pct": 0.05}],
        "hooks": [{"target": "vllm.v1.core.sched.scheduler:Scheduler.schedule", "patched": 1, "missing": 0, "off": 0,
                   "fired": 1, "first": 2_000_000},
                  {"target": HOSTILE, "patched": 0, "missing": 1, "off": 0, "fired": 0, "first": None}],
        "notes": ["records/p1.pmrec: at byte 4096: cut off", HOSTILE],
        "metadata": {"command": f"vllm serve {HOSTILE}", "engine_config": {"max_num_seqs": 32, "cudagraph_mode": "FULL"},
                     "parallel": {"tensor": 1}, "runner": "vllm.v1.worker.gpu_model_runner"},
        "session": {"name": "session_20261123_120000", "path": f"/tmp/{HOSTILE}", "state": "ended",
                    "start": "2026-11-23T11:59:48.000+00:00", "start_unix_ms": 1795435188000.0, "duration": 12_500_000,
                    "model": HOSTILE, "vllm": "0.32.0", "torch": "2.13.0", "python": "3.11.7", "profilemate": "0.1.0",
                    "device": "cuda", "clock": "tsc", "host": "machine"},
        "sums": {"records": 12000, "lost": 0, "recycled": 0, "damaged": 0, "faults": 0, "hook_calls": 30000,
                 "hook_ms": 12.5, "share_pct": 0.05},
    }  # fmt: skip
