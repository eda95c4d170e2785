"""Cameras whose RTSP, SDP or RTP is not what it should be: no crash, no hang, and a stream that goes on."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from streamer.frame import Frame, Size
from streamer.live import timing
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.proof.scene import Judge, run_until, studio
from tests.fake_rtsp import FakeRtsp
from tests.fuzz.test_files import CASES, FIRST

LONGEST_S = 120 + 4 * CASES


@pytest.mark.timeout(LONGEST_S + 60)
def test_odd_cameras_end_well() -> None:
    command = [sys.executable, "-m", "tests.fuzz.rtsp_worker", str(FIRST), str(CASES)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace").splitlines()
        ended = {line.split()[1] for line in said if line.startswith("ended")}
        begun = [line.split()[1] for line in said if line.startswith("case")]
        pytest.fail(f"hangs in one of {[seed for seed in begun if seed not in ended]}")
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"crashed ({done.returncode}) near {said[-8:]}: {done.stderr[-500:]}"
    wrong = [line for line in said if "wrong" in line]
    assert not wrong, wrong[:5]
    ends = Counter(line.split()[2] for line in said if line.startswith("ended"))
    assert sum(ends.values()) == CASES
    assert ends["passed"] > 0
    assert ends["refused"] > 0


def test_a_stream_goes_on_until_its_camera_speaks_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "DELAYS_S", (0.1,))
    dice = random.Random(3)
    odd = {0: "OPTIONS", 1: "DESCRIBE", 2: "SETUP", 3: "PLAY", 4: "rtp"}

    def damage(connection: int, what: str, data: bytes) -> bytes:
        return dice.randbytes(len(data)) if odd.get(connection) == what else data

    with FakeRtsp(damage) as camera:
        spec = LiveSpec(camera.url, open_s=2.5, read_s=1.0)

        def connect(size: Size | None) -> Iterator[Frame]:
            with LiveSource(spec, tally=stream.tally, size=size) as source:
                yield from source

        stream = LiveStream("camera", StreamSettings(source=camera.url), studio(), connect=connect)
        judge = Judge()
        stream.add(judge)
        run_until(stream, lambda: camera.connections > len(odd) and judge.masked > 50, 150)
        judge.verdict()
