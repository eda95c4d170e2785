"""Our own endpoint: every form of picture in, every form of result out."""

import base64
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.image.pictures import FACE, detail, samples_of, served
from tests.server.conftest import Start

FORMS = ["path", "url", "base64", "buffer", "array"]


def post(client: TestClient, image: Any, **order: Any) -> dict[str, Any]:
    response = client.post("/v1/anonymize", json={"image": image, **order})
    assert response.status_code == 200, response.text
    return dict(response.json())


def bytes_of(client: TestClient, form: str, result: Any) -> bytes:
    if form == "path":
        return Path(result).read_bytes()
    if form == "url":
        return client.get(result).content
    return (
        base64.b64decode(result)
        if form == "base64"
        else bytes(result["data"] if form == "buffer" else result)
    )


@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("wanted", FORMS)
def test_every_form_in_and_out_and_in_again(
    given: str, wanted: str, start: Start, jpeg: bytes, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "in.jpg").write_bytes(jpeg)
    client = start(limits={"private_urls": True}, folders=[shared])
    with served(jpeg) as web:
        image = {
            "path": str(shared / "in.jpg"),
            "url": f"{web}/in.jpg",
            "base64": base64.b64encode(jpeg).decode(),
            "buffer": {"type": "Buffer", "data": list(jpeg)},
            "array": list(jpeg),
        }[given]
        answer = post(client, image, result=wanted)
    data = bytes_of(client, wanted, answer["result"])
    assert (answer["format"], answer["width"], answer["height"]) == ("JPEG", 512, 512)
    assert any(item["class"] == "Face" for item in answer["objects"])
    assert all(set(item["box"]) == {"x", "y", "w", "h"} for item in answer["objects"])
    x0, y0, x1, y1 = FACE
    assert detail(samples_of(data)[y0:y1, x0:x1]) < 0.35 * detail(samples_of(jpeg)[y0:y1, x0:x1])
    again = post(client, answer["result"])
    assert (again["format"], again["width"]) == ("JPEG", 512)


def test_a_result_is_taken_back_from_its_url_without_a_request(client: TestClient, jpeg: bytes) -> None:
    url = post(client, list(jpeg), result="url")["result"]
    assert post(client, url)["format"] == "JPEG"  # although the address is private
    form = client.post("/v1/results", data={"url": url})
    assert form.json()["results"][0]["name"] == url.rsplit("/", 1)[-1]
    unknown = f"{url[:-5]}{'y' if url[-5] == 'x' else 'x'}.jpg"  # names are random
    for other in (url.replace("8080", "8081"), f"{url}?x", unknown, f"{url}/../a"):
        assert client.post("/v1/anonymize", json={"image": other}).status_code == 400


def test_the_default_is_base64_and_everything(client: TestClient, jpeg: bytes) -> None:
    answer = post(client, base64.b64encode(jpeg).decode())
    assert base64.b64decode(answer["result"]).startswith(b"\xff\xd8")
    assert "Face" in {item["class"] for item in answer["objects"]}


@pytest.mark.parametrize("word", ["plates", "Licence plates only"])
def test_hide_takes_both_vocabularies(client: TestClient, jpeg: bytes, word: str) -> None:
    answer = post(client, base64.b64encode(jpeg).decode(), hide=word)
    assert "Face" not in {item["class"] for item in answer["objects"]}
