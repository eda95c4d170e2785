"""The image API over HTTP: the cloud API's own endpoints, and one of ours that takes and gives every form."""

import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

import streamer
from streamer.config import Hide
from streamer.errors import InputError, StreamerError
from streamer.image import picture as files
from streamer.image import result as answers
from streamer.image import source
from streamer.image.redact import MaskedPicture, Redactor
from streamer.image.result import ResultForm
from streamer.image.source import Access, Source
from streamer.image.store import Store
from streamer.server import bodies, schema
from streamer.server.bodies import Answer
from streamer.server.failures import failure, from_error
from streamer.server.numbers import listed, taken_out
from streamer.server.settings import ServeSettings
from streamer.server.work import Work

_TEXT_SHARE = 3 / 2  # how much longer than its bytes a picture may be as text
_MOST_ITEMS = 1 << 14  # of JSON for the parser; more would hold up everybody. See Note [Long lists]
_LONGEST_KEY = 100  # of a request that an error repeats
_JSON = "application/json"
_FILES = "/v1/files"
_STORED_HEADERS = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}


class Mode(StrEnum):
    """What the cloud API calls its ways to hide."""

    PLATES = "hide-clp"
    FACES = "hide-face"


class Representation(StrEnum):
    """How the cloud API hands the picture over."""

    BASE64 = "base64"
    URL = "url"


@dataclass(frozen=True, slots=True)
class Studio:
    """What the image endpoints work with."""

    work: Work
    store: Store
    access: Access
    settings: ServeSettings


def router(studio: Studio) -> APIRouter:
    """The endpoints that need a key where there are keys."""
    routes = APIRouter(tags=["images"], responses=schema.FAILURES)

    async def admitted() -> AsyncIterator[None]:
        async with studio.work.admitted():
            yield  # until the answer is sent

    place = Depends(admitted)

    @routes.head("/v1/version", response_class=PlainTextResponse, include_in_schema=False)  # as monitors ask
    @routes.get("/v1/version", response_class=PlainTextResponse)
    async def version() -> str:
        """The version of the service."""
        return f"v{streamer.__version__}"

    @routes.head("/v1/modes", include_in_schema=False)
    @routes.get("/v1/modes")
    async def modes() -> list[Mode]:
        """The values that `mode` may have."""
        return list(Mode)

    @routes.post(
        "/v1/results", response_model=schema.Results, openapi_extra=schema.RESULTS_BODY, dependencies=[place]
    )
    async def post_results(
        request: Request,
        mode: Annotated[list[Mode] | None, Query(description="What to hide; without it everything.")] = None,
        representation: Representation = Representation.BASE64,
    ) -> Response:
        """Hide faces and licence plates in a picture: the cloud API's request and answer."""
        limits = studio.settings.limits
        form = await bodies.read_form(request, limits.max_bytes, studio.settings.body_s)
        hide = _hide_of(mode, studio.settings.anonymize.hide)
        base_url = _base_url(request, studio)
        taken = await studio.work.read(lambda: _from_form(form, studio, base_url))
        return await studio.work.redact(
            lambda redactor: _results(studio, redactor, taken, hide, representation, base_url)
        )

    @routes.post(
        "/v1/anonymize",
        response_model=schema.Answer,
        openapi_extra=schema.ANONYMIZE_BODY,
        dependencies=[place],
    )
    async def anonymize(request: Request) -> Response:
        """Hide faces and licence plates in a picture, in any form, and hand it over in any form."""
        most = int(studio.settings.limits.max_bytes * _TEXT_SHARE) + 1024
        body = await bodies.read(request, most, studio.settings.body_s)
        base_url = _base_url(request, studio)
        order, taken = await studio.work.read(lambda: _from_json(body, studio, base_url))
        return await studio.work.redact(lambda redactor: _answer(studio, redactor, taken, order, base_url))

    return routes


def stored(store: Store, limit_s: float) -> APIRouter:
    """The endpoint behind `url` results: whoever knows the name may read it, for as long as it is kept."""
    routes = APIRouter(tags=["images"], responses=schema.FAILURES)

    @routes.head(f"{_FILES}/{{name}}", include_in_schema=False)  # as link checkers and download tools ask
    @routes.get(f"{_FILES}/{{name}}", response_class=Response, responses=schema.STORED)
    def file(name: str) -> Response:
        """A masked picture that an earlier request stored."""
        data = store.get(name, now_s=time.time())
        if data is None:
            return failure(404, "there is no such file, or it was deleted after its time")
        kind = "image/png" if name.endswith(".png") else "image/jpeg"
        return Answer(data, limit_s, kind, _STORED_HEADERS)

    return routes


def _hide_of(modes: Sequence[Mode] | None, default: Hide) -> Hide:
    wanted = set(modes or ())
    if not wanted:
        return default
    if len(wanted) > 1:
        return Hide.EVERYTHING
    return Hide.FACES if Mode.FACES in wanted else Hide.PLATES


def _base_url(request: Request, studio: Studio) -> str:
    return (studio.settings.public_url or str(request.base_url)).rstrip("/")


def _from_form(form: FormData, studio: Studio, base_url: str) -> Source:
    access = studio.access
    image, url = form.get("image"), form.get("url")
    if (image is None) == (url is None):
        raise InputError("send exactly one of image (a file) and url (text)")
    if isinstance(image, UploadFile):
        taken = source.read(image.file.read(access.limits.max_bytes + 1), access)
        return Source(taken.data, Path(image.filename or "image").name)
    if isinstance(url, str) and re.match(r"https?://", url, re.IGNORECASE):
        return _own(url, studio, base_url) or source.read(url, access)
    raise InputError("image must be a file, and url must begin with http:// or https://")


def _own(text: str, studio: Studio, base_url: str) -> Source | None:
    """The stored result that a URL of this server leads to: it is read, not fetched from what may be a private
    address.
    """
    folder, _, name = text.rpartition("/")
    data = studio.store.get(name, now_s=time.time()) if folder == f"{base_url}{_FILES}" else None
    return None if data is None else Source(data, name)


def _from_json(body: bytes, studio: Studio, base_url: str) -> tuple[schema.Order, Source]:
    access = studio.access
    rest, numbers = taken_out(body)
    order = _order(rest)
    if numbers is not None and not isinstance(order.image, str):
        return order, source.read(numbers, access)
    image = order.image.data if isinstance(order.image, schema.Buffer) else order.image
    own = _own(image, studio, base_url) if isinstance(image, str) else None
    return order, own or source.read(image, access)


def _order(body: bytes) -> schema.Order:
    if body.count(b",") > _MOST_ITEMS:
        raise InputError("a list of bytes must hold whole numbers from 0 to 255 and nothing else")
    try:
        return schema.Order.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in problem["loc"])[:_LONGEST_KEY] or "the body"
        raise InputError(f"{place}: {problem['msg']}") from error


def _masked(redactor: Redactor, taken: Source, hide: Hide, studio: Studio) -> MaskedPicture:
    assert not isinstance(taken.data, np.ndarray)  # JSON and forms carry files only
    return redactor(files.decode(taken.data, studio.settings.limits), hide)


def _results(
    studio: Studio,
    redactor: Redactor,
    taken: Source,
    hide: Hide,
    representation: Representation,
    base_url: str,
) -> Response:
    data = bytes(taken.data)
    try:
        masked = _masked(redactor, taken, hide, studio)
        file = masked.write()
        if representation is Representation.URL:
            link = _link(studio, file, masked, base_url)
        else:
            link = str(answers.in_text(file, ResultForm.BASE64))
    except StreamerError as error:
        return from_error(error, name=taken.name, data=data)
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    answer = schema.results(masked, taken.name, digest, link, representation)
    return Answer(json.dumps(answer).encode(), studio.settings.body_s, _JSON)


def _answer(
    studio: Studio, redactor: Redactor, taken: Source, order: schema.Order, base_url: str
) -> Response:
    masked = _masked(redactor, taken, answers.hide_from(order.hide), studio)
    form = answers.form_from(order.result)
    file = masked.write()
    if form is ResultForm.URL:
        text = json.dumps(_link(studio, file, masked, base_url)).encode()
    elif form is ResultForm.PATH:
        text = json.dumps(str(_put(studio, file, masked))).encode()
    elif form is ResultForm.BASE64:
        text = json.dumps(answers.in_text(file, form)).encode()
    else:
        text = listed(file) if form is ResultForm.ARRAY else b'{"type":"Buffer","data":%b}' % listed(file)
    rest = json.dumps({**answers.answer(masked, "").as_dict(), "result": None}).encode()
    head, rest = rest.split(b"null", 1)  # the result is JSON already
    return Answer(b"".join((head, text, rest)), studio.settings.body_s, _JSON)


def _put(studio: Studio, file: bytes, masked: MaskedPicture) -> Path:
    return studio.store.put(file, masked.picture.format, now_s=time.time())


def _link(studio: Studio, file: bytes, masked: MaskedPicture, base_url: str) -> str:
    return f"{base_url}{_FILES}/{_put(studio, file, masked).name}"
