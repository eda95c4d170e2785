"""Viewers over WebRTC (WHEP, draft-ietf-wish-whep): each is handed the pictures that were encoded once for all."""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
    clock,
)
from aiortc.exceptions import InvalidStateError
from aiortc.sdp import candidate_from_sdp

from streamer.errors import ConfigError, InputError
from streamer.media import offer as offers
from streamer.media import rtp
from streamer.media.egress import SOUND, Encoded, KeyframeGate, no_sound
from streamer.media.fanout import Leg, Payloads, Scratch, SilentTrack
from streamer.media.ice import IceServer

OPUS_CLOCK = 48_000
_CONNECT_S = 15.0  # until a viewer that asked must have come
_BACKLOG = 60  # pictures that wait for the event loop
_GOODBYE_S = 2.0  # for all viewers of a room, when it is over


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """What viewers are offered."""

    viewers: int = 100  # at the same time
    ice_servers: tuple[IceServer, ...] = ()


class TooManyViewersError(InputError):
    """The room is full."""


class Room:
    """The viewers of one stream, an `Outlet` (see media.egress).

    `send` may be called from any thread; everything else belongs to the event loop that the room was made on.
    """

    name = "webrtc"
    codecs = frozenset({"h264", "vp8", "opus"})

    def __init__(
        self, *, want_key: Callable[[], None], limits: RoomLimits | None = None,
        has_sound: Callable[[], bool] = no_sound,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._limits = limits or RoomLimits()
        self._want_key = want_key
        self.has_sound = has_sound
        self.scratch = Scratch()
        self._viewers: dict[str, Viewer] = {}
        self._backlog: deque[Encoded] = deque()
        # of the backlog, each for the thread of its codec
        self._gates = {codec: KeyframeGate() for codec in self.codecs - SOUND}
        self._overrun = 0  # pictures, times the viewers that did not get them
        self._closed = False
        self._left_dropped = 0
        self._picture_id = 0
        self._ntp_zero: int | None = None  # of pts 0
        self.joined = 0

    def send(self, item: Encoded) -> None:
        """Hand a picture to every viewer of its codec.

        While the event loop is held up, pictures are dropped and counted beyond some; what follows begins with a key
        picture.
        """
        if not self._viewers or self._closed or not self._fits(item):
            return
        self._backlog.append(item)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._spread)

    def _fits(self, item: Encoded) -> bool:
        full = len(self._backlog) >= _BACKLOG
        if item.is_sound:
            return not full
        if self._gates[item.codec].admits(item, full=full):
            return True
        self._overrun += sum(viewer.codec == item.codec for viewer in tuple(self._viewers.values()))
        if not full:
            self._want_key()
        return False

    def _spread(self) -> None:
        while self._backlog:
            item = self._backlog.popleft()
            if item.is_sound:
                self._spread_sound(item)
                continue
            viewers = [viewer for viewer in self._viewers.values() if viewer.codec == item.codec]
            payloads = self._payloads(item) if viewers else None
            for viewer in viewers:
                assert payloads is not None
                viewer.offer(item, payloads)

    def _spread_sound(self, item: Encoded) -> None:
        ticks = item.packet.pts or 0
        part = bytes(item.packet)
        payloads = Payloads((part,), ticks * OPUS_CLOCK // rtp.CLOCK, self._ntp_of(ticks / rtp.CLOCK))
        for viewer in self._viewers.values():
            viewer.hear(payloads)

    def _payloads(self, item: Encoded) -> Payloads:
        """The picture as every viewer gets it: see Note [Fan-out]."""
        ticks = item.packet.pts or 0
        data = bytes(item.packet)
        if item.codec == "h264":
            parts = rtp.h264_payloads(data)
        else:
            self._picture_id = (self._picture_id + 1) % 32_768
            parts = rtp.vp8_payloads(data, self._picture_id)
        return Payloads(tuple(parts), ticks, self._ntp_of(ticks / rtp.CLOCK))

    def _ntp_of(self, seconds: float) -> int:
        if self._ntp_zero is None:
            self._ntp_zero = clock.current_ntp_time() - round(seconds * (1 << 32))
        return self._ntp_zero + round(seconds * (1 << 32))

    def wants(self, codec: str) -> bool:
        """Whether any viewer needs that codec."""
        return any(codec in (viewer.codec, viewer.sound_codec) for viewer in tuple(self._viewers.values()))

    def __len__(self) -> int:
        return len(self._viewers)

    def get(self, key: str) -> "Viewer | None":
        """The viewer whose session has that secret name."""
        return self._viewers.get(key)

    async def join(self, offer: str) -> "Viewer":
        """Answer a viewer's offer. Raises ConfigError for an SDP that cannot be used, TooManyViewersError."""
        if self._closed or len(self._viewers) >= self._limits.viewers:
            raise TooManyViewersError(f"{len(self._viewers)} viewers are watching already; try later")
        viewer = Viewer(offers.asked(offer), self)
        self._viewers[viewer.key] = viewer
        try:
            await viewer.negotiate()
        except BaseException:
            await self.leave(viewer)
            raise
        self.joined += 1
        return viewer

    async def leave(self, viewer: "Viewer") -> None:
        """End a viewer's session; harmless if it has ended."""
        if self._viewers.pop(viewer.key, None) is not None:
            self._left_dropped += viewer.dropped
        await viewer.hang_up()

    async def leave_all(self) -> None:
        """Tell every viewer that it is over. Who cannot be told, as behind a relay that has died, is waited for 2 s."""
        self._closed = True
        leaving = [asyncio.create_task(self.leave(viewer)) for viewer in tuple(self._viewers.values())]
        if leaving:
            await asyncio.wait(leaving, timeout=_GOODBYE_S)

    def close(self) -> None:
        """Stop sending; `leave_all` says goodbye."""
        self._closed = True

    def counters(self) -> dict[str, int | str]:
        """Viewers now and ever, and pictures that they did not get."""
        dropped = self._left_dropped + self._overrun
        dropped += sum(viewer.dropped for viewer in tuple(self._viewers.values()))
        return {"viewers": len(self), "joined": self.joined, "dropped": dropped}

    @property
    def configuration(self) -> RTCConfiguration:
        """What each peer connection is told."""
        servers = self._limits.ice_servers
        return RTCConfiguration(
            iceServers=[RTCIceServer(one.url, username=one.user, credential=one.password) for one in servers]
        )

    @property
    def want_key(self) -> Callable[[], None]:
        """Asks the encoder for a key picture."""
        return self._want_key


class Viewer:
    """One WHEP session."""

    def __init__(self, asked: offers.Asked, room: Room) -> None:
        self.key = secrets.token_urlsafe(24)
        self.tag = (
            f'"{secrets.token_hex(8)}"'  # of its ICE session, as an entity-tag: there is no other one later
        )
        self.asked = asked
        self._candidates = asked.sdp.count("a=candidate:")
        self.codec = asked.codec
        self.sound_codec: str | None = None
        self.answer = ""
        self._gate = KeyframeGate()
        self._tracks: list[SilentTrack] = []
        self._leg: Leg | None = None
        self._sound_leg: Leg | None = None
        self._room = room
        self._peer = RTCPeerConnection(room.configuration)
        self._peer.on("connectionstatechange", self._changed)
        self._watch: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """As RTCPeerConnection says: new, connecting, connected, failed or closed."""
        return str(self._peer.connectionState)

    @property
    def dropped(self) -> int:
        """Pictures that this viewer did not get."""
        return self._gate.dropped

    def offer(self, item: Encoded, payloads: Payloads) -> None:
        """Send a picture, if it may follow the last one; one that the network does not take breaks the chain."""
        leg = self._leg
        if leg is None or not self._gate.admits(item, full=not leg.ready):
            return
        try:
            sent = leg.send(payloads)
        except Exception:  # noqa: BLE001 - one viewer must not hurt the others
            sent = False
        if not sent:
            self._gate.cut()
            self._room.want_key()

    def hear(self, payloads: Payloads) -> None:
        """Send sound, unless pictures do not reach the viewer; a piece that does not fit is left out."""
        leg = self._sound_leg
        if leg is not None and leg.ready and not self._gate.waiting:
            with contextlib.suppress(Exception):  # one viewer must not hurt the others
                leg.send(payloads)

    async def negotiate(self) -> None:
        """Answer the offer; `answer` holds our SDP afterwards."""
        peer = self._peer
        try:
            self._offer_video()
            if self._room.has_sound() and self.asked.sound:
                self._offer_sound()
            await peer.setRemoteDescription(RTCSessionDescription(self.asked.sdp, "offer"))
            for transceiver in peer.getTransceivers():
                if transceiver.sender.track not in self._tracks:
                    transceiver.direction = "inactive"
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:  # aiortc raises anything at all on what is not quite SDP
            said = f"{type(error).__name__}: {str(error)[:200]}"
            raise ConfigError(f"the offer cannot be answered ({said})") from error
        self.answer = self.asked.answer(peer.localDescription.sdp)
        self._watch = asyncio.create_task(self._leave_if_absent())

    def _offer_video(self) -> None:
        """Our one video track, in the one codec: before the offer is read, or the viewer's first codec is taken."""
        transceiver = self._transceiver("video")
        wanted = (f"video/{self.codec}".lower(), "video/rtx")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([one for one in codecs if one.mimeType.lower() in wanted])
        self._leg = Leg(transceiver.sender, self._room.scratch, want_key=self._room.want_key)

    def _offer_sound(self) -> None:
        transceiver = self._transceiver("audio")
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([one for one in codecs if one.mimeType.lower() == "audio/opus"])
        self._sound_leg = Leg(transceiver.sender, self._room.scratch, want_key=lambda: None, marks=False)
        self.sound_codec = "opus"

    def _transceiver(self, kind: str) -> RTCRtpTransceiver:
        track = SilentTrack(kind)
        self._tracks.append(track)
        return self._peer.addTransceiver(track, direction="sendonly")

    async def add_candidate(self, line: str, mid: str | None) -> None:
        """One ICE candidate of a trickle fragment, unless it is of a medium that was refused.

        Raises ConfigError if it cannot be read, or is one too many.
        """
        self._candidates += 1
        offers.check_candidates(self._candidates)
        try:
            candidate = candidate_from_sdp(line)
        except Exception as error:  # as above
            raise ConfigError(f"not an ICE candidate: {line[:200]}") from error
        if mid is not None and mid not in self.asked.mids:
            return
        candidate.sdpMid = self.asked.tag
        with contextlib.suppress(ValueError, InvalidStateError):
            await self._peer.addIceCandidate(candidate)

    async def _leave_if_absent(self) -> None:
        await asyncio.sleep(_CONNECT_S)
        if self._peer.connectionState != "connected":
            self._watch = None
            await self._room.leave(self)

    async def _changed(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            await self._room.leave(self)

    async def hang_up(self) -> None:
        """Close the connection."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for track in self._tracks:
            track.stop()
        await self._peer.close()
        for leg in filter(None, (self._leg, self._sound_leg)):
            leg.close()
