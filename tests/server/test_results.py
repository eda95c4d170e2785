"""The cloud API's contract, as its own sample clients use it."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from tests.image.pictures import FACE, detail, encoded, samples_of, served
from tests.server.conftest import LOCAL, Start


def entry_of(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (entry,) = response.json()["results"]
    return dict(entry)


def is_masked(data: bytes, jpeg: bytes) -> bool:
    x0, y0, x1, y1 = FACE
    return detail(samples_of(data)[y0:y1, x0:x1]) < 0.35 * detail(samples_of(jpeg)[y0:y1, x0:x1])


def test_the_answer_has_the_recorded_shape(client: TestClient, jpeg: bytes) -> None:
    entry = entry_of(client.post("/v1/results", files={"image": ("face.jpeg", jpeg)}))
    image, objects = entry.pop("entities")
    assert entry == {
        "status": {"code": "ok", "message": "Success"},
        "name": "face.jpeg",
        "md5": hashlib.md5(jpeg).hexdigest(),
        "width": 512,
        "height": 512,
    }
    assert is_masked(base64.b64decode(image.pop("image")), jpeg)
    assert image == {
        "kind": "image",
        "name": "anonymized-image",
        "format": "JPEG",
        "representation": "base64",
    }
    found = objects.pop("objects")
    assert objects == {"kind": "objects", "name": "hidden-objects"}
    for item in found:
        assert set(item) == {"box", "entities"}
        assert len(item["box"]) == 4
        assert all(0 <= side <= 1 for side in item["box"])
        (classes,) = item["entities"]
        assert (classes["kind"], classes["name"]) == ("classes", "classes")
        ((name, score),) = classes["classes"].items()
        assert name in ("Face", "License plate")
        assert 0 < score <= 1
    x, y, width, height = max(found, key=lambda item: max(item["entities"][0]["classes"].values()))["box"]
    assert x < 0.45 < x + width  # the face is at 0.45, 0.25
    assert y < 0.25 < y + height


@pytest.mark.parametrize("as_multipart", [True, False])
def test_a_url_is_taken_from_either_kind_of_form(start: Start, jpeg: bytes, as_multipart: bool) -> None:
    client = start(limits={"private_urls": True})
    with served(jpeg) as web:
        url = f"{web}/street.jpg"
        if as_multipart:
            response = client.post("/v1/results", files={"url": (None, url)})
        else:
            response = client.post("/v1/results", data={"url": url})
    entry = entry_of(response)
    assert entry["name"] == "street.jpg"
    assert is_masked(base64.b64decode(entry["entities"][0]["image"]), jpeg)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('filename="Büro.jpg"', "Büro.jpg"),
        ("filename*=utf-8''B%C3%BCro.jpg", "Büro.jpg"),  # urllib3 1.x, below the requests of many
        ("filename*=UTF-8''a%22b%0D%0A.jpg", "ab.jpg"),
        ('filename="../../etc/a.jpg"', "a.jpg"),
        ('filename=""', "image"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_file_is_taken_whatever_its_name(
    client: TestClient, jpeg: bytes, disposition: str, name: str, step: int
) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="image"; {disposition}\r\n\r\n'.encode()
    parts = [*(head[at : at + step] for at in range(0, len(head), step)), jpeg, b"\r\n--x--\r\n"]
    response = client.post(
        "/v1/results",
        content=(part for part in parts),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert entry_of(response)["name"] == name


@pytest.mark.parametrize(
    ("query", "classes"),
    [
        ("", {"Face", "License plate"}),
        ("?mode=hide-face", {"Face"}),
        ("?mode=hide-clp", {"License plate"}),
        ("?mode=hide-clp&mode=hide-face", {"Face", "License plate"}),
    ],
)
def test_modes_choose_what_is_hidden(client: TestClient, jpeg: bytes, query: str, classes: set[str]) -> None:
    entry = entry_of(client.post(f"/v1/results{query}", files={"image": ("a", jpeg)}))
    found = {name for item in entry["entities"][1]["objects"] for name in item["entities"][0]["classes"]}
    assert found <= classes
    assert ("Face" in found) == ("Face" in classes)
    masked = is_masked(base64.b64decode(entry["entities"][0]["image"]), jpeg)
    assert masked == ("Face" in classes)


def test_the_url_representation_can_be_fetched_and_used_again(
    start: Start, jpeg: bytes, tmp_path: Path
) -> None:
    client = start()
    response = client.post("/v1/results?representation=url", files={"image": ("a.jpg", jpeg)})
    image = entry_of(response)["entities"][0]
    assert image["representation"] == "url"
    assert image["image"].startswith(f"{LOCAL}/v1/files/")
    got = client.get(image["image"])
    assert got.headers["content-type"] == "image/jpeg"
    assert got.headers["cache-control"] == "private, no-store"
    assert is_masked(got.content, jpeg)
    assert [path.read_bytes() for path in (tmp_path / "store").iterdir()] == [got.content]


@pytest.mark.parametrize("passed", ["/faces", ""], ids=["with its path", "with the path cut off"])
def test_below_a_path_of_another_server(start: Start, jpeg: bytes, passed: str) -> None:
    client = start(prefix="/faces/")
    for place in ("/", "/pages/image.js", "/v1/modes", "/img-anonymization/v1/version", "/healthz"):
        assert client.get(passed + place).status_code == 200
    assert client.get("/faces", follow_redirects=False).headers["location"] == f"{LOCAL}/faces/"
    query = "/v1/results?representation=url"
    entry = entry_of(client.post(passed + query, files={"image": ("a.jpg", jpeg)}))
    link = entry["entities"][0]["image"]
    assert link.startswith(f"{LOCAL}/faces/v1/files/")
    assert is_masked(client.get(passed + link.removeprefix(f"{LOCAL}/faces")).content, jpeg)
    assert client.post(f"{passed}/v1/anonymize", json={"image": link}).status_code == 200  # it is ours
    assert client.get(f"{passed}/openapi.json").json()["servers"] == [{"url": "/faces"}]
    assert client.get(f"{passed}/nothing").status_code == client.get("/facesv1/modes").status_code == 404


def test_what_can_be_got_can_be_asked_for_without_its_body(client: TestClient, jpeg: bytes) -> None:
    answer = client.post("/v1/results?representation=url", files={"image": ("a.jpg", jpeg)})
    stored = entry_of(answer)["entities"][0]["image"]
    for place in (stored, "/", "/v1/modes", "/v1/version"):
        whole, head = client.get(place), client.head(place)
        assert head.status_code == 200
        assert head.content == b""
        for name in ("content-type", "content-length"):
            assert head.headers[name] == whole.headers[name]
    assert client.head(f"/v1/files/{'a' * 32}.jpg").status_code == 404


def test_stored_results_outlive_the_server_and_end_after_their_time(start: Start, jpeg: bytes) -> None:
    url = entry_of(start().post("/v1/results?representation=url", files={"image": ("a", jpeg)}))["entities"][
        0
    ]
    again = start()
    assert again.get(url["image"]).status_code == 200
    late = start(store_s=1e-9)
    assert late.get(url["image"]).status_code == 404
    assert again.get(url["image"]).status_code == 404


def test_png_stays_png(client: TestClient, person: NDArray[np.uint8]) -> None:
    for representation in ("base64", "url"):
        response = client.post(
            f"/v1/results?representation={representation}",
            files={"image": ("a.png", encoded(person[:200], "PNG"))},
        )
        image = entry_of(response)["entities"][0]
        assert image["format"] == "PNG"
    assert client.get(image["image"]).headers["content-type"] == "image/png"


def test_version_and_modes(client: TestClient) -> None:
    assert client.get("/v1/modes").json() == ["hide-clp", "hide-face"]
    version = client.get("/v1/version")
    assert version.headers["content-type"].startswith("text/plain")
    assert version.text.startswith("v")
    assert len(version.text.split(".")) == 3


def test_a_client_that_changed_the_host_alone_finds_the_endpoints(client: TestClient, jpeg: bytes) -> None:
    response = client.post(
        "/img-anonymization/v1/results",
        headers={"A4A-CLIENT-APP-ID": "sample", "A4A-CLIENT-USER-ID": "someone"},
        files={"image": ("a.jpg", jpeg)},
    )
    assert is_masked(base64.b64decode(entry_of(response)["entities"][0]["image"]), jpeg)
    assert client.get("/img-anonymization/v1/modes").json() == ["hide-clp", "hide-face"]
