"""HLS over HTTP: the playlist and the segments that a stream holds in memory.

# Note [Playlists that are not there yet]
Players end for good at a playlist that is missing once (ffmpeg at any failure, hls.js at 4xx). So one that is about to
come, as while its stream begins anew, is waited for, less long than players wait for an answer.
"""

import asyncio
import time

from fastapi import APIRouter, Request, Response

from streamer.media.hls import Hls
from streamer.server.rooms import NO_STORE, Streams, failure

_WAIT_S = 8.0  # see Note [Playlists that are not there yet]
_POLL_S = 0.1


def router(streams: Streams) -> APIRouter:
    """`/NAME/index.m3u8` and its segments."""
    api = APIRouter(tags=["HLS"])

    @api.head("/{name}/index.m3u8", include_in_schema=False)  # as some players ask first
    @api.get("/{name}/index.m3u8")
    async def playlist(name: str, request: Request) -> Response:
        until_s = time.monotonic() + _WAIT_S
        while (text := _playlist(streams, name)) is None and _comes(streams, name):
            if time.monotonic() > until_s or getattr(request.app.state, "stopping", False):
                return failure(503, f"'{name}' has no picture yet", {**NO_STORE, "Retry-After": "2"})
            await asyncio.sleep(_POLL_S)
        if text is None:
            return failure(404, f"no HLS stream is available on path '{name}'", NO_STORE)
        return Response(text, headers=NO_STORE, media_type="application/vnd.apple.mpegurl")

    @api.head("/{name}/segment{number}.ts", include_in_schema=False)
    @api.get("/{name}/segment{number}.ts")
    async def segment(name: str, number: int) -> Response:
        outlet = _hls(streams, name)
        data = outlet.segment(number) if outlet is not None else None
        if data is None:
            return failure(404, "this segment is over or has not begun", NO_STORE)
        return Response(data, headers=NO_STORE, media_type="video/mp2t")

    return api


def _hls(streams: Streams, name: str) -> Hls | None:
    stream = streams.fleet.get(name)
    if stream is None:
        return None
    return next((outlet for outlet in stream.egress.outlets if isinstance(outlet, Hls)), None)


def _playlist(streams: Streams, name: str) -> str | None:
    outlet = _hls(streams, name)
    return outlet.playlist() if outlet is not None else None


def _comes(streams: Streams, name: str) -> bool:
    """Whether there will be a playlist, as far as the settings say."""
    settings, stream = streams.fleet.known.get(name), streams.fleet.get(name)
    return settings is not None and settings.enabled and settings.hls and (stream is None or not stream.over)
