"""From a file to the pixels that a real browser shows."""

import asyncio
import datetime
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from streamer.proof.scene import write_clip
from streamer.proof.viewers import Viewer
from streamer.server.keys import hashed
from tests.browser import chromium, firefox, watching
from tests.conftest import need
from tests.rtsp import free_port

KEY = "watch-me"
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def live(*arguments: str, port: int, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`streamer live` with these arguments, ended by SIGTERM."""
    command = [sys.executable, "-m", "streamer", "live", *arguments, "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def ask(port: int, path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"X-API-KEY": KEY})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())


def wait_for_stream(port: int, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            if ask(port, "/v1/streams")[0].get("encoder"):
                return
        except OSError:
            pass
        time.sleep(0.3)
    pytest.fail(f"no stream after {timeout_s} s")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photographed face that stands still in a flat picture."""
    from streamer.demo import portrait

    path = tmp_path_factory.mktemp("clip") / "face.mp4"
    picture = np.full((480, 640, 3), 128, np.uint8)
    face = cv2.resize(portrait(), (280, 300), interpolation=cv2.INTER_AREA)
    picture[90:390, 180:460] = face
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=15, options={"preset": "ultrafast", "crf": "18", "bf": "0"}
        )
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for index in range(60):
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def detail(picture: np.ndarray[Any, Any]) -> float:
    """How much fine detail the face holds: the spread of its Laplacian."""
    face = cv2.cvtColor(picture[130:250, 270:370], cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(face, cv2.CV_64F).std())


@pytest.mark.real
@pytest.mark.parametrize(("name", "codec"), [("chromium", ""), ("chromium", "video/VP8"), ("firefox", "")])
def test_what_the_browser_shows_holds_no_face(clip: Path, name: str, codec: str, tmp_path: Path) -> None:
    need(name, {"chromium": chromium, "firefox": firefox}[name]() is not None)
    clear = detail(first_picture(clip))
    port = free_port()
    keys = tmp_path / "keys.txt"
    keys.write_text(hashed(KEY))
    with live(str(clip), "--loop", "--webrtc", "--keys", str(keys), port=port):
        wait_for_stream(port)
        with watching(f"http://127.0.0.1:{port}/camera/whep", key=KEY, codec=codec, name=name) as browser:
            pictures = browser.wait_for(12, timeout_s=60)
        state = ask(port, "/v1/streams/camera")
    assert browser.answer["status"] == 201
    assert pictures[0].shape == (480, 640, 3)
    assert clear > 8
    assert max(detail(picture) for picture in pictures) < clear / 3
    shown = [picture for picture in pictures if picture.std() > 5]
    assert shown, "every picture was covered whole"
    assert state["egress_without_receipt"] == 0


def first_picture(path: Path) -> np.ndarray[Any, Any]:
    capture = cv2.VideoCapture(str(path))
    try:
        return np.asarray(capture.read()[1])
    finally:
        capture.release()


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_under_load_closes_the_recordings(told: signal.Signals, tmp_path: Path) -> None:
    """SIGHUP comes when the terminal is closed."""
    clip = write_clip(tmp_path / "face.mp4", seconds=2, rate=50, format_name="mp4")
    folder = tmp_path / "recordings"
    port = free_port()
    arguments = (str(clip), "--loop", "--webrtc", "--hls", "--record", str(folder), "--segment", "3600")
    with live(*arguments, port=port) as process:
        wait_for_stream(port)
        time.sleep(3)
        assert [file.suffix for file in folder.iterdir()] == [".part"]
        process.send_signal(told)
        assert process.wait(30) in (0, -told)
    (recorded,) = folder.iterdir()
    assert recorded.suffix == ".mp4"
    with av.open(str(recorded)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 20


def test_sigterm_tells_the_viewers(clip: Path) -> None:
    async def watch() -> str:
        viewer = Viewer()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/camera/whep",
            (await viewer.offer()).encode(),
            {"Content-Type": "application/sdp"},
        )
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as answer:
            await viewer.take(answer.read().decode())
        await viewer.watch(3)
        process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 10
        while viewer.peer.connectionState == "connected" and time.monotonic() < until:
            await asyncio.sleep(0.05)
        state = viewer.peer.connectionState
        await viewer.leave()
        return str(state)

    port = free_port()
    with live(str(clip), "--loop", "--webrtc", port=port) as process:
        wait_for_stream(port)
        assert asyncio.run(watch()) == "closed"
        assert process.wait(30) in (0, -signal.SIGTERM)


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate that signs itself, and its key, as PEM files."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(files[0]), str(files[1])


def test_tls_by_flag(clip: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    port = free_port()
    trusting = ssl.create_default_context(cafile=cert)
    trusting.check_hostname = False
    with live(str(clip), "--loop", "--webrtc", "--tls-cert", cert, "--tls-key", key, port=port):
        until = time.monotonic() + 60
        while True:
            try:
                url = f"https://127.0.0.1:{port}/healthz"
                with urllib.request.urlopen(url, timeout=5, context=trusting) as answer:
                    assert json.loads(answer.read()) == {"ok": True, "failed": []}
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.3)


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_wrong_certificate_is_one_line(text: str | None, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    if text is not None:
        file.write_text(text)
    command = [
        sys.executable,
        "-m",
        "streamer",
        "live",
        str(clip),
        "--webrtc",
        "--port",
        "0",
        "--tls-cert",
        str(file),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert "cert.pem" in done.stderr
    assert "Traceback" not in done.stderr
    assert "page:" not in done.stderr  # no address is announced at which nobody answers


def test_no_password_is_printed_or_logged(tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable, "-m", "streamer", "live", "rtsp://me:hunter22@127.0.0.1:9/ch1", "--webrtc",
        "--rtsp", "rtsp://me:hunter22@127.0.0.1:9/out", "--port", str(port),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if ask(port, "/v1/streams")[0]["problem"]:
                    break
            except OSError:
                time.sleep(0.3)
        time.sleep(2)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert "hunter22" not in said
    assert '"state": "offline"' in said
    entries = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert entries[-1]["entry"] == {"event": "stopped"}
    assert any("Connection refused" in str(entry["entry"].get("problem")) for entry in entries)


def test_another_address_than_loopback_needs_keys() -> None:
    command = [sys.executable, "-m", "streamer", "live", "0", "--webrtc", "--host", "0.0.0.0"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--keys" in done.stderr
