"""The process that sends to one WHIP endpoint (RFC 9725), started by `media.push` in place of `push_process`.

It reads and says what that does. FFmpeg's own WHIP muxer is not used: aiortc, for one, refuses its DTLS. Until the peer
is there, pictures are dropped; then the stream is asked for a key picture.
"""

import asyncio
import re
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from streamer.address import without_secrets
from streamer.errors import OutputError
from streamer.media.push_process import KEY, SOUND, read_packet, say

_TIMEOUT_S = 4.0  # of one request, and of the connection that follows; the parent waits a little longer
_QUEUE = 60  # packets that wait for the network


def endpoint_of(url: str) -> tuple[str, dict[str, str]]:
    """The endpoint's address, and the headers that carry what stood before its host.

    >>> endpoint_of("whips://:t0k%20en@media.example:8889/front/whip")
    ('https://media.example:8889/front/whip', {'Authorization': 'Bearer t0k en'})
    >>> endpoint_of("whip://127.0.0.1/front")
    ('http://127.0.0.1/front', {})
    """
    parts = urlsplit(url)
    secure = parts.scheme.lower() in ("whips", "https")
    plain = parts._replace(scheme="https" if secure else "http", netloc=parts.netloc.rpartition("@")[2])
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user and password:
        return plain.geturl(), {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
    if user or password:
        return plain.geturl(), {"Authorization": f"Bearer {user or password}"}
    return plain.geturl(), {}


class Track(MediaStreamTrack):
    """Packets as they come; the oldest are dropped, up to the next key picture, when the network takes none."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._packets: asyncio.Queue[av.Packet] = asyncio.Queue(_QUEUE)
        self._needs_key = kind == "video"

    def put(self, packet: av.Packet, *, key: bool) -> bool:
        """Queue a packet; False where it was dropped."""
        if self._packets.full():
            while not self._packets.empty():
                self._packets.get_nowait()
            self._needs_key = self.kind == "video"
        if self._needs_key and not key:
            return False
        self._needs_key = False
        self._packets.put_nowait(packet)
        return True

    async def recv(self) -> av.Packet:
        """The next packet, for aiortc's sender."""
        if self.readyState != "live":
            raise MediaStreamError
        return await self._packets.get()


class _Stay(HTTPRedirectHandler):
    """No request is sent elsewhere: the key would go along."""

    def redirect_request(self, *_: object) -> None:
        """Never."""


def ask(method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> tuple[str, str]:
    """The body and the Location of an answer of 2xx. Raises OutputError for any other, and for none."""
    request = Request(url, data=body, method=method, headers={**headers, "Content-Type": "application/sdp"})
    try:
        with build_opener(_Stay()).open(request, timeout=_TIMEOUT_S) as answer:
            return answer.read(1 << 20).decode(errors="replace"), answer.headers.get("Location", "")
    except HTTPError as error:
        raise OutputError(f"the WHIP endpoint answers {error.code} {error.reason}") from error
    except URLError as error:
        raise OutputError(f"the WHIP endpoint cannot be reached ({error.reason})") from error
    except (OSError, ValueError) as error:
        raise OutputError(f"the WHIP endpoint cannot be reached ({error})") from error


async def publish(url: str, packets: Iterator[tuple[av.Packet, int]], *, sound: bool) -> None:
    """Send until the packets end. Raises OutputError."""
    loop = asyncio.get_running_loop()
    endpoint, headers = endpoint_of(url)
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    tracks = {kind: Track(kind) for kind in ("video", "audio")[: 1 + sound]}
    for kind, track in tracks.items():
        transceiver = peer.addTransceiver(track, "sendonly")
        codecs = RTCRtpSender.getCapabilities(kind).codecs
        wanted = re.compile("video/H264|audio/opus", re.I)
        transceiver.setCodecPreferences([codec for codec in codecs if wanted.fullmatch(codec.mimeType)])
    over = asyncio.Event()
    connected = asyncio.Event()

    @peer.on("connectionstatechange")
    def changed() -> None:
        if peer.connectionState == "connected":
            connected.set()
        elif peer.connectionState in ("failed", "closed"):
            over.set()

    place = ""
    try:
        await peer.setLocalDescription(await peer.createOffer())
        offer = peer.localDescription.sdp.encode()
        answer, location = await asyncio.to_thread(ask, "POST", endpoint, headers, offer)
        place = urljoin(endpoint, location) if location else ""
        try:
            await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        except Exception as error:  # whatever a server calls an answer
            raise OutputError(f"the WHIP endpoint's answer is not understood ({error})") from error
        reader = threading.Thread(
            target=_read, args=(packets, tracks, connected, over, loop), daemon=True, name="packets"
        )
        reader.start()
        try:
            await asyncio.wait_for(connected.wait(), _TIMEOUT_S)
        except TimeoutError:
            raise OutputError("the WHIP server was not reached by UDP") from None
        say("ready")
        await over.wait()
        if reader.is_alive():
            raise OutputError("the WHIP server ended the connection")
    finally:
        for track in tracks.values():
            track.stop()
        await peer.close()
        if place:
            with suppress(OutputError):
                await asyncio.to_thread(ask, "DELETE", place, headers)


def _read(
    packets: Iterator[tuple[av.Packet, int]],
    tracks: dict[str, Track],
    connected: asyncio.Event,
    over: asyncio.Event,
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Hand the packets to the loop, those from before the connection left out."""

    def put(packet: av.Packet, kind: int) -> None:
        track = tracks.get("audio" if kind == SOUND else "video")
        if connected.is_set() and track is not None:
            track.put(packet, key=kind == KEY)

    for packet, kind in packets:
        loop.call_soon_threadsafe(put, packet, kind)
    loop.call_soon_threadsafe(over.set)


def _packets(source: BinaryIO) -> Iterator[tuple[av.Packet, int]]:
    while (item := read_packet(source)) is not None:
        yield item


def main(source: BinaryIO, *, sound: bool) -> int:
    """Publish until stdin ends."""
    url = source.readline().decode().rstrip("\n")
    try:
        asyncio.run(publish(url, _packets(source), sound=sound))
    except (OutputError, OSError, ValueError) as error:
        say(f"failed: {without_secrets(str(error), url)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sound=sys.argv[2] == "sound"))
