"""What the tests of `profilemate ship` share: an S3 server that fails when asked to, sessions that grow, failures of calls."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from conftest import BUILD, PACKAGE, PROGRAM
from profilemate._shipment import Shipment
from profilemate._shipsource import Source
from profilemate._shipstore import TEMPORARY, FileStore, Store

MAKE_SESSION = BUILD / "tests" / "make_session"
KEY, SECRET, TOKEN = "AKIATESTTESTTEST1234", "secret/of+the/tests0000000000000000", "token-of-the-tests"
BUCKET = "profiles"


def make_session(folder: Path, *words: str) -> Path:
    done = subprocess.run([MAKE_SESSION, f"dir={folder}", *words], capture_output=True, text=True, timeout=180)
    assert done.stdout, done.stderr
    return Path(done.stdout.strip())


class Growing:
    """A session whose process lives: more() lets it record, end() ends it."""

    def __init__(self, folder: Path, *words: str):
        self.process = subprocess.Popen(
            [MAKE_SESSION, f"dir={folder}", "end=hold", "more=400", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.path = Path(self.process.stdout.readline().strip())

    def more(self, times: int = 1) -> None:
        for _ in range(times):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline()

    def end(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(180) == 0

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()


def shipment(session: Path, target: Path | Store) -> Shipment:
    return Shipment(Source(session), FileStore(target) if isinstance(target, Path) else target)


def quick_folder(fallback: Path) -> Path:
    """In memory where that is possible: hundreds of runs that sync each of their files would wait for the disk."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        return fallback
    return Path(tempfile.mkdtemp(prefix="profilemate-ship-", dir=shm))


def content(folder: Path) -> dict[str, bytes]:
    """All files below it by their names, temporary ones left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(TEMPORARY)
    }


# ---- failing calls ----

CALLS = (
    "open", "read", "pread", "write", "fsync", "replace", "rename", "mkdir", "listdir", "scandir", "unlink", "rmdir",
)  # fmt: skip


@contextlib.contextmanager
def at_call(number: int, act: Callable[[str], None]) -> Iterator[list[int]]:
    """Does something before the call with that number (from 0) of those that reach a disk; counts them."""
    count = [0]
    real = {name: getattr(os, name) for name in CALLS}

    def wrapped(name):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] == number + 1:
                act(name)
            return real[name](*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name))
    try:
        yield count
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def fail(name: str) -> None:
    raise OSError(errno.ENOSPC if name in ("write", "open", "mkdir") else errno.EIO, "made to fail")


def killed_at(number: int, what: Callable[[], object]) -> bool:
    """Runs it in a child that kills itself at that call; False where it came to its end before."""
    child = os.fork()
    if child == 0:
        try:
            with at_call(number, lambda name: os.kill(os.getpid(), signal.SIGKILL)):
                what()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WIFSIGNALED(status), f"it failed, status {status}"
    return status != 0


# ---- the S3 server ----


class S3:
    """moto's S3, on loopback, with a plan of what goes wrong: fault(environ) names it, or None."""

    def __init__(self):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, *_) -> None:
                pass

        self.app = DomainDispatcherApplication(create_backend_app)
        self.fault: Callable[[dict], str | None] = lambda environ: None
        self.requests: list[str] = []
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def __call__(self, environ, start_response):
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        fault = self.fault(environ)
        if fault in ("500", "503", "403"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            code = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied"}[fault]
            body = f"<Error><Code>{code}</Code><Message>not for {KEY} {SECRET}</Message></Error>".encode()
            start_response(f"{fault} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if fault == "drop":  # the connection breaks in the middle of a request
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            environ["werkzeug.socket"].shutdown(2)
            return [b""]
        if fault in ("bare", "altered"):  # a store that knows no checksums, and one that spoils what it gets
            for name in [name for name in environ if name.startswith("HTTP_X_AMZ_CHECKSUM")]:
                del environ[name]
            environ.pop("HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM", None)
        if fault == "altered" and environ["REQUEST_METHOD"] == "PUT":
            import io

            body = bytearray(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            body[len(body) // 2] ^= 1
            environ["wsgi.input"] = io.BytesIO(bytes(body))
        return self.app(environ, start_response)

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN,
            "AWS_ENDPOINT_URL_S3": self.url, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }  # fmt: skip

    def client(self):
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )


def ship(*words: str | Path, python: str, env: dict[str, str] | None = None, **kwargs) -> subprocess.CompletedProcess:
    """The program, with an interpreter."""
    return subprocess.run(
        [PROGRAM, "ship", "--python", python, *map(str, words)], capture_output=True, text=True, timeout=300,
        env=environment(env), **kwargs,
    )  # fmt: skip


def environment(env: dict[str, str] | None = None) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_PROFILING")}
    return {**plain, "PYTHONPATH": str(PACKAGE), **(env or {})}


def one_sentence(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("profilemate: ")]
    assert len(lines) == 1 and not re.search(r"Traceback|\n\n", text), f"not one sentence: {text!r}"
    return lines[0]
