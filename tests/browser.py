"""A headless Chromium or Firefox that watches a stream over WHEP and hands back what it really shows."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cv2
import numpy as np
from numpy.typing import NDArray

_PAGE = """<!doctype html><body><video id=v muted autoplay playsinline></video><script>
const say = (kind, body) => fetch('/' + kind, {method: 'POST', body});
(async () => {
  const settings = new URLSearchParams(location.search);
  const peer = new RTCPeerConnection();
  const transceiver = peer.addTransceiver('video', {direction: 'recvonly'});
  if (settings.get('codec')) {
    const all = RTCRtpReceiver.getCapabilities('video').codecs;
    transceiver.setCodecPreferences(all.filter(c => c.mimeType == settings.get('codec')));
  }
  const video = document.getElementById('v');
  if (settings.get('audio')) {
    peer.addTransceiver('audio', {direction: 'recvonly'});
    video.muted = false;  // what is muted has no energy
  }
  const shown = new MediaStream();
  peer.ontrack = event => { shown.addTrack(event.track); video.srcObject = shown; };
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise(done => {
    if (peer.iceGatheringState == 'complete') return done();
    peer.onicegatheringstatechange = () => peer.iceGatheringState == 'complete' && done();
    setTimeout(done, 1000);
  });
  const begun = performance.now();
  const answer = await fetch(settings.get('whep'),
    {method: 'POST', body: peer.localDescription.sdp,
      headers: {'Content-Type': 'application/sdp', 'Authorization': 'Bearer ' + settings.get('key')}});
  const sdp = await answer.text();
  await say('answer', JSON.stringify({status: answer.status, location: answer.headers.get('Location'), sdp}));
  await peer.setRemoteDescription({type: 'answer', sdp});
  const canvas = document.createElement('canvas');
  let busy = false, count = 0;
  const look = async () => {
    count += 1;
    if (!busy && video.videoWidth) {
      busy = true;
      canvas.width = video.videoWidth; canvas.height = video.videoHeight;
      canvas.getContext('2d').drawImage(video, 0, 0);
      const blob = await new Promise(done => canvas.toBlob(done, 'image/png'));
      await say('frame?ms=' + Math.round(performance.now() - begun) + '&count=' + count, blob);
      busy = false;
    }
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  setInterval(async () => {
    const stats = {};
    (await peer.getStats()).forEach(one => {
      if (one.type != 'inbound-rtp') return;
      if (one.kind == 'audio') stats.energy = one.totalAudioEnergy;
      else Object.assign(stats, {decoded: one.framesDecoded, lost: one.packetsLost,
        freezes: one.freezeCount, width: one.frameWidth, codec: one.decoderImplementation, pli: one.pliCount});
    });
    say('stats', JSON.stringify({...stats, state: peer.connectionState}));
  }, 500);
})().catch(error => say('error', String(error)));
</script>"""

_PLAYER = """<!doctype html><body><video id=v muted preload=auto></video><script>
const say = (kind, body) => fetch('/' + kind, {method: 'POST', body});
(async () => {
  const video = document.getElementById('v'), canvas = document.createElement('canvas');
  const once = name => new Promise((done, fail) => {
    video.addEventListener(name, done, {once: true});
    video.addEventListener('error', () => fail(video.error.message), {once: true});
  });
  video.src = URL.createObjectURL(await (await fetch('/video')).blob());
  await once('loadeddata');
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  // 'seeked' may come before the new picture can be drawn: wait until it is shown. None is shown where it already is.
  const shown = () => new Promise(done => { video.requestVideoFrameCallback(done); setTimeout(done, 2000); });
  for (const time of TIMES) {
    const there = once('seeked'), picture = shown();
    video.currentTime = time;
    await there;
    await picture;
    canvas.getContext('2d').drawImage(video, 0, 0);
    await say('frame', await new Promise(done => canvas.toBlob(done, 'image/png')));
  }
  video.playbackRate = 4;
  video.currentTime = 0;
  const end = once('ended');
  await video.play();
  await end;
  await say('answer', JSON.stringify({duration: video.duration, width: video.videoWidth}));
})().catch(error => say('error', String(error)));
</script>"""


class Browser:
    """What one page saw so far."""

    def __init__(self) -> None:
        self.frames: list[NDArray[np.uint8]] = []  # (h, w, 3) BGR
        self.stats: dict[str, Any] = {}
        self.answer: dict[str, Any] = {}
        self.errors: list[str] = []
        self.changed = threading.Condition()
        self.process: subprocess.Popen[bytes] | None = None

    def wait_for(self, frames: int, timeout_s: float) -> list[NDArray[np.uint8]]:
        """At least so many pictures."""
        with self.changed:
            came = self.changed.wait_for(lambda: len(self.frames) >= frames or self.errors, timeout_s)
        assert came, f"{len(self.frames)} pictures in {timeout_s} s; {self.stats}; {self.answer}"
        assert not self.errors, self.errors
        return list(self.frames)


def chromium() -> str | None:
    """The browser's program, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def firefox() -> str | None:
    """The browser's program, if there is one."""
    return next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)


# Nothing is fetched from elsewhere: no codec, no update, no list, no telemetry.
FIREFOX_SETTINGS = """\
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.safebrowsing.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("media.autoplay.default", 0);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "http://127.0.0.1:9/");
user_pref("toolkit.telemetry.enabled", false);
"""


def _command(name: str, profile: Path, url: str) -> list[str]:
    if name == "firefox":
        (profile / "user.js").write_text(FIREFOX_SETTINGS)
        return [str(firefox()), "--headless", "--no-remote", "--profile", str(profile), url]
    return [
        str(chromium()), "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio", "--no-first-run",
        "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
        "--disable-features=WebRtcHideLocalIpsWithMdns", "--remote-debugging-port=0", url,
    ]  # fmt: skip


@contextmanager
def _opened(
    browser: Browser, handler: type[BaseHTTPRequestHandler], query: str = "", name: str = "chromium"
) -> Iterator[Browser]:
    """A browser on a page that `handler` serves; what the page posts ends up in `browser`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/?{query}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser.process = subprocess.Popen(
            _command(name, Path(profile), url),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": profile},
            start_new_session=True,
        )  # fmt: skip
        try:
            yield browser
        finally:
            os.killpg(browser.process.pid, 15)
            try:
                browser.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(browser.process.pid, 9)
                browser.process.wait(5)
            server.shutdown()
            server.server_close()


@contextmanager
def playing(video: Path, times_s: Sequence[float], keep: int = 400) -> Iterator[Browser]:
    """A browser that plays a file by seeking to each of `times_s` and hands back the pictures, then `answer`."""
    browser = Browser()
    page = _PLAYER.replace("TIMES", json.dumps(list(times_s)))
    with _opened(browser, _handler(browser, keep, page, video.read_bytes())):
        yield browser


@contextmanager
def watching(
    whep: str, *, key: str, codec: str = "", keep: int = 400, audio: bool = False, name: str = "chromium"
) -> Iterator[Browser]:
    """A browser that watches `whep` until the block is left, from a page of another origin, with an API key."""
    browser = Browser()
    query = urlencode({"whep": whep, "codec": codec, "key": key, "audio": "1" if audio else ""})
    with _opened(browser, _handler(browser, keep), query, name):
        yield browser


def _handler(
    browser: Browser, keep: int, page: str = _PAGE, video: bytes = b""
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(video if self.path == "/video" else page.encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = self.path.split("?")[0].strip("/")
            with browser.changed:
                if kind == "frame":
                    picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
                    if picture is not None and len(browser.frames) < keep:
                        browser.frames.append(picture)  # type: ignore[arg-type]
                elif kind == "stats":
                    browser.stats = json.loads(body)
                elif kind == "answer":
                    browser.answer = json.loads(body)
                else:
                    browser.errors.append(body.decode())
                browser.changed.notify_all()
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
