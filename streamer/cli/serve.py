"""`streamer serve`: the HTTP server."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer import pipeline
from streamer.cli import web
from streamer.errors import ConfigError
from streamer.live.fleet import Fleet, open_studio
from streamer.server import settings as serving
from streamer.server.settings import ServeSettings

if TYPE_CHECKING:
    from streamer.server.rooms import Streams


def command(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; another than loopback needs keys.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 is any free one.")] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="Path below which a web server in front passes requests on.", metavar="/PATH"),
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys", help="File with one line sha256:HEX per API key.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Folder for url and path results.")] = None,
    workers: Annotated[int | None, typer.Option(help="Pictures worked on at the same time.")] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Settings and live streams, as TOML or YAML; see configs/cameras.yaml."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the certificate: serve HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its key.")] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Print a new API key and its line for --keys.")
    ] = False,
) -> None:
    """Serve the image API, live streams and their page over HTTP.

    Without API keys only this machine is served.
    """
    try:
        from streamer.image.redact import open_redactor
        from streamer.server.app import create_app
        from streamer.server.keys import Keys, hashed, read_keys
        from streamer.server.keys import new_key as make_key
    except ModuleNotFoundError as error:
        raise ConfigError(f"the server needs {error.name}: pip install streamer-anonymizer[serve]") from error
    if new_key:
        key = make_key()
        print(f"{key}\n{hashed(key)}")
        return
    flags = {"host": host, "port": port, "keys": keys_file, "store": store, "workers": workers}
    flags["prefix"] = prefix
    flags |= {"tls_cert": tls_cert, "tls_key": tls_key}
    given = {name: value for name, value in flags.items() if value is not None}
    settings = serving.load(config_file, given)
    web.check_tls(settings.tls_cert, settings.tls_key)
    keys = read_keys(settings.keys) if settings.keys is not None else Keys()
    redactors = [open_redactor(settings.anonymize) for _ in range(settings.workers)]
    app = create_app(settings, keys, redactors, _streams(settings))
    listener = web.listen(settings.host, settings.port)
    _announce(settings, listener, bool(keys))
    web.run(app, listener, cert=settings.tls_cert, key=settings.tls_key)


def _announce(settings: ServeSettings, listener: socket.socket, has_keys: bool) -> None:
    where = web.address(settings.host, listener, tls=settings.tls_cert is not None) + settings.prefix
    web.say(f"streamer serves on {where}")
    for name, stream in (settings.streams or {}).items():
        if stream.enabled and stream.webrtc:
            web.say(f"stream {name}: {where}/{name}/whep")
        if stream.enabled and stream.hls:
            web.say(f"stream {name}: {where}/{name}/index.m3u8")
    if has_keys:
        web.say("API keys are required in X-API-KEY or X-RapidAPI-Key")
    else:
        web.say("no API keys are configured: only this machine is served (make one with --new-key)")


def _streams(settings: ServeSettings) -> "Streams | None":
    """The live streams that the settings ask for, not started yet."""
    if settings.streams is None:
        return None
    from streamer.media.ice import ice_server
    from streamer.media.webrtc import RoomLimits
    from streamer.server.rooms import Streams

    fleet = Fleet(open_studio(pipeline.open_engine(settings.anonymize)))
    limits = RoomLimits(settings.viewers, tuple(map(ice_server, settings.ice_servers)))
    return Streams(fleet, limits, settings.folders, prefix=settings.prefix)
