"""Fetches a picture from a URL without becoming a way into the private network.

# Note [Pinned addresses]
A name is resolved once, every address it has must be public, and the connection is made to the address that
was checked: a name server that answers differently the second time changes nothing. Each redirect is a new
URL and is checked in the same way. One deadline covers the whole fetch, so that a server that sends a byte
now and then cannot hold a worker. Messages never carry the URL: it may hold a token. Proxies of the
environment are not used.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from streamer.errors import InputError, RefusedError, TooLargeError, UnreachableError
from streamer.image.limits import ImageLimits

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Permit = Callable[[Address], bool]

_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK = 1 << 16
_LOOKUPS = ThreadPoolExecutor(32, "lookups")  # started one by one as they are needed
_SAFE = "/?%:@!$&'()*+,;=~-._"
_INTERNET = ipaddress.ip_network(
    "2000::/3"
)  # all that is handed out of IPv6; outside lie old and local kinds
_EMBEDDING = tuple(  # ranges within it that carry an IPv4 address of somebody's choice
    ipaddress.ip_network(text) for text in ("2002::/16", "2001::/32")
)


def is_public(address: Address) -> bool:
    """Whether an address is an ordinary one of the internet.

    >>> is_public(ipaddress.ip_address("169.254.169.254")), is_public(ipaddress.ip_address("::ffff:10.0.0.1"))
    (False, False)
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _INTERNET or any(address in network for network in _EMBEDDING):
            return False
    return address.is_global and not address.is_multicast


def fetch(url: str, limits: ImageLimits, *, permit: Permit = is_public) -> bytes:
    """The body behind an http or https URL.

    Raises RefusedError without `limits.urls`, for another scheme, or for an address that `permit` denies (nothing
    is denied with `limits.private_urls`), TooLargeError past `limits.max_bytes`, UnreachableError for everything else.
    """
    if not limits.urls:
        raise RefusedError("pictures are not fetched from URLs here; send the picture itself")
    deadline = _Deadline(limits.fetch_s)
    allowed = (lambda _: True) if limits.private_urls else permit
    try:
        for _ in range(limits.max_redirects + 1):
            body, location = _get(_checked(url), limits, deadline, allowed)
            if location is None:
                return body
            url = urljoin(url, location)
    except InputError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"the picture's URL cannot be fetched ({_reason(error)})") from error
    raise UnreachableError(f"the picture's URL redirects more than {limits.max_redirects} times")


@dataclass(slots=True)
class _Deadline:
    limit_s: float
    _end_s: float = 0.0

    def __post_init__(self) -> None:
        self._end_s = time.monotonic() + self.limit_s

    def left_s(self) -> float:
        left = self._end_s - time.monotonic()
        if left <= 0:
            raise UnreachableError(f"the picture's URL took longer than {self.limit_s:g} s")
        return left


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedError("the picture's URL is not well formed") from error
    if parts.scheme not in ("http", "https"):
        raise RefusedError("a picture's URL must begin with http:// or https://")
    if not parts.hostname or port == 0 or not url.isprintable() or " " in url:
        raise RefusedError("the picture's URL is not well formed")
    if parts.username is not None or parts.password is not None:
        raise RefusedError("a picture's URL must not carry a user name or password")
    return parts


def _addresses(host: str, port: int, deadline: _Deadline) -> list[str]:
    """All addresses of a host. The system's look-up knows no deadline, so a thread does it that may be left behind."""
    lookup = _LOOKUPS.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        return [str(entry[4][0]) for entry in lookup.result(deadline.left_s())]
    except TimeoutError as error:
        if not lookup.cancel():
            raise UnreachableError("the host of the picture's URL is not found in time") from error
        raise UnreachableError("too many hosts are being looked up at the same time") from error
    except (OSError, UnicodeError) as error:
        raise UnreachableError("the host of the picture's URL is not known") from error


def _connect(host: str, port: int, deadline: _Deadline, permit: Permit) -> socket.socket:
    """A connection to one of the host's addresses. See Note [Pinned addresses]."""
    addresses = _addresses(host, port, deadline)
    if not all(permit(ipaddress.ip_address(address.split("%")[0])) for address in addresses):
        raise RefusedError(
            "the picture's URL points into a private network, which is not allowed unless private URLs are"
        )
    failure: OSError = ConnectionError()
    for address in dict.fromkeys(addresses):
        try:
            return socket.create_connection((address, port), timeout=deadline.left_s())
        except UnreachableError:
            raise
        except OSError as error:
            failure = error
    raise failure


def _get(
    parts: SplitResult, limits: ImageLimits, deadline: _Deadline, permit: Permit
) -> tuple[bytes, str | None]:
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(host, port)
    connection.default_port = 443 if parts.scheme == "https" else 80
    with _connect(host, port, deadline, permit) as plain:
        line = plain
        if parts.scheme == "https":
            line = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        with line:
            connection.sock = _Line(line, deadline)
            path = quote(parts.path or "/", safe=_SAFE)
            path += f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
            connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "streamer"})
            return _answer(connection.getresponse(), limits)


def _answer(response: http.client.HTTPResponse, limits: ImageLimits) -> tuple[bytes, str | None]:
    location = response.getheader("Location")
    if response.status in _REDIRECTS and location:
        # many servers send names as they are: http.client gives their bytes as characters
        return b"", quote(location.encode("latin-1"), safe=f"{_SAFE}#[]")
    if response.status != http.client.OK:
        raise UnreachableError("the picture's URL did not answer with a picture")
    if (response.length or 0) > limits.max_bytes:
        raise TooLargeError(f"the picture is larger than {limits.max_bytes} bytes")
    body = bytearray()
    while chunk := response.read(_CHUNK):
        body += chunk
        if len(body) > limits.max_bytes:
            raise TooLargeError(f"the picture is larger than {limits.max_bytes} bytes")
    if response.length:
        raise UnreachableError("the picture's URL broke off")
    return bytes(body), None


class _Line:
    """A socket as http.client uses it, whose every read and write ends at the deadline."""

    def __init__(self, line: socket.socket, deadline: _Deadline) -> None:
        self._line = line
        self._deadline = deadline

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._line, self._deadline))

    def sendall(self, data: bytes) -> None:
        self._line.settimeout(self._deadline.left_s())
        self._line.sendall(data)

    def close(self) -> None:
        """Nothing: whoever opened the socket closes it."""


class _Reader(io.RawIOBase):
    def __init__(self, line: socket.socket, deadline: _Deadline) -> None:
        self._line = line
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._line.settimeout(self._deadline.left_s())
        return self._line.recv_into(buffer)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "too slow"
    if isinstance(error, ssl.SSLError):
        return "its certificate or TLS is not valid"
    if isinstance(error, ConnectionError):
        return "the connection was refused or broken off"
    return "its answer is not HTTP" if isinstance(error, http.client.HTTPException) else "no connection"
