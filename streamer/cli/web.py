"""What `serve` and `live` share: a listening socket, the log, and the web server's run, which ends when told to."""

import faulthandler
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from streamer.errors import ConfigError, OutputError

_GOODBYE_S = 3  # for open connections, when the server is told to stop
_STOP_S = 55  # until a stop that hangs is cut short: after the streams' own patience, before that of a service manager


def say(text: str) -> None:
    """A line on stderr for whoever looks on. No stream ends because nobody reads it any more or its disk is full."""
    if sys.stderr is not None:  # print would take stdout instead
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Its connections send at once: an answer's head and body are two small packets, of which
    the second would wait 40 ms for the client to confirm the first. Raises OutputError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise OutputError(f"cannot listen on {host}:{port} ({error.strerror})") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def on_hang_up(stop: Callable[[int, FrameType | None], Any]) -> None:
    """Stop in order also when the terminal is closed, unless that is to be ignored, as under `nohup`."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Raises ConfigError unless HTTPS can be served with these files, or HTTP without any."""
    if key is not None and cert is None:
        raise ConfigError(f"a TLS key without its certificate: HTTP would be served in the clear: {key}")
    for file in filter(None, (cert, key)):
        if not file.is_file():
            raise ConfigError(f"no such file: {file}")
    if cert is None:
        return
    try:  # a password that is empty: one that is asked for would be waited for
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"not a certificate with its key, both as PEM: {cert}") from error


@contextmanager
def bounded_stop() -> Iterator[Callable[[], None]]:
    """Gives what is called when a stop begins: one that then hangs ends the process, exit code 1, and says where.

    That needs no help of Python's threads, whatever they hang in. What is being recorded then is put under its name
    by the next start.
    """

    def begin() -> None:
        faulthandler.dump_traceback_later(_STOP_S, exit=True, file=sys.__stderr__ or 2)

    try:
        yield begin
    finally:
        faulthandler.cancel_dump_traceback_later()


def run(app: Any, listener: socket.socket, *, cert: Path | None = None, key: Path | None = None) -> None:
    """Serve until a signal comes; then open connections get a moment and everything is closed. Raises ConfigError as
    `check_tls` does.
    """
    import uvicorn

    from streamer.server.heads import TimedHeads

    check_tls(cert, key)
    _log_to_stderr()
    options = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        http=TimedHeads,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE_S,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )

    class Server(uvicorn.Server):
        """Tells the app at once that it ends: event streams would otherwise last until they are cut. A second signal
        changes nothing: uvicorn would go without closing what the app has opened.
        """

        told = False

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.told:
                return
            self.told = True  # before anything is called: a second signal may come there
            begin_stop()
            app.state.stopping = True
            super().handle_exit(sig, frame)

    server = Server(options)
    with bounded_stop() as begin_stop:
        on_hang_up(server.handle_exit)
        server.run(sockets=[listener])


def address(host: str, listener: socket.socket, *, tls: bool = False) -> str:
    """How the server is reached from this machine."""
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{name}:{listener.getsockname()[1]}"


def _log_to_stderr() -> None:
    """The streams' log as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter('{"time": "%(asctime)s", "level": "%(levelname)s", "entry": %(message)s}')
    )
    log = logging.getLogger("streamer.live")
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
