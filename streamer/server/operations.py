"""Health and metrics of the live streams."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from streamer.live.stream import LiveStream
from streamer.server.metrics import exposition
from streamer.server.rooms import Streams


def health(streams: Streams | None) -> APIRouter:
    """`/healthz`: no thread died; `/readyz`: every stream has had its first picture or given up.

    A server of pictures alone, which has no streams, is both while it answers.
    """
    api = APIRouter(tags=["operations"])

    def fleet() -> list[LiveStream]:
        return [] if streams is None else list(streams.fleet)

    @api.head("/healthz", include_in_schema=False)  # as monitors ask
    @api.get("/healthz")
    async def healthz() -> Response:
        failed = [stream.name for stream in fleet() if stream.state == "failed"]
        return JSONResponse({"ok": not failed, "failed": failed}, 503 if failed else 200)

    @api.head("/readyz", include_in_schema=False)  # as monitors ask
    @api.get("/readyz")
    async def readyz() -> Response:
        states = {stream.name: stream.state for stream in fleet()}
        waiting = [name for name, state in states.items() if state == "starting"]
        return JSONResponse({"ready": not waiting, "streams": states}, 503 if waiting else 200)

    return api


def metrics(streams: Streams) -> APIRouter:
    """`/metrics` for Prometheus."""
    api = APIRouter(tags=["operations"])

    @api.get("/metrics")
    async def scrape() -> Response:
        body, kind = exposition(list(streams.fleet))
        return Response(body, media_type=kind)

    return api
