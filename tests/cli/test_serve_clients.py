"""What clients can do to `profilemate serve`: a thousand of them, slow ones, ones that send what is no request. It goes on
answering, and holds no more descriptors and memory afterwards than before."""

import re
import resource
import select
import socket
import struct

import pytest
from patience import until
from program import PROGRAM
from served import Served
from test_serve import can_serve, engine, serve  # noqa: F401: fixtures

CROWD = 1000  # as many listeners as it takes
SANITIZED = b"__asan_init" in PROGRAM.read_bytes()


@pytest.fixture
def target(cli, serve, engine) -> Served:  # noqa: F811
    engine().obey("steps 50")
    served = serve("--dir", cli.sessions)
    until(served.sessions)
    return served


def settled(served: Served) -> tuple[int, int]:
    """Descriptors and kilobytes once it has seen that its clients are gone."""
    until(lambda: served.sockets() == 1, "it keeps connections")
    return served.descriptors(), served.resident_kb()


def request(path: bytes = b"/metrics", *headers: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join((method + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *headers, b"", b""))


HOSTILE = {
    "nothing": b"\r\n\r\n",
    "no request": b"hello\r\n\r\n",
    "zeros": bytes(5000),
    "every byte": bytes(range(256)) * 8,
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\xaa" * 200,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a long method": b"A" * 30000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long path": request(b"/" + b"a" * 30000),
    "a long path that fits": request(b"/" + b"a" * 3000),
    "a long query": request(b"/metrics?" + b"a=b&" * 1000),
    "a long header": request(b"/metrics", b"X: " + b"y" * 40000),
    "many headers": request(b"/metrics", *(b"X-%d: y" % i for i in range(3000))),
    "a header without a colon": request(b"/metrics", b"nonsense"),
    "no host": b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": request(b"/metrics", b"Host: other"),
    "an empty host": b"GET /metrics HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
    "another host": b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "up": request(b"/../../../../etc/passwd"),
    "up, encoded": request(b"/%2e%2e/%2e%2e/etc/passwd"),
    "up behind a session": request(b"/api/sessions/../../etc/passwd"),
    "a zero in the path": request(b"/metrics%00"),
    "an absolute address": request(b"http://evil.example/metrics"),
    "a body": request(b"/metrics", b"Content-Length: 5") + b"hello",
    "a huge body": request(b"/metrics", b"Content-Length: 99999999999") + b"x" * 100000,
    "an endless body": request(b"/metrics", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n" * 100,
    "a length that is none": request(b"/metrics", b"Content-Length: -1"),
    "two lengths": request(b"/metrics", b"Content-Length: 0", b"Content-Length: 5"),
    "both": request(b"/metrics", b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"abc",
    "a post": request(b"/metrics", b"Content-Length: 3", method=b"POST") + b"abc",
    "connect": b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a request behind another": request(b"/healthz").replace(b"Connection: close\r\n", b"") + request(b"/nothing"),
    "HTTP/1.0": b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "HTTP/9.9": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a range": request(b"/metrics", b"Range: bytes=0-99999999999"),
    "expects": request(b"/metrics", b"Expect: 100-continue", b"Content-Length: 10"),
}
SERVED = {"HTTP/1.0", "a request behind another", "a range"}


def test_what_is_no_request_gets_nothing(target):
    before = settled(target)
    for _ in range(2):
        for name, data in HOSTILE.items():
            connection = target.send(b"")
            try:
                connection.sendall(data)
                if name not in SERVED:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has hung up already
            answer = b""
            connection.settimeout(120 if name in SERVED else 0.3)  # some are waited for until they are idle for too long
            try:
                while block := connection.recv(65536):
                    answer += block
            except OSError:
                pass
            # A reset: what had only half ended would be kept for as long as a connection may be idle.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            status = re.match(rb"HTTP/1\.[01] (\d+)", answer)
            if name in SERVED:
                assert status and status[1] == b"200", (name, answer[:200])
            else:
                assert not status or status[1][:1] in b"45", (name, answer[:200])
            assert (b"root:" not in answer and b"profilemate_steps" not in answer) or name in SERVED, name
    after = settled(target)
    assert after[0] == before[0]
    assert target.end() == (0, "")


def test_clients_that_say_no_more(target):
    """Half a request, byte by byte, or nothing at all: others are answered meanwhile."""
    silent = [target.send(b"") for _ in range(50)] + [target.send(b"GET /metr") for _ in range(50)]
    drip = target.send(b"")
    for byte in request(b"/healthz"):
        drip.sendall(bytes([byte]))
        assert target.ask("/healthz")[0] == 200
    assert b"200 OK" in drip.recv(4096)
    assert target.end() == (0, "")
    for connection in (*silent, drip):
        connection.close()


@pytest.fixture
def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 300
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may have {hard} descriptors here, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted) if soft != resource.RLIM_INFINITY else soft, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read_all(listeners: list[socket.socket], enough) -> dict[socket.socket, bytes]:
    """Reads from all of them until each has enough."""
    got = dict.fromkeys(listeners, b"")
    poll = select.poll()
    by_number = {each.fileno(): each for each in listeners}
    for number in by_number:
        poll.register(number, select.POLLIN)
    waiting = set(by_number)
    while waiting:
        ready = poll.poll(120_000)
        assert ready, f"{len(waiting)} of {len(listeners)} get nothing"
        for number, _ in ready:
            block = by_number[number].recv(65536)
            assert block, got[by_number[number]][-200:]
            got[by_number[number]] = (got[by_number[number]] + block)[-20000:]
            if enough(got[by_number[number]]):
                waiting.discard(number)
                poll.unregister(number)
    return got


def test_a_thousand_listeners(target, descriptors):
    """Twice: the second thousand finds what the first has left behind, which is nothing."""
    figures = []
    for _ in range(2):
        settled(target)
        listeners = [target.send(request(b"/events")) for _ in range(CROWD)]
        read_all(listeners, lambda got: got.count(b"event: state") >= 2)
        status, headers, body = target.ask("/events")
        assert status == 503 and headers["retry-after"], "one more than it takes"
        assert re.search(rb"^profilemate_serve_listeners 1000$", target.get("/metrics"), re.M)
        assert target.sockets() > CROWD
        for connection in listeners:
            connection.close()
        figures.append(settled(target))
    assert figures[0][0] == figures[1][0]
    assert figures[1][1] < figures[0][1] * 1.1 + 2000 or SANITIZED, figures
    assert target.end() == (0, "")


def test_readers_that_do_not_read(cli, serve, engine):  # noqa: F811
    """Each gets what fits its socket; then it is let go, and holds nothing."""
    for n in range(4):
        engine(f"session_20261123_10101{n}").obey("steps 50")
    served = serve("--dir", cli.sessions)
    until(lambda: len(served.sessions()) == 4)
    slow = []
    for _ in range(20):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", served.port))
        connection.sendall(request(b"/events"))
        slow.append(connection)
    # Somebody reads on meanwhile, and the slow ones are gone in the end.
    events = served.listen()
    numbers = [events.next()[0] for _ in range(3)]
    assert numbers == sorted(set(numbers))
    pattern = re.compile(rb"^profilemate_serve_listeners 1$", re.M)
    while not pattern.search(served.get("/metrics")):
        assert len(numbers) < 120, "they are kept"
        numbers.append(events.next()[0])
    assert numbers == sorted(set(numbers))
    for connection in slow:
        connection.close()
    events.close()
    assert served.end() == (0, "")


def test_it_may_be_asked_for_reports_by_many(target):
    name = target.sessions()[0]["id"]
    connections = [target.send(request(b"/api/sessions/%s/report" % name.encode())) for _ in range(100)]
    bodies = set()
    for connection in connections:
        got = b""
        while block := connection.recv(1 << 20):
            got += block
        connection.close()
        assert got.startswith(b"HTTP/1.1 200 OK")
        bodies.add(got.partition(b"\r\n\r\n")[2])
    assert 1 <= len(bodies) <= 100
    assert target.end() == (0, "")
