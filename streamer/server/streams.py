"""HTTP for live streams: list, add, change and remove them, and follow what is hidden in each frame."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from streamer.errors import ConfigError, OutputError
from streamer.live.settings import StreamSettings, stream_settings
from streamer.live.status import status
from streamer.live.stream import LiveStream
from streamer.media.live_spec import LiveSpec
from streamer.server.rooms import NO_STORE, Streams, body_of, failure

_EVENT_S = 0.05


def router(streams: Streams) -> APIRouter:
    """Create, read, change and delete streams."""
    api = APIRouter(prefix="/v1/streams", tags=["streams"])

    @api.get("")
    async def listing() -> list[dict[str, Any]]:
        now_s = time.monotonic()
        return [_described(streams, name, now_s) for name in streams.fleet.known]

    @api.get("/{name}")
    async def one(name: str) -> Response:
        if name not in streams.fleet.known:
            return failure(404, f"no stream is called {name}")
        return JSONResponse(_described(streams, name, time.monotonic()))

    @api.put("/{name}")
    async def put(name: str, request: Request) -> Response:
        return await _change(streams, name, request, base={})

    @api.patch("/{name}")
    async def patch(name: str, request: Request) -> Response:
        known = streams.fleet.known.get(name)
        if known is None:
            return failure(404, f"no stream is called {name}")
        return await _change(streams, name, request, base=known.model_dump())

    @api.delete("/{name}")
    async def delete(name: str) -> Response:
        try:
            await streams.remove(name)
        except ConfigError as error:
            return failure(404, str(error))
        return Response(status_code=204)

    return api


def objects(streams: Streams) -> APIRouter:
    """`/v1/streams/NAME/objects`: each frame's objects as server-sent events."""
    api = APIRouter(tags=["streams"])

    @api.get("/v1/streams/{name}/objects")
    async def follow(name: str, request: Request) -> Response:
        stream = streams.fleet.get(name)
        if stream is None:
            return failure(404, f"no stream is called {name}")
        return StreamingResponse(_events(stream, request), media_type="text/event-stream", headers=NO_STORE)

    return api


def _described(streams: Streams, name: str, now_s: float) -> dict[str, Any]:
    stream = streams.fleet.get(name)
    settings = streams.fleet.known[name]
    entry = {"name": name, "source": settings.shown_source, "state": "stopped"}
    if stream is not None:
        entry = status(stream, now_s=now_s)
    return {**entry, "settings": settings.shown()}


async def _change(streams: Streams, name: str, request: Request, *, base: dict[str, Any]) -> Response:
    try:
        values = _json(await body_of(request))
        if not isinstance(values, dict):
            raise ConfigError("the settings of a stream are a JSON object")
        settings = stream_settings({**base, **values}, name=name)
        refuse_places(settings, streams.fleet.known.get(name), streams.folders)
        await streams.put(name, settings)
    except ConfigError as error:
        return failure(400, str(error))
    except OutputError as error:
        return failure(507, str(error))
    return JSONResponse(_described(streams, name, time.monotonic()))


def _json(body: bytes) -> Any:
    try:
        found = json.loads(body)
        json.dumps(found, ensure_ascii=False).encode()  # no answer could hold half a character
    except RecursionError as error:
        raise ConfigError("the body is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ConfigError("the body holds half a character") from error
    except ValueError as error:
        raise ConfigError("the body is not JSON") from error
    return found


def refuse_places(settings: StreamSettings, before: StreamSettings | None, folders: tuple[Path, ...]) -> None:
    """Raise ConfigError if a request makes a stream read or write files where only the configuration may."""
    if LiveSpec(settings.source).kind == "file" and (before is None or settings.source != before.source):
        _inside(Path(settings.source), folders, "play files")
    if settings.record is not None and (before is None or settings.record != before.record):
        _inside(settings.record, folders, "record")


def _inside(path: Path, folders: tuple[Path, ...], what: str) -> None:
    if "\0" in str(path) or not any(path.resolve().is_relative_to(folder) for folder in folders):
        raise ConfigError(f"over HTTP, streams {what} in the configured folders only")


async def _events(stream: LiveStream, request: Request) -> AsyncIterator[str]:
    """Each frame's objects, from now on; frames that came while nobody read are left out beyond the last 256."""
    last = stream.results[-1] if stream.results else None
    silent_s = 0.0
    state = request.app.state
    while stream.state not in ("stopped", "ended", "failed") and not getattr(state, "stopping", False):
        if await request.is_disconnected():
            return
        results = tuple(stream.results)
        new = results
        for place, result in enumerate(results):
            if result is last:
                new = results[place + 1 :]
        last = results[-1] if results else last
        silent_s = 0.0 if new else silent_s + _EVENT_S
        if new:
            yield "".join(f"data: {json.dumps(result.as_dict())}\n\n" for result in new)
        elif silent_s > 10:
            silent_s = 0.0
            yield ": nothing new\n\n"
        await asyncio.sleep(_EVENT_S)
