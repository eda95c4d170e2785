import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from streamer.errors import InputError, RefusedError, TooLargeError, UnreachableError
from streamer.image.fetch import fetch, is_public
from streamer.image.limits import ImageLimits

LIMITS = ImageLimits(max_bytes=1000, fetch_s=2.0, max_redirects=2)


def only_this_server(address: object) -> bool:
    return str(address) == "127.0.0.1"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that lets `answer` say whatever it wants on each connection; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    try:
                        line.recv(65536)
                        answer(line)
                    except OSError:
                        continue

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            worker.join(5)


def says(text: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    return lambda line: line.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)


def test_a_body_is_fetched() -> None:
    with server(says("HTTP/1.1 200 OK\nContent-Length: 3", b"abc")) as url:
        assert fetch(f"{url}/x y.jpg?a=ü".replace(" ", "%20"), LIMITS, permit=only_this_server) == b"abc"
    with server(says("HTTP/1.1 200 OK\nConnection: close", b"abc")) as url:
        assert fetch(url, LIMITS, permit=only_this_server) == b"abc"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:192.168.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1",
        "fec0::1", "::ffff:0:7f00:1", "5f00::1", "64:ff9b:1::1", "::ffff:169.254.169.254", "fd00:ec2::254",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_internet(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_this_machine_is_refused_under_every_name(host: str) -> None:
    with pytest.raises((RefusedError, UnreachableError)) as refused:
        fetch(f"http://{host}:9/", LIMITS)
    assert isinstance(refused.value, RefusedError) or "not known" in str(refused.value)
    assert host not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org/a", "gopher://example.org", "http://", "http:///a",
        "http://user:secret@example.org/", "http://example.org:99999/", "http://[::1", "http://a b/",
        "http://example.org/\r\nX: y", "HTTP://example.org:0/", "//example.org/a", "",
    ],
)  # fmt: skip
def test_urls_that_are_refused_without_asking_anybody(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(RefusedError) as refused:
        fetch(url, LIMITS)
    assert "secret" not in str(refused.value)


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(RefusedError):
        fetch("http://example.org/", LIMITS)


def test_the_checked_address_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(0, 0, 0, "", ("93.184.216.34", port))]

    used = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        used.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(UnreachableError):
        fetch("http://rebinding.example/", LIMITS)
    assert (asked, used) == (["rebinding.example"], [("93.184.216.34", 80)])


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2/", "http://169.254.169.254/latest", "file:///etc/passwd"]
)
def test_a_redirect_into_the_private_network_is_refused(target: str) -> None:
    with (
        server(says(f"HTTP/1.1 302 Found\nLocation: {target}")) as url,
        pytest.raises(RefusedError),
    ):
        fetch(url, LIMITS, permit=only_this_server)


def test_a_redirect_to_a_name_with_spaces_and_accents_is_followed() -> None:
    asked = []

    def answer(line: socket.socket) -> None:
        asked.append(True)
        if len(asked) > 1:
            return says("HTTP/1.1 200 OK", b"abc")(line)
        return says("HTTP/1.1 302 Found\nLocation: /Bürö 1 %C3%A0.jpg?a=ü#[x]")(line)

    with server(answer) as url:
        assert fetch(url, LIMITS, permit=only_this_server) == b"abc"


def test_redirects_are_followed_but_not_forever() -> None:
    with server(says("HTTP/1.1 200 OK", b"abc")) as end:
        with server(says(f"HTTP/1.1 307 x\nLocation: {end}/a")) as start:
            assert fetch(start, LIMITS, permit=only_this_server) == b"abc"
    with (
        server(says("HTTP/1.1 302 Found\nLocation: /again")) as url,
        pytest.raises(UnreachableError, match="redirects"),
    ):
        fetch(url, LIMITS, permit=only_this_server)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.1 200 OK\nContent-Length: 5000", b""),
        ("HTTP/1.1 200 OK\nConnection: close", b"x" * 5000),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n"),
    ],
)
def test_large_bodies_are_refused(head: str, body: bytes) -> None:
    with server(says(head, body)) as url, pytest.raises(TooLargeError):
        fetch(url, LIMITS, permit=only_this_server)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.1 404 Not Found\nContent-Length: 0", b""),
        ("HTTP/1.1 200 OK\nContent-Length: 10", b"short"),
        ("SSH-2.0-OpenSSH", b""),
        ("HTTP/1.1 200 OK\n" + "X: y\n" * 500, b""),
    ],
)
def test_answers_without_a_picture(head: str, body: bytes) -> None:
    with server(says(head, body)) as url, pytest.raises(UnreachableError) as refused:
        fetch(url, LIMITS, permit=only_this_server)
    assert "127.0.0.1" not in str(refused.value)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"])
def test_one_deadline_ends_a_server_that_drips(start: bytes) -> None:
    def drip(line: socket.socket) -> None:
        line.sendall(start)
        for _ in range(100):
            line.sendall(b"x")
            time.sleep(0.05)

    began = time.monotonic()
    limits = LIMITS.model_copy(update={"fetch_s": 0.3})
    with server(drip) as url, pytest.raises(UnreachableError, match=r"longer|slow"):
        fetch(url, limits, permit=only_this_server)
    assert time.monotonic() - began < 8


def test_the_deadline_holds_for_the_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(8) and [])
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="in time"):
        fetch("http://slow.example/", LIMITS.model_copy(update={"fetch_s": 0.3}))
    assert time.monotonic() - began < 4
    released.set()


def test_urls_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(RefusedError, match="not fetched"):
        fetch("http://example.org/", LIMITS.model_copy(update={"urls": False}))


def test_private_urls_are_fetched_where_the_limits_allow_it() -> None:
    with server(says("HTTP/1.1 200 OK", b"abc")) as url:
        assert fetch(url, LIMITS.model_copy(update={"private_urls": True})) == b"abc"
        with pytest.raises(InputError):
            fetch(url, LIMITS)
