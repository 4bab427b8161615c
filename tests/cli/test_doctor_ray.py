"""`profilemate doctor`: workers that Ray runs, and front ends whose engine recorded nothing."""

import json

import pytest
from program import SITE
from test_doctor import ALWAYS, bare, doctor, fake_python, hooks, make_wheel, session_findings  # noqa: F401

SERVE = ("-m", "vllm.entrypoints.openai.api_server", "--model", "m")
RAY = ("--distributed-executor-backend", "ray")


@pytest.fixture
def installed(doctor, tmp_path):  # noqa: F811
    """The package installed: asks about a command whose workers are Ray's."""
    python = make_wheel(doctor.python, tmp_path)

    def ask(*more, **env):
        return doctor("--", python, *SERVE, *(more or RAY), python=None, PYTHONPATH=str(doctor.vllm), **env)

    return ask


def test_an_installed_package_reaches_rays_workers(installed):
    for words in (RAY, ("--distributed-executor-backend=ray",), ("-dpb", "ray"), ("--data-parallel-backend=ray",)):
        found = installed(*words, VLLM_PROFILING_VERBOSE="1")
        assert found.problems() == []
        assert "vLLM copies the settings to them" in found.one("ray")["text"]
    assert all(check["section"] != "Ray" for check in installed("--tensor-parallel-size", "2").checks)


def test_wrong_pythonpath_alone_under_ray(doctor):  # noqa: F811
    found = doctor("--", doctor.python, *SERVE, *RAY, python=None)
    text, advice = found.only_problem("ray-package")
    assert "PYTHONPATH does not bring the extension into them" in text and "on every node" in advice


def test_wrong_a_name_that_ray_does_not_get(installed):
    text, advice = installed(PROFILEMATE_VERBOSE="1").only_problem("ray-variable")
    assert text == "vLLM does not copy PROFILEMATE_VERBOSE to Ray's workers, they would go by its default"
    assert "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY=PROFILEMATE_VERBOSE" in advice
    for name, value in (
        ("VLLM_RAY_EXTRA_ENV_VARS_TO_COPY", "OTHER, PROFILEMATE_VERBOSE"),
        ("VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY", "X_,PROFILEMATE_"),
    ):
        assert installed(PROFILEMATE_VERBOSE="1", **{name: value}).problems() == []
    assert installed(
        PROFILEMATE_VERBOSE="1", VLLM_RAY_EXTRA_ENV_VARS_TO_COPY="PROFILEMATE_VERB").problems() == ["ray-variable"]  # fmt: skip


def test_wrong_a_name_that_is_kept_from_ray(installed, tmp_path):
    folder = tmp_path / "configuration"
    folder.mkdir()
    (folder / "ray_non_carry_over_env_vars.json").write_text(json.dumps(["HOME", "VLLM_PROFILING_VERBOSE"]))
    root = {"VLLM_CONFIG_ROOT": str(folder)}
    text, advice = installed(VLLM_PROFILING_VERBOSE="1", **root).only_problem("ray-left-out")
    assert "keeps vLLM from copying VLLM_PROFILING_VERBOSE" in text and "take it out" in advice
    assert installed(VLLM_PROFILING_DEBUG="1", **root).problems() == []


def test_wrong_a_vllm_that_copies_its_own_names_only(doctor, installed):  # noqa: F811
    doctor.make_vllm("0.16.0")
    found = installed()
    assert "ray-release" in found.problems()
    assert "since 0.17.0 all that begin with VLLM_" in found.one("ray-release")["text"]


def test_a_front_end_without_an_engine(cli):
    """A wrapper or a container that cleared PYTHONPATH for what vLLM starts."""
    session = cli.make_session(*hooks(fired=ALWAYS), "role=frontend", "steps=0")
    found = session_findings(cli, session)
    assert "engine-none" in found.problems()
    assert "was not loaded in the processes that vLLM started" in found.one("engine-none")["text"]
    both = cli.make_session(*hooks(fired=ALWAYS), "steps=3")
    assert "engine-none" not in [check["id"] for check in session_findings(cli, both).checks]
    held, process = cli.hold_session(*hooks(fired=ALWAYS), "role=frontend", "steps=0")
    assert session_findings(cli, held).one("engine-none")["status"] == "note"
    process.communicate()
