"""Publishes a stream to a media server (RTSP, RTMP, SRT, WHIP, MPEG-TS over UDP), again and again if it must.

# Note [A process for each target]
PyAV holds the interpreter's lock while FFmpeg connects an output: a server that accepts and never answers would stop
every thread of this process. So each target has a process of its own, which is killed when it answers too late. It
is told the address through a pipe, as command lines are for everybody to read.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from streamer.address import BARE_PASSWORD, has_bare_password, redacted_url, without_secrets
from streamer.channel import Closed, Worker
from streamer.clock import RETRY_S, SYSTEM, Clock
from streamer.errors import ConfigError, OutputError
from streamer.media.egress import H264_AAC, H264_OPUS, Encoded, PacketQueue, no_sound
from streamer.media.protocols import has_srt
from streamer.media.push_process import HEADER, KEY, PICTURE, SOUND

_QUEUE = 60  # pictures: two seconds at 30 frames per second
_TIMEOUT_S = 5.0  # to connect
_DELAYS_S = RETRY_S
_FORMATS = {
    "rtsp": ("rtsp", {"rtsp_transport": "tcp"}), "rtsps": ("rtsp", {"rtsp_transport": "tcp"}),
    "rtmp": ("flv", {"flvflags": "no_duration_filesize"}), "rtmps": ("flv", {"flvflags": "no_duration_filesize"}),
    "srt": ("mpegts", {}), "udp": ("mpegts", {}), "tcp": ("mpegts", {}),
    "whip": ("whip", {}), "whips": ("whip", {}), "http": ("whip", {}), "https": ("whip", {}),
}  # fmt: skip
_WHIP = frozenset(scheme for scheme, (name, _) in _FORMATS.items() if name == "whip")


def check_push(url: str) -> None:
    """Refuse an address that nothing can be pushed to. Raises ConfigError."""
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ConfigError("the address of a push holds a space or a control character")
    if has_bare_password(url):
        raise ConfigError(f"{BARE_PASSWORD}: {redacted_url(url)}")
    scheme = _scheme(url)
    if scheme not in _FORMATS:
        raise ConfigError(f"push needs one of {', '.join(_FORMATS)}: {redacted_url(url)}")
    if scheme == "srt" and not has_srt():
        raise ConfigError(f"this build of PyAV has no SRT: {redacted_url(url)}")
    if scheme in _WHIP and find_spec("aiortc") is None:
        raise ConfigError(
            f"WHIP needs the extra serve: pip install 'streamer-anonymizer[serve]': {redacted_url(url)}"
        )


def _scheme(url: str) -> str:
    """In lower case. `urlsplit` is not asked: it raises errors that hold the password."""
    return url.partition(":")[0].lower()


def iter_lines(child: "subprocess.Popen[bytes]") -> Iterator[str]:
    """What the process says, line by line, until it ends."""
    assert child.stdout is not None
    for line in child.stdout:
        yield line.decode(errors="replace").rstrip("\n")


def child_ready(said: list[str]) -> bool:
    """Whether the target has accepted the stream."""
    return "ready" in said


class Push:
    """One push target, an `Outlet` with a thread of its own. It slows nobody: what it cannot take is dropped."""

    def __init__(
        self, url: str, *, want_key: Callable[[], None], clock: Clock = SYSTEM,
        has_sound: Callable[[], bool] = no_sound,
    ) -> None:  # fmt: skip
        check_push(url)
        self.name = redacted_url(url)
        self._whip = _scheme(url) in _WHIP
        self.codecs = H264_OPUS if self._whip else H264_AAC
        self._has_sound = has_sound
        self.state = "waiting"
        self.problem: str | None = None
        self._url = url
        self._clock = clock
        self._want_key = want_key
        self._queue = PacketQueue(_QUEUE, want_key=want_key)
        self._sent = self._connects = self._failures = 0
        self._stopped = False
        self._worker = Worker(self._run, name="push")

    def send(self, item: Encoded) -> None:
        """Queue a picture, or drop it while the target is slow or away."""
        self._queue.put(item)

    def close(self) -> None:
        """Say goodbye to the server; waits at most as long as a connection may take."""
        self._stopped = True
        self._queue.close()
        self._worker.join(_TIMEOUT_S)

    def counters(self) -> dict[str, int | str]:
        """Pictures sent and dropped, connections made and failed, and the state."""
        return {
            "state": self.state,
            "sent": self._sent,
            "dropped": self._queue.dropped,
            "connects": self._connects,
            "failures": self._failures,
            **({"problem": self.problem} if self.problem else {}),
        }

    def _run(self) -> None:
        tries = 0
        while True:
            before = self._sent
            try:
                self._publish()
            except Closed:
                return
            except Exception as error:  # noqa: BLE001 - whatever a try dies of, there is another
                self._failures += 1
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                self.problem = without_secrets(reason, self._url)
            if self._stopped:
                return
            self.state = "waiting to try again"
            tries = 0 if self._sent - before > 100 else tries
            self._rest(_DELAYS_S[min(tries, len(_DELAYS_S) - 1)])
            tries += 1

    def _publish(self) -> None:
        """One connection, in a process of its own; raises OutputError when it ends."""
        self.state = "connecting"
        first = self._key_picture()
        format_name, options = _FORMATS[_scheme(self._url)]
        module = "streamer.media.whip_process" if self._whip else "streamer.media.push_process"
        command = [sys.executable, "-m", module, format_name]
        command.append("sound" if self._has_sound() else "silent")
        with subprocess.Popen(
            [*command, *(f"{key}={value}" for key, value in options.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ) as child:  # fmt: skip
            try:
                self._talk(child, first)
            finally:
                self._end(child)

    def _talk(self, child: "subprocess.Popen[bytes]", first: Encoded) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        said: list[str] = []
        listener = Worker(lambda: said.extend(iter_lines(child)), name="push answers")
        os.set_blocking(child.stdin.fileno(), False)
        begun_s = self._clock.now()
        self._write(child, self._url.encode() + b"\n", listener)
        item: Encoded | None = first
        while not self._stopped:
            if self.state == "connecting" and child_ready(said):
                self._connects += 1
                self.state, self.problem = "publishing", None
                if self._whip:  # what came before the connection was dropped
                    self._want_key()
            if self.state == "connecting" and self._clock.now() - begun_s > _TIMEOUT_S:
                raise OutputError("no answer in time")
            if not listener.alive:
                reasons = (line[8:] for line in said if line.startswith("failed: "))
                raise OutputError(next(reasons, "the connection ended"))
            if item is not None:
                data = bytes(item.packet)
                kind = SOUND if item.is_sound else KEY if item.key else PICTURE
                self._write(child, HEADER.pack(item.packet.pts or 0, kind, len(data)) + data, listener)
                self._sent += self.state == "publishing" and not item.is_sound
            try:
                item = self._queue.get(timeout_s=0.5)
            except TimeoutError:
                item = None

    def _write(self, child: "subprocess.Popen[bytes]", data: bytes, listener: Worker) -> None:
        """Write all of it; raises OutputError when the process takes nothing for too long or is gone."""
        assert child.stdin is not None
        rest = memoryview(data)
        until_s = self._clock.now() + _TIMEOUT_S
        while rest and not self._stopped:
            if self._clock.now() > until_s:
                raise OutputError("the target takes no more")
            if not select.select([], [child.stdin], [], 0.5)[1]:
                continue
            try:
                rest = rest[os.write(child.stdin.fileno(), rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                listener.join(1.0)
                return

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        """Let the process say goodbye; it is killed if it takes long."""
        assert child.stdin is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        try:
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            child.kill()

    def _key_picture(self) -> Encoded:
        self._want_key()
        while True:
            item = self._queue.get()
            if item.key:
                return item

    def _rest(self, seconds: float) -> None:
        """Wait, while the queue is read away: what is in it would be old."""
        until_s = self._clock.now() + seconds
        while (left_s := until_s - self._clock.now()) > 0 and not self._stopped:
            try:
                self._queue.get(timeout_s=min(left_s, 0.5))
            except TimeoutError:
                continue
