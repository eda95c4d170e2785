"""What a live source is: how its address is read, refused where it can never be connected to, and told to FFmpeg."""

import os
import re
from dataclasses import dataclass
from typing import Literal

from streamer.address import BARE_PASSWORD, has_bare_password, has_login, redacted_url
from streamer.errors import ConfigError, InputError
from streamer.media.protocols import has_srt

_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp", "http", "https")
_NETWORK = re.compile(rf"^({'|'.join(_SCHEMES)})://", re.I)
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://", re.I)
_LISTENING = re.compile(r"^(?:rtmps?|tcp)://", re.I)
_WEBCAM = re.compile(r"^(\d+|/dev/video[^?]*)(?:\?(.*))?$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WEBCAM_OPTIONS = ("video_size", "framerate", "input_format")  # as FFmpeg calls them


def is_there(name: str) -> bool:
    """Whether a file has this name; False, where `Path.exists` raises, for names that no file can have."""
    return os.path.exists(name)  # noqa: PTH110 - as said


@dataclass(frozen=True, slots=True)
class LiveSpec:
    """What to connect to, and how long to wait for it."""

    url: str  # rtsp://, udp://, http://, rtmp://, srt://, a file, or a webcam (0 or /dev/video0, and ?video_size=...)
    transport: Literal["tcp", "udp"] = "tcp"  # of RTSP
    open_s: float = 10.0  # to connect and to recognise the stream
    read_s: float = 10.0  # without a picture
    key_s: float = 75.0  # until the first key picture, while others come: some cameras send one a minute
    loop: bool = False  # start files again at their end
    sound: bool = False  # hand on what it sounds like, too

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return redacted_url(self.url)

    @property
    def listens(self) -> bool:
        """Whether the sender connects to us: `?listen=1` of RTMP and TCP."""
        return _listening(self.url) is not None

    @property
    def kind(self) -> Literal["webcam", "network", "file"]:
        """How it is opened."""
        if _WEBCAM.match(self.url):
            return "webcam"
        return "network" if _NETWORK.match(self.url) else "file"

    def for_ffmpeg(self) -> tuple[str, str | None, dict[str, str]]:
        """The name, the format (None: to be found out) and the options to open it with. Raises InputError."""
        if (webcam := _WEBCAM.match(self.url)) is not None:
            name, options = webcam[1], _webcam_options(webcam[2])
            return f"/dev/video{name}" if name.isdigit() else name, "v4l2", options
        if self.kind == "file":
            if not is_there(self.url):
                raise InputError(f"no such file: {self.url}")
            return f"file:{self.url}", None, {}  # else 12:30.mp4 is a protocol
        options = {
            "fflags": "+discardcorrupt",
            "analyzeduration": "1000000",
        }  # nobuffer would lose the key picture
        options["merge_pmt_versions"] = (
            "1"  # MPEG-TS: another sender's pictures come as the stream that is known
        )
        scheme = self.url.partition(":")[0].lower()
        if scheme in ("rtsp", "rtsps"):
            options |= {"rtsp_transport": self.transport, "timeout": str(round(self.read_s * 1e6))}
            options["allowed_media_types"] = "video+audio" if self.sound else "video"
        elif scheme == "udp":
            options |= {"fifo_size": "50000", "overrun_nonfatal": "1"}
        elif scheme == "rtmp" and (address := _listening(self.url)) is not None:
            options["listen"] = "1"  # FFmpeg reads it in the address of TCP alone
            return address, None, options
        return self.url, None, options


def _webcam_options(query: str | None) -> dict[str, str]:
    """What is asked of a webcam behind its number or path: `?video_size=1280x720&framerate=30&input_format=mjpeg`.

    Raises ConfigError for what cannot be asked.
    """
    options: dict[str, str] = {}
    for part in filter(None, (query or "").split("&")):
        name, _, value = part.partition("=")
        if name not in _WEBCAM_OPTIONS or not value:
            raise ConfigError(f'a webcam takes {", ".join(_WEBCAM_OPTIONS)}, each with a value, not "{part}"')
        options[name] = value
    return options


def _listening(url: str) -> str | None:
    """The address without `listen`, if the sender is to connect to it; else None."""
    place, _, query = url.partition("?")
    parts = query.split("&")
    rest = [part for part in parts if part.lower() not in ("listen", "listen=1")]
    if len(rest) == len(parts) or _LISTENING.match(url) is None:
        return None
    return f"{place}?{'&'.join(rest)}" if rest else place


def check_source(url: str) -> None:
    """Refuse what can never be connected to. Raises ConfigError, whose message holds no secrets."""
    if not url.strip():
        raise ConfigError("a source is an address, a webcam's number or path, or a file")
    if "\0" in url or (_CONTROL.search(url) and (_SCHEME.match(url) or _WEBCAM.match(url))):
        raise ConfigError(
            "a source's address holds a control character"
        )  # which could begin a line of RTSP or HTTP
    if (webcam := _WEBCAM.match(url)) is not None:
        _webcam_options(webcam[2])
        return
    if _SCHEME.match(url) and not _NETWORK.match(url):
        raise ConfigError(f"a source's address begins with one of {', '.join(_SCHEMES)}: {redacted_url(url)}")
    if not _SCHEME.match(url) and has_login(url) and not is_there(url):
        shown = url.rpartition("@")[2]
        raise ConfigError(f"a source's address begins with one of {', '.join(_SCHEMES)}: ***@{shown}")
    if has_bare_password(url):
        raise ConfigError(f"{BARE_PASSWORD}: {redacted_url(url)}")
    scheme = url.partition(":")[0].lower()
    if scheme == "rtmps" and _listening(url) is not None:
        raise ConfigError(f"rtmps cannot listen, only rtmp and tcp can: {redacted_url(url)}")
    if scheme == "srt" and not has_srt():
        raise ConfigError(f"this build of PyAV has no SRT: {redacted_url(url)}")
