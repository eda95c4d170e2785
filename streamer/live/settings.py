"""What one live stream is told, from the command line, a YAML file or HTTP: the same frozen model for all."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from streamer.address import has_scheme, redacted_url
from streamer.config import Hide, Settings, Style, several
from streamer.errors import ConfigError
from streamer.media.live_spec import check_source
from streamer.media.push import check_push

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_RESERVED = frozenset({"v1", "healthz", "readyz", "metrics", "pages", "results", "openapi.json"})


def _numbered(source: Any) -> Any:
    """A webcam's number may be written as one."""
    return str(source) if isinstance(source, int) and not isinstance(source, bool) else source


def _check_written_out(url: str) -> None:
    """Settings as they are shown, sent back, would lose the login that they had."""
    if has_scheme(url) and "***" in url:
        raise ConfigError(f"*** stands for what is not shown: write the address out: {redacted_url(url)}")


def _connectable(url: str) -> str:
    url = url.strip()  # a pasted space would make it a file's name
    check_source(url)
    _check_written_out(url)
    return str(_at_home(Path(url))) if url.startswith("~") else url


def _at_home(path: Path) -> Path:
    """With `~` written out, as a shell does for options but nobody for a configuration file."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no such home: {path.parts[0]}") from error


def _pushable(url: str) -> str:
    check_push(url)
    _check_written_out(url)
    return url


class StreamSettings(BaseModel):
    """One camera and where its protected stream goes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    source: Annotated[
        str, BeforeValidator(_numbered), AfterValidator(_connectable)
    ]  # rtsp://, udp://, http://, rtmp://, srt://, a webcam's number or path, or a file
    transport: Literal["tcp", "udp"] = "tcp"  # of RTSP
    enabled: bool = True
    loop: bool = False  # play a file again and again
    audio: Literal["drop", "keep"] = "drop"  # keep: sound leaves as it comes, voices are not changed
    webrtc: bool = True
    hls: bool = False
    push: Annotated[
        tuple[Annotated[str, AfterValidator(_pushable)], ...], BeforeValidator(several), Field(max_length=32)
    ] = ()  # rtsp://, rtmp://, whip://, srt://, udp://; one alone needs no list
    record: Annotated[Path, AfterValidator(_at_home)] | None = None  # folder of the recordings
    segment_s: Annotated[float, Field(ge=2, le=86_400)] = 60.0  # length of one recording
    delay_ms: Annotated[int, Field(ge=0, le=5000)] = (
        0  # look-ahead: 300 masks most faces before their first detection
    )
    late_ms: Annotated[int, Field(ge=50, le=10_000)] = (
        500  # without a picture for so long, a covered one is sent
    )
    mask_age_ms: Annotated[int, Field(ge=100, le=10_000)] = (
        1000  # masks older than this cover the whole picture
    )
    bit_rate: Annotated[int, Field(ge=50_000, le=100_000_000)] | None = None  # bits per second; None: by size
    hide: Hide | None = None  # None: as the server's settings say
    style: Style | None = None
    zones: dict[str, Any] | None = (
        None  # {"mask": [...], "keep": [...]} as in a zones file, whose own masks stay
    )

    @property
    def shown_source(self) -> str:
        """The source without secrets."""
        return redacted_url(self.source)

    def shown(self) -> dict[str, Any]:
        """The settings as they may be shown: addresses without secrets."""
        values = self.model_dump(mode="json")
        values["source"] = self.shown_source
        values["push"] = [redacted_url(url) for url in self.push]
        return values

    def apply_to(self, settings: Settings) -> Settings:
        """The anonymizer's settings for this stream."""
        mask = settings.mask if self.style is None else settings.mask.model_copy(update={"style": self.style})
        track = settings.track.model_copy(update={"look_ahead_s": self.delay_ms / 1000})
        hide = settings.hide if self.hide is None else self.hide
        return settings.model_copy(update={"mask": mask, "track": track, "hide": hide})


def stream_settings(values: Any, *, name: str) -> StreamSettings:
    """Checked settings of the stream `name`. Raises ConfigError; its message holds no secrets."""
    try:
        return StreamSettings.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in problem["loc"])[:100] or "settings"
        raise ConfigError(
            f'stream "{name}": {place}: {problem["msg"].removeprefix("Value error, ")}'
        ) from None


def check_name(name: str) -> str:
    """A stream's name, which is part of its addresses and file names. Raises ConfigError."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(
            f"a stream's name is letters, digits, - _ . and none of {', '.join(sorted(_RESERVED))}: {name}"
        )
    return name
