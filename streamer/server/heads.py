"""HTTP/1.1 as uvicorn speaks it, whose clients must send a request's head in time.

uvicorn bounds the size of a head and the time between requests, not how long a connection may take to begin one: a
client that sends a byte now and then, or nothing, would hold its connection for ever. Bodies have limits of their own.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_S = 20.0  # from the first byte, or from the connection on


class TimedHeads(H11Protocol):
    """Closes a connection whose request's head takes longer than `_HEAD_S` seconds."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: its first head has to come."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """A piece of a head or of a body."""
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the head is there
            self._stop_waiting()
        elif self._late is None:
            self._late = self.loop.call_later(_HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
