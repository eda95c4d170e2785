"""The web application's share of live streams: routes, the page, and what runs while it serves."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

import streamer
from streamer.live.settings import StreamSettings
from streamer.live.status import Journal
from streamer.server import failures, hls, operations, whep
from streamer.server import streams as control
from streamer.server.cors import OtherSites
from streamer.server.keys import Keys, guard, player_guard
from streamer.server.prefix import Prefixed
from streamer.server.rooms import Streams

LOG = logging.getLogger("streamer.live")

_PAGES = Path(__file__).parent / "pages"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def serve_page(app: FastAPI, name: str) -> None:
    """The page at `/` and its parts at `/pages`."""
    app.mount("/pages", StaticFiles(directory=_PAGES), name="pages")

    @app.head("/", include_in_schema=False)  # as monitors ask
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGES / name, headers=_PAGE_HEADERS)


def install(app: FastAPI, streams: Streams, keys: Keys) -> None:
    """Add the routes of live streams. Health is open to all, everything else is behind the keys."""
    guarded = (control.router, control.objects, operations.metrics)
    for make in guarded:
        app.include_router(make(streams), dependencies=[guard(keys)])
    app.include_router(whep.router(streams), dependencies=[guard(keys, whep.REFUSAL)])
    app.include_router(hls.router(streams), dependencies=[player_guard(keys)])
    app.include_router(whep.options(streams, keys))
    app.include_router(operations.health(streams))


@asynccontextmanager
async def running(streams: Streams | None, wanted: Mapping[str, StreamSettings]) -> AsyncIterator[None]:
    """The streams run while the block does; leaving it tells the viewers and closes the recordings."""
    if streams is None:
        yield
        return
    journal = asyncio.create_task(_keep_journal(streams))
    try:
        await streams.begin(wanted)
        yield
    finally:
        journal.cancel()
        with suppress(asyncio.CancelledError):
            await journal
        await streams.end()
        LOG.info(json.dumps({"event": "stopped"}))


async def _keep_journal(streams: Streams) -> None:
    """One line of JSON for each change of a stream's state, and its counters once a minute."""
    journal = Journal()
    while True:
        try:
            for entry in journal.entries(list(streams.fleet), now_s=time.monotonic()):
                LOG.info(json.dumps(entry))
        except Exception as error:  # noqa: BLE001 - the streams go on, and must be stopped in order, without a log
            LOG.error(json.dumps({"event": "no entry", "problem": type(error).__name__}))
        await asyncio.sleep(1)


def create_live_app(
    streams: Streams, wanted: Mapping[str, StreamSettings], keys: Keys, *, prefix: str = ""
) -> FastAPI:
    """An application that serves live streams alone, below `prefix` of another server if that is not empty."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with running(streams, wanted):
            yield

    app = FastAPI(
        title="streamer", version=streamer.__version__, lifespan=life, docs_url=None, redoc_url=None
    )
    app.add_middleware(Prefixed, prefix=prefix)
    failures.install(app)
    if keys:
        app.add_middleware(OtherSites)
    serve_page(app, "live.html")
    install(app, streams, keys)
    return app
