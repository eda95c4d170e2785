"""The page of live streams in a real browser: what a person sees and may do."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.proof.scene import write_clip
from streamer.server.keys import hashed, keys_from
from tests.rtsp import free_port
from tests.server.browser import Browser, browsing
from tests.server.live_serving import serving

PICTURE = """
const video = document.querySelector('video');
if (!video || !video.videoWidth) return null;
const canvas = document.createElement('canvas');
canvas.width = video.videoWidth; canvas.height = video.videoHeight;
canvas.getContext('2d').drawImage(video, 0, 0);
return canvas.toDataURL('image/png').split(',')[1];
"""
BUTTON = "[...document.querySelectorAll('button')].find((one) => one.textContent === '{}')"
DRAW = """
const overlay = document.querySelector('.stream-stage svg'), place = overlay.getBoundingClientRect();
const button = [...document.querySelectorAll('button')].find((one) => one.textContent === 'Draw a masked zone');
button.click();
for (const [x, y] of [[.02, .1], [.3, .1], [.3, .9], [.02, .9]]) {
  const at = { clientX: place.left + x * place.width, clientY: place.top + y * place.height, detail: 1 };
  overlay.dispatchEvent(new PointerEvent('pointerdown', at));
}
button.click();
"""


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(request.param, tmp_path_factory.mktemp("browser")) as session:
        yield session


def shown(browser: Browser) -> np.ndarray:
    """What the player shows now, grey."""
    data = base64.b64decode(browser.wait(PICTURE))
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


@pytest.mark.real
def test_a_person_watches_draws_a_zone_stops_and_starts(browser: Browser, tmp_path: Path) -> None:
    from streamer.proof.scene import shows_face

    clip = write_clip(tmp_path / "face.mp4", format_name="mp4")
    with serving({"front-door": {"source": str(clip), "loop": True, "style": "solid"}}) as served:
        browser.open(served.url)
        picture = shown(browser)
        assert picture.shape == (192, 320)
        assert not shows_face(picture)
        clear = float(np.median(picture[60:130, 10:36]))
        browser.wait("return document.querySelectorAll('.stream-stage rect').length > 0")
        text = browser.run("return document.body.innerText")
        assert "front-door" in text
        assert "Frames covered" in text
        browser.run(DRAW)
        served.wait(lambda: (served.streams.fleet.known["front-door"].zones or {}).get("mask"))
        browser.wait("return document.querySelectorAll('.stream-stage polygon.mask').length === 1")
        before = served.streams.fleet.get("front-door")
        served.wait(lambda: abs(float(np.median(shown(browser)[60:130, 10:36])) - clear) > 40)
        assert served.streams.fleet.get("front-door") is before
        browser.run(f"{BUTTON.format('Stop')}.click()")
        browser.wait("return document.querySelector('.stream-state').textContent === 'stopped'")
        assert served.streams.fleet.get("front-door") is None
        browser.run(f"{BUTTON.format('Start')}.click()")
        served.wait_live("front-door")
        assert not shows_face(shown(browser))
        asked = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith((served.url, "data:")) for name in asked), asked


CHOOSE = """
const select = [...document.querySelectorAll('.stream-controls select')][arguments[0]];
select.value = arguments[1];
select.dispatchEvent(new Event('change'));
"""
REFUSE_TWICE = """
const real = window.fetch;
let refusals = 2;
window.fetch = (path, options) => options?.method === 'POST' && refusals-- > 0
  ? Promise.resolve(new Response('', { status: 503 })) : real(path, options);
"""


@pytest.mark.real
def test_style_and_classes_are_chosen_and_a_page_that_was_refused_watches_once(
    browser: Browser, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "face.mp4", format_name="mp4")
    with serving({"door": {"source": str(clip), "loop": True}}) as served:
        browser.open(served.url)
        shown(browser)
        browser.run(CHOOSE, 0, "mosaic")
        served.wait(lambda: served.streams.fleet.known["door"].style == "mosaic")
        browser.run(CHOOSE, 1, "plates")
        served.wait(lambda: served.streams.fleet.known["door"].hide == "plates")
        browser.run(REFUSE_TWICE)
        browser.run(f"{BUTTON.format('Stop')}.click()")
        browser.wait("return document.querySelector('.stream-state').textContent === 'stopped'")
        browser.run(f"{BUTTON.format('Start')}.click()")
        served.wait_live("door")
        shown(browser)
        time.sleep(4)
        assert served.http.get("/v1/streams/door").json()["viewers"] == 1


@pytest.mark.real
def test_a_person_watches_below_a_path_of_another_server_and_leaves(browser: Browser, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "face.mp4", format_name="mp4")
    with serving({"door": {"source": str(clip), "loop": True}}, prefix="/yard/cameras") as served:
        browser.open(f"{served.url}/yard/cameras/")
        assert shown(browser).shape == (192, 320)
        browser.wait("return document.querySelectorAll('.stream-stage rect').length > 0")
        browser.run(CHOOSE, 0, "mosaic")
        served.wait(lambda: served.streams.fleet.known["door"].style == "mosaic")
        browser.open("about:blank")
        served.wait(lambda: served.http.get("/v1/streams/door").json()["viewers"] == 0, 10)


BOXES = "return document.querySelectorAll('.stream-stage rect').length"
FIRST_IS_SILENT = """
const real = window.fetch;
let silent = 1, missing = 2, hanging = 1;
const hang = (signal) => new Promise((_, fail) => signal?.addEventListener('abort', () => fail(signal.reason)));
window.fetch = (path, options) => {
  if (path.endsWith('/objects') && silent-- > 0) {
    const { signal } = options;
    const start = (feed) => signal.onabort = () => feed.error(signal.reason);
    return Promise.resolve(new Response(new ReadableStream({ start })));
  }
  if (path === 'v1/streams' && missing-- > 0) return Promise.resolve(new Response('', { status: 404 }));
  if (path === 'v1/streams' && hanging-- > 0) return hang(options.signal);
  return real(path, options);
};
"""


def hiding(clip: Path, what: str) -> dict[str, object]:
    """A stream whose picture holds a face, and thus boxes where faces are hidden."""
    return {"source": str(clip), "loop": True, "hide": what}


@pytest.mark.real
def test_the_boxes_are_followed_again_when_the_server_is_back(browser: Browser, tmp_path: Path) -> None:
    clip, port = write_clip(tmp_path / "face.mp4", format_name="mp4"), free_port()
    with serving({"door": hiding(clip, "faces")}, port=port) as served:
        browser.open(served.url)
        browser.wait(f"{BOXES} > 0")
    browser.wait("return document.getElementById('live-status').textContent !== ''")
    browser.wait(f"{BOXES} === 0")
    with serving({"door": hiding(clip, "faces")}, port=port):
        browser.wait(f"{BOXES} > 0")
        assert browser.run("return document.getElementById('live-status').textContent") == ""


@pytest.mark.real
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "between two looks"])
def test_the_boxes_of_a_stream_that_was_removed_and_added_are_followed(
    browser: Browser, tmp_path: Path, seen: bool
) -> None:
    clip = write_clip(tmp_path / "face.mp4", format_name="mp4")
    with serving({"door": hiding(clip, "plates")}, folders=(tmp_path,)) as served:
        browser.open(served.url)
        shown(browser)
        time.sleep(1)
        assert browser.run(BOXES) == 0
        assert served.http.delete("/v1/streams/door").status_code == 204
        if seen:
            browser.wait("return document.querySelector('article') === null")
        assert served.http.put("/v1/streams/door", json=hiding(clip, "faces")).status_code == 200
        browser.wait(f"{BOXES} > 0")


@pytest.mark.real
def test_a_feed_that_falls_silent_and_a_list_that_does_not_come_are_asked_for_again(
    browser: Browser, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "face.mp4", format_name="mp4")
    with serving({"door": hiding(clip, "faces")}) as served:
        browser.open(served.url)
        browser.wait(f"{BOXES} > 0")
        browser.run(f"{BUTTON.format('Stop')}.click()")
        browser.wait(f"{BOXES} === 0")
        browser.run(FIRST_IS_SILENT)
        browser.run(f"{BUTTON.format('Start')}.click()")
        browser.wait(f"{BOXES} > 0", 60)


@pytest.mark.real
def test_the_page_asks_for_the_key(browser: Browser, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "face.mp4", format_name="mp4")
    with serving(
        {"door": {"source": str(clip), "loop": True}}, keys=keys_from([hashed("the key")])
    ) as served:
        browser.open(served.url)
        browser.wait("return !document.getElementById('key-label').hidden")
        assert browser.run("return document.querySelector('video')") is None
        browser.type("#key", "the key\t")
        assert shown(browser).shape == (192, 320)
