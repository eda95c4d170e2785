"""Health and metrics of the live streams."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from streamer.server.metrics import exposition
from streamer.server.rooms import Streams


def health(streams: Streams) -> APIRouter:
    """`/healthz`: no thread died; `/readyz`: every stream has had its first picture or given up."""
    api = APIRouter(tags=["operations"])

    @api.get("/healthz")
    async def healthz() -> Response:
        failed = [stream.name for stream in streams.fleet if stream.state == "failed"]
        return JSONResponse({"ok": not failed, "failed": failed}, 503 if failed else 200)

    @api.get("/readyz")
    async def readyz() -> Response:
        states = {stream.name: stream.state for stream in streams.fleet}
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
