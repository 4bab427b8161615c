"""The sources of the pages: eslint finds nothing, files are read in one sitting, every file opens with what it is."""

import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
LINT = WEB / "lint"
SOURCES = sorted(path for ending in ("*.js", "*.css") for path in (WEB / "src").rglob(ending))


@pytest.fixture(scope="module")
def eslint():
    """The folder with the packages of web/lint/package-lock.json: installed once for each lock file."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed (Debian: npm)")
    lock = (LINT / "package-lock.json").read_bytes()
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "profilemate"
    folder = cache / f"eslint-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        new = cache / f"{folder.name}.{os.getpid()}"
        new.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LINT / name, new)
        command = [npm, "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=new, capture_output=True, text=True, timeout=500)
        if done.returncode != 0:
            shutil.rmtree(new)
            pytest.skip(f"npm could not install eslint: {(done.stderr or done.stdout).strip()[-300:]}")
        (new / "installed").touch()
        try:
            new.rename(folder)
        except OSError:  # another run was first
            shutil.rmtree(new)
    shutil.copy(LINT / "eslint.config.mjs", folder)
    return folder


def run(eslint, folder):
    # (eslint looks only at files below the folder that it runs in, and finds its packages beside its configuration.)
    return subprocess.run(
        [
            shutil.which("node") or shutil.which("nodejs"),
            eslint / "node_modules/eslint/bin/eslint.js",
            "--config",
            eslint / "eslint.config.mjs",
            ".",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_eslint(eslint):
    result = run(eslint, WEB)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def test_eslint_looks(eslint, tmp_path):
    (tmp_path / "wrong.js").write_text("const a = 1;\ndocument.body.innerHTML = b;\n")
    result = run(eslint, tmp_path)
    assert result.returncode == 1
    for rule in ("no-unused-vars", "no-undef", "no-restricted-properties"):
        assert rule in result.stdout, result.stdout


def test_a_file_is_read_in_one_sitting():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"over 400 lines: {long}"


def test_a_file_opens_with_what_it_is():
    wrong = [str(p.relative_to(ROOT)) for p in SOURCES if not p.read_text().startswith(("//", "/*"))]
    assert not wrong, f"no opening comment: {wrong}"
