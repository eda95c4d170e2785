"""Bounded work: a few threads work on pixels, a few requests wait, the rest hears so at once."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from streamer.image.redact import Redactor
from streamer.server.failures import Busy

T = TypeVar("T")


class Work:
    """The threads of one server. The event loop only waits for them."""

    def __init__(self, redactors: Sequence[Redactor], waiting: int) -> None:
        """One thread per redactor works on pixels; `waiting` further requests may be inside."""
        self._room = len(redactors) + waiting
        self._inside = 0
        self._idle: queue.SimpleQueue[Redactor] = queue.SimpleQueue()
        for redactor in redactors:
            self._idle.put(redactor)
        self._pixels = ThreadPoolExecutor(len(redactors), thread_name_prefix="pixels")
        self._inputs = ThreadPoolExecutor(self._room, thread_name_prefix="inputs")

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A place for one request from its body to its answer. Raises Busy when all are taken."""
        if self._inside >= self._room:
            raise Busy
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def read(self, job: Callable[[], T]) -> T:
        """Run what waits for the network or parses a body, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._inputs, job)

    async def redact(self, job: Callable[[Redactor], T]) -> T:
        """Run what works on pixels, in a thread with a redactor of its own."""

        def with_redactor() -> T:
            redactor = self._idle.get_nowait()  # there are as many as threads
            try:
                return job(redactor)
            finally:
                self._idle.put(redactor)

        return await asyncio.get_running_loop().run_in_executor(self._pixels, with_redactor)

    def close(self) -> None:
        """Wait for the threads' last jobs."""
        self._pixels.shutdown()
        self._inputs.shutdown()
