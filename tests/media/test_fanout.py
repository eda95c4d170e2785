"""What viewers get over WebRTC: packets that are made once, sent by our own half of aiortc's sender."""

import asyncio
import contextlib
import errno
import inspect
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aioice
import numpy as np
import pylibsrtp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.frame import Frame, FrameResult, Redacted, Size
from streamer.media import fanout, nal, rtp
from streamer.media.egress import Encoded
from streamer.media.live_encoder import EncoderSpec, LiveEncoder
from streamer.media.webrtc import Room
from streamer.proof.scene import TICK

SIZE = Size(320, 192)
UNIT = st.builds(
    lambda kind, size, seed: bytes([0x60 | kind]) + np.random.default_rng(seed).bytes(size).replace(b"\0", b"\1"),
    st.sampled_from([nal.SLICE, nal.IDR, nal.SEI, nal.SPS, nal.PPS]),
    st.one_of(st.integers(1, 40), st.integers(1150, 1250), st.integers(2000, 9000)),
    st.integers(0, 99),
)  # fmt: skip


@given(st.lists(UNIT, min_size=1, max_size=6))
def test_a_receiver_puts_h264_together_again(units: list[bytes]) -> None:
    payloads = rtp.h264_payloads(nal.annexb(units))
    assert nal.from_annexb(b"".join(map(h264_depayload, payloads))) == units
    assert max(map(len, payloads)) <= rtp.MOST_PAYLOAD


@given(st.binary(min_size=1, max_size=9000), st.integers(0, 32_767))
def test_a_receiver_puts_vp8_together_again(data: bytes, picture_id: int) -> None:
    rest = []
    for place, payload in enumerate(rtp.vp8_payloads(data, picture_id)):
        head, part = VpxPayloadDescriptor.parse(payload)
        assert (head.partition_start, head.picture_id) == (int(place == 0), picture_id)
        assert len(payload) <= rtp.MOST_PAYLOAD
        rest.append(part)
    assert b"".join(rest) == data


@given(st.lists(st.sampled_from([90, 700, 1240, 1250]), max_size=200))
def test_blocks_are_what_the_system_can_cut(sizes: list[int]) -> None:
    datagrams = [bytes(size) for size in sizes]
    blocks = list(rtp.blocks(datagrams))
    assert [one for block in blocks for one in block] == datagrams
    for block in blocks:
        assert all(len(one) == len(block[0]) for one in block[:-1])
        assert len(block[-1]) <= len(block[0])
        assert len(block) <= 64
        assert sum(map(len, block)) < 65_507


def test_the_parts_of_aiortc_that_we_stand_on_are_there() -> None:
    for hook in fanout.HOOKS:
        assert inspect.isfunction(getattr(RTCRtpSender, hook)), hook
    for hook in ("send", "_retransmit", "_send_rtcp"):
        assert inspect.iscoroutinefunction(getattr(RTCRtpSender, hook)), hook
    sources = [RTCRtpSender, RTCDtlsTransport, RTCIceTransport, aioice.Connection, pylibsrtp.Session]
    text = "".join(map(inspect.getsource, sources))
    for seam in fanout.SEAMS:
        assert f"self.{seam}" in text, seam
    assert "allow_repeat_tx = True" in inspect.getsource(RTCDtlsTransport)  # or nothing could be sent again
    assert callable(pylibsrtp.Session.protect)


@pytest.mark.parametrize("count", [1, 3, 200])
def test_packets_are_protected_as_the_library_does_it(count: int) -> None:
    def session() -> pylibsrtp.Session:
        policy = pylibsrtp.Policy(
            key=bytes(range(44)),
            ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
            srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
        )
        return pylibsrtp.Session(policy)

    parts = [bytes([place % 256]) * (1 + 31 * place % 1200) for place in range(count)]
    packets = rtp.packets(parts, (96, 65_500, 7, 8), b"", True)
    scratch, ours, theirs = fanout.Scratch(), session(), session()
    for _ in range(2):
        assert [*map(bytes, scratch.protect(ours, packets))] == [*map(theirs.protect, packets)]
        packets = rtp.packets(parts, (96, 400, 7, 8), b"", True)
    with pytest.raises(pylibsrtp.Error):
        scratch.protect(ours, [b"not RTP"])


@dataclass
class Client:
    """aiortc's own viewer, with a socket that we can look at and lose packets of."""

    peer: RTCPeerConnection = field(
        default_factory=lambda: RTCPeerConnection(RTCConfiguration(iceServers=[]))
    )
    loses: Callable[[int], bool] = lambda sequence: False  # before SRTP, which takes no packet twice
    packets: list[RtpPacket] = field(default_factory=list)
    pictures: list[Any] = field(default_factory=list)

    async def join(self, room: Room) -> None:
        self.peer.addTransceiver("video", direction="recvonly")
        self.peer.on("track", lambda track: tasks.append(asyncio.ensure_future(self._watch(track))))
        tasks: list[Any] = []
        await self.peer.setLocalDescription(await self.peer.createOffer())
        viewer = await room.join(self.peer.localDescription.sdp)
        await self.peer.setRemoteDescription(RTCSessionDescription(viewer.answer, "answer"))
        await until(lambda: self.peer.connectionState == "connected")
        transport = self.receiver.transport
        pass_on = transport._handle_rtp_data

        async def handle(data: bytes, arrival_time_ms: int) -> None:
            packet = RtpPacket.parse(data, transport._rtp_header_extensions_map)
            self.packets.append(packet)
            await pass_on(data, arrival_time_ms=arrival_time_ms)

        transport._handle_rtp_data = handle
        protocol = transport.transport._connection._nominated[1].protocol
        receive = protocol.datagram_received

        def received(data: bytes, address: Any) -> None:
            is_rtp = 128 <= data[0] < 192 and not 64 <= data[1] & 127 < 96
            if not is_rtp or not self.loses(int.from_bytes(data[2:4], "big")):
                receive(data, address)

        protocol.datagram_received = received

    async def _watch(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                self.pictures.append(await track.recv())

    @property
    def receiver(self) -> Any:
        return self.peer.getTransceivers()[0].receiver


async def until(done: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not done():
            await asyncio.sleep(0.02)


def noise(count: int | None = None) -> Iterator[Redacted]:
    """Pictures that need many packets."""
    random = np.random.default_rng(0)
    index = 0
    while count is None or index < count:
        luma = random.integers(0, 255, (SIZE.height, SIZE.width), np.uint8)
        chroma = np.full((SIZE.height // 2, SIZE.width // 2, 2), 128, np.uint8)
        frame = Frame(luma, chroma, SIZE, index, 3000 * index, TICK)
        yield Redacted(frame, FrameResult(index, 3000 * index, index / 30, SIZE.width, SIZE.height))
        index += 1


@asynccontextmanager
async def stage(codec: str = "h264") -> AsyncIterator[tuple[Room, LiveEncoder, list[Encoded]]]:
    """A room whose viewers are shown noise at about 30 pictures per second, and what was sent to it."""
    encoder = LiveEncoder(EncoderSpec(SIZE, 30, codec, bit_rate=4_000_000))
    room = Room(want_key=encoder.want_key)
    sent: list[Encoded] = []

    async def play() -> None:
        for item in noise():
            for encoded in encoder.encode(item, item.frame.pts):
                sent.append(encoded)
                room.send(encoded)
            await asyncio.sleep(1 / 30)

    playing = asyncio.ensure_future(play())
    try:
        yield room, encoder, sent
    finally:
        playing.cancel()
        await room.leave_all()


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


@pytest.mark.parametrize("count", [1, 3])
def test_viewers_see_the_pictures_and_are_told_the_counts(count: int) -> None:
    async def test() -> None:
        async with stage() as (room, _, _):
            clients = [Client() for _ in range(count)]
            for client in clients:
                await client.join(room)
            for client in clients:
                await until(lambda client=client: len(client.pictures) > 20)  # type: ignore[misc]
                await until(
                    lambda client=client: reports(client)[-1:] and reports(client)[-1].packetsSent > 10
                )  # type: ignore[misc]
                assert client.pictures[0].width == SIZE.width
                numbers = [packet.sequence_number for packet in client.packets]
                assert all((b - a) % 65_536 == 1 for a, b in pairwise(numbers))
                assert client.packets[0].extensions.mid == "0"
                assert client.packets[0].extensions.abs_send_time is not None
                assert abs(reports(client)[-1].remoteTimestamp.timestamp() - time.time()) < 60
            assert len({client.packets[0].ssrc for client in clients}) == count
            for client in clients:
                await client.peer.close()

    def reports(client: Client) -> list[Any]:
        stats = client.receiver._RTCRtpReceiver__stats
        return [one for one in stats.values() if one.type == "remote-outbound-rtp"]

    run(test)


@pytest.mark.parametrize(
    ("parameters", "codec"),
    [
        ("packetization-mode=1;profile-level-id=42e01f", "h264"),
        ("level-asymmetry-allowed=1;profile-level-id=42001f;packetization-mode=1", "h264"),
        ("packetization-mode=1;profile-level-id=640c1f", "vp8"),
        ("packetization-mode=0;profile-level-id=42e01f", "vp8"),
        ("packetization-mode=1;profile-level-id=nonsense", "vp8"),
    ],
)
def test_a_viewer_whose_h264_is_not_ours_gets_vp8(parameters: str, codec: str) -> None:
    async def test() -> None:
        async with stage() as (room, _, _):
            viewer = await room.join(chrome_offer(f"a=rtpmap:96 VP8/90000\r\n{h264(parameters)}"))
            assert viewer.codec == codec
            name = "H264" if codec == "h264" else "VP8"
            assert f" {name}/90000" in viewer.answer
            assert "m=video 0 " not in viewer.answer

    run(test)


def test_a_viewer_whose_h264_is_not_ours_and_who_has_nothing_else_is_told_so() -> None:
    async def test() -> None:
        async with stage() as (room, _, _):
            with pytest.raises(ConfigError, match="baseline profile"):
                await room.join(chrome_offer(h264("packetization-mode=1;profile-level-id=640c1f")))
            assert len(room) == 0

    run(test)


@pytest.mark.parametrize(
    ("written", "instead", "problem"),
    [
        ("a=recvonly\r\n", "", None),  # sendrecv, by RFC 8866
        ("a=recvonly\r\n", "a=sendrecv\r\n", None),
        ("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n", None),
        ("a=recvonly\r\n", "a=sendonly\r\n", "does not ask to receive video"),
        ("a=recvonly\r\n", "a=inactive\r\n", "does not ask to receive video"),
        ("a=fingerprint", "a=no-fingerprint", "holds no fingerprint"),
    ],
)
def test_an_offer_is_answered_by_what_it_asks_for(written: str, instead: str, problem: str | None) -> None:
    async def test() -> None:
        async with stage() as (room, _, _):
            sdp = chrome_offer(h264("packetization-mode=1;profile-level-id=42e01f")).replace(written, instead)
            if problem is None:
                assert "a=sendonly" in (await room.join(sdp)).answer
            else:
                with pytest.raises(ConfigError, match=problem):
                    await room.join(sdp)
                assert len(room) == 0

    run(test)


@pytest.mark.parametrize(
    ("kinds", "group", "answered", "bundled"),
    [
        ("audio video", "0 1", "audio video", "0 1"),
        ("audio video", "", "- video", None),
        ("audio video", "1", "- video", "1"),
        ("video", "", "video", None),
        ("ended video audio", "1 2", "- video audio", "1 2"),
        ("video video", "0 1", "video -", "0"),
        ("inactive video", "0 1", "- video", "1"),
        ("h265 video", "0 1", "- video", "1"),
        ("g711 video application text", "0 1 2 3", "- video - -", "1"),
    ],
)
def test_what_is_not_served_is_refused_at_its_place(
    kinds: str, group: str, answered: str, bundled: str | None
) -> None:
    head, video = re.split(
        r"^(?=m=)", chrome_offer(h264("packetization-mode=1;profile-level-id=42e01f")), flags=re.M
    )
    sound = video.replace("m=video", "m=audio").replace("H264/90000", "opus/48000/2")
    form = {
        "video": video,
        "audio": sound,
        "ended": sound.replace(" 9 ", " 0 "),
        "inactive": video.replace("recvonly", "inactive"),
        "h265": video.replace("H264", "H265"),
        "g711": "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
        "application": "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n",
        "text": "m=text 9 udp t140\r\na=mid:0\r\n",
    }
    media = [form[kind].replace("a=mid:0", f"a=mid:{place}") for place, kind in enumerate(kinds.split())]
    sdp = head.replace("a=group:BUNDLE 0\r\n", f"a=group:BUNDLE {group}\r\n" if group else "") + "".join(
        media
    )

    async def test() -> None:
        async with stage() as (room, _, _):
            answer = (await room.join(sdp)).answer
            parts = re.split(r"^(?=m=)", answer, flags=re.M)
            assert [part.split()[0] for part in parts[1:]] == [part.split()[0] for part in media]
            assert re.findall(r"a=mid:(\S+)", answer) == [str(place) for place in range(len(media))]
            shown = [part[2:7] if part.split()[1] != "0" else "-" for part in parts[1:]]
            assert " ".join(shown) == answered
            assert answer.count("a=sendonly") == 1
            found = re.search(r"a=group:BUNDLE (.*)\r\n", answer)
            assert (found and found[1]) == bundled

    run(test)


def h264(parameters: str) -> str:
    return f"a=rtpmap:102 H264/90000\r\na=fmtp:102 {parameters}\r\n"


def chrome_offer(codecs: str) -> str:
    numbers = " ".join(re.findall(r"rtpmap:(\d+)", codecs))
    fingerprint = ":".join(["AB"] * 32)
    return (
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n"
        f"m=video 9 UDP/TLS/RTP/SAVPF {numbers}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n"
        f"a=ice-ufrag:abcd\r\na=ice-pwd:{'p' * 24}\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n"
        f"a=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n{codecs}"
    )


def test_a_viewer_that_has_left_holds_no_pictures_and_no_socket() -> None:
    async def test() -> None:
        async with stage() as (room, _, _):
            client = Client()
            await client.join(room)
            await until(lambda: len(client.pictures) > 5)
            (viewer,) = room._viewers.values()
            leg = viewer._leg
            assert leg is not None
            assert len(leg._history) > 5
            shared = leg._wire._socket
            assert shared is not None
            await room.leave(viewer)
            assert len(leg._history) == 0
            assert shared.fileno() == -1
            await client.peer.close()

    run(test)


def test_when_the_event_loop_is_held_up_viewers_go_on_with_a_key_picture() -> None:
    """Pictures that refer to others which were dropped cannot be decoded: they must not be sent."""

    async def test() -> None:
        async with stage() as (room, encoder, sent):
            client = Client()
            await client.join(room)
            await until(lambda: len(client.pictures) > 5)
            (viewer,) = room._viewers.values()
            offered: list[Encoded] = []
            offer = viewer.offer

            def watch(item: Encoded, payloads: Any) -> None:
                offered.append(item)
                offer(item, payloads)

            viewer.offer = watch  # type: ignore[method-assign]
            before, first = int(room.counters()["dropped"]), len(sent)
            for item in noise(150):  # all of this loop's turn: nothing can be handed out
                for encoded in encoder.encode(item, 3000 * (10_000 + item.frame.index)):
                    sent.append(encoded)
                    room.send(encoded)
            await until(lambda: len(offered) > 90)
            places = [sent.index(item) for item in offered]
            gaps = [after for ahead, after in pairwise([first - 1, *places]) if after > ahead + 1]
            assert gaps
            assert all(sent[place].key for place in gaps)
            missing = places[-1] + 1 - first - len(places)
            assert int(room.counters()["dropped"]) - before >= missing > 0
            assert not viewer._gate.waiting
            await client.peer.close()

    run(test)


def test_vp8_is_seen_too() -> None:
    async def test() -> None:
        async with stage("vp8") as (room, _, _):
            client = Client()
            client.peer.addTransceiver("video", direction="recvonly")
            await client.peer.setLocalDescription(await client.peer.createOffer())
            offer = client.peer.localDescription.sdp.replace("H264/90000", "NONE/90000")
            viewer = await room.join(offer)
            tasks = []
            client.peer.on("track", lambda track: tasks.append(asyncio.ensure_future(client._watch(track))))
            await client.peer.setRemoteDescription(RTCSessionDescription(viewer.answer, "answer"))
            await until(lambda: len(client.pictures) > 20)
            await client.peer.close()

    run(test)


@pytest.mark.parametrize("rtx", [True, False])
def test_a_lost_packet_is_sent_again(rtx: bool) -> None:
    async def test() -> None:
        async with stage() as (room, _, _):
            client = Client()
            lost: set[int] = set()

            def loses(sequence: int) -> bool:
                if len(client.packets) > 50 and len(lost) < 5 and sequence % 7 == 0 and sequence not in lost:
                    lost.add(sequence)
                    return True
                return False

            client.loses = loses
            if not rtx:
                offer_no_rtx(client)
            await client.join(room)
            await until(lambda: len(lost) == 5)
            await until(lambda: sum(sent_again(packet, client, lost, rtx) for packet in client.packets) >= 5)
            await client.peer.close()

    run(test)


def sent_again(packet: RtpPacket, client: Client, lost: set[int], rtx: bool) -> bool:
    """Whether it is a lost packet: with its number before its payload (RFC 4588), or just late."""
    if rtx:
        return packet.ssrc != client.packets[0].ssrc and int.from_bytes(packet.payload[:2], "big") in lost
    return packet.sequence_number in lost


def offer_no_rtx(client: Client) -> None:
    create = client.peer.createOffer
    codecs = [one for one in RTCRtpSender.getCapabilities("video").codecs if one.name.lower() != "rtx"]

    async def offer() -> Any:
        client.peer.getTransceivers()[0].setCodecPreferences(codecs)
        return await create()

    setattr(client.peer, "createOffer", offer)  # noqa: B010 - a method, on this instance alone


def test_a_picture_loss_indication_brings_a_key_picture() -> None:
    async def test() -> None:
        async with stage() as (room, _, sent):
            client = Client()
            await client.join(room)
            await until(lambda: len(client.pictures) > 20)
            await until(lambda: not sent[-1].key)
            before, pts = sum(item.key for item in sent), sent[-1].packet.pts
            await client.receiver._send_rtcp_pli(client.packets[0].ssrc)
            await until(lambda: sum(item.key for item in sent) > before)
            key = next(item for item in sent if item.key and item.packet.pts > pts)
            assert key.packet.pts - pts < 2 * 90_000  # 30 pictures a second: before the one that comes anyway
            await client.peer.close()

    run(test)


def test_a_picture_costs_a_call_or_two(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    send_block = fanout.Wire._send_block

    def counted(self: fanout.Wire, block: list[bytes], address: Any) -> None:
        calls.append(len(block))
        send_block(self, block, address)

    monkeypatch.setattr(fanout.Wire, "_send_block", counted)

    async def test() -> None:
        async with stage() as (room, encoder, _):
            client = Client()
            await client.join(room)
            await until(lambda: len(client.pictures) > 20)
            assert len(client.packets) > 5 * len(client.pictures)
            assert len(calls) < 5 * len(client.pictures) < sum(calls)
            assert encoder.key_pictures < 5
            await client.peer.close()

    run(test)


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EAGAIN, errno.ENETUNREACH])
def test_a_system_that_does_not_take_blocks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    send_block = fanout.Wire._send_block
    refused = []

    def refuses(self: fanout.Wire, block: list[bytes], address: Any) -> None:
        if len(block) > 1 and len(refused) < 100:
            refused.append(len(block))
            raise OSError(number, "no")
        send_block(self, block, address)

    monkeypatch.setattr(fanout.Wire, "_send_block", refuses)

    async def test() -> None:
        async with stage() as (room, _, _):
            client = Client()
            await client.join(room)
            await until(lambda: len(client.pictures) > 20)
            if number in (errno.EIO, errno.EINVAL):
                assert len(refused) == 1
            if number != errno.ENETUNREACH:
                numbers = [packet.sequence_number for packet in client.packets]
                assert len(set(numbers)) >= math.floor(0.99 * ((numbers[-1] - numbers[0]) % 65_536))
            await client.peer.close()

    run(test)


def test_a_network_that_takes_nothing_breaks_the_chain_and_nothing_piles_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        async with stage() as (room, _, sent):
            client = Client()
            await client.join(room)
            await until(lambda: len(client.pictures) > 5)
            with monkeypatch.context() as patch:
                patch.setattr(fanout.Wire, "send", lambda self, datagrams: False)
                before = len(sent)
                await until(lambda: len(sent) > before + 10)
                dropped = int(room.counters()["dropped"])
                assert dropped >= 9
            seen = len(client.pictures)
            await until(lambda: len(client.pictures) > seen + 10)
            await client.peer.close()

    run(test)
