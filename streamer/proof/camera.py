"""Cameras on loopback that show the scene as MPEG-TS and misbehave when they are told to."""

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import av

from streamer.channel import Worker
from streamer.frame import Size
from streamer.proof.scene import SIZE, TICK, planes_with_face

RATE = 25
_DATAGRAM = 188  # bytes: one packet of MPEG-TS each, so that parts of pictures get lost
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Film:
    """What a camera shows from now on."""

    size: Size = SIZE
    start_s: float = 0.0  # of its time stamps
    rate: int = RATE

    def chunks(self) -> Iterator[bytes]:
        """The bytes of one picture after the other, without end."""
        taken = _Bytes()
        planes = planes_with_face(self.size)
        options = {"preset": "ultrafast", "tune": "zerolatency", "bf": "0", "g": str(self.rate), "crf": "18"}
        with av.open(taken, "w", format="mpegts", options={"flush_packets": "1"}) as container:
            stream = container.add_stream("libx264", rate=self.rate, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = self.size.width, self.size.height, "yuv420p"
            stream.codec_context.time_base = stream.time_base = TICK
            stream.codec_context.thread_count = 1
            index = 0
            while True:
                picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
                picture.pts, picture.time_base = round((self.start_s + index / self.rate) * 90_000), TICK
                container.mux(stream.encode(picture))
                yield taken.take()
                index += 1


class _Bytes:
    """A file that only grows, and is emptied by its reader."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        """Keep what FFmpeg writes."""
        self._data += data
        return len(data)

    def take(self) -> bytes:
        """All that was written since the last time."""
        data = bytes(self._data)
        self._data.clear()
        return data


class Camera:
    """Sends its film over TCP to whoever connects, at its own pace. Use it with a with-statement.

    It may be told from another thread to show something else (`film`), to hurry (`paced`), to fall silent without
    hanging up (`silent`: connections of that time stay dumb), and to `die` and `revive` on the same port.
    """

    def __init__(self) -> None:
        self.film = Film()
        self.paced = True
        self.silent = False
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._over = False
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._workers = [Worker(self._listen, name="camera")]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> "Camera":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self.die()
        for worker in self._workers:
            worker.join(5)

    def die(self) -> None:
        """Hang up on everybody and refuse new connections."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for connection in tuple(self._open):
            _hang_up(connection)

    def revive(self) -> None:
        """Take connections again."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self._listener = listener

    def _listen(self) -> None:
        while not self._over:
            listener = self._listener
            if listener is None:
                time.sleep(_POLL_S)
                continue
            try:
                listener.settimeout(_POLL_S)
                connection, _ = listener.accept()
            except OSError:  # nobody came, or it died meanwhile
                continue
            self.connections += 1
            self._open.add(connection)
            self._workers.append(Worker(lambda taken=connection: self._serve(taken), name="camera line"))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        try:
            for chunk in self._chunks():
                connection.sendall(chunk)
            while not self._over and connection in self._open:  # fell silent: the line stays open
                time.sleep(_POLL_S)
        except OSError:
            pass
        finally:
            self._open.discard(connection)
            connection.close()

    def _chunks(self) -> Iterator[bytes]:
        due_s = time.monotonic()
        while not self._over:
            film = self.film
            for chunk in film.chunks():
                if self.silent or self._over:
                    return
                yield chunk
                due_s = due_s + 1 / film.rate if self.paced else time.monotonic()
                time.sleep(max(0.0, due_s - time.monotonic()))
                if self.film is not film:
                    break


class UdpCamera:
    """Sends its film as datagrams to a free port of this machine, and loses a share of them on the way."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = int(taken.getsockname()[1])
        self.loss = 0.0  # share of the datagrams
        self.sent = self.lost = 0
        self._over = False
        self._worker = Worker(self._send, name="camera")

    @property
    def url(self) -> str:
        """Where it sends to."""
        return f"udp://127.0.0.1:{self.port}"

    def __enter__(self) -> "UdpCamera":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._worker.join(5)

    def _send(self) -> None:
        dice = random.Random(7)
        due_s = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for chunk in Film().chunks():
                if self._over:
                    return
                for at in range(0, len(chunk), _DATAGRAM):
                    self.sent += 1
                    if dice.random() < self.loss:
                        self.lost += 1
                        continue
                    with contextlib.suppress(OSError):  # nobody listens yet
                        out.sendto(chunk[at : at + _DATAGRAM], ("127.0.0.1", self.port))
                due_s += 1 / RATE
                time.sleep(max(0.0, due_s - time.monotonic()))


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
