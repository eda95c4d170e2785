"""Clients that take their time with a request."""

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import uvicorn

from streamer.cli import web
from streamer.server import heads, rooms
from streamer.server.heads import TimedHeads
from tests.server.live_serving import serving

HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def silent(client: socket.socket) -> None:
    """It connects and says nothing."""


def slow(client: socket.socket) -> None:
    for byte in HEAD * 20:
        client.sendall(bytes([byte]))
        time.sleep(0.05)


def slow_the_second_time(client: socket.socket) -> None:
    client.sendall(HEAD + b"\r\n")
    assert client.recv(4096).startswith(b"HTTP/1.1 200")
    slow(client)


@pytest.mark.parametrize("behave", [silent, slow, slow_the_second_time])
def test_a_head_that_does_not_arrive_is_not_waited_for(
    behave: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "_HEAD_S", 0.5)
    with serving({}) as served, socket.create_connection(("127.0.0.1", urlsplit(served.url).port)) as client:
        client.settimeout(3)
        begun_s = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe"):
            behave(client)
            raise ConnectionResetError("reset" if client.recv(1) == b"" else "answered")
        assert 0.4 < time.monotonic() - begun_s < 3


def test_a_request_may_take_longer_than_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_HEAD_S", 0.3)
    with serving({}) as served, socket.create_connection(("127.0.0.1", urlsplit(served.url).port)) as client:
        client.sendall(b"PUT /v1/streams/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(0.8)
        client.sendall(b"}")
        assert client.recv(4096).startswith(b"HTTP/1.1 400")


def test_a_body_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_BODY_S", 0.3)
    with serving({}) as served, socket.create_connection(("127.0.0.1", urlsplit(served.url).port)) as client:
        client.settimeout(3)
        client.sendall(b"PUT /v1/streams/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        assert client.recv(4096).startswith(b"HTTP/1.1 400")


def test_the_command_serves_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: seen.append(self.config.http))

    monkeypatch.setattr(web, "on_hang_up", lambda _: None)
    monkeypatch.setattr(web, "_log_to_stderr", lambda: None)

    async def app(scope: object, receive: object, send: object) -> None:
        """Never asked."""

    with web.listen("127.0.0.1", 0) as listener:
        web.run(app, listener)
    assert seen == [TimedHeads]
