"""Faults of the whole program: `streamer live` as users start it, shipped network and all, a zone over the face."""

import asyncio
import contextlib
import importlib.util
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.proof.camera import Camera
from streamer.proof.live_faults import pictures_of
from streamer.proof.outcome import NotRun, Outcome, Pictures, Unfinished, together
from streamer.proof.scene import FACE, SIZE

_START_S = 90.0
_WAVES, _EACH, _WATCHED = 2, 25, 3  # viewers
_AROUND = 8  # pixels of the zone around the face


@dataclass(frozen=True, slots=True)
class Program:
    """A running `streamer live`."""

    process: "subprocess.Popen[str]"
    folder: Path  # of its recordings
    log: Path

    def url(self) -> str:
        """Where it serves. Raises Unfinished."""
        found: list[str] = []

        def told() -> bool:
            found.extend(re.findall(r"page: (http://\S+?)/?\s", self.log.read_text(encoding="utf-8")))
            return bool(found)

        _until(told, "an address")
        return found[0]

    def whereabouts(self) -> str:
        """What each thread of the program is in; ends it."""
        self.process.send_signal(
            signal.SIGABRT
        )  # its fault handler writes the stacks, whatever holds the interpreter
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        return self.said()

    def said(self) -> str:
        """The end of its log, in one line: the innermost three calls of each thread, where it tells of them."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        starts = [at for at, line in enumerate(lines) if line.startswith(("Thread 0x", "Current thread 0x"))]
        calls = [" < ".join(part.strip() for part in lines[at + 1 : at + 4]) for at in starts]
        return " | ".join(calls or lines[-3:])


@contextlib.contextmanager
def _live(camera: Camera, *words: str) -> Iterator[Program]:
    """`streamer live` on the camera, with a zone over the face; killed when the block is left."""
    with tempfile.TemporaryDirectory(prefix="streamer-proof-") as name:
        folder = Path(name)
        zones, settings, log = folder / "zones.json", folder / "settings.toml", folder / "log.txt"
        x0, y0, x1, y1 = (
            (side + grow) / most
            for side, grow, most in zip(
                FACE,
                (-_AROUND, -_AROUND, _AROUND, _AROUND),
                (SIZE.width, SIZE.height, SIZE.width, SIZE.height),
                strict=True,
            )
        )
        zones.write_text(json.dumps({"mask": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]]}), encoding="utf-8")
        settings.write_text(f"zones = {json.dumps(str(zones))}\n", encoding="utf-8")
        recordings = folder / "recordings"
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "streamer",
            "live",
            camera.url,
            "--config",
            str(settings),
        ]
        command += [word.replace("RECORDINGS", str(recordings)) for word in words]
        with log.open("w", encoding="utf-8") as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True)
        try:
            yield Program(process, recordings, log)
        finally:
            process.kill()
            process.wait(10)


def sigterm(name: str) -> Outcome:
    """SIGTERM while it records and serves a camera that floods it."""
    serves = _has_serve()
    ends = ["--webrtc", "--hls", "--port", "0"] if serves else []
    with Camera() as camera, _live(camera, "--record", "RECORDINGS", "--segment", "3600", *ends) as program:
        _until(lambda: _grown(program.folder) > 4000, "a recording")
        camera.paced = False
        time.sleep(1.0)
        sent_s = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        try:
            code = program.process.wait(60)
        except subprocess.TimeoutExpired as late:
            raise Unfinished(f"no end within 60 s after SIGTERM; {program.whereabouts()}") from late
        took_s = time.monotonic() - sent_s
        files = sorted(program.folder.iterdir())
        seen = [pictures_of(path) for path in files]
        said = program.said()
    left = together(seen)
    if code not in (0, -signal.SIGTERM) or [path.suffix for path in files] != [".mp4"] or not left.out:
        what = (
            f"exit code {code} and {', '.join(path.name for path in files)} with {left.out} pictures; {said}"
        )
        return Outcome(name, what, left, None, "LEAKED" if left.uncovered else "not back")
    happened = f"ended after {took_s:.1f} s with exit code {code}; the recording is whole"
    return Outcome(name, happened, left, None, "LEAKED" if left.uncovered else "held")


def viewers(name: str) -> Outcome:
    """Fifty viewers join and leave, half of them without a word."""
    if not _has_serve():
        raise NotRun("needs streamer-anonymizer[serve]")
    with Camera() as camera, _live(camera, "--webrtc", "--port", "0") as program:
        url = program.url()
        _until(lambda: bool(_ask(url).get("encoder")), "a stream")
        seen, leaks, codes = asyncio.run(_crowd(url))
        left_s = time.monotonic()
        _until(lambda: _ask(url)["viewers"] == 0, "all viewers to be gone")
        back_s = time.monotonic() - left_s
        state = _ask(url)
    joined = codes.count(201)
    if state["state"] != "live" or state["egress_without_receipt"] or joined < _WAVES * _EACH:
        raise Unfinished(f"{joined} viewers joined; afterwards the stream was {state['state']}")
    happened = f"{joined} joined in {_WAVES} waves, {_WAVES * _WATCHED} of them watched; all gone after {back_s:.1f} s"
    return Outcome(name, happened, Pictures(seen, 0, leaks), round(back_s, 2), "LEAKED" if leaks else "held")


async def _crowd(url: str) -> tuple[int, int, list[int]]:
    """Pictures that were looked at, those that show the face, and the answers to the offers."""
    from streamer.proof.viewers import Viewer

    seen, leaks = 0, 0
    codes: list[int] = []
    for _ in range(_WAVES):
        crowd = [Viewer(idle=place >= _WATCHED) for place in range(_EACH)]
        places = []
        for viewer in crowd:
            code, place, answer = await asyncio.to_thread(_post, f"{url}/camera/whep", await viewer.offer())
            codes.append(code)
            places.append(place)
            if code == 201:
                await viewer.take(answer)
        await asyncio.gather(*(viewer.watch(10, timeout_s=90) for viewer in crowd[:_WATCHED]))
        for number, (viewer, place) in enumerate(zip(crowd, places, strict=True)):
            seen, leaks = seen + viewer.pictures, leaks + viewer.leaks
            if number % 2:
                await asyncio.to_thread(_delete, url + place)
            await viewer.leave()
    return seen, leaks, codes


def _post(url: str, sdp: str) -> tuple[int, str, str]:
    request = urllib.request.Request(url, sdp.encode(), {"Content-Type": "application/sdp"}, method="POST")
    with _opener().open(request, timeout=60) as answer:
        return answer.status, answer.headers.get("Location", ""), answer.read().decode()


def _delete(url: str) -> None:
    with _opener().open(urllib.request.Request(url, method="DELETE"), timeout=60):
        pass


def _ask(url: str) -> dict[str, Any]:
    try:
        with _opener().open(f"{url}/v1/streams/camera", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return {}


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy


def _has_serve() -> bool:
    return all(importlib.util.find_spec(name) for name in ("aiortc", "fastapi", "uvicorn"))


def _grown(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0


def _until(done: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + _START_S
    while not done():
        if time.monotonic() > until_s:
            raise Unfinished(f"{what}: not within {_START_S:.0f} s")
        time.sleep(0.1)


STORIES: dict[str, Callable[[str], Outcome]] = {
    "SIGTERM under load": sigterm,
    "50 viewers join and leave": viewers,
}
