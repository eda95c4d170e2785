"""WHIP: a real peer (aiortc) at the other end takes the stream, and every way in which it can fail is told."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from streamer.errors import ConfigError
from streamer.media import push as pushing
from streamer.media.push import Push, check_push
from streamer.media.whip_process import Track, endpoint_of
from streamer.proof.scene import cameras, frames, run_until, shows_face, watched
from tests.live.test_sound import stream_of, write_flashes


@dataclass
class Server:
    """A WHIP endpoint that decodes what it is sent."""

    url: str = ""
    status: int = 201
    answer: str | None = None  # instead of a real one
    kinds: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # Authorization of the requests
    pictures: int = 0
    heard: int = 0  # samples that are not silence
    leaks: int = 0
    deleted: int = 0


async def _take(peer: RTCPeerConnection, server: Server, offer: str) -> str:
    @peer.on("track")
    def taken(track: Any) -> None:
        server.kinds.append(track.kind)

        async def read() -> None:
            while True:
                try:
                    frame = await track.recv()
                except MediaStreamError:
                    return
                if isinstance(frame, av.VideoFrame):
                    server.pictures += 1
                    server.leaks += shows_face(frame.to_ndarray(format="gray"))
                else:
                    server.heard += int((abs(frame.to_ndarray()) > 1000).sum())

        track.reader = asyncio.ensure_future(read())

    await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await peer.setLocalDescription(await peer.createAnswer())
    return str(peer.localDescription.sdp)


@contextmanager
def serving(port: int = 0, **values: Any) -> Iterator[Server]:
    server, loop, peers = Server(**values), asyncio.new_event_loop(), list[RTCPeerConnection]()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def call(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    async def answer_to(offer: str) -> str:
        peers.append(RTCPeerConnection(RTCConfiguration(iceServers=[])))
        return await _take(peers[-1], server, offer)

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
            server.keys.append(self.headers.get("Authorization", ""))
            body = (server.answer or call(answer_to(offer))) if server.status == 201 else ""
            self.send_response(server.status)
            self.send_header("Location", "session/1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_DELETE(self) -> None:
            server.deleted += self.path == "/front/session/1"
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", port), Endpoint)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server.url = f"whip://:hunter22@127.0.0.1:{http.server_port}/front/whip"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        for peer in peers:
            call(peer.close())
        loop.call_soon_threadsafe(loop.stop)


def test_a_peer_gets_covered_pictures_the_key_and_a_goodbye() -> None:
    with serving() as server:
        stream, judge = watched(cameras([lambda: frames(rate=25)]))
        push = Push(server.url, want_key=stream.want_key)
        stream.add(push)
        run_until(stream, lambda: server.pictures > 50, 40)
        deadline = time.monotonic() + 5
        while not server.deleted and time.monotonic() < deadline:
            time.sleep(0.05)
    judge.verdict()
    assert judge.longest_silence_s < 0.6
    assert (server.leaks, server.kinds, server.deleted) == (0, ["video"], 1)
    assert server.keys == ["Bearer hunter22"]
    assert push.counters()["connects"] == 1
    assert "hunter22" not in f"{push.name} {push.counters()}"


def test_kept_sound_goes_along_as_opus(tmp_path: Path) -> None:
    clip = write_flashes(tmp_path / "clip.ts", seconds=12)
    with serving() as server:
        stream, judge = stream_of(clip, audio="keep")
        stream.add(Push(server.url, want_key=stream.want_key, has_sound=stream.has_sound))
        run_until(stream, lambda: server.pictures > 40 and server.heard > 1000, 40)
    judge.verdict()
    assert sorted(server.kinds) == ["audio", "video"]
    assert server.pictures > 40
    assert server.heard > 1000


def test_a_server_that_dies_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "_DELAYS_S", (0.3,))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    stream, judge = watched(cameras([lambda: frames(rate=25)]))
    push = Push(f"whip://127.0.0.1:{port}/front/whip", want_key=stream.want_key)
    stream.add(push)
    stream.start()
    try:
        for _ in range(2):
            with serving(port) as server:
                deadline = time.monotonic() + 40
                while server.pictures < 20 and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert server.pictures >= 20
                assert server.leaks == 0
    finally:
        stream.stop(wait_s=10)
    judge.verdict()
    assert int(push.counters()["connects"]) >= 2


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"status": 401}, "the WHIP endpoint answers 401"),
        ({"status": 307}, "the WHIP endpoint answers 307"),
        ({"answer": "v=nonsense"}, "answer is not understood"),
    ],
)
def test_what_a_server_says_no_with_is_told(
    values: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "_DELAYS_S", (0.3,))
    with serving(**values) as server:
        stream, judge = watched(cameras([frames]))
        push = Push(server.url, want_key=stream.want_key)
        stream.add(push)
        run_until(stream, lambda: int(push.counters()["failures"]) > 0, 30)
    judge.verdict()
    assert problem in str(push.counters()["problem"])
    assert "hunter22" not in str(push.counters())


@pytest.mark.parametrize(
    ("url", "endpoint", "key"),
    [
        ("whip://h/a", "http://h/a", ""),
        ("whips://h:8889/a?x=1", "https://h:8889/a?x=1", ""),
        ("https://token@h/a", "https://h/a", "Bearer token"),
        ("http://me:p%40ss@h/a", "http://h/a", "Basic bWU6cEBzcw=="),
    ],
)
def test_where_it_goes_and_with_which_key(url: str, endpoint: str, key: str) -> None:
    check_push(url)
    assert endpoint_of(url) == (endpoint, {"Authorization": key} if key else {})


def test_without_the_extra_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="extra serve") as caught:
        check_push("whip://:hunter22@h/a")
    assert "hunter22" not in str(caught.value)


def test_a_network_that_takes_nothing_costs_pictures_up_to_the_next_key() -> None:
    async def run() -> list[bool]:
        track = Track("video")
        return [track.put(av.Packet(b"x"), key=index % 50 == 0) for index in range(110)]

    taken = asyncio.run(run())
    assert taken[:60] == [True] * 60
    assert taken[60:100] == [False] * 40
    assert taken[100:] == [True] * 10
