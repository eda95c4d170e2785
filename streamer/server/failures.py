"""How every failure looks: no secret, the right status, the shape of the cloud API or, of streams, of WHEP servers."""

import hashlib
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from streamer.errors import (
    ConfigError,
    DamagedError,
    InputError,
    OutputError,
    RefusedError,
    StreamerError,
    TooLargeError,
    UnreachableError,
    UnsupportedError,
)
from streamer.server import rooms

_RETRY_S = 1
_OF_STREAMS = frozenset({"streams", "WHEP", "HLS", "operations"})  # tags of routes

_STATUSES: tuple[tuple[type[Exception], int], ...] = (  # the first that fits
    (TooLargeError, 413),
    (UnsupportedError, 415),
    (DamagedError, 422),
    (RefusedError, 400),
    (UnreachableError, 424),
    (InputError, 400),
    (ConfigError, 400),
    (OutputError, 507),
    (StreamerError, 500),
)


class Busy(Exception):
    """More requests than may wait."""


class SlowBody(Exception):
    """A request's body that does not arrive."""


def failure(status: int, message: str, *, name: str = "", md5: str = "", **headers: str) -> JSONResponse:
    """The answer to a request that got no picture."""
    entry: dict[str, Any] = {
        "status": {"code": "failure", "message": message},
        "name": name,
        "md5": md5,
        "entities": [],
    }
    return JSONResponse({"results": [entry]}, status, headers=headers)


def from_error(error: Exception, *, name: str = "", data: bytes = b"") -> JSONResponse:
    """The answer to an error of ours; what a server's own fault was stays in the server."""
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
    message = str(error) if status < 500 else "the picture could not be made safe, so there is no result"
    if status == 507:
        message = "the result could not be stored; try again later or ask for base64"
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest() if data else ""
    return failure(status, message, name=name, md5=digest)


def install(app: FastAPI) -> None:
    """Answer in this shape wherever the app fails."""
    app.add_exception_handler(StreamerError, lambda _, error: from_error(error))
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(SlowBody, lambda _, error: failure(408, str(error), Connection="close"))
    app.add_exception_handler(
        ClientDisconnect, lambda _, __: failure(400, "the request broke off")
    )  # unheard
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, lambda _, __: failure(500, "an internal error; there is no result"))


def _busy(_: Request, __: Exception) -> JSONResponse:
    return failure(429, "too many requests at the same time; try again", **{"Retry-After": str(_RETRY_S)})


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    place = ".".join(str(step) for step in problem["loc"])
    return _refusal(request, 400, f"{place}: {problem['msg']}", {})


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refusal(request, error.status_code, str(error.detail), dict(error.headers or {}))


def _refusal(request: Request, status: int, message: str, headers: dict[str, str]) -> Response:
    tags = getattr(request.scope.get("route"), "tags", ())
    if not _OF_STREAMS.isdisjoint(tags):
        return rooms.failure(status, message, headers)
    return failure(status, message, **headers)
