"""The page, in a real browser: a person drops a picture and sees it masked."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamer
from streamer.server.keys import hashed
from tests.image.pictures import FACE, detail, samples_of, served
from tests.server.browser import Browser, browsing
from tests.server.conftest import Start
from tests.server.running import running

DROP = """
const [target, name, text] = [document.getElementById("image-drop"), arguments[0], arguments[1]];
const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name, { type: "image/jpeg" }));
for (const kind of ["dragenter", "dragover", "drop"]) {
  target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}
"""
DONE = "return !document.getElementById('image-answer').hidden && document.getElementById('image-result').src"
STATUS = "return document.getElementById('image-status').textContent"


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(request.param, tmp_path_factory.mktemp("browser")) as session:
        yield session


def is_masked(link: str, jpeg: bytes) -> bool:
    x0, y0, x1, y1 = FACE
    shown = samples_of(base64.b64decode(link.split(",", 1)[1]))
    return detail(shown[y0:y1, x0:x1]) < 0.35 * detail(samples_of(jpeg)[y0:y1, x0:x1])


@pytest.mark.real
@pytest.mark.parametrize("way", ["drop", "choose"])
def test_a_picture_is_dropped_and_seen_masked(
    browser: Browser, way: str, jpeg: bytes, tmp_path: Path
) -> None:
    with running(tmp_path, "--workers", "1") as url:
        browser.open(url)
        if way == "drop":
            browser.run(DROP, "person.jpg", base64.b64encode(jpeg).decode())
        else:
            (tmp_path / "person.jpg").write_bytes(jpeg)
            browser.type("#image-file", str(tmp_path / "person.jpg"))
        assert is_masked(browser.wait(DONE), jpeg)
        rows = browser.run(
            "return [...document.querySelectorAll('#image-objects tr')].map((row) => row.innerText)"
        )
        boxes = browser.run("return document.querySelectorAll('#image-boxes rect').length")
        assert len(rows) == boxes > 0
        assert any(row.startswith("Face") for row in rows)
        assert "hidden" in browser.run(STATUS)
        assert browser.run("return document.getElementById('image-result').naturalWidth") == 512
        browser.run("document.getElementById('image-hide').value = 'plates'")
        browser.run("document.getElementById('image-hide').dispatchEvent(new Event('change'))")
        browser.wait(
            "return !document.getElementById('image-answer').hidden"
            " && ![...document.querySelectorAll('#image-objects tr')].some((row) => row.innerText.startsWith('Face'))"
        )
        (tmp_path / "page.png").write_bytes(browser.screenshot())
        asked = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith((url, "data:")) for name in asked), asked  # nothing comes from elsewhere


@pytest.mark.real
def test_what_is_no_picture_is_said(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "1") as url:
        browser.open(url)
        browser.run(DROP, "notes.txt", base64.b64encode(b"just text").decode())
        browser.wait("return document.querySelector('#image-status.failed')")
        assert "not a picture" in browser.run(STATUS)
        assert browser.run("return document.getElementById('image-answer').hidden")


@pytest.mark.real
def test_a_key_is_asked_for_and_used(browser: Browser, jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(hashed("the key"))
    with running(tmp_path, "--workers", "1", "--keys", str(tmp_path / "keys.txt")) as url:
        browser.open(url)
        browser.run(DROP, "person.jpg", base64.b64encode(jpeg).decode())
        browser.wait("return document.querySelector('#image-status.failed')")
        browser.wait("return !document.getElementById('key-label').hidden")
        browser.type("#key", "the key\t")
        browser.run(DROP, "person.jpg", base64.b64encode(jpeg).decode())
        assert is_masked(browser.wait(DONE), jpeg)


@pytest.mark.real
def test_a_picture_is_masked_below_a_path_of_another_server(
    browser: Browser, jpeg: bytes, tmp_path: Path
) -> None:
    with running(tmp_path, "--workers", "1", "--prefix", "/tools/faces/") as url:
        assert url.endswith("/tools/faces")
        browser.open(url)
        browser.run(DROP, "person.jpg", base64.b64encode(jpeg).decode())
        assert is_masked(browser.wait(DONE), jpeg)
        asked = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith((f"{url}/", "data:")) for name in asked), asked


ASK = """
const [url, text] = arguments;
const form = new FormData();
form.append("image", new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]), "a.jpg");
const headers = { "X-RapidAPI-Key": "the key" };
fetch(url, { method: "POST", body: form, headers })
  .then((answer) => answer.json()).then((answer) => { window.said = answer.results[0].status.code; })
  .catch((error) => { window.said = String(error); });
"""


@pytest.mark.real
def test_a_page_of_another_site_asks_as_it_asks_the_cloud(
    browser: Browser, jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "keys.txt").write_text(hashed("the key"))
    flags = ("--workers", "1", "--keys", str(tmp_path / "keys.txt"))
    with running(tmp_path, *flags) as url, served(b"<!doctype html>") as shop:
        browser.open(shop)
        browser.run(ASK, f"{url}/img-anonymization/v1/results", base64.b64encode(jpeg).decode())
        assert browser.wait("return window.said") == "ok"


def test_the_page_names_nothing_from_elsewhere(start: Start) -> None:
    client = start()
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert name.startswith("pages/") or name == "data:,"
        assert name == "data:," or client.get(f"/{name}").status_code == 200
    for path in (Path(streamer.__file__).parent / "server" / "pages").iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text())
