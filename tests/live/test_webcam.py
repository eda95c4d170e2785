"""A webcam, by number and path: FFmpeg's own V4L2 in a real run, on a device that only its driver is missing of."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from streamer.errors import ConfigError
from streamer.media.live_spec import LiveSpec, check_source
from tests.conftest import need
from tests.live.test_whep import ask, detail, live, wait_for_stream
from tests.rtsp import free_port

SIZE = (640, 480)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that answers for /dev/video7 in the process that loads it."""
    compiler = shutil.which("g++")
    need("g++", compiler is not None)
    library = tmp_path_factory.mktemp("webcam") / "camera.so"
    source = Path(__file__).with_name("camera.cpp")
    command = [
        str(compiler),
        "-O1",
        "-shared",
        "-fPIC",
        "-D_GNU_SOURCE",
        "-o",
        str(library),
        str(source),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="module")
def picture() -> np.ndarray[Any, Any]:
    """What the camera sees: a photographed face in a flat picture."""
    from streamer.demo import portrait

    seen = np.full((480, 640, 3), 128, np.uint8)
    seen[90:390, 180:460] = cv2.resize(portrait(), (280, 300), interpolation=cv2.INTER_AREA)
    return seen


def environment(
    driver: Path, folder: Path, seen: np.ndarray[Any, Any], format: str, leaves: int = 0
) -> dict[str, str]:
    frames = folder / "frames"
    if format == "MJPG":
        frames.write_bytes(cv2.imencode(".jpg", seen)[1].tobytes())
    else:
        frame = av.VideoFrame.from_ndarray(seen, "bgr24").reformat(format="yuyv422")
        frames.write_bytes(bytes(frame.planes[0]))
    return {
        "LD_PRELOAD": str(driver),
        "CAMERA_FORMAT": format,
        "CAMERA_SIZE": "640x480",
        "CAMERA_FRAMES": str(frames),
        "CAMERA_RATE": "15",
        "CAMERA_LEAVES": str(leaves),
    }


def status(port: int) -> dict[str, Any]:
    (found,) = ask(port, "/v1/streams")
    return dict(found)


def wait_until(port: int, what: Any, limit_s: float = 40) -> dict[str, Any]:
    end_s = time.monotonic() + limit_s
    while not what(found := status(port)) and time.monotonic() < end_s:
        time.sleep(0.2)
    assert what(found), found
    return found


def recorded(folder: Path) -> list[np.ndarray[Any, Any]]:
    (file,) = folder.glob("*.mp4")
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.mark.real
@pytest.mark.parametrize(
    ("source", "format"),
    [
        ("7", "YUYV"),
        ("/dev/video7", "MJPG"),
        ("7?video_size=640x480&framerate=15&input_format=mjpeg", "MJPG"),
    ],
)
def test_a_webcam_is_recorded_without_its_face(
    driver: Path, picture: np.ndarray[Any, Any], source: str, format: str, tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "recordings"
    with live(
        source, "--webrtc", "--record", str(folder), port=port,
        env=environment(driver, tmp_path, picture, format),
    ):  # fmt: skip
        wait_for_stream(port)
        found = wait_until(port, lambda now: now["frames"]["out"] > 30)
    assert (found["width"], found["height"], found["state"]) == (*SIZE, "live")
    assert found["egress_without_receipt"] == 0
    pictures = recorded(folder)
    assert max(detail(each) for each in pictures) < detail(picture) / 3
    assert any(each.std() > 5 for each in pictures), "every picture was covered whole"


@pytest.mark.real
def test_a_webcam_that_is_unplugged_is_covered_until_it_is_back(
    driver: Path, picture: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "recordings"
    env = environment(driver, tmp_path, picture, "YUYV", leaves=30)
    with live("7", "--webrtc", "--record", str(folder), port=port, env=env):
        wait_for_stream(port)
        found = wait_until(port, lambda now: now["reconnects"] >= 1 and now["frames"]["in"] > 40)
    assert found["frames"]["covered"] > 0
    assert found["egress_without_receipt"] == 0
    assert max(detail(each) for each in recorded(folder)) < detail(picture) / 3


@pytest.mark.real
def test_a_webcam_that_cannot_do_what_is_asked_says_so(
    driver: Path, picture: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    port = free_port()
    env = environment(driver, tmp_path, picture, "YUYV")
    with live("7?input_format=mjpeg", "--webrtc", port=port, env=env):
        end_s = time.monotonic() + 40
        problem = None
        while problem is None and time.monotonic() < end_s:
            try:
                problem = status(port)["problem"]
            except OSError:
                time.sleep(0.3)
        assert problem is not None
        assert "7?input_format=mjpeg" in problem


def test_what_is_asked_of_a_webcam_reaches_ffmpeg() -> None:
    spec = LiveSpec("0?video_size=1280x720&framerate=30&input_format=mjpeg")
    assert spec.kind == "webcam"
    options = {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"}
    assert spec.for_ffmpeg() == ("/dev/video0", "v4l2", options)
    assert LiveSpec("/dev/video2").for_ffmpeg() == ("/dev/video2", "v4l2", {})


@pytest.mark.parametrize("source", ["0?size=1280x720", "/dev/video0?framerate", "0?list_formats=all", "1?x"])
def test_what_cannot_be_asked_of_a_webcam_is_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="a webcam takes video_size, framerate, input_format"):
        check_source(source)
