"""Who may use the server: API keys, kept as hashes and compared in constant time.

# Note [Who may call]
With keys, every call carries one in `X-API-KEY` or `X-RapidAPI-Key` (or `Authorization: Bearer`; players of
HLS may send it as the password of a login). Without
keys the server listens on the loopback interface only, and answers only requests that name it so: a page from
elsewhere that the browser on this machine shows cannot use it, neither by a form nor by a name that is made
to point here. What a proxy says it forwards for another machine is no call of this one; a proxy that says nothing
cannot be told from a program here, so who puts one in front sets keys.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader

from streamer.errors import ConfigError

_PREFIX = "sha256:"
_FOR = re.compile(r"""\bfor\s*=\s*("[^"]*"|[^;,\s]+)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that open the server, as SHA-256 digests."""

    digests: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.digests)

    def opens(self, key: str | None) -> bool:
        """Whether this is one of the keys; takes as long for every wrong key."""
        given = _digest(key or "")
        matches = [hmac.compare_digest(given, digest) for digest in self.digests]
        return key is not None and any(matches)


def read_keys(path: Path) -> Keys:
    """The keys of a file, one a line. Raises ConfigError."""
    try:
        return keys_from(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file of API keys cannot be read: {path}") from error


def keys_from(lines: Iterable[str]) -> Keys:
    """Keys from lines `sha256:HEX`, as `hashed` makes them; empty lines and `#` comments are skipped.

    Raises ConfigError for a line that is no hash: a key in clear must not lie in a file.
    """
    digests = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            digest = bytes.fromhex(text.removeprefix(_PREFIX))
        except ValueError:
            digest = b""
        if not text.startswith(_PREFIX) or len(digest) != hashlib.sha256().digest_size:
            raise ConfigError(
                f"line {number} of the keys is not sha256:HEX; make one with: streamer serve --new-key"
            )
        digests.append(digest)
    return Keys(tuple(digests))


def new_key() -> str:
    """A fresh key of 256 random bits."""
    return secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    """The line of a key file that admits `key`. Keys are random, so one plain SHA-256 protects them."""
    return _PREFIX + _digest(key).hex()


def bearer_of(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries as a Bearer token, as WHIP and WHEP clients send it."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def basic_of(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries as the password of a login, as players take it from `http://any:KEY@host/`."""
    scheme, _, login = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(login, validate=True).decode().partition(":")[2] or None
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone.

    >>> is_loopback("localhost"), is_loopback("[::1]"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_local_call(headers: Mapping[str, str]) -> bool:
    """Whether a request names this machine as its target, as its origin a page of this server or none, and comes
    through no proxy for another machine."""
    origin = headers.get("origin")
    try:
        host = urlsplit(f"//{headers.get('host', '')}")
        is_own = origin is None or urlsplit(origin).netloc == host.netloc
    except ValueError:  # a bracket that is not closed
        return False
    return is_own and is_loopback(host.hostname or "") and all(map(is_loopback, _forwarded_for(headers)))


def _forwarded_for(headers: Mapping[str, str]) -> list[str]:
    """The hosts that proxies say they forward for (RFC 7239, and what was used before it), without their ports."""
    found = [each for name in ("x-forwarded-for", "x-real-ip") for each in headers.get(name, "").split(",")]
    found += _FOR.findall(headers.get("forwarded", ""))
    return [_without_port(each.strip().strip('"')) for each in found if each.strip()]


def _without_port(host: str) -> str:
    bare = host.count(":") > 1 and not host.startswith("[")  # IPv6 without brackets has no port
    return host if bare else host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def may_call(keys: Keys, headers: Mapping[str, str]) -> bool:
    """Whether a request with these headers has a caller's right: see Note [Who may call]."""
    if not keys:
        return is_local_call(headers)
    return keys.opens(headers.get("x-api-key") or headers.get("x-rapidapi-key") or bearer_of(headers))


def player_guard(keys: Keys) -> Any:
    """The dependency of what players fetch that can send nothing but a login. Reading alone is behind it: browsers
    send a login that they know with every request, whichever page it comes from.
    """

    def check(request: Request) -> None:
        if not may_call(keys, request.headers) and not (keys and keys.opens(basic_of(request.headers))):
            raise HTTPException(
                401, "the API key is missing or wrong", {"WWW-Authenticate": 'Basic realm="streamer"'}
            )

    return Depends(check if keys else _local_only)


def guard(keys: Keys, headers: Mapping[str, str] | None = None) -> Any:
    """The dependency of every endpoint that needs a caller's right: see Note [Who may call].

    A refusal for want of a key carries `headers`.
    """
    refusal = {"WWW-Authenticate": "ApiKey", **(headers or {})}
    if not keys:
        return Depends(_local_only)

    def check(
        request: Request,
        own: Annotated[str | None, Security(APIKeyHeader(name="X-API-KEY", auto_error=False))],
        hub: Annotated[str | None, Security(APIKeyHeader(name="X-RapidAPI-Key", auto_error=False))],
    ) -> None:
        if not keys.opens(own or hub or bearer_of(request.headers)):
            raise HTTPException(401, "the API key is missing or wrong", refusal)

    return Depends(check)


def _local_only(request: Request) -> None:
    if not is_local_call(request.headers):
        raise HTTPException(
            403, "without API keys, only pages and programs of this machine may use the server"
        )
