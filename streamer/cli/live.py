"""`streamer live`: one camera, webcam, stream or file in, its protected stream out, as long as it runs."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamer import config, pipeline
from streamer.cli import web
from streamer.clock import SYSTEM
from streamer.config import Hide, Style
from streamer.errors import ConfigError, InputError
from streamer.live.fleet import Fleet, open_studio
from streamer.live.settings import StreamSettings, check_name, stream_settings
from streamer.live.status import outlet_problems, status
from streamer.media.live_spec import LiveSpec, is_there

Say = Callable[[str], None]

_LOOK_S = 0.25  # between looks at how the stream does, and whether it shall stop


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="rtsp://, rtmp://, srt://, udp://, http:// (also HLS), a file, or a webcam's number or path"
            " (as 0?video_size=1280x720).",
            metavar="SOURCE",
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the stream, part of its addresses.")] = "camera",
    webrtc: Annotated[
        bool, typer.Option("--webrtc", help="Show it in browsers (WHEP) and on a page.")
    ] = False,
    hls: Annotated[bool, typer.Option("--hls", help="Offer HLS at /NAME/index.m3u8.")] = False,
    push: Annotated[
        list[str] | None,
        typer.Option(
            "--rtsp", "--push", help="Publish to rtsp://, rtmp://, whip://, srt://, or udp://.", metavar="URL"
        ),
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Record into this folder.", metavar="DIR")] = None,
    segment: Annotated[float, typer.Option(help="Length of a recording, in seconds.")] = 60.0,
    delay: Annotated[
        int,
        typer.Option(
            help="Look-ahead in ms; 300 masks most faces before they are first found.", metavar="MS"
        ),
    ] = 0,
    transport: Annotated[Literal["tcp", "udp"], typer.Option(help="How RTSP comes.")] = "tcp",
    audio: Annotated[
        Literal["drop", "keep"],
        typer.Option(help="Sound; keep: it leaves as it comes, voices are not changed."),
    ] = "drop",
    loop: Annotated[bool, typer.Option("--loop", help="Play a file again and again.")] = False,
    hide: Annotated[Hide | None, typer.Option(help="What to hide.")] = None,
    style: Annotated[Style | None, typer.Option(help="How to hide it.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve on; another than loopback needs keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve on; 0 is any free one.")] = 8080,
    prefix: Annotated[
        str, typer.Option(help="Path below which a web server in front passes requests on.", metavar="/PATH")
    ] = "",
    keys_file: Annotated[
        Path | None, typer.Option("--keys", help="File with one line sha256:HEX per API key.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the certificate: serve HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its key.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to compute.")] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Anonymize a live stream.

    The output never stops: while the source is away or too late, the whole picture is covered.
    """
    if not (webrtc or hls or push or record):
        raise ConfigError(
            "say where the stream goes: --webrtc, --hls, --rtsp URL, --push URL or --record DIR"
        )
    if webrtc or hls:
        _need_serving()
    values: dict[str, Any] = {
        "source": source, "transport": transport, "loop": loop, "audio": audio, "webrtc": webrtc, "hls": hls,
        "push": tuple(push or ()), "record": record, "segment_s": segment, "delay_ms": delay,
        "hide": hide, "style": style,
    }  # fmt: skip
    settings = stream_settings(values, name=check_name(name))
    if LiveSpec(settings.source).kind == "file" and not is_there(settings.source):
        raise InputError(f"no such file: {settings.source}")
    flags = {"device": device} if device else {}
    base = config.load(config_file, flags) if config_file else config.settings_from(flags)
    fleet = Fleet(open_studio(pipeline.open_engine(base)))
    say: Say = (lambda text: None) if quiet else web.say
    say(f"device: {fleet.studio.device.name} ({fleet.studio.reason})")
    if webrtc or hls:
        _serve(fleet, {name: settings}, _Door(host, port, prefix, keys_file, tls_cert, tls_key), say)
    else:
        _run(fleet, name, settings, say)


@dataclass(frozen=True, slots=True)
class _Door:
    """Where and how browsers come in."""

    host: str
    port: int
    prefix: str
    keys_file: Path | None
    cert: Path | None
    key: Path | None


def _need_serving() -> None:
    """Raises ConfigError where the extra is missing."""
    try:
        import streamer.server.live  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"serving needs {error.name}: pip install streamer-anonymizer[serve]") from error


def _serve(fleet: Fleet, wanted: dict[str, StreamSettings], door: _Door, say: Say) -> None:
    from streamer.server.keys import Keys, is_loopback, read_keys
    from streamer.server.live import create_live_app
    from streamer.server.prefix import check_names, check_prefix
    from streamer.server.rooms import Streams

    keys = read_keys(door.keys_file) if door.keys_file is not None else Keys()
    if not keys and not is_loopback(door.host):
        raise ConfigError(f"without --keys this machine alone can be served, not {door.host}")
    web.check_tls(door.cert, door.key)
    prefix = check_prefix(door.prefix)
    check_names(wanted, prefix)
    listener = web.listen(door.host, door.port)
    where = web.address(door.host, listener, tls=door.cert is not None) + prefix
    app = create_live_app(Streams(fleet, prefix=prefix), wanted, keys, prefix=prefix)
    say(f"page: {where}/")
    for name, settings in wanted.items():
        if settings.webrtc:
            say(f"WHEP: {where}/{name}/whep")
        if settings.hls:
            say(f"HLS:  {where}/{name}/index.m3u8")
    web.run(app, listener, cert=door.cert, key=door.key)


def _run(fleet: Fleet, name: str, settings: StreamSettings, say: Say) -> None:
    """Without a web server: until the source ends or a signal comes."""
    asked: list[object] = []

    def stop(number: int, _: object) -> None:
        """Raises nothing: that could be anywhere, as in a lock that the stop needs. A second signal changes nothing."""
        asked.append(number)

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    web.on_hang_up(stop)
    shown = ""
    try:
        fleet.put(name, settings)
        stream = fleet.get(name)
        assert stream is not None
        while not (asked or stream.wait(_LOOK_S)):
            now = status(stream, now_s=SYSTEM.now())
            line = f"{now['state']}: {now['problem'] or 'ok'}"
            if now["encoder"]:
                line += f"; encoder: {now['encoder']['name']} ({now['encoder']['why']})"
            line = "; ".join([line, *outlet_problems(now)])
            if line != shown:
                say(line)
                shown = line
        if asked:
            say("stopping")
    finally:
        with web.bounded_stop() as begin_stop:
            begin_stop()
            fleet.stop()
    if stream.failure is not None or (stream.meter.frames_out == 0 and stream.supervisor.problem):
        raise InputError(stream.supervisor.problem or f"the stream failed: {stream.failure}")
