"""share/kubernetes: what kustomize makes of it is valid, and its init container's command brings an extension that works."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BUILD, PROGRAM, ROOT

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

FOLDER = ROOT / "share" / "kubernetes"
EXAMPLES = ("sidecar", "daemonset")
VERSION = "1.33"
KEYS = {"volumeMounts": "mountPath", "ports": "containerPort"}  # of lists that are merged, where it is not the name


def documents(path: Path) -> list[dict]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def merged(base, patch, key: str = ""):
    """A strategic merge as Kubernetes defines it, for what these files have in them."""
    if isinstance(base, dict) and isinstance(patch, dict):
        made = dict(base)
        for name, value in patch.items():
            made[name] = merged(base[name], value, name) if name in base else copy.deepcopy(value)
        return made
    if isinstance(base, list) and isinstance(patch, list) and all(isinstance(each, dict) for each in (*base, *patch)):
        by = KEYS.get(key, "name")
        made = [next((merged(each, other) for other in patch if other[by] == each[by]), each) for each in base]
        return made + [copy.deepcopy(each) for each in patch if each[by] not in {other[by] for other in base}]
    return copy.deepcopy(patch)


def built(example: str) -> list[dict]:
    """What `kubectl kustomize` makes of a folder."""
    (recipe,) = documents(FOLDER / example / "kustomization.yaml")
    assert recipe["apiVersion"] == "kustomize.config.k8s.io/v1beta1" and recipe["kind"] == "Kustomization"
    assert set(recipe) <= {"apiVersion", "kind", "resources", "patches", "configMapGenerator", "images"}
    made = [each for name in recipe["resources"] for each in documents(FOLDER / example / name)]
    for patch in recipe["patches"]:
        (what,) = documents(FOLDER / example / patch["path"])
        target = patch["target"]
        chosen = [i for i, each in enumerate(made) if (each["kind"], each["metadata"]["name"]) == (target["kind"], target["name"])]
        assert len(chosen) == 1, "the patch finds its Deployment"
        made[chosen[0]] = merged(made[chosen[0]], what)
    for each in recipe["configMapGenerator"]:
        data = dict(literal.split("=", 1) for literal in each["literals"])
        made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": each["name"]}, "data": data})
    return made


def pods(example: str) -> dict[str, dict]:
    return {each["kind"]: each["spec"]["template"]["spec"] for each in built(example) if "template" in each.get("spec", {})}


def containers(pod: dict) -> list[dict]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_is_built_is_valid(example):
    made = built(example)
    assert {each["kind"] for each in made} >= {"Deployment", "ConfigMap"}
    for each in made:
        kubernetes_validate.validate(each, VERSION, strict=True)
    broken = copy.deepcopy(made[0])
    broken["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@pytest.mark.parametrize("example", EXAMPLES)
def test_names_lead_somewhere(example):
    """Volumes, ports and containers that are named exist; the image of vLLM is left as it is published."""
    (plain,) = documents(FOLDER / example / "vllm.yaml")
    for kind, pod in pods(example).items():
        volumes = {each["name"] for each in pod["volumes"]}
        for container in containers(pod):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
            ports = {port["name"] for port in container.get("ports", ())}
            for probe in ("readinessProbe", "livenessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in ports
        names = [container["name"] for container in containers(pod)]
        assert len(names) == len(set(names))
        if kind == "Deployment":
            (vllm,) = (each for each in pod["containers"] if each["name"] == "vllm")
            (before,) = plain["spec"]["template"]["spec"]["containers"]
            assert vllm["image"] == before["image"] and vllm["args"] == before["args"]
            assert "command" not in vllm
            mounts = {mount["mountPath"] for mount in vllm["volumeMounts"]}
            for variable in vllm["env"]:
                assert any(variable["value"] == path or variable["value"].startswith(path + "/") for path in mounts), variable


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_program_takes_what_its_containers_are_given(example):
    """Options that do not exist would be told only in a cluster."""
    seen = 0
    for pod in pods(example).values():
        for container in containers(pod):
            if container["image"] != "profilemate" or "args" not in container:
                continue
            command, *words = container["args"]
            told = subprocess.run([PROGRAM, command, "--help"], capture_output=True, text=True, timeout=600).stdout
            for word in words:
                if word.startswith("--"):
                    assert f"{word.split('=')[0]}" in re.findall(r"--[\w-]+", told), (command, word)
            seen += 1
    assert seen == 2


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """What the Containerfile leaves at /site: a link to the folder that the package calls its site folder."""
    folder = tmp_path_factory.mktemp("image")
    site = folder / "lib" / "python3" / "site-packages" / "profilemate" / "site"
    (site / "simple").mkdir(parents=True)
    for part in ("", "simple"):
        shutil.copy(BUILD / "site" / part / "sitecustomize.abi3.so", site / part)
    (folder / "site").symlink_to(site)
    return folder


def test_the_containerfile_makes_that_folder():
    text = (FOLDER / "Containerfile").read_text()
    assert 'ln -s "$(python3 -c \'import profilemate; print(profilemate.site_folder())\')" /site' in text
    assert re.search(r'^ENTRYPOINT \["profilemate"\]', text, re.M)
    import profilemate

    assert profilemate.site_folder().name == "site"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_init_containers_command_brings_an_extension_that_works(example, image, tmp_path):
    """Its command, with the pod's paths moved here; then a Python that has PYTHONPATH and nothing else."""
    pod = pods(example)["Deployment"]
    first = pod["initContainers"][0]
    assert first["name"] == "profilemate-extension" and "restartPolicy" not in first
    volume = tmp_path / "volume"
    volume.mkdir()
    command = [word.replace("/site", f"{image}/site") if word == "/site" else word for word in first["command"]]
    command = [f"{volume}/" if word == "/profilemate/" else word for word in command]
    subprocess.run(command, check=True)
    subprocess.run(command, check=True)  # a container that is started again
    (vllm,) = (each for each in pod["containers"] if each["name"] == "vllm")
    (mount,) = (each["mountPath"] for each in vllm["volumeMounts"] if each["name"] == "profilemate")
    variables = {each["name"]: each["value"] for each in vllm["env"]}
    path = Path(str(volume) + variables["PYTHONPATH"].removeprefix(mount))
    assert (path / "sitecustomize.abi3.so").is_file() and not (path / "sitecustomize.abi3.so").is_symlink()
    script = "import sys; m = sys.modules['sitecustomize']; print(m.__file__); print([n for n in dir(m) if n == 'about'])"
    for python in dict.fromkeys([sys.executable, *filter(None, os.environ.get("PM_PYTHONS", "").split(os.pathsep))]):
        done = subprocess.run(
            [python, "-c", script], env={"PYTHONPATH": str(path), "VLLM_PROFILING_DIR": str(tmp_path / "sessions")},
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == f"{path}/sitecustomize.abi3.so"
        assert done.stderr == "", "quiet where there is no vLLM"
    assert not (tmp_path / "sessions").exists()
