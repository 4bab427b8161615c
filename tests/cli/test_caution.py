"""What makes figures unusual is told on every report."""

import json

SENTENCE = "CUDA_LAUNCH_BLOCKING was set: each kernel launch waited for its end"


def test_launch_blocking_is_on_every_report(cli):
    session = cli.make_session("attr.cuda_launch_blocking=1")
    text = cli("report", "--text", session)
    assert text.returncode == 0, text.stderr
    assert SENTENCE in " ".join(text.stdout.split())
    assert any(SENTENCE in note for note in json.loads(cli("report", "--json", session).stdout)["notes"])
    assert cli("export", session).returncode == 0
    assert any(SENTENCE in note for note in json.loads((session / "metadata.json").read_text())["notes"])


LAYERS = "layers were timed in the model's modules, and torch's profiler was set up as well"


def test_timers_of_layers_beside_a_torch_trace_are_told_of_and_which_to_believe(cli):
    session = cli.make_session("attr.layers=modules: 60 of 8 layers", "attr.torch_profiler=torch")
    assert LAYERS in " ".join(cli("report", "--text", session).stdout.split())
    (note,) = (note for note in json.loads(cli("report", "--json", session).stdout)["notes"] if LAYERS in note)
    assert "for what kernels take on a device believe its trace" in note


def test_timers_alone_and_a_trace_alone_need_no_word(cli):
    for attributes in (["attr.layers=modules: 60 of 8 layers"], ["attr.torch_profiler=torch"],
                       ["attr.layers=off: the model is compiled", "attr.torch_profiler=torch"]):  # fmt: skip
        session = cli.make_session(*attributes)
        assert LAYERS not in cli("report", "--json", session).stdout


def test_otherwise_nothing_is_told(cli):
    session = cli.make_session()
    assert "LAUNCH_BLOCKING" not in cli("report", "--text", session).stdout
    assert "LAUNCH_BLOCKING" not in cli("report", "--json", session).stdout
