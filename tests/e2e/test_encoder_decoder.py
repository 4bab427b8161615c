"""Encoder, decoder and cross-attention on real models: a Whisper with real audio arrays on both model runners, a
vision-language model with real images, and a decoder-only one, which falls back."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import results
import serving
import tiny
import tiny_media  # noqa: F401 (adds its models to tiny.MAKERS)

LAYERS = 2  # of each part of the tiny models
COMPONENTS = ("encoder", "decoder", "cross_attention")


def run(sessions, model, batches, newer=False, **options):
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"))
    if newer:
        environment = serving.newer_runner(environment)
    options = {"enforce_eager": True, "load_format": "dummy", **options}
    result, errors = serving.run_llm(
        {"model": str(model), "batches": batches, "options": options}, environment, timeout=400
    )
    session = results.only_session(sessions)
    results.profilemate("export", "--quiet", session)
    rows = results.read_csv(session / "encoder_decoder_timing.csv")
    return SimpleNamespace(
        session=session,
        result=result,
        errors=errors,
        rows=rows,
        of={name: [row for row in rows if row["component"] == name] for name in COMPONENTS},
        summary=json.loads((session / "encoder_decoder_summary.json").read_text()),
        forward=results.read_csv(session / "forward_pass_timing.csv"),
    )


def context(row):
    return {key: int(value) for key, value in (pair.split("=") for pair in row["context"].split(";"))}


def whisper_batches(first, second):
    """Two calls: `first` pieces of audio at once, then `second`; each transcribed by some tokens."""
    prompt = [1, 2, 4, 8]  # <|startoftranscript|><|en|><|transcribe|><|notimestamps|>
    return [
        [{"prompt": prompt, "max_tokens": 3 + i, "audio": i} for i in range(first)],
        [{"prompt": prompt, "max_tokens": 4, "audio": 100 + i} for i in range(second)],
    ]


@pytest.fixture(scope="module", params=["older", "newer"])
def whisper(request, folder):
    newer = request.param == "newer"
    batches = whisper_batches(*((1, 1) if newer else (3, 2)))
    ran = run(
        folder / request.param, tiny.make("whisper"), batches, newer, max_model_len=64,
        limit_mm_per_prompt={"audio": 1},
    )  # fmt: skip
    assert ("Using V2 Model Runner" in ran.result["log"] + ran.errors) == newer
    ran.audios = sum(map(len, batches))
    return ran


def test_the_header_and_the_summary_are_the_documented_ones(whisper):
    results.assert_columns(whisper.session, "encoder_decoder_timing.csv")
    assert list(whisper.summary) == ["model_type", *COMPONENTS, *(f"{name}_pct" for name in COMPONENTS)]
    assert whisper.summary["model_type"] == "encoder_decoder"
    for name in COMPONENTS:
        rows = [float(row["duration_ms"]) for row in whisper.of[name]]
        entry = whisper.summary[name]
        assert list(entry) == ["count", "total_ms", "mean_ms", "std_ms"]
        assert entry["count"] == len(rows)
        assert entry["total_ms"] == pytest.approx(sum(rows), abs=0.0006 * len(rows))
        mean = sum(rows) / len(rows)
        assert entry["mean_ms"] == pytest.approx(mean, abs=0.002)
        deviation = (sum((value - mean) ** 2 for value in rows) / len(rows)) ** 0.5
        assert entry["std_ms"] == pytest.approx(deviation, abs=0.002)
    assert whisper.summary["encoder_pct"] + whisper.summary["decoder_pct"] == pytest.approx(100, abs=0.02)
    assert 0 < whisper.summary["cross_attention_pct"] <= whisper.summary["decoder_pct"]


def test_each_piece_of_audio_is_encoded_once(whisper):
    assert sum(context(row)["items"] for row in whisper.of["encoder"]) == whisper.audios
    assert all(float(row["duration_ms"]) > 0 for row in whisper.of["encoder"])


def test_every_forward_pass_is_the_decoders(whisper):
    assert [row["timestamp_sec"] for row in whisper.of["decoder"]] == [row["timestamp_sec"] for row in whisper.forward]
    assert [row["duration_ms"] for row in whisper.of["decoder"]] == [row["forward_time_ms"] for row in whisper.forward]


def test_every_decoder_layer_attends_to_the_encoder_in_every_step(whisper):
    steps = {context(row)["step"]: float(row["duration_ms"]) for row in whisper.of["decoder"]}
    crosses = {context(row)["step"]: row for row in whisper.of["cross_attention"]}
    assert crosses.keys() == steps.keys()
    assert all(context(row)["calls"] == LAYERS for row in crosses.values())
    assert all(float(row["duration_ms"]) <= steps[step] + 0.001 for step, row in crosses.items())


def test_an_encoder_comes_before_the_decoder_of_its_step(whisper):
    decoder = {context(row)["step"]: float(row["timestamp_sec"]) for row in whisper.of["decoder"]}
    for row in whisper.of["encoder"]:
        end = float(row["timestamp_sec"]) + float(row["duration_ms"]) / 1e3
        assert end <= decoder[context(row)["step"]] + 2e-6


def test_the_report_has_a_section(whisper):
    text = results.profilemate("report", "--text", whisper.session).stdout
    assert "Encoder and decoder, ms (encoder_decoder)" in text
    assert max(map(len, text.splitlines())) <= 80 or str(whisper.session) in text


@pytest.fixture(scope="module")
def blip(folder):
    batches = [[{"prompt": "A prefill", "max_tokens": 3 + i, "image": i} for i in range(3)]]
    batches.append([{"prompt": "Numbers 0 1", "max_tokens": 4}])  # without an image
    return run(folder / "blip2", tiny.make("blip2"), batches, limit_mm_per_prompt={"image": 1})


def test_a_vision_language_model_has_an_encoder_and_no_cross_attention(blip):
    assert blip.summary["model_type"] == "vision_language"
    assert sum(context(row)["items"] for row in blip.of["encoder"]) == 3
    assert len(blip.of["decoder"]) == len(blip.forward) > len(blip.of["encoder"]) > 0
    assert blip.of["cross_attention"] == []
    assert blip.summary["cross_attention"] == {"count": 0, "total_ms": 0.0, "mean_ms": None, "std_ms": None}
    assert blip.summary["cross_attention_pct"] == 0


@pytest.fixture(scope="module")
def text_only(llama, folder):
    return run(folder / "llama", llama, [[{"prompt": [5, 6, 7], "max_tokens": 3}]], load_format="auto")


def test_a_decoder_only_model_falls_back(text_only):
    assert text_only.rows == [] and len(text_only.forward) == 3
    assert text_only.summary["model_type"] == "decoder_only"
    for name in COMPONENTS:
        assert text_only.summary[name] == {"count": 0, "total_ms": 0.0, "mean_ms": None, "std_ms": None}
        assert text_only.summary[f"{name}_pct"] is None
    assert "Encoder and decoder" not in results.profilemate("report", "--text", text_only.session).stdout
