"""A real server with live streams, on a thread of the test, and viewers that speak WHEP to it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from streamer.live.fleet import Fleet
from streamer.live.settings import StreamSettings
from streamer.media.ice import IceServer
from streamer.media.webrtc import RoomLimits
from streamer.proof.scene import studio
from streamer.proof.viewers import Viewer
from streamer.server.heads import TimedHeads
from streamer.server.keys import Keys
from streamer.server.live import create_live_app
from streamer.server.rooms import Streams

SDP = {"Content-Type": "application/sdp"}


@dataclass(frozen=True)
class Served:
    url: str
    streams: Streams
    http: httpx.Client

    def wait(self, done: Callable[[], Any], timeout_s: float = 30) -> Any:
        """What `done` returns, once that is true."""
        until = time.monotonic() + timeout_s
        while not (value := done()):
            assert time.monotonic() < until, self.http.get("/v1/streams").text
            time.sleep(0.05)
        return value

    def wait_live(self, name: str = "camera") -> None:
        self.wait(lambda: (stream := self.streams.fleet.get(name)) and stream.meter.frames_out > 3)


@contextmanager
def serving(
    streams: dict[str, dict[str, Any]],
    *,
    keys: Keys = Keys(),
    folders: tuple[Path, ...] = (),
    viewers: int = 100,
    ice_servers: tuple[IceServer, ...] = (),
    port: int = 0,
    prefix: str = "",
) -> Iterator[Served]:
    """The server with these streams, whose detector always finds the scene's face."""
    made = Streams(Fleet(studio()), RoomLimits(viewers, ice_servers), folders, prefix=prefix)
    wanted = {name: StreamSettings(**values) for name, values in streams.items()}
    app = create_live_app(made, wanted, keys, prefix=prefix)
    options = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1, http=TimedHeads)
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield Served(url, made, client)
    finally:
        app.state.stopping = True
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


class Watcher(Viewer):
    """One WHEP viewer of aiortc's that asks by HTTP."""

    def __init__(self, whep: str, headers: dict[str, str] | None = None, *, idle: bool = False) -> None:
        super().__init__(idle=idle)
        self.whep = whep
        self.headers = {**SDP, **(headers or {})}
        self.location = ""

    async def join(self, client: httpx.AsyncClient) -> httpx.Response:
        answer = await client.post(self.whep, content=await self.offer(), headers=self.headers)
        if answer.status_code == 201:
            self.location = answer.headers["location"]
            await self.take(answer.text)
        return answer
