"""profilemate ship: sessions to a folder and to a real S3 server on loopback, and back."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import profilemate
import pytest
from conftest import PROGRAM
from patience import until
from profilemate import _shipstore
from profilemate._shipfetch import Fetch
from profilemate._shipment import load_manifest
from profilemate._shipstore import FileStore, S3Store, StoreError, open_store
from profilemate.ship import main
from shipping import BUCKET, S3, Growing, content, environment, make_session, one_sentence, ship, shipment


@pytest.fixture(scope="module")
def s3():
    pytest.importorskip("boto3")
    server = S3()
    server.client().create_bucket(Bucket=BUCKET)
    yield server
    server.close()


@pytest.fixture
def in_bucket(s3, monkeypatch):
    """The environment of a user of that server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    yield s3
    s3.fault = lambda environ: None


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A server that was killed, of two processes, with files of others beside its records."""
    folder = tmp_path_factory.mktemp("finished")
    made = make_session(folder, "steps=1500", "end=kill")
    (made / "engine_1" / "rank_0").mkdir(parents=True)
    (made / "engine_1" / "rank_0" / "forward_pass_timing.csv").write_text("a,b\n1,2\n")
    (made / "trace.json").write_bytes(os.urandom(9 << 20))  # is not kept in memory
    return made


def tables(path: Path) -> dict[str, dict]:
    session = profilemate.open(path)
    return {name: table.to_arrow().to_pydict() for name, table in session.tables.items()}


def report(path: Path) -> dict:
    """What is said of a session, without where it is."""
    told = profilemate.open(path).report
    told.pop("session", None)
    return json.loads(json.dumps(told).replace(str(path), "PATH").replace(path.name, "NAME"))


def fetched(url: str, folder: Path) -> Path:
    result = Fetch(open_store(url), folder).run()
    assert result.damaged == []
    return result.path


def target(kind: str, tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}" if kind == "s3" else f"file://{tmp_path}/target"


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_finished_session_comes_back_as_it_was(kind, finished, in_bucket, tmp_path):
    url = target(kind, tmp_path)
    done = ship(finished, url, python=sys.executable)
    assert done.returncode == 0, done.stderr
    at = done.stdout.strip()
    assert at.startswith(f"{url}/") and "objects shipped" in done.stderr and "complete" in done.stderr
    before = len(in_bucket.requests)
    again = ship(finished, url, python=sys.executable)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert "0 objects shipped" in again.stderr
    assert not [each for each in in_bucket.requests[before:] if each.startswith("PUT")]
    listed = ship("--list", url, python=sys.executable).stdout.splitlines()
    assert len(listed) == 1 and listed[0].startswith(f"{at}\tcomplete\t")
    back = ship("--fetch", at, tmp_path / "back", python=sys.executable)
    assert back.returncode == 0, back.stderr
    path = Path(back.stdout.strip())
    assert tables(path) == tables(finished)
    assert report(path) == report(finished)
    theirs = content(finished)
    mine = content(path)
    assert {name for name in theirs if not name.startswith("records/")} == {name for name in mine if not name.startswith("records/")}
    assert all(mine[name] == theirs[name] for name in mine if not name.startswith(("records/", "session")))
    assert (path.stat().st_mode & 0o777) == 0o700
    shown = subprocess.run([PROGRAM, "report", "--text", path], capture_output=True, text=True, timeout=180)
    assert shown.returncode == 0 and "3 000 readable, 0 lost" in shown.stdout
    twice = ship("--fetch", at, tmp_path / "back", python=sys.executable)
    assert twice.returncode == 1 and "is there already" in one_sentence(twice.stderr)


def test_a_record_file_is_what_zcat_makes_of_its_objects(finished, tmp_path):
    """The format is open: no program of ours is needed to read an archive."""
    part = shipment(finished, tmp_path / "target")
    assert part.round().complete
    folder = tmp_path / "target" / part.folder
    (tmp_path / "session" / "records").mkdir(parents=True)
    (tmp_path / "session" / "session").write_bytes((folder / "session").read_bytes())
    for file in (folder / "records").iterdir():
        if file.is_dir():
            whole = subprocess.run(f"zcat {file}/0.header.gz {file}/[a-z]*.gz", shell=True, capture_output=True, check=True)
            (tmp_path / "session" / "records" / file.name).write_bytes(whole.stdout)
    assert tables(tmp_path / "session") == tables(finished)


def test_a_running_server_is_shipped_as_it_grows(tmp_path):
    with Growing(tmp_path / "sessions", "steps=10") as server:
        part = shipment(server.path, tmp_path / "target")
        first = part.round(last=True)
        assert not first.finished and not first.complete and first.shipped > 0
        before = tables(server.path)["sched_step"]["step"]
        early = tables(fetched(part.url, tmp_path / "early"))
        assert early.get("sched_step", {"step": []})["step"] == []  # nothing that a segment's writer is still in
        server.more(8)
        second = part.round(last=True)
        assert second.shipped > 0 and not second.complete
        middle = tables(fetched(part.url, tmp_path / "middle"))["sched_step"]["step"]
        now = tables(server.path)["sched_step"]["step"]
        assert len(middle) > 300 and middle == now[: len(middle)] and now[: len(before)] == before
        quiet = shipment(server.path, tmp_path / "target").round(last=True)
        assert quiet.shipped <= 1 and quiet.there > 3  # the header, where the totals went on
        server.end()
        last = part.round()
        assert last.complete and last.shipped > 0
        final = fetched(part.url, tmp_path / "final")
        assert tables(final) == tables(server.path)
        assert part.round().shipped == 0


def test_what_the_server_gave_up_stays_at_the_target(tmp_path):
    """Records have a ceiling; their copy has none."""
    with Growing(tmp_path / "sessions", "ceiling_mb=1", "steps=10") as server:
        part = shipment(server.path, tmp_path / "target")
        for _ in range(12):
            server.more(4)
            part.round(last=True)
        server.end()
        assert part.round().complete
        kept = tables(server.path)["sched_step"]["step"]
        shipped = tables(fetched(part.url, tmp_path / "back"))["sched_step"]["step"]
        assert kept[0] > 0 and len(shipped) > len(kept)
        assert shipped[-len(kept) :] == kept and shipped[0] == 0
        # A shipper that knows nothing of before takes over what is there.
        assert (shipment(server.path, tmp_path / "target").round().shipped) == 0


def test_watching_ends_with_the_session(tmp_path):
    with Growing(tmp_path / "sessions", "steps=10") as server:
        words = ["--watch", "--interval=0.2s", server.path, f"file://{tmp_path}/target"]
        command = [PROGRAM, "ship", "--python", sys.executable, *map(str, words)]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        server.more(8)
        until(lambda: len(list((tmp_path / "target").rglob("core.*.gz"))) >= 2, "no segment came")
        server.more(4)
        server.end()
        out, errors = watcher.communicate(timeout=180)
        assert watcher.returncode == 0, errors
        (manifest,) = (tmp_path / "target").rglob("manifest.json")
        assert json.loads(manifest.read_text())["complete"] is True
        assert out.strip() == f"file://{manifest.parent}"
        assert tables(fetched(out.strip(), tmp_path / "back")) == tables(server.path)


def test_watching_all_takes_new_sessions_and_looks_once_more_at_its_end(tmp_path):
    base, folder = tmp_path / "sessions", tmp_path / "target"
    make_session(base, "steps=5", "name=session_20261123_000001")
    command = [PROGRAM, "ship", "--python", sys.executable, "--all", "--watch", "--interval=0.2s", "--dir", base, f"file://{folder}"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    complete = lambda name: any(  # noqa: E731
        json.loads(path.read_text())["complete"] for path in folder.rglob(f"{name}-*/manifest.json")
    )
    until(lambda: complete("session_20261123_000001"), "the first did not come")
    make_session(base, "steps=5", "name=session_20261123_000002")
    until(lambda: complete("session_20261123_000002"), "the second did not come")
    with Growing(base, "steps=5", "name=session_20261123_000003") as server:
        until(lambda: list(folder.rglob("session_20261123_000003-*/session")), "the third did not come")
        server.more(6)
        watcher.send_signal(signal.SIGTERM)
        out, errors = watcher.communicate(timeout=180)
    assert watcher.returncode == 0, errors
    assert "session_20261123_000001" in out and "session_20261123_000002" in out
    assert len(list(folder.rglob("session_20261123_000003-*/records/*/core.*.gz"))) >= 2  # of the last look


def test_watching_is_bounded_in_time(tmp_path):
    with Growing(tmp_path / "sessions", "steps=5") as server:
        done = ship("--watch", "--interval=1d", "--for=0.1s", server.path, f"file://{tmp_path}/target", python=sys.executable)
    assert done.returncode == 0 and done.stdout.startswith("file://")


def test_hosts_and_servers_of_one_name_do_not_meet(tmp_path):
    """A name is a second of local time: a fleet has many of each."""
    folders = set()
    for number in range(3):
        session = make_session(tmp_path / str(number), "steps=5", "name=session_20261123_082501")
        part = shipment(session, tmp_path / "target")
        assert part.round().complete
        folders.add(part.folder)
    assert len(folders) == 3
    assert len(list((tmp_path / "target").rglob("manifest.json"))) == 3


def test_a_session_goes_only_when_its_copy_is_whole(tmp_path):
    base = tmp_path / "sessions"
    session = make_session(base, "steps=800")
    url = f"file://{tmp_path}/target"
    reference = tables(session)
    assert ship(session, url, python=sys.executable).returncode == 0
    assert session.exists(), "nothing goes unless it was asked for"
    (segment, *_) = sorted((tmp_path / "target").rglob("core.*.gz"))
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    segment.write_bytes(damaged)
    with Growing(base, "steps=5") as server:
        done = ship("--delete", session, server.path, url, python=sys.executable)
        assert done.returncode == 0, done.stderr
        assert "damaged or gone" in done.stderr and "removed here" in done.stderr
        assert not session.exists() and server.path.exists()
        assert [path.name for path in base.iterdir()] == [server.path.name]
    at = done.stdout.splitlines()[0]
    assert tables(fetched(at, tmp_path / "back")) == reference


def test_what_is_not_shipped_keeps_a_session(tmp_path):
    """A link leads elsewhere: it is not followed, and its session stays."""
    session = make_session(tmp_path / "sessions", "steps=5")
    secret = tmp_path / "secret"
    secret.write_text("not for the bucket")
    (session / "notes.txt").symlink_to(secret)
    (session / "records" / "p1-00000001.pmrec").symlink_to(secret)
    os.mkfifo(session / "pipe")
    done = ship("--delete", session, f"file://{tmp_path}/target", python=sys.executable)
    assert done.returncode == 1 and session.exists()
    assert "is not a file that is shipped" in one_sentence(done.stderr)
    assert not [name for name, data in content(tmp_path / "target").items() if b"not for" in data or "notes" in name]


def test_a_flipped_bit_at_the_target(tmp_path):
    session = make_session(tmp_path / "sessions", "steps=1500")
    reference = tables(session)["sched_step"]["step"]
    url = f"file://{tmp_path}/target"
    at = ship(session, url, python=sys.executable).stdout.strip()
    segment = sorted((tmp_path / "target").rglob("core.*.gz"))[1]
    whole = segment.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 3] ^= 1
    segment.write_bytes(damaged)
    got = ship("--fetch", at, tmp_path / "damaged", python=sys.executable)
    assert got.returncode == 1 and segment.name in one_sentence(got.stderr)
    steps = tables(Path(got.stdout.strip()))["sched_step"]["step"]
    assert 0 < len(steps) < len(reference) and set(steps) < set(reference), "the rest is there"
    # Where a bit is flipped is found by reading it back; as long as the source is there, it is shipped again.
    assert "0 objects shipped" in ship(session, url, python=sys.executable).stderr
    mended = ship("--verify", session, url, python=sys.executable)
    assert mended.returncode == 0 and "1 object shipped" in mended.stderr and segment.read_bytes() == whole
    # One that was cut off, and one that is gone, are seen by every run.
    segment.write_bytes(whole[:-1])
    sorted((tmp_path / "target").rglob("core.*.gz"))[2].unlink()
    assert "2 objects shipped" in ship(session, url, python=sys.executable).stderr
    assert tables(fetched(at, tmp_path / "back"))["sched_step"]["step"] == reference
    # Gone here, and damaged there: named, and no success.
    with Growing(tmp_path / "sessions", "ceiling_mb=1", "steps=10") as server:
        part = shipment(server.path, tmp_path / "lost")
        server.more(4)
        part.round(last=True)
        first = sorted((tmp_path / "lost").rglob("core.*.gz"))[0]
        server.more(40)
        part.round(last=True)
        server.end()
    first.write_bytes(b"no gzip")
    lost = ship(server.path, f"file://{tmp_path}/lost", python=sys.executable)
    assert lost.returncode == 1 and first.name in one_sentence(lost.stderr)


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_two_shippers_at_once(kind, finished, in_bucket, tmp_path):
    url = target(kind, tmp_path)
    command = [PROGRAM, "ship", "--python", sys.executable, finished, url]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        for _ in range(2)
    ]
    told = [each.communicate(timeout=300) for each in both]
    assert [each.returncode for each in both] == [0, 0], told
    assert told[0][0] == told[1][0]
    store = open_store(url)
    part = shipment(finished, store)
    assert part.round().shipped == 0 and part.verify(read_back=True) == []
    manifest = load_manifest(store, part.folder)
    assert manifest["complete"] is True
    assert set(manifest["objects"]) == {name[len(part.folder) :] for name, _ in store.list(part.folder)} - {"manifest.json"}
    assert tables(fetched(told[0][0].strip(), tmp_path / "back")) == tables(finished)


# ---- stores ----


def test_failures_of_the_store_on_the_way(finished, in_bucket, tmp_path):
    """Each request fails once, in turn by another way: what boto3 tries again arrives, and nothing is doubled."""
    seen: set[str] = set()
    ways = ["500", "503", "drop"]

    def fault(environ):
        what = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if what in seen or environ["REQUEST_METHOD"] == "GET":
            return None
        seen.add(what)
        return ways[len(seen) // 5 % 3] if len(seen) % 5 == 1 else None

    in_bucket.fault = fault
    part = shipment(finished, open_store(target("s3", tmp_path)))
    assert part.round().complete and len(seen) > 10
    in_bucket.fault = lambda environ: None
    assert tables(fetched(part.url, tmp_path / "back")) == tables(finished)


def test_a_store_without_checksums_is_read_back(in_bucket, tmp_path):
    session = make_session(tmp_path / "sessions", "steps=20")
    in_bucket.fault = lambda environ: "bare"
    store = open_store(target("s3", tmp_path))
    part = shipment(session, store)
    before = len(in_bucket.requests)
    assert part.round().complete
    assert store.stat(f"{part.folder}session")[1] is None
    gets = [each for each in in_bucket.requests[before:] if each.startswith("GET") and part.folder in each]
    assert len(gets) >= 4
    in_bucket.fault = lambda environ: "altered"
    with pytest.raises(StoreError, match="did not arrive as it was sent"):
        shipment(session, open_store(target("s3", tmp_path) + "/other")).round()


def test_secrets_are_in_no_message(in_bucket, tmp_path, capsys):
    session, url = make_session(tmp_path / "sessions", "steps=5"), target("s3", tmp_path)
    in_bucket.fault = lambda environ: "403"
    for words in ([f"target={url}", f"session={session}"], [f"list={url}"], [f"fetch={url}", f"out={tmp_path}"]):
        assert main(words) == 1
        told = capsys.readouterr()
        sentence = one_sentence(told.err)
        assert ("AccessDenied" in sentence or "403" in sentence) and s3_secrets(told.out + told.err) == []
    for url in ("s3://key:word@bucket/x", "s3://bucket/x?X-Amz-Signature=abc", "file://user:word@/tmp/x"):
        assert main([f"target={url}", f"session={session}"]) == 1
        told = capsys.readouterr().err
        assert "do not belong into the address" in one_sentence(told) and "word" not in told and "abc" not in told
    nobody = ship(session, "s3://bucket/x", python=sys.executable, env={"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
                  "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_EC2_METADATA_DISABLED": "true"})  # fmt: skip
    assert nobody.returncode == 1 and "there are no credentials for s3://bucket/x" in one_sentence(nobody.stderr)


def s3_secrets(text: str) -> list[str]:
    from shipping import KEY, SECRET, TOKEN

    return [each for each in (KEY, SECRET, TOKEN) if each in text]


def test_nothing_there_is_one_sentence(in_bucket, tmp_path, capsys):
    session = make_session(tmp_path / "sessions", "steps=5")
    for words, why in (
        (["target=s3://no-such-bucket/x", f"session={session}"], "NoSuchBucket"),
        ([f"fetch=s3://{BUCKET}/nothing", f"out={tmp_path}"], "holds no session"),
        ([f"fetch=file://{tmp_path}/nothing", f"out={tmp_path}"], "holds no session"),
    ):
        assert main(words) == 1
        assert why in one_sentence(capsys.readouterr().err)


def test_an_object_that_leads_elsewhere_is_refused(tmp_path):
    class Hostile(FileStore):
        def list(self, prefix):
            return iter([("session", 1), ("../../outside", 1)])

    with pytest.raises(StoreError, match="leads elsewhere"):
        Fetch(Hostile(tmp_path), tmp_path / "out").run()
    assert [each.name for each in tmp_path.iterdir()] == []


def test_what_python_lacks_is_said(tmp_path):
    session = make_session(tmp_path / "sessions", "steps=5")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=180)
    bare = tmp_path / "bare" / "bin" / "python"  # whatever else this machine's interpreters have
    done = ship(session, "s3://bucket/x", python=bare)
    assert done.returncode == 1 and "pip install 'profilemate[ship]'" in one_sentence(done.stderr)
    folder = ship(session, f"file://{tmp_path}/target", python=bare)  # a folder needs nothing
    assert folder.returncode == 0, folder.stderr
    without = ship(session, f"file://{tmp_path}/target", python=bare, env={"PYTHONPATH": ""})
    assert without.returncode == 1
    assert "`profilemate ship` needs the Python package profilemate in" in one_sentence(without.stderr)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("session_x",), "is no target"),
        (("--fetch", "s3://b/p"), "a folder"),
        (("--fetch", "--list", "s3://b"), "give one"),
        (("--all", "session_x", "s3://b"), "no session"),
        (("--interval=3s", "s3://b"), "belongs to --watch"),
        (("--watch", "--interval=soon", "s3://b"), "is no time"),
        (("--list", "--delete", "s3://b"), "goes with none"),
    ],
)
def test_misuse(words, told):
    done = ship(*words, python=sys.executable)
    assert done.returncode == 2 and told in done.stderr.splitlines()[0]


def test_a_big_object_is_refused_before_it_is_sent(in_bucket):
    with pytest.raises(StoreError, match="5 TiB"):
        S3Store(BUCKET, "x").put("big", 0, (5 << 40) + 1, "00")


# ---- parts ----

PART = 5 << 20  # the least that a store takes, of all but the last


def uploads(s3) -> list[dict]:
    return s3.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])


def test_a_large_file_goes_in_parts(finished, in_bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(_shipstore, "PART_BYTES", PART)
    before = len(in_bucket.requests)
    part = shipment(finished, open_store(target("s3", tmp_path)))
    assert part.round().complete and uploads(in_bucket) == []
    asked = in_bucket.requests[before:]
    assert sum(each.startswith("PUT") and each.endswith("trace.json") for each in asked) == 2
    assert (fetched(part.url, tmp_path / "back") / "trace.json").read_bytes() == (finished / "trace.json").read_bytes()
    again = shipment(finished, open_store(target("s3", tmp_path)))
    assert again.round().shipped == 0 and again.verify(read_back=True) == [] and again.is_all_there() is None


def test_parts_that_are_broken_off_anywhere(in_bucket, tmp_path, monkeypatch):
    """Each request of it fails for good: no object, no parts that stay, and another try succeeds."""
    monkeypatch.setattr(_shipstore, "PART_BYTES", PART)
    data = os.urandom(4 * PART + 17)
    meant = len(data), hashlib.sha256(data).hexdigest()
    number = failed = 0
    while True:
        key, count, lock = f"big-{number}", itertools.count(), threading.Lock()

        def fault(environ, key=key, count=count, lock=lock, number=number):
            if not environ["PATH_INFO"].endswith(key) or environ["REQUEST_METHOD"] not in ("POST", "PUT"):
                return None
            with lock:
                return "403" if next(count) == number else None

        in_bucket.fault = fault
        store = open_store(f"s3://{BUCKET}/{tmp_path.name}")
        try:
            store.put(key, data, *meant)
        except StoreError as error:
            failed += 1
            assert "AccessDenied" in str(error) and store.stat(key) is None
            store.put(key, data, *meant)
        in_bucket.fault = lambda environ: None
        assert _shipstore.same(store, key, *meant, read_back=True) and uploads(in_bucket) == []
        number += 1
        if next(count) < number:
            break
    assert failed == 7  # begin, five parts, complete


def test_a_part_that_is_spoilt_on_the_way(in_bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(_shipstore, "PART_BYTES", PART)
    data = os.urandom(2 * PART)
    in_bucket.fault = lambda environ: "altered"
    with pytest.raises(StoreError, match="did not arrive as it was sent"):
        open_store(f"s3://{BUCKET}/{tmp_path.name}").put("big", data, len(data), hashlib.sha256(data).hexdigest())


def test_parts_of_a_killed_shipper_go_in_time(in_bucket, tmp_path):
    key = f"{tmp_path.name}/big"
    upload = in_bucket.client().create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    in_bucket.client().upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"half")
    store = open_store(f"s3://{BUCKET}/{tmp_path.name}")
    assert store.drop_stale("", older_s=1e12) == 0 and len(uploads(in_bucket)) == 1, "it may be on its way still"
    assert list(store.list("")) == [] and uploads(in_bucket) == []  # this server says of each that it began in 2010


def test_segments_go_several_at_once(finished, in_bucket, tmp_path):
    """One waits in the store until another has come: alone it would wait for ever. One that fails is told, after the others."""
    together = threading.Barrier(2)
    waited = itertools.count()

    def fault(environ):
        if environ["REQUEST_METHOD"] == "PUT" and "core." in environ["PATH_INFO"] and next(waited) < 2:
            together.wait(180)

    in_bucket.fault = fault
    part = shipment(finished, open_store(target("s3", tmp_path)))
    assert part.round().complete
    in_bucket.fault = lambda environ: "403" if environ["PATH_INFO"].endswith("core.00000001.gz") else None
    broken = shipment(finished, open_store(target("s3", tmp_path) + "/broken"))
    with pytest.raises(StoreError, match="AccessDenied"):
        broken.round()
    in_bucket.fault = lambda environ: None
    assert broken.round().complete
    assert tables(fetched(broken.url, tmp_path / "back")) == tables(finished)
