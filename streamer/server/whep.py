"""WHEP (draft-ietf-wish-whep), with the answers of MediaMTX where the draft leaves a choice."""

from fastapi import APIRouter, Request, Response

from streamer.errors import ConfigError
from streamer.media.offer import ufrags
from streamer.media.webrtc import TooManyViewersError, Viewer
from streamer.server.keys import Keys, may_call
from streamer.server.rooms import Streams, body_of, failure

_SDP = "application/sdp"
_FRAGMENT = "application/trickle-ice-sdpfrag"
_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "OPTIONS, GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Expose-Headers": "ETag, ID, Accept-Patch, Link, Location",
}

REFUSAL = {
    **_HEADERS,
    "WWW-Authenticate": "Bearer",
}  # players of other sites must be able to read that a token is wanted


def router(streams: Streams) -> APIRouter:
    """`POST /NAME/whep` and what belongs to it."""
    api = APIRouter(tags=["WHEP"])

    @api.post("/{name}/whep")
    async def offer(name: str, request: Request) -> Response:
        return await _join(streams, name, request)

    @api.patch("/{name}/whep/{key}")
    async def trickle(name: str, key: str, request: Request) -> Response:
        return await _trickle(streams, name, key, request)

    @api.delete("/{name}/whep/{key}")
    async def leave(name: str, key: str) -> Response:
        viewer = _viewer(streams, name, key)
        room = streams.rooms.of(streams.fleet.get(name))
        if viewer is None or room is None:
            return failure(404, "session not found", _HEADERS)
        await room.leave(viewer)
        return Response(status_code=200, headers=_HEADERS)

    return api


def options(streams: Streams, keys: Keys) -> APIRouter:
    """`OPTIONS`: browsers send it without a key; who sends one is told of the ICE servers and their passwords."""
    api = APIRouter(tags=["WHEP"])

    @api.options("/{name}/whep")
    @api.options("/{name}/whep/{key}")
    async def tell(request: Request, name: str, key: str = "") -> Response:
        answer = Response(status_code=204, headers={**_HEADERS, "Accept-Post": _SDP})
        if may_call(keys, request.headers):
            _link(answer, streams)
        return answer

    return api


def _link(answer: Response, streams: Streams) -> Response:
    for link in streams.rooms.links:
        answer.headers.append("Link", link)
    return answer


async def _join(streams: Streams, name: str, request: Request) -> Response:
    if _media_type(request) != _SDP:
        return failure(400, "invalid Content-Type", _HEADERS)
    stream = streams.fleet.get(name)
    room = streams.rooms.of(stream)
    if stream is None or room is None or stream.encoder is None:
        return failure(404, f"no stream is available on path '{name}'", _HEADERS)
    try:
        viewer = await room.join((await body_of(request)).decode())
    except TooManyViewersError as error:
        return failure(503, str(error), {**_HEADERS, "Retry-After": "5"})
    except ConfigError as error:
        return failure(400, str(error), _HEADERS)
    except UnicodeDecodeError:
        return failure(400, "the offer is no text", _HEADERS)
    headers = {
        **_HEADERS,
        "Location": f"{request.scope.get('root_path', '')}/{name}/whep/{viewer.key}",
        "ETag": viewer.tag,
        "ID": viewer.key,
        "Accept-Patch": _FRAGMENT,
    }
    return _link(Response(viewer.answer, 201, headers, _SDP), streams)


async def _trickle(streams: Streams, name: str, key: str, request: Request) -> Response:
    if _media_type(request) != _FRAGMENT:
        return failure(400, "invalid Content-Type", _HEADERS)
    viewer = _viewer(streams, name, key)
    if viewer is None:
        return failure(404, "session not found", _HEADERS)
    if not _is_meant(request.headers.get("if-match"), viewer):
        return failure(412, "this is another ICE session: open a new one", _HEADERS)
    try:
        fragment = (await body_of(request)).decode(errors="replace")
        if not ufrags(fragment) <= viewer.asked.ufrags:
            return failure(422, "ICE restarts are not supported: open a new session", _HEADERS)
        for line, mid in candidates_of(fragment):
            await viewer.add_candidate(line, mid)
    except ConfigError as error:
        return failure(400, str(error), _HEADERS)
    return Response(status_code=204, headers=_HEADERS)


def _is_meant(tags: str | None, viewer: Viewer) -> bool:
    """Whether `If-Match` names the viewer's ICE session (RFC 9110, 13.1.1). As the first session stays the only one,
    players that send no tag are taken too, unlike the draft's 428; `"*"`, as WHIP writes it, is any.
    """
    if tags is None:
        return True
    return not {"*", '"*"', viewer.tag}.isdisjoint(tag.strip() for tag in tags.split(","))


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _viewer(streams: Streams, name: str, key: str) -> Viewer | None:
    room = streams.rooms.of(streams.fleet.get(name))
    return room.get(key) if room is not None else None


def candidates_of(fragment: str) -> list[tuple[str, str | None]]:
    """The candidates of an SDP fragment (RFC 8840) with their media ids."""
    found = []
    mid: str | None = None
    for line in fragment.splitlines():
        if line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:").strip()
        elif line.startswith("a=candidate:"):
            found.append((line.removeprefix("a=").strip().removeprefix("candidate:"), mid))
    return found
