"""Request bodies within limits of size and time, and never on disk; answers that do not wait for ever to be read."""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from starlette.datastructures import FormData, Headers
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.types import Receive, Scope, Send

from streamer.errors import InputError, TooLargeError, UnsupportedError
from streamer.server.failures import SlowBody

_FORM_OVERHEAD = 64 << 10  # bytes of a form besides its file
_SLICE = 1 << 18  # bytes of an answer handed to the connection at a time
_ENCODED_NAME = re.compile(rb"""; *filename\*=utf-8''([^;" ]+)""", re.IGNORECASE)


class _InMemory(MultiPartParser):
    """Also takes a file whose name is encoded as RFC 5987 says, as older Python clients send names with accents."""

    spool_max_size = sys.maxsize  # an upload is not masked yet: it must not reach the disk

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], *, max_files: int, max_fields: int
    ) -> None:
        super().__init__(headers, stream, max_files=max_files, max_fields=max_fields)
        self._value = bytearray()  # of the part's header that is being read
        self._closed = False

    async def parse(self) -> FormData:
        """The form. Raises MultiPartException also for one that is cut, whose last part would just be missing."""
        form = await super().parse()
        if not self._closed:
            await form.close()
            raise MultiPartException("it is cut, as its closing boundary is missing")
        return form

    def on_end(self) -> None:
        """The closing boundary is there."""
        self._closed = True

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value: kept until the whole of it is there."""
        self._value += data[start:end]

    def on_header_end(self) -> None:
        """A header is whole: hand its value on, with the name of a file in plain."""
        value = _ENCODED_NAME.sub(_plain_name, bytes(self._value))
        self._value.clear()
        super().on_header_value(value, 0, len(value))
        super().on_header_end()


def _plain_name(found: re.Match[bytes]) -> bytes:
    return b'; filename="%b"' % unquote_to_bytes(found[1]).translate(None, b'"\\\r\n')


async def read(request: Request, max_bytes: int, limit_s: float) -> bytes:
    """The whole body. Raises TooLargeError, or SlowBody after `limit_s` seconds."""
    body = bytearray()
    async for chunk in _stream(request, max_bytes, limit_s):
        body += chunk
    return bytes(body)


async def read_form(request: Request, max_bytes: int, limit_s: float) -> FormData:
    """The fields and the one file of a form. Raises InputError and its kinds, or SlowBody."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            stream = _stream(request, max_bytes + _FORM_OVERHEAD, limit_s)
            return await _InMemory(request.headers, stream, max_files=1, max_fields=8).parse()
        if kind == "application/x-www-form-urlencoded":  # which holds no file
            stream = _stream(request, _FORM_OVERHEAD, limit_s)
            return await FormParser(request.headers, stream, max_fields=8).parse()
    except MultiPartException as error:
        raise InputError(f"the form cannot be read: {error.message}") from error
    except (ValueError, AssertionError) as error:
        raise InputError("the form cannot be read") from error
    raise UnsupportedError("send the picture as multipart/form-data")


class Answer(Response):
    """A body that is sent as fast as the client reads, and let go if that takes longer than `limit_s` seconds: whoever
    asks and does not read must not fill the memory.
    """

    def __init__(self, body: bytes, limit_s: float, kind: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(body, media_type=kind, headers=headers)
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that is too slow finds its connection closed."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        try:
            async with asyncio.timeout(self._limit_s):
                for at in range(0, len(body), _SLICE):
                    part = bytes(body[at : at + _SLICE])
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            return


async def _stream(request: Request, max_bytes: int, limit_s: float) -> AsyncGenerator[bytes, None]:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise TooLargeError(f"the request is larger than {max_bytes} bytes")
    seen = 0
    try:
        async with asyncio.timeout(limit_s):
            async for chunk in request.stream():
                seen += len(chunk)
                if seen > max_bytes:
                    raise TooLargeError(f"the request is larger than {max_bytes} bytes")
                yield chunk
    except TimeoutError as error:
        raise SlowBody(f"the request's body took longer than {limit_s:g} s") from error
