"""STUN and TURN servers as the configuration writes them, and as viewers are told of them."""

import json
import re
from dataclasses import dataclass
from urllib.parse import unquote

from streamer.errors import ConfigError

_SERVER = re.compile(
    r"(?P<scheme>stuns?|turns?):(?:(?P<user>[^@:]+):(?P<password>[^@]+)@)?"
    r"(?P<place>[A-Za-z0-9.-]+(?::\d{1,5})?(?:\?transport=(?:udp|tcp))?)"
)


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server that helps viewers to connect."""

    url: str  # without credentials
    user: str | None = None
    password: str | None = None

    @property
    def link(self) -> str:
        """The value of a `Link` header (draft-ietf-wish-whep, 4.6)."""
        text = f'<{self.url}>; rel="ice-server"'
        if self.user is None:
            return text
        secret = f"username={json.dumps(self.user)}; credential={json.dumps(self.password)}"
        return f'{text}; {secret}; credential-type="password"'


def ice_server(text: str) -> IceServer:
    """From `stun:HOST:PORT` or `turn:USER:PASSWORD@HOST:PORT`. Raises ConfigError, whose message holds no secret.

    >>> ice_server("turn:me:p%40ss@turn.example:3478?transport=tcp").url
    'turn:turn.example:3478?transport=tcp'
    """
    found = _SERVER.fullmatch(text)
    is_turn = found is not None and found["scheme"].startswith("turn")
    if found is None or is_turn != (found["user"] is not None) or (not is_turn and "?" in found["place"]):
        shown = text.rpartition("@")[2]
        raise ConfigError(f"an ICE server is stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT: {shown}")
    user, password = (None if part is None else unquote(part) for part in (found["user"], found["password"]))
    return IceServer(f"{found['scheme']}:{found['place']}", user, password)
