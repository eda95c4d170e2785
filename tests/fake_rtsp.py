"""An RTSP server (RFC 2326) on loopback whose every answer passes through a function that may damage it."""

import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import av

from streamer.proof.scene import SIZE, planes_with_face

Damage = Callable[
    [int, str, bytes], bytes
]  # connection, what it is (a method or "rtp"), bytes as they should be
_LARGEST = 1200  # bytes of a NAL unit in one packet
_RATE = 25


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of an Annex B stream."""
    return [unit.strip(b"\0") for unit in data.split(b"\0\0\1") if unit.strip(b"\0")]


@lru_cache(maxsize=2)
def pictures(seconds: int = 2, gop: int = _RATE) -> list[list[bytes]]:
    """The scene for so long, each picture as NAL units, the first of `gop` a key picture."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = SIZE.width, SIZE.height, "yuv420p"
    encoder.framerate, encoder.gop_size = _RATE, gop
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "18"}
    found = []
    for _ in range(seconds * _RATE):
        packets = encoder.encode(av.VideoFrame.from_ndarray(planes_with_face(), "yuv420p"))
        found.append(nal_units(b"".join(bytes(packet) for packet in packets)))
    return found


def rtp_packets(shown: list[list[bytes]]) -> Iterator[tuple[float, bytes]]:
    """RTP packets (RFC 6184) over and over, interleaved (RFC 2326 10.12), each with its time in seconds."""
    numbers = itertools.count(1)
    for index, units in enumerate(itertools.cycle(shown)):
        payloads = [payload for unit in units for payload in _payloads(unit)]
        for place, payload in enumerate(payloads):
            last = 0x80 if place == len(payloads) - 1 else 0
            head = struct.pack(">BBHII", 0x80, 96 | last, next(numbers) & 0xFFFF, index * 90_000 // _RATE, 7)
            yield index / _RATE, b"$\0" + struct.pack(">H", len(head) + len(payload)) + head + payload


def _payloads(unit: bytes) -> list[bytes]:
    if len(unit) <= _LARGEST:
        return [unit]
    indicator, kind, rest = (unit[0] & 0xE0) | 28, unit[0] & 0x1F, unit[1:]
    parts = [rest[at : at + _LARGEST] for at in range(0, len(rest), _LARGEST)]
    flags = [0x80, *[0] * (len(parts) - 2), 0x40]
    return [bytes([indicator, flag | kind]) + part for flag, part in zip(flags, parts, strict=True)]


def sdp(port: int) -> bytes:
    lines = [
        "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 127.0.0.1", "t=0 0", "a=range:npt=0-",
        f"a=control:rtsp://127.0.0.1:{port}/clip", "m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1;profile-level-id=42C00D", "a=framerate:25",
        f"a=control:rtsp://127.0.0.1:{port}/clip/track1", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


class FakeRtsp:
    """Serves the scene over interleaved TCP to any number of clients. Use it with a with-statement."""

    def __init__(
        self, damage: Damage = lambda connection, what, data: data, shown: list[list[bytes]] | None = None
    ) -> None:
        self._damage = damage
        self._shown = shown or pictures()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(0.1)
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._threads = [threading.Thread(target=self._listen, daemon=True)]

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/clip"

    def __enter__(self) -> "FakeRtsp":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            number, self.connections = self.connections, self.connections + 1
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(0.2)
        rest = b""
        with connection:
            try:
                while not self._over.is_set():
                    try:
                        data = connection.recv(65_536)
                    except TimeoutError:
                        continue
                    if not data:
                        return
                    rest += data
                    while b"\r\n\r\n" in rest:
                        head, _, rest = rest.partition(b"\r\n\r\n")
                        method = head.split(b" ", 1)[0].decode("latin-1")
                        connection.sendall(self._damage(number, method, self._answer(method, head)))
                        if method == "PLAY":
                            self._play(connection, number)
                            return
            except OSError:
                return

    def _answer(self, method: str, head: bytes) -> bytes:
        sequence = next(
            (line[5:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"cseq:")), b"0"
        )
        lines = [b"RTSP/1.0 200 OK", b"CSeq: " + sequence, b"Server: fake"]
        body = b""
        match method:
            case "OPTIONS":
                lines.append(b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
            case "DESCRIBE":
                body = sdp(self.port)
                lines += [b"Content-Type: application/sdp", f"Content-Base: {self.url}/".encode()]
            case "SETUP":
                lines += [b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1", b"Session: 12345678;timeout=60"]
            case "PLAY":
                lines += [b"Session: 12345678", b"Range: npt=0.000-"]
        lines += [f"Content-Length: {len(body)}".encode()] if body else []
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def _play(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(5)
        begun = time.monotonic()
        for due_s, packet in rtp_packets(self._shown):
            if self._over.wait(max(0.0, begun + due_s - time.monotonic())):
                return
            connection.sendall(self._damage(number, "rtp", packet))


def damage_of(seed: int) -> Damage:
    """What one camera does wrong: some of its answers, or some of its packets."""
    dice = random.Random(seed)
    whole = dice.randrange(4)  # every fourth answers as it should and sends odd packets only
    share = dice.choice([0.02, 0.2, 0.8])

    def damage(_: int, what: str, data: bytes) -> bytes:
        if what == "rtp":
            return odd_packet(data, dice) if not whole and dice.random() < share else data
        return odd_text(data, dice) if whole and dice.random() < 0.5 else data

    return damage


STATUSES = (b"301 Moved", b"401 Unauthorized", b"404 Not Found", b"500 Oops", b"999", b"200")
NUMBERS = (b"-1", b"9" * 25, b"", b"0", b"65536")
HEADERS = (
    b"Location: rtsp://127.0.0.1:9/x", b"Location: file:///etc/passwd", b"Location: ", b"Content-Length: 99999",
    b'WWW-Authenticate: Digest realm="' + b"x" * 3000 + b'", nonce="%n%s"', b"Session: " + b"y" * 9000,
)  # fmt: skip


def odd_text(data: bytes, dice: random.Random) -> bytes:
    """The answer with one thing that a client may not expect."""
    lines = data.split(b"\r\n")
    at = dice.randrange(len(lines))
    match dice.randrange(8):
        case 0:
            lines[at] = dice.choice([b"", lines[at] * 400, dice.randbytes(99)])
        case 1:
            lines.insert(at, dice.choice(lines))
        case 2 | 3:
            lines[at] = _renumbered(lines[at], dice)
        case 4:
            lines[0] = b"RTSP/1.0 " + dice.choice(STATUSES)
        case 5:
            return data[: dice.randrange(len(data))]
        case 6:
            lines.insert(1, dice.choice(HEADERS))
        case _:
            return _flipped(data, dice)
    return b"\r\n".join(lines)


def _renumbered(line: bytes, dice: random.Random) -> bytes:
    digits = [place for place, byte in enumerate(line) if 48 <= byte <= 57]
    if not digits:
        return line
    place = dice.choice(digits)
    return line[:place] + dice.choice(NUMBERS) + line[place + 1 :]


def _flipped(data: bytes, dice: random.Random) -> bytes:
    wrong = bytearray(data)
    for _ in range(dice.randrange(1, 20)):
        wrong[dice.randrange(len(wrong))] ^= 1 << dice.randrange(8)
    return bytes(wrong)


def odd_packet(data: bytes, dice: random.Random) -> bytes:
    """The packet with wrong bits, a wrong length, or something else in its place."""
    match dice.randrange(5):
        case 0:
            return data[:2] + struct.pack(">H", dice.randrange(65_536)) + data[4:]
        case 1:
            return b""
        case 2:
            return data[: dice.randrange(len(data))]
        case 3:
            return dice.randbytes(dice.randrange(1, 300))
        case _:
            return _flipped(data, dice)
