"""HLS over HTTP: the playlist and the segments that a stream holds in memory."""

from fastapi import APIRouter, Response

from streamer.media.hls import Hls
from streamer.server.rooms import NO_STORE, Streams, failure


def router(streams: Streams) -> APIRouter:
    """`/NAME/index.m3u8` and its segments."""
    api = APIRouter(tags=["HLS"])

    @api.get("/{name}/index.m3u8")
    async def playlist(name: str) -> Response:
        outlet = _hls(streams, name)
        text = outlet.playlist() if outlet is not None else None
        if text is None:
            return failure(404, f"no HLS stream is available on path '{name}'", NO_STORE)
        return Response(text, headers=NO_STORE, media_type="application/vnd.apple.mpegurl")

    @api.get("/{name}/segment{number}.ts")
    async def segment(name: str, number: int) -> Response:
        outlet = _hls(streams, name)
        data = outlet.segment(number) if outlet is not None else None
        if data is None:
            return failure(404, "this segment is over or has not begun")
        return Response(data, media_type="video/mp2t")

    return api


def _hls(streams: Streams, name: str) -> Hls | None:
    stream = streams.fleet.get(name)
    if stream is None:
        return None
    return next((outlet for outlet in stream.egress.outlets if isinstance(outlet, Hls)), None)
