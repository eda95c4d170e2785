"""The live streams as the web application sees them: who runs, who watches, and small things all routes share."""

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from streamer.errors import ConfigError, StreamerError
from streamer.live.fleet import Fleet
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream
from streamer.media.webrtc import Room, RoomLimits
from streamer.server.prefix import check_names

LOG = logging.getLogger("streamer.live")
NO_STORE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_MOST_BODY = 64 << 10  # of an SDP or of settings
_BODY_S = 20.0  # until it must be there


class Rooms:
    """The viewers of every stream that WebRTC may show. Belongs to one event loop."""

    def __init__(self, limits: RoomLimits) -> None:
        self._limits = limits
        self._rooms: dict[LiveStream, Room] = {}

    def open(self, stream: LiveStream) -> None:
        """A room for a stream that is about to start, unless it wants none; on the event loop."""
        if stream.settings.webrtc:
            room = Room(want_key=stream.want_key, limits=self._limits, has_sound=stream.has_sound)
            stream.wants_opus = lambda: room.wants("opus")
            stream.side.wanted = lambda: room.wants("vp8")
            stream.add(room)
            self._rooms[stream] = room

    @property
    def links(self) -> tuple[str, ...]:
        """The `Link` headers that tell viewers of servers which help them to connect."""
        return tuple(server.link for server in self._limits.ice_servers)

    def of(self, stream: LiveStream | None) -> Room | None:
        """The room of a stream."""
        return self._rooms.get(stream) if stream is not None else None

    async def forget_stopped(self, running: list[LiveStream]) -> None:
        """Say goodbye to the viewers of streams that are gone."""
        gone = [stream for stream in self._rooms if stream not in running]
        await asyncio.gather(*(self._rooms.pop(stream).leave_all() for stream in gone))


class Streams:
    """The streams as the web application sees them: changes run on threads, rooms on the event loop."""

    def __init__(
        self,
        fleet: Fleet,
        limits: RoomLimits | None = None,
        folders: tuple[Path, ...] = (),
        *,
        prefix: str = "",
    ) -> None:
        """`folders`: where requests may make streams play files and put recordings; nowhere else. `prefix`: the path
        below which all is served, like which no stream may be called.
        """
        self.fleet = fleet
        self.folders = tuple(folder.resolve() for folder in folders)
        self._prefix = prefix
        self.rooms = Rooms(limits or RoomLimits())
        self._loop: asyncio.AbstractEventLoop | None = None

    async def begin(self, wanted: Mapping[str, StreamSettings]) -> None:
        """Start the streams that are configured; one that cannot start is logged and hinders no other."""
        self._loop = asyncio.get_running_loop()
        self.fleet.prepare = self._prepare
        for name, settings in wanted.items():
            try:
                await self.put(name, settings)
            except StreamerError as error:
                LOG.error(json.dumps({"event": "not started", "name": name, "problem": str(error)}))

    def _prepare(self, stream: LiveStream) -> None:
        assert self._loop is not None

        async def open_room() -> None:
            self.rooms.open(stream)

        asyncio.run_coroutine_threadsafe(open_room(), self._loop).result(10)

    async def put(self, name: str, settings: StreamSettings) -> None:
        """Add or change a stream. Raises ConfigError or OutputError."""
        check_names([name], self._prefix)
        await asyncio.to_thread(self.fleet.put, name, settings)
        await self.rooms.forget_stopped(list(self.fleet))

    async def remove(self, name: str) -> None:
        """Stop and forget a stream. Raises ConfigError."""
        await asyncio.to_thread(self.fleet.remove, name)
        await self.rooms.forget_stopped(list(self.fleet))

    async def end(self) -> None:
        """Stop everything: viewers are told, recordings are closed."""
        await self.rooms.forget_stopped([])
        await asyncio.to_thread(self.fleet.stop)


def failure(code: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """An error as JSON, in the shape that WHEP servers use."""
    return JSONResponse({"status": "error", "error": text}, code, headers=headers)


async def body_of(request: Request) -> bytes:
    """The request's body. Raises ConfigError if it is too large or does not come."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > _MOST_BODY:
                    raise ConfigError(f"the body is larger than {_MOST_BODY} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise ConfigError(f"the body took longer than {_BODY_S:g} s") from error
    return b"".join(parts)
