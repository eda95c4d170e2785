"""The requests and answers of the image API, as OpenAPI tells them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from streamer.image.redact import MaskedPicture

Byte = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0, le=1)]
HideWord = Literal[
    "everything",
    "faces",
    "plates",
    "Everything",
    "Faces only",
    "Licence plates only",
    "License plates only",
]
Word = Literal["path", "url", "base64", "buffer", "array"]


class Buffer(BaseModel):
    """A file as Node.js writes a Buffer."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["Buffer"]
    data: list[Byte]


class Order(BaseModel):
    """A picture, what to hide in it, and how to hand the result over."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: Annotated[
        str | Buffer | list[Byte],
        Field(
            description="A URL, base64 text (with or without data:), a Buffer, an array of bytes, or the path"
            " of a file in a folder that the server shares."
        ),
    ]
    hide: HideWord = "everything"
    result: Annotated[
        Word, Field(description="path and url lead to a file that the server deletes after a day.")
    ] = "base64"


class Box(BaseModel):
    """A box in shares of the picture's width and height."""

    x: Share
    y: Share
    w: Share
    h: Share


class Hidden(BaseModel):
    """One hidden object."""

    cls: Annotated[Literal["Face", "License plate"], Field(alias="class")]
    box: Box
    score: Share


class Answer(BaseModel):
    """The masked picture and what is hidden in it."""

    result: Annotated[str | Buffer | list[Byte], Field(description="In the form that was asked for.")]
    format: Literal["JPEG", "PNG"]
    width: Annotated[int, Field(ge=1, description="pixels")]
    height: Annotated[int, Field(ge=1, description="pixels")]
    objects: list[Hidden]


class Status(BaseModel):
    """Whether the picture was masked."""

    code: Literal["ok", "failure"]
    message: str


class Classes(BaseModel):
    """The class of one object with its score."""

    kind: Literal["classes"]
    name: Literal["classes"]
    classes: dict[Literal["Face", "License plate"], Share]


class FoundObject(BaseModel):
    """One hidden object, in the cloud API's words."""

    box: Annotated[list[Share], Field(min_length=4, max_length=4, description="x, y, w, h")]
    entities: list[Classes]


class ImageEntity(BaseModel):
    """The masked picture."""

    kind: Literal["image"]
    name: Literal["anonymized-image"]
    image: Annotated[str, Field(description="base64 or URL")]
    format: Literal["JPEG", "PNG"]
    representation: Literal["base64", "url"]


class ObjectsEntity(BaseModel):
    """What is hidden."""

    kind: Literal["objects"]
    name: Literal["hidden-objects"]
    objects: list[FoundObject]


class Result(BaseModel):
    """The answer for one picture."""

    status: Status
    name: str
    md5: Annotated[str, Field(description="of the picture that was sent")]
    width: int | None = None
    height: int | None = None
    entities: list[ImageEntity | ObjectsEntity]


class Results(BaseModel):
    """The cloud API's answer, for successes and failures alike."""

    results: list[Result]


def results(masked: MaskedPicture, name: str, md5: str, image: str, representation: str) -> dict[str, Any]:
    """The cloud API's answer to a picture that was masked."""
    objects = [
        {
            "box": [round(side, 6) for side in item.box],
            "entities": [{"kind": "classes", "name": "classes", "classes": {item.label: item.score}}],
        }
        for item in masked.objects
    ]
    picture = {
        "kind": "image",
        "name": "anonymized-image",
        "image": image,
        "format": masked.picture.format,
        "representation": representation,
    }
    entry = {
        "status": {"code": "ok", "message": "Success"},
        "name": name,
        "md5": md5,
        "width": masked.picture.width,
        "height": masked.picture.height,
        "entities": [picture, {"kind": "objects", "name": "hidden-objects", "objects": objects}],
    }
    return {"results": [entry]}


def _failures() -> dict[int | str, dict[str, Any]]:
    texts = {
        400: "The request is not understood, or points where it may not.",
        401: "The API key is missing or wrong.",
        403: "Without keys, only this machine may use the server.",
        404: "There is nothing here.",
        405: "Not with this method.",
        408: "The request's body took too long.",
        413: "The picture or the request is too large.",
        415: "Not a picture, or not in a form that is read.",
        422: "The picture is cut short or broken.",
        424: "The picture's URL did not answer with a picture.",
        429: "Too many requests at the same time.",
        500: "The picture could not be made safe, so there is no result.",
        507: "There is no room for the result.",
    }
    return {status: {"model": Results, "description": text} for status, text in texts.items()}


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _inlined(definitions[part["$ref"].rsplit("/", 1)[-1]], definitions)
        return {key: _inlined(value, definitions) for key, value in part.items() if key != "$defs"}
    return [_inlined(item, definitions) for item in part] if isinstance(part, list) else part


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


FAILURES = _failures()

STORED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", "image/png")
        },
    }
}

_ORDER = Order.model_json_schema()

ANONYMIZE_BODY = _body({"application/json": {"schema": _inlined(_ORDER, _ORDER.get("$defs", {}))}})

_URL = {"type": "string", "pattern": "^https?://"}

RESULTS_BODY = _body(
    {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "string", "format": "binary"}, "url": _URL},
                "oneOf": [{"required": ["image"]}, {"required": ["url"]}],
            }
        },
        "application/x-www-form-urlencoded": {
            "schema": {"type": "object", "properties": {"url": _URL}, "required": ["url"]}
        },
    }
)
