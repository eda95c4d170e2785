"""Damaged requests by the hundred: an answer of the contract, no fault of the server, nothing told, nothing left."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from streamer.config import Settings, settings_from
from streamer.image.limits import ImageLimits
from streamer.image.redact import open_redactor
from streamer.proof.scene import write_clip
from streamer.server.app import create_app
from streamer.server.keys import Keys
from streamer.server.settings import ServeSettings
from tests.fuzz import image_worker
from tests.fuzz.image_worker import flipped
from tests.fuzz.test_files import CASES, FIRST
from tests.fuzz.worker import mutated
from tests.server.live_serving import SDP, Served, serving
from tests.server.test_streams import FRAGMENT, offer

ODD = (
    b"",
    b"-1",
    b"9" * 30,
    b"null",
    b"\0",
    b"\xff\xfe",
    b"%s%n",
    b"../../etc/passwd",
    b"[" * 3000,
    b"1e999",
    b"\r\n",
)
BOUNDARY = b"0123456789abcdef"
CHECKOUT = Path(__file__).resolve().parents[2]
AROUND = CHECKOUT if CHECKOUT.parent == Path(CHECKOUT.anchor) else CHECKOUT.parent
TOLD = re.compile(r"Traceback|site-packages|\.py\b|File \"|/tmp/|0x[0-9a-f]{6}|" + re.escape(f"{AROUND}/"))


def damaged(data: bytes, number: int) -> bytes:
    rng = np.random.default_rng(number)
    match number % 3:
        case 0:
            return flipped(data, rng)
        case 1:
            return mutated(data, rng)
        case _:
            return swapped(data, rng)


def swapped(data: bytes, rng: np.random.Generator) -> bytes:
    """A word of the text exchanged for one that nobody expects."""
    words = list(re.finditer(rb"[A-Za-z0-9_./+-]{1,40}", data[:4000]))
    if not words:
        return data
    word = words[int(rng.integers(0, len(words)))]
    return data[: word.start()] + ODD[int(rng.integers(0, len(ODD)))] + data[word.end() :]


def form(picture: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\nContent-Type: image/jpeg'
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + picture + b"\r\n--" + BOUNDARY + b"--\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    settings: Settings = settings_from({"detect": {"side": 128}})
    served = ServeSettings(store=folder / "store", limits=ImageLimits(max_bytes=1 << 20, fetch_s=0.2))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with TestClient(
            create_app(served, Keys(), [open_redactor(settings)]),
            base_url="http://127.0.0.1:8080",
            raise_server_exceptions=False,
        ) as opened:
            yield opened
    finally:
        tempfile.tempdir = before


def judged(answer: httpx.Response, case: object) -> int:
    """What holds for every answer; its status."""
    assert answer.status_code < 500, (case, answer.status_code, answer.text[:300])
    if answer.status_code >= 400:
        assert not TOLD.search(answer.text), (case, answer.text[:300])
        assert len(answer.text) < 2000, case
        assert image_worker.SECRET not in answer.text
    return answer.status_code


def ends(found: Counter[int], total: int) -> None:
    """Some were taken and some refused, or the damage was none."""
    assert sum(found.values()) == total
    assert any(code >= 400 for code in found)


def test_forms(client: TestClient, folder: Path) -> None:
    whole = form(image_worker.whole("jpg"))
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    assert client.post("/v1/results", content=whole, headers={"content-type": kind}).status_code == 200
    found: Counter[int] = Counter()
    for number in range(FIRST, FIRST + 4 * CASES):
        body = damaged(whole, number)
        header = damaged(kind.encode(), number) if number % 5 == 0 else kind.encode()
        header = header.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")  # no client sends these
        answer = client.post("/v1/results", content=body, headers=[(b"content-type", header)])
        found[judged(answer, number)] += 1
    ends(found, 4 * CASES)
    assert not [path for path in folder.rglob("*") if path.is_file()]


ORDERS: list[dict[str, Any]] = [
    {"image": list(image_worker.whole("webp")), "hide": "faces", "result": "base64"},
    {"image": {"type": "Buffer", "data": list(image_worker.whole("webp"))}, "result": "buffer"},
    {"image": "data:image/webp;base64,AAAA", "hide": "everything", "result": "array"},
    {"image": "https://127.0.0.1:9/a.jpg", "result": "base64"},
]


@pytest.mark.parametrize("order", ORDERS, ids=["numbers", "buffer", "text", "address"])
def test_orders(client: TestClient, folder: Path, order: dict[str, Any]) -> None:
    whole = json.dumps(order).encode()
    found: Counter[int] = Counter()
    for number in range(FIRST, FIRST + 2 * CASES):
        answer = client.post("/v1/anonymize", content=damaged(whole, number))
        found[judged(answer, number)] += 1
    ends(found, 2 * CASES)
    assert not [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    clip = write_clip(tmp_path_factory.mktemp("clip") / "face.mp4", format_name="mp4")
    with serving({"camera": {"source": str(clip), "loop": True}}) as server:
        server.wait_live()
        yield server


def test_offers_and_candidates_of_viewers(served: Served) -> None:
    sdp = offer().encode()
    fragment = (
        b"a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host\r\na=end-of-candidates\r\n"
    )
    session = served.http.post("/camera/whep", content=sdp, headers=SDP).headers["location"]
    found: Counter[int] = Counter()
    for number in range(FIRST, FIRST + 2 * CASES):
        answer = served.http.post("/camera/whep", content=damaged(sdp, number), headers=SDP)
        found[judged(answer, number)] += 1
        if answer.status_code == 201:
            served.http.delete(answer.headers["location"])
        answer = served.http.patch(session, content=damaged(fragment, number), headers=FRAGMENT)
        assert judged(answer, number) in (204, 400)
    ends(found, 2 * CASES)
    served.http.delete(session)
    served.wait(lambda: served.http.get("/v1/streams/camera").json()["viewers"] == 0)
    state = served.http.get("/v1/streams/camera").json()
    assert state["state"] == "live"
    assert state["egress_without_receipt"] == 0


def test_settings_of_streams(served: Served) -> None:
    values = {
        "source": "rtsp://me:hunter22@127.0.0.1:9/ch1",
        "transport": "tcp",
        "enabled": False,
        "push": ["rtsp://127.0.0.1:9/x"],
        "segment_s": 60.0,
        "delay_ms": 300,
        "hide": "faces",
        "style": "blur",
        "zones": {"mask": [[[0, 0], [1, 0], [1, 1]]]},
    }
    whole = json.dumps(values).encode()
    found: Counter[int] = Counter()
    for number in range(FIRST, FIRST + 2 * CASES):
        answer = served.http.put("/v1/streams/second", content=damaged(whole, number))
        found[judged(answer, number)] += 1
        if answer.status_code == 200:
            assert served.http.delete("/v1/streams/second").status_code == 204
    ends(found, 2 * CASES)
    assert found[200] > 0
    assert list(served.streams.fleet.known) == ["camera"]


def test_bodies_nested_without_end(served: Served) -> None:
    for body in (b"[" * 60_000, b'{"zones":' * 6000):
        answer = served.http.put("/v1/streams/second", content=body)
        assert judged(answer, body[:10]) == 400
