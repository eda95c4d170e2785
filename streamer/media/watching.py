"""Viewers over WebRTC that only receive, for measuring: `python -m streamer.media.watching URL...`.

They negotiate and connect as any viewer does and send the reports that viewers send. What arrives is counted as it
comes off the socket and not decrypted: a process that decoded for twenty viewers would be measured itself. Says
`watching` on stdout when all are connected; when stdin ends, it leaves and says what each viewer got, as JSON.
"""

import asyncio
import contextlib
import json
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from streamer.errors import InputError

_CONNECT_S = 30.0


@dataclass(slots=True)
class Received:
    """What one viewer got."""

    packets: int = 0
    octets: int = 0
    lost: int = 0  # gaps in the sequence numbers
    pictures: int = 0  # by their marker bits
    _next: int | None = None

    def count(self, data: bytes) -> None:
        """Add one RTP packet."""
        number = int.from_bytes(data[2:4], "big")
        if self._next is not None:
            self.lost += (number - self._next) % 65_536
        self._next = (number + 1) % 65_536
        self.packets += 1
        self.octets += len(data)
        self.pictures += data[1] >> 7

    def summary(self) -> dict[str, int]:
        """The counters."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}


class Watcher:
    """One viewer: `join`, watch, `leave`."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.received = Received()
        self._url = url
        self._key = key
        self._session: str | None = None
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))

    async def join(self) -> None:
        """Connect. Raises InputError if the server refuses or no connection comes about."""
        peer = self._peer
        peer.addTransceiver("video", direction="recvonly")
        connected = asyncio.Event()

        def changed() -> None:
            if peer.connectionState == "connected":
                connected.set()

        peer.on("connectionstatechange", changed)
        await peer.setLocalDescription(await peer.createOffer())
        answer = await asyncio.to_thread(self._ask, "POST", self._url, peer.localDescription.sdp)
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            await asyncio.wait_for(connected.wait(), _CONNECT_S)
        except TimeoutError as error:
            raise InputError(f"no connection in {_CONNECT_S:.0f} s: {self._url}") from error
        self._count_only()

    def _count_only(self) -> None:
        """Keep RTP from what would decrypt and decode it; STUN, DTLS and RTCP go their way."""
        ice = self._peer.getTransceivers()[0].receiver.transport.transport
        for pair in ice._connection._nominated.values():
            sorter = _sorter(self.received, pair.protocol.datagram_received)
            setattr(pair.protocol, "datagram_received", sorter)  # noqa: B010 - a method, on this instance alone

    async def leave(self) -> None:
        """End the session."""
        if self._session is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._ask, "DELETE", self._session, None)
        await self._peer.close()

    def _ask(self, method: str, url: str, body: str | None) -> str:
        headers = {"Content-Type": "application/sdp"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = body.encode() if body is not None else None
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_CONNECT_S) as answer:
                if (location := answer.headers.get("Location")) is not None:
                    self._session = urljoin(self._url, location)
                return str(answer.read().decode())
        except OSError as error:
            raise InputError(f"the server refuses the viewer ({error}): {urlsplit(url).path}") from error


def _sorter(received: Received, pass_on: Callable[..., None]) -> Callable[[bytes, Any], None]:
    def datagram_received(data: bytes, address: Any) -> None:
        if 128 <= data[0] < 192 and not 64 <= data[1] & 127 < 96:  # RTP and not RTCP (RFC 5761)
            received.count(data)
        else:
            pass_on(data, address)

    return datagram_received


async def _watch(urls: list[str]) -> None:
    watchers = [Watcher(url) for url in urls]
    try:
        for watcher in watchers:
            await watcher.join()
        sys.stdout.write("watching\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        sys.stdout.write(json.dumps([watcher.received.summary() for watcher in watchers]) + "\n")
        sys.stdout.flush()
    finally:
        await asyncio.gather(*(watcher.leave() for watcher in watchers))


if __name__ == "__main__":
    asyncio.run(_watch(sys.argv[1:]))
