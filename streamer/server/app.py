"""The web application: who is let in, what it offers, what it does while nobody asks."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

import streamer
from streamer.errors import ConfigError
from streamer.image.redact import Redactor
from streamer.image.source import Access
from streamer.image.store import Store, default_folder
from streamer.server import failures, images, live, operations
from streamer.server.cors import OtherSites
from streamer.server.images import Studio
from streamer.server.keys import Keys, guard, is_loopback
from streamer.server.prefix import Prefixed
from streamer.server.rooms import Streams
from streamer.server.settings import ServeSettings
from streamer.server.work import Work

_PURGE_S = 600.0
_CLOUD = "/img-anonymization"  # where the cloud API has its endpoints: clients need to change the host alone


def create_app(
    settings: ServeSettings, keys: Keys, redactors: Sequence[Redactor], streams: Streams | None = None
) -> FastAPI:
    """The application; one picture per redactor is worked on at a time. Live streams start and stop with it.

    Raises ConfigError if it would be open to the network without keys, OutputError if the store cannot be
    made.
    """
    if not keys and not is_loopback(settings.host):
        raise ConfigError(f"without API keys the server listens on this machine only, not on {settings.host}")
    store = Store(settings.store or default_folder(), settings.store_s, settings.store_bytes)
    work = Work(redactors, settings.waiting)
    access = Access(settings.limits, (store.folder, *settings.folders))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        purging = asyncio.create_task(_purge(store))
        async with live.running(streams, settings.streams or {}):
            yield
        purging.cancel()
        with suppress(asyncio.CancelledError):
            await purging
        await asyncio.to_thread(work.close)

    app = FastAPI(
        title="streamer", version=streamer.__version__, lifespan=life, docs_url=None, redoc_url=None
    )
    app.add_middleware(Prefixed, prefix=settings.prefix)
    failures.install(app)
    if keys:
        app.add_middleware(OtherSites)
    image_api = images.router(Studio(work, store, access, settings))
    app.include_router(image_api, dependencies=[guard(keys)])
    app.include_router(image_api, prefix=_CLOUD, dependencies=[guard(keys)], include_in_schema=False)
    app.include_router(images.stored(store, settings.body_s))
    live.serve_page(app, "index.html")
    if streams is not None:
        live.install(app, streams, keys)
    else:
        app.include_router(operations.health(None))
    return app


async def _purge(store: Store) -> None:
    while True:
        await asyncio.to_thread(lambda: store.purge(now_s=time.time()))
        await asyncio.sleep(_PURGE_S)
