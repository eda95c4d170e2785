"""Addresses of cameras and servers, and their form without secrets."""

import ipaddress
import re

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_SHOWN = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)(?:://|(?<=[A-Za-z0-9+.-]{2}):/)")  # paths lose a slash
_LOGIN = re.compile(r"^[^/]+:.*@", re.S)  # of an address whose scheme was left out
_IN_TEXT = re.compile(r"[A-Za-z](?:[A-Za-z0-9+.-]*://|[A-Za-z0-9+.-]+:/)[^\s'\"<>]+")
_SECRET_PARAMETER = re.compile(
    r"([?&;]|^)([^=&;]*(?:pass|pwd|token|secret|key|auth|sig|credential|user|login|streamid)[^=&;]*)=([^&;#]*)",
    re.I,
)
_AUTHORITY_END = re.compile(r"[/?#]")
BARE_PASSWORD = (
    "a password's / ? and # must be written as %2F %3F and %23, and an @ in the path or behind it as %40"
)
_TOKENS = {"whip", "whips"}  # a key may stand before the host without a user
_PLACES = {"rtmp", "rtmps"}  # the last part of the path is the stream key


def redacted_url(text: str) -> str:
    """The address without user, password, secret parameters and stream keys; plain paths are unchanged.

    Works on text, not on parsed parts: what no parser understands must not leak either. An address that became a
    `Path`, and so lost a slash, is one too.

    >>> redacted_url("rtsp://admin:p@ss/w0rd@10.0.0.7:554/ch1?token=abc&x=1")
    'rtsp://***@10.0.0.7:554/ch1?token=***&x=1'
    """
    scheme = _SHOWN.match(text)
    if scheme is None:
        return text
    rest = text[scheme.end() :]
    if "@" in rest:  # up to the last one: passwords hold "@" and "/" unescaped
        head, _, tail = rest.rpartition("@")
        rest = f"***@{tail}" if head else tail
    rest = _SECRET_PARAMETER.sub(r"\1\2=***", rest)
    if scheme[1].lower() in _PLACES:
        place, slash, key = rest.partition("?")[0].rpartition("/")
        rest = f"{place}/***" if slash and place.count("/") and key else place + slash + key
    return f"{scheme[1]}://{rest}"


def has_scheme(text: str) -> bool:
    """Whether the text is an address, also one that became a `Path` and so lost a slash."""
    return _SHOWN.match(text) is not None


def has_login(text: str) -> bool:
    """Whether the text may be an address whose scheme was left out; a file can be called so, too."""
    return _LOGIN.match(text) is not None


def redacted_name(text: str) -> str:
    """`redacted_url` for what is no file: also without the login of an address whose scheme was left out.

    >>> redacted_name("admin:secret@10.0.0.7/ch1")
    '***@10.0.0.7/ch1'
    """
    return (
        f"***@{text.rpartition('@')[2]}" if has_login(text) and not has_scheme(text) else redacted_url(text)
    )


def has_bare_password(text: str) -> bool:
    """Whether a password in the address may hold `/`, `?` or `#` as they are, so that it would be read as the host.

    # Note [Passwords in addresses]
    FFmpeg ends the host at the first of these, looks up what it takes for its name and sends there what follows. The
    last "@" is no better guess, as paths and queries hold it too. `me:12` may be a user with the first half of a
    password, or a host with its port: where an "@" follows, only an IP address and a name alone are taken for a host.

    >>> has_bare_password("rtsp://admin:12#3@10.0.0.7/ch1"), has_bare_password("rtsp://10.0.0.7:554/a@b")
    (True, False)
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return False
    place, later = _AUTHORITY_END.split(text[scheme.end() :] + "/", maxsplit=1)
    if "@" not in later or _is_ip(place.rpartition("@")[2]):
        return False
    return ":" in place or "@" in place or scheme[1].lower() in _TOKENS


def _is_ip(place: str) -> bool:
    """Whether a host, maybe with its port, is an address and no name."""
    host = place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def without_secrets(text: str, *urls: str) -> str:
    """A message of somebody else's in which every address is redacted: the given ones and whatever looks like one.

    Of the given ones also what stands before their host, where the message tells no more than that.
    """
    for url in urls:
        if url:
            text = text.replace(url, redacted_url(url))
            credentials = url.partition("://")[2].rpartition("@")[0]
            text = text.replace(f"{credentials}@", "***@") if credentials else text
    return _IN_TEXT.sub(lambda match: redacted_url(match[0]), text)
