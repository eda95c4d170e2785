"""The sending half of one viewer's track: packets that were made once for all viewers, under its own numbers and key.

# Note [Fan-out]
aiortc packs and sends a track for each viewer on a task of its own, one packet at a time. That is most of what a
viewer costs. So its sender is given a track that never has anything, and `Leg` sends in its place: the payloads are
shared, a viewer's header is put before each, SRTP is aiortc's session, and the system gets a whole picture in a call
or two. What stays aiortc's: negotiation, ICE, DTLS, the timing of RTCP. The attributes that are not part of its
interface stand in `HOOKS` and `SEAMS`, and a test holds each of them.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pylibsrtp
from aiortc import MediaStreamTrack, RTCRtpSender, clock
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from aiortc.rtp import HeaderExtensions, HeaderExtensionsMap, RtcpSenderInfo, RtcpSrPacket
from pylibsrtp import SRTP_MAX_TRAILER_LEN, ffi, lib  # type: ignore[attr-defined]

from streamer.media import rtp

HOOKS = ("send", "_retransmit", "_send_rtcp", "_send_keyframe")  # of RTCRtpSender, replaced on the instance
SEAMS = (
    "_ssrc", "_rtx_ssrc",  # of RTCRtpSender
    "_tx_srtp",  # of RTCDtlsTransport: a pylibsrtp.Session
    "_connection",  # of RTCIceTransport: an aioice.Connection
    "_nominated",  # of aioice.Connection: its working pairs by component
    "_srtp",  # of pylibsrtp.Session: a pointer to libsrtp's session
)  # fmt: skip

_REMEMBERED = 128  # pictures that lost packets can be sent again from
_REACH = 1000  # packets back that SRTP protects again; its window is 1024
_MOST_WAITING = 1 << 20  # bytes that the event loop holds for a network that takes nothing
_SEND_BUFFER = 1 << 20
_UDP_SEGMENT = 103  # linux/udp.h
_NO_SEGMENTS = (errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE)


class SilentTrack(MediaStreamTrack):
    """What aiortc sends in place of what `Leg` sends: nothing, until the end."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> Any:
        """Waits until the track is stopped, then raises MediaStreamError."""
        ended = asyncio.Event()
        self.on("ended", ended.set)
        if self.readyState == "live":
            await ended.wait()
        raise MediaStreamError


@dataclass(frozen=True, slots=True, eq=False)
class Payloads:
    """One picture, or one piece of sound, ready for every viewer: see Note [Fan-out]."""

    parts: tuple[bytes, ...]
    ticks: int  # when it is shown, in units of the track's clock
    ntp: int  # the same moment on the wall clock, as NTP counts: what viewers align tracks by
    extensions: dict[bytes, bytes] = field(default_factory=dict)  # with its moment of sending, by their form

    @property
    def octets(self) -> int:
        """Bytes of payload."""
        return sum(map(len, self.parts))


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    first: int  # sequence number
    payloads: Payloads
    extension: bytes


class Scratch:
    """Where the packets of one picture are protected, one behind the other; all legs of an event loop can share one.

    `pylibsrtp.Session.protect` does the same for one packet with two copies, which is half of what a packet costs.
    """

    def __init__(self) -> None:
        self._length = ffi.new("int *")
        self._grow(1 << 16)

    def _grow(self, size: int) -> None:
        self._memory = ffi.new("char[]", size)
        self._view = memoryview(ffi.buffer(self._memory))

    def protect(self, session: Any, packets: list[bytes]) -> list[memoryview]:
        """The packets under SRTP, valid until the next call. Raises pylibsrtp.Error."""
        needed = sum(map(len, packets)) + SRTP_MAX_TRAILER_LEN * len(packets)
        if needed > len(self._view):
            self._grow(2 * needed)
        protect, memory, view, length = lib.srtp_protect, self._memory, self._view, self._length
        pointer, made, place = session._srtp[0], [], 0
        for packet in packets:
            end = place + len(packet)
            view[place:end] = packet
            length[0] = len(packet)
            status = protect(pointer, memory + place, length)
            if status:
                raise pylibsrtp.Error(f"libsrtp's error {status}")
            end = place + length[0]
            made.append(view[place:end])
            place = end
        return made


class Leg:
    """One track to one viewer. Belongs to the event loop."""

    def __init__(
        self, sender: RTCRtpSender, scratch: Scratch, *, want_key: Callable[[], None], marks: bool = True
    ) -> None:
        """`marks`: whether the last packet of each group carries the marker bit, as video's does."""
        self.sent = self.failed = 0
        self._sender = sender
        self._scratch = scratch
        self._want_key = want_key
        self._marks = marks
        self._wire = Wire(sender)
        self._kind: int | None = None  # payload type, once it is negotiated
        self._again_kind: int | None = None  # payload type of what is sent again (RFC 4588)
        self._mid: str | None = None
        self._map = HeaderExtensionsMap()
        self._form = b""  # the header extension that was agreed on, with a send time of 0
        self._origin = secrets.randbits(32)
        self._sequence = secrets.randbits(15)  # the lower half: SRTP does not see an early turnover
        self._again_sequence = secrets.randbits(15)
        self._history: deque[_Sent] = deque(maxlen=_REMEMBERED)
        self._octets = 0
        self._begin = sender.send
        self._report = sender._send_rtcp
        hooks = (self._start, self._send_again, self._send_reports, want_key)
        for name, hook in zip(HOOKS, hooks, strict=True):
            setattr(sender, name, hook)

    async def _start(self, parameters: RTCRtpSendParameters) -> None:
        """aiortc calls this when the connection stands."""
        codec = parameters.codecs[0]
        self._mid = parameters.muxId
        self._map.configure(parameters)
        self._form = rtp.extension_of(*self._map.set(HeaderExtensions(abs_send_time=0, mid=self._mid)))
        for other in parameters.codecs:
            if other.mimeType.lower().endswith("/rtx") and other.parameters.get("apt") == codec.payloadType:
                self._again_kind = other.payloadType
        await self._begin(parameters)
        self._kind = codec.payloadType
        self._want_key()

    @property
    def ready(self) -> bool:
        """Whether the connection stands."""
        return self._kind is not None and self._sender.transport.state == "connected"

    def send(self, payloads: Payloads) -> bool:
        """Send it now, if `ready`; False if the network takes no more."""
        sent = _Sent(self._sequence, payloads, self._extension(payloads))
        self._history.append(sent)
        session = self._sender.transport._tx_srtp
        whole = self._wire.send(self._scratch.protect(session, self._packets(sent)))
        count = len(payloads.parts)
        self._sequence = (self._sequence + count) % rtp.SEQUENCES
        self._octets += payloads.octets
        self.sent += count
        self.failed += not whole
        return whole

    def _packets(self, sent: _Sent) -> list[bytes]:
        """Header and payload of each part; the same again for the same `sent`."""
        assert self._kind is not None
        parts = sent.payloads.parts
        timestamp = (self._origin + sent.payloads.ticks) & 0xFFFFFFFF
        return rtp.packets(
            parts, (self._kind, sent.first, timestamp, self._sender._ssrc), sent.extension, self._marks
        )

    def _extension(self, payloads: Payloads) -> bytes:
        """When it is sent: the same for all viewers that have agreed on the same form."""
        found = payloads.extensions.get(self._form)
        if found is None:
            now = clock.current_ntp_time() >> 14 & 0xFFFFFF
            values = HeaderExtensions(abs_send_time=now, mid=self._mid)
            found = payloads.extensions[self._form] = rtp.extension_of(*self._map.set(values))
        return found

    async def _send_again(self, sequence: int) -> None:
        """A packet that the viewer reports lost, if it is still known: bit for bit as SRTP demands, or as RTX."""
        if (self._sequence - sequence) % rtp.SEQUENCES > _REACH:
            return
        for sent in reversed(self._history):
            place = (sequence - sent.first) % rtp.SEQUENCES
            if place < len(sent.payloads.parts):
                break
        else:
            return
        packet = self._packets(sent)[place]
        if self._again_kind is not None:
            timestamp = (self._origin + sent.payloads.ticks) & 0xFFFFFFFF
            numbers = (self._again_kind, self._again_sequence, timestamp, self._sender._rtx_ssrc)
            original = struct.pack("!H", sequence) + sent.payloads.parts[place]
            (packet,) = rtp.packets((original,), numbers, sent.extension, packet[1] >= 128)
            self._again_sequence = (self._again_sequence + 1) % rtp.SEQUENCES
        with contextlib.suppress(ConnectionError):
            await self._sender.transport._send_rtp(packet)

    async def _send_reports(self, packets: list[Any]) -> None:
        """aiortc's RTCP, with our counts in its sender reports; there are none before the first picture."""
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                if not self._history:
                    return
                packet.sender_info = self._counts(self._history[-1].payloads)
        await self._report(packets)

    def _counts(self, last: Payloads) -> RtcpSenderInfo:
        return RtcpSenderInfo(
            ntp_timestamp=last.ntp,
            rtp_timestamp=(self._origin + last.ticks) & 0xFFFFFFFF,
            packet_count=self.sent & 0xFFFFFFFF,
            octet_count=self._octets & 0xFFFFFFFF,
        )

    def close(self) -> None:
        """Let go of the socket and of what was sent: leg and sender hold each other until a collection."""
        self._wire.close()
        self._history.clear()


class Wire:
    """Datagrams to the address that ICE chose, many to a call where the system can."""

    def __init__(self, sender: RTCRtpSender) -> None:
        self._sender = sender
        self._transport: Any = None  # whose socket it is
        self._socket: socket.socket | None = None
        self._segments = sys.platform == "linux"

    def send(self, datagrams: list[memoryview]) -> bool:
        """Whether the system or the event loop has taken all of them."""
        pair = self._sender.transport.transport._connection._nominated.get(1)
        if pair is None:
            return False
        transport, address = pair.protocol.transport, pair.remote_addr
        waiting = getattr(transport, "get_write_buffer_size", int)()  # a relay has none
        if waiting > _MOST_WAITING:
            return False
        if not waiting and self._own_socket(transport) is not None:
            datagrams = self._at_once(datagrams, address)
        for datagram in datagrams:
            transport.sendto(bytes(datagram), address)
        return True

    def _own_socket(self, transport: Any) -> socket.socket | None:
        """A second handle on the socket of that transport; None for a relay."""
        if transport is not self._transport:
            self.close()
            self._transport = transport
            shared = transport.get_extra_info("socket")
            if shared is not None:
                self._socket = socket.socket(fileno=os.dup(shared.fileno()))
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        return self._socket

    def _at_once(self, datagrams: list[memoryview], address: Any) -> list[memoryview]:
        """Send what the system takes now; the rest."""
        left = list(rtp.blocks(datagrams)) if self._segments else [[one] for one in datagrams]
        for place, block in enumerate(left):
            try:
                self._send_block(block, address)
            except BlockingIOError:
                return [one for rest in left[place:] for one in rest]
            except OSError as error:
                if len(block) > 1 and error.errno in _NO_SEGMENTS:
                    self._segments = False
                    return self._at_once([one for rest in left[place:] for one in rest], address)
        return []

    def _send_block(self, block: list[memoryview], address: Any) -> None:
        assert self._socket is not None
        if len(block) == 1:
            self._socket.sendto(block[0], address)
        else:
            size = struct.pack("=H", len(block[0]))
            self._socket.sendmsg(block, [(socket.IPPROTO_UDP, _UDP_SEGMENT, size)], 0, address)

    def close(self) -> None:
        """Let go of the second handle."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._transport = None
