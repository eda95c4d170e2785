"""A server below a path of another one, which may or may not cut that path off before it passes a request on."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamer.errors import ConfigError

if TYPE_CHECKING:  # an extra: settings are read without it
    from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def check_prefix(text: str) -> str:
    """The path as `/a/b`, or nothing for a server at the top. Raises ConfigError.

    >>> check_prefix("/cameras/"), check_prefix("/")
    ('/cameras', '')
    """
    prefix = text.rstrip("/")
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"a prefix is a path such as /cameras, not {text}")
    return prefix


def check_names(names: Iterable[str], prefix: str) -> None:
    """Refuse a prefix that begins with the name of a stream: of `/camera/index.m3u8` nobody could say whether `/camera`
    is the path of the server in front or the stream. Raises ConfigError.
    """
    for name in names:
        if f"{prefix}/".startswith(f"/{name}/"):
            raise ConfigError(f"a stream may not be called like the beginning of the prefix {prefix}: {name}")


class Prefixed:
    """Gives each request the path that it had for its client, whose beginning is ASGI's `root_path`."""

    def __init__(self, app: "ASGIApp", prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass it on."""
        if self._prefix and scope["type"] == "http":
            path = scope["path"]
            if not f"{path}/".startswith(f"{self._prefix}/"):
                path = self._prefix + path
            scope = {**scope, "path": path, "root_path": self._prefix}
        await self._app(scope, receive, send)
