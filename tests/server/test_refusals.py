"""What the server refuses: the contract's failure shape, the right status, nothing on disk, no secret told."""

import asyncio
import base64
import json
import struct
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from streamer.config import Hide
from streamer.errors import RedactionError
from streamer.image.picture import Picture
from streamer.image.redact import MaskedPicture, Redactor
from streamer.server.app import create_app
from streamer.server.keys import Keys
from streamer.server.settings import ServeSettings
from tests.image.pictures import encoded, served
from tests.image.test_picture import png_header
from tests.server.conftest import LOCAL, Start


def message_of(response: httpx.Response, status: int) -> str:
    """The message of a failure, which must have the contract's shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (entry,) = response.json()["results"]
    assert set(entry) == {"status", "name", "md5", "entities"}
    assert entry["status"]["code"] == "failure"
    assert entry["entities"] == []
    return str(entry["status"]["message"])


def is_empty(folder: Path) -> bool:
    return not any(path.is_file() for path in folder.rglob("*"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that the server can write to by default, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def hundred_megapixels() -> bytes:
    image = encoded(Image.new("L", (16, 16)), "JPEG")
    at = image.index(b"\xff\xc0") + 5
    return image[:at] + struct.pack(">HH", 10_000, 10_000) + image[at + 4 :]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (png_header(60_000, 60_000), 413),
        (hundred_megapixels(), 413),
        (encoded(Image.radial_gradient("L"), "JPEG")[:1500], 422),
        (encoded(Image.radial_gradient("L"), "PNG")[:-300], 422),
        (b"%PDF-1.7 ...", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"#!/bin/sh", 415),
        (b"", 415),
    ],
)
@pytest.mark.parametrize("endpoint", ["results", "results-url", "anonymize", "anonymize-path"])
def test_bad_pictures(data: bytes, status: int, endpoint: str, client: TestClient, folder: Path) -> None:
    if endpoint.startswith("results"):
        query = "?representation=url" if endpoint.endswith("url") else ""
        response = client.post(f"/v1/results{query}", files={"image": ("a.jpg", data)})
    else:
        text = f"data:;base64,{base64.b64encode(data).decode()}"
        result = "path" if endpoint.endswith("path") else "base64"
        response = client.post("/v1/anonymize", json={"image": text, "result": result})
    assert message_of(response, status)
    assert is_empty(folder)


def test_large_bodies(start: Start, folder: Path) -> None:
    client = start(limits={"max_bytes": 1000})
    parts = (b"x" * 1000 for _ in range(200))  # without a Content-Length
    message_of(client.post("/v1/anonymize", content=parts), 413)
    message_of(client.post("/v1/anonymize", content=b"x" * 100_000), 413)
    message_of(client.post("/v1/results", files={"image": ("a", b"x" * 100_000)}), 413)
    message_of(client.post("/v1/results", files={"image": ("a", b"x" * 1001)}), 413)
    message_of(client.post("/v1/anonymize", json={"image": list(b"x" * 1001)}), 413)
    assert is_empty(folder)


def test_a_server_of_pictures_alone_tells_its_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"ok": True, "failed": []}
    assert client.get("/readyz").json() == {"ready": True, "streams": {}}


def test_a_form_without_a_file_is_small(client: TestClient) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    message_of(
        client.post("/v1/results", content=b"&" * 100_000, headers=kind), 413
    )  # a second of work per 4 MB


def test_uploads_never_reach_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tempfile.SpooledTemporaryFile
    rolled = []
    monkeypatch.setattr(files, "rollover", lambda self: rolled.append(self))
    noise = encoded(Image.effect_noise((2000, 2000), 100), "PNG")
    assert len(noise) > 2 << 20
    assert client.post("/v1/results", files={"image": ("a.png", noise)}).status_code == 200
    assert not rolled


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/a",
        "http://localhost/a",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://10.0.0.1/",
    ],
)
def test_urls_into_the_private_network(client: TestClient, url: str) -> None:
    for response in (
        client.post("/v1/results", data={"url": url}),
        client.post("/v1/anonymize", json={"image": url}),
    ):
        message = message_of(response, 400)
        assert "private" in message
        assert url not in message


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.org/a", "/etc/passwd", "javascript:1", ""]
)
def test_urls_that_are_none(client: TestClient, url: str) -> None:
    message_of(client.post("/v1/results", data={"url": url}), 400)


def test_paths_that_the_server_does_not_share(client: TestClient, tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg)
    exists, missing = str(tmp_path / "secret.jpg"), str(tmp_path / "missing.jpg")
    messages = [
        message_of(client.post("/v1/anonymize", json={"image": text}), 400)
        for text in (exists, missing, f"{tmp_path}/store/../secret.jpg")
    ]
    assert len(set(messages)) == 1
    for text in (Path(exists).as_uri(), "file:///etc/passwd"):
        message_of(client.post("/v1/anonymize", json={"image": text}), 400)


@pytest.mark.parametrize(
    "url", ["file:///etc/\0", "file:///etc/%00", "file://[::1/a", f"file:///{'a' * 5000}"]
)
def test_file_urls_that_are_none(client: TestClient, url: str) -> None:
    message_of(client.post("/v1/anonymize", json={"image": url}), 400)


def test_a_name_too_long_for_a_file(client: TestClient, tmp_path: Path) -> None:
    url = (tmp_path / "store" / ("a" * 300)).as_uri()
    message_of(client.post("/v1/anonymize", json={"image": url}), 400)


def test_a_slow_or_silent_url(start: Start) -> None:
    client = start(limits={"private_urls": True, "fetch_s": 0.2})
    message_of(client.post("/v1/results", data={"url": "http://127.0.0.1:9/"}), 424)
    with served(b"") as web:
        assert message_of(client.post("/v1/results", data={"url": f"{web}/a"}), 415)


@pytest.mark.parametrize(
    "order",
    [
        {}, {"image": 5}, {"image": None}, {"image": [256]}, {"image": ["a"]}, {"image": {"type": "Blob", "data": []}},
        {"image": "", "hide": "cats"}, {"image": "", "result": "gif"}, {"image": "", "surprise": 1}, [], "text",
        {"image": "https://"}, {"image": "no picture"},
    ],
)  # fmt: skip
def test_orders_that_are_not_understood(client: TestClient, order: Any) -> None:
    message_of(client.post("/v1/anonymize", json=order), 400)


def test_a_long_list_of_something_else_never_reaches_the_parser(client: TestClient) -> None:
    for item in ("[]", "256", "1.0"):
        body = f'{{"image":[{",".join([item] * 200_000)}]}}'
        message_of(client.post("/v1/anonymize", content=body), 400)


def test_forms_that_are_not_understood(client: TestClient, jpeg: bytes) -> None:
    message_of(client.post("/v1/results"), 415)
    message_of(client.post("/v1/results", json={"url": "https://example.org"}), 415)
    message_of(client.post("/v1/results", data={"other": "x"}), 400)
    message_of(client.post("/v1/results", data={"url": "x"}, files={"image": ("a", jpeg)}), 400)
    message_of(client.post("/v1/results", files={"image": (None, "text")}), 400)
    message_of(client.post("/v1/results", files=[("image", ("a", jpeg)), ("image", ("b", jpeg))]), 400)
    broken = {"content-type": "multipart/form-data; boundary=x"}
    message_of(client.post("/v1/results", content=b"garbage", headers=broken), 400)
    message_of(client.post("/v1/results?mode=hide-cats", files={"image": ("a", jpeg)}), 400)
    message_of(client.post("/v1/results?representation=x", files={"image": ("a", jpeg)}), 400)
    message_of(client.post("/v1/anonymize", content=b"\xff\xfe"), 400)


@pytest.mark.parametrize("missing", [1, 4, 9, 60, 2000])
def test_a_form_that_is_cut_is_said_to_be(client: TestClient, jpeg: bytes, missing: int) -> None:
    request = client.build_request("POST", "/v1/results", files={"image": ("a.jpg", jpeg)})
    body = request.read()
    kind = {"content-type": request.headers["content-type"]}
    whole = client.post("/v1/results", content=body, headers=kind)
    assert whole.status_code == 200
    assert client.post("/v1/results", content=body + b"epilogue", headers=kind).status_code == 200
    cut = client.post("/v1/results", content=body.rstrip(b"\r\n")[:-missing], headers=kind)
    assert "it is cut" in message_of(cut, 400)


@pytest.mark.parametrize("files", [None, {"url": (None, "x")}], ids=["urlencoded", "multipart"])
def test_a_form_has_few_fields(client: TestClient, files: dict[str, Any] | None) -> None:
    fields = {f"field{number}": "x" for number in range(9)}
    answer = client.post("/v1/results", data=fields, files=files)
    assert "Too many fields" in message_of(answer, 400)


def test_a_field_is_small(start: Start) -> None:
    client = start(limits={"max_bytes": 4 << 20})
    answer = client.post("/v1/results", files={"url": (None, "x" * (1 << 20) + "x")})
    assert "maximum size" in message_of(answer, 400)


def test_other_places_and_methods(client: TestClient) -> None:
    message_of(client.get("/v1/nothing"), 404)
    message_of(client.get(f"/v1/files/{'a' * 32}.jpg"), 404)
    message_of(client.get("/v1/files/..%2f..%2fetc%2fpasswd"), 404)
    assert "POST" in client.get("/v1/results").headers["allow"]
    message_of(client.get("/v1/results"), 405)
    message_of(client.get("/pages/../app.py"), 404)


class Failing(Redactor):
    """A redactor whose network is out of order."""

    def __init__(self, error: Exception) -> None:
        object.__setattr__(self, "error", error)

    def __call__(self, picture: Picture, hide: Hide) -> MaskedPicture:
        raise self.error  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error", [RedactionError("secret /path"), RuntimeError("secret /path"), MemoryError()]
)
def test_a_failure_inside_gives_no_picture_and_tells_nothing(
    error: Exception, start: Start, jpeg: bytes, folder: Path
) -> None:
    client = start(redactors=[Failing(error)])
    for response in (
        client.post("/v1/results?representation=url", files={"image": ("a", jpeg)}),
        client.post("/v1/anonymize", json={"image": list(jpeg), "result": "path"}),
    ):
        assert "secret" not in message_of(response, 500)
    assert is_empty(folder)


def test_a_full_store(start: Start, jpeg: bytes, folder: Path) -> None:
    client = start(store_bytes=10)
    message = message_of(client.post("/v1/results?representation=url", files={"image": ("a", jpeg)}), 507)
    assert str(folder) not in message
    message_of(client.post("/v1/anonymize", json={"image": list(jpeg), "result": "path"}), 507)
    assert is_empty(folder)


class Held(Redactor):
    """A redactor that waits until it may go on."""

    def __init__(self, inner: Redactor) -> None:
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "go", threading.Event())
        object.__setattr__(self, "started", threading.Semaphore(0))

    def __call__(self, picture: Picture, hide: Hide) -> MaskedPicture:
        self.started.release()  # type: ignore[attr-defined]
        assert self.go.wait(20)  # type: ignore[attr-defined]
        return self.inner(picture, hide)  # type: ignore[attr-defined, no-any-return]


def test_past_its_bounds_the_server_says_so_and_stays_awake(
    redactor: Redactor, tmp_path: Path, jpeg: bytes
) -> None:
    held = Held(redactor)
    settings = ServeSettings(store=tmp_path / "store", waiting=2)
    app = create_app(settings, Keys(), [held])

    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:

            def post() -> Any:
                return client.post("/v1/results", files={"image": ("a", jpeg)}, timeout=30)

            inside = [asyncio.create_task(post()) for _ in range(3)]
            await asyncio.to_thread(held.started.acquire)  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)
            refused = await post()
            assert message_of(refused, 429)
            assert int(refused.headers["retry-after"]) >= 1
            assert (await client.get("/v1/modes")).status_code == 200  # while pixels are worked on
            held.go.set()  # type: ignore[attr-defined]
            answers = [await task for task in inside]
            return [answer.status_code for answer in [*answers, await post()]]

    assert asyncio.run(scenario()) == [200] * 4


POST = {  # as a server hands it to the application
    "type": "http",
    "method": "POST",
    "path": "/v1/anonymize",
    "headers": [(b"host", b"127.0.0.1:8080"), (b"content-type", b"application/json")],
    "query_string": b"",
}


def test_a_client_that_goes_away_is_no_error(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_: Any) -> None:
        pass

    asyncio.run(client.app(dict(POST), receive, send))  # type: ignore[arg-type, func-returns-value]
    assert not caplog.records


def test_a_client_that_does_not_read_holds_its_place_for_so_long_only(
    redactor: Redactor, tmp_path: Path, jpeg: bytes
) -> None:
    app = create_app(ServeSettings(store=tmp_path / "store", body_s=0.5, waiting=0), Keys(), [redactor])
    order = json.dumps({"image": base64.b64encode(jpeg).decode(), "result": "array"}).encode()

    async def scenario() -> None:
        full = asyncio.Event()

        async def receive() -> Any:
            return {"type": "http.request", "body": order}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                assert len(message["body"]) <= 1 << 18
                full.set()
                await asyncio.sleep(30)

        silent = asyncio.create_task(app(dict(POST), receive, send))  # type: ignore[arg-type]
        await asyncio.wait_for(full.wait(), 10)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
            message_of(await client.post("/v1/anonymize", content=b"{}"), 429)
            await asyncio.wait_for(silent, 10)
            message_of(await client.post("/v1/anonymize", content=b"{}"), 400)

    asyncio.run(scenario())


def test_a_body_that_does_not_arrive(redactor: Redactor, tmp_path: Path) -> None:
    app = create_app(ServeSettings(store=tmp_path / "store", body_s=0.2, waiting=0), Keys(), [redactor])

    async def scenario() -> None:
        async def slow() -> Any:
            yield b'{"image": "'
            await asyncio.sleep(30)

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL) as client:
            message_of(await client.post("/v1/anonymize", content=slow()), 408)
            message_of(await client.post("/v1/anonymize", content=b"{}"), 400)  # its place is free again

    asyncio.run(scenario())
