"""`streamer bench --live`: `streamer serve` as users run it, watched by viewers on this machine, measured from outside.

The server is a process of its own, whose processor time, memory, threads and handles the system counts; viewers
are another process (see media.watching), which receives and does not decode. Runs with one viewer and with
many take turns, so that what else the machine does meets both.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamer.config import Settings
from streamer.errors import ConfigError, StreamerError

_READY_S = 90.0
_APART_S = 1.7  # between starts: cameras do not show the same picture at the same moment
_SETTLE_S = 3.0  # after viewers have joined
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    source: str  # file, played again and again at its own pace, or address
    streams: int = 1  # that many streams of the same source
    viewers: int = 20  # of the first stream, beside one
    seconds: float = 20.0  # of each measurement
    rounds: int = 3
    soak_s: float = 0.0  # how long viewers then come and go while growth is watched


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: medians over the rounds."""

    viewers: int
    cpu_share: float  # of one core, by the server
    cpu_ms_per_picture: float
    fps: float  # of all streams together
    dropped: int  # decoded pictures that were left out, and pictures that were late
    covered: int
    p50_ms: float  # added delay, decoded picture to encoded packet, the worst stream
    p95_ms: float
    packets_per_s: float  # to all viewers
    lost: int  # packets that viewers did not get


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server's process holds at one moment."""

    at_s: float
    mib: float
    threads: int
    handles: int


@dataclass(frozen=True, slots=True)
class LiveBench:
    """All of it."""

    plan: Plan
    encoder: str
    size: tuple[int, int]
    runs: tuple[Run, ...]
    samples: tuple[Sample, ...]
    joined: int  # viewers that came and went while samples were taken

    @property
    def fan_out(self) -> float:
        """Processor time per picture with many viewers beside that with one."""
        return self.runs[-1].cpu_ms_per_picture / self.runs[0].cpu_ms_per_picture

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "fan_out": round(self.fan_out, 3)}


def run(plan: Plan, settings: Settings) -> LiveBench:
    """Measure; takes about `rounds` times twice `seconds`. Raises ConfigError where the system does not count."""
    if not Path("/proc/self/stat").exists():
        raise ConfigError("streamer bench --live reads /proc: it runs on Linux")
    with _server(plan, settings) as server:
        found: dict[int, list[Run]] = {1: [], plan.viewers: []}
        for _ in range(plan.rounds):
            for viewers, runs in found.items():
                runs.append(_measure(server, plan, viewers))
        samples, joined = _soak(server, plan) if plan.soak_s else ((), 0)
        shown = server.status()[0]
    return LiveBench(
        plan, str(shown["encoder"]["name"]), (shown["width"], shown["height"]),
        tuple(_median(runs) for runs in found.values()), samples, joined,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Server:
    pid: int
    port: int

    def status(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/streams", timeout=10) as answer:
            return list(json.loads(answer.read()))

    def enable(self, stream: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/streams/{stream}",
            data=b'{"enabled": true}',
            headers={"Content-Type": "application/json"},
            method="PATCH",
        )
        with urllib.request.urlopen(request, timeout=30):
            pass

    def cpu_s(self) -> float:
        """Processor seconds of the process, in user and system mode, all threads (proc(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def sample(self, at_s: float) -> Sample:
        folder = Path(f"/proc/{self.pid}")
        rows = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        kib = int(rows["VmRSS"].split()[0])
        return Sample(at_s, kib / 1024, int(rows["Threads"]), len(list((folder / "fd").iterdir())))

    def whep(self, stream: str) -> str:
        return f"http://127.0.0.1:{self.port}/{stream}/whep"


@contextmanager
def _server(plan: Plan, settings: Settings) -> Iterator[_Server]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    source = str(Path(plan.source).resolve()) if Path(plan.source).exists() else plan.source
    streams = {
        f"camera{number}": {"source": source, "loop": True, "enabled": number == 0}
        for number in range(plan.streams)
    }
    anonymize = settings.model_dump(mode="json", exclude_unset=True)
    values = {"port": port, "workers": 1, "streams": streams, "anonymize": anonymize}
    with tempfile.TemporaryDirectory(prefix="streamer-bench-") as folder:
        config = Path(folder) / "bench.yaml"
        config.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
        config.chmod(0o600)
        command = [sys.executable, "-m", "streamer", "serve", "--config", str(config)]
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, env=_environment())
        server = _Server(process.pid, port)
        try:
            for number in range(plan.streams):
                if number:
                    time.sleep(_APART_S)
                    server.enable(f"camera{number}")
                _wait_ready(server, process, log, number + 1)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _wait_ready(server: _Server, process: "subprocess.Popen[bytes]", log: Path, streams: int) -> None:
    until_s = time.monotonic() + _READY_S
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(OSError):
            if sum(bool(entry.get("encoder")) for entry in server.status()) == streams:
                return
        time.sleep(0.3)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise StreamerError(f"the server does not start: {lines[-1] if lines else 'it says nothing'}")


@contextmanager
def _viewers(server: _Server, plan: Plan, count: int) -> Iterator["subprocess.Popen[str]"]:
    """That many viewers of the first stream, and one of each other, until the block is left."""
    urls = [server.whep("camera0")] * count + [server.whep(f"camera{n}") for n in range(1, plan.streams)]
    command = [sys.executable, "-m", "streamer.media.watching", *urls]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "watching":
            raise StreamerError("the viewers could not connect")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


def _measure(server: _Server, plan: Plan, viewers: int) -> Run:
    with _viewers(server, plan, viewers) as process:
        time.sleep(_SETTLE_S)
        before, cpu_before, begun_s = server.status(), server.cpu_s(), time.monotonic()
        time.sleep(plan.seconds)
        after, cpu_s, wall_s = (
            server.status(), server.cpu_s() - cpu_before, time.monotonic() - begun_s
        )  # fmt: skip
        said, _ = process.communicate(timeout=60)
    received = json.loads(said)

    def counted(*names: str) -> int:
        return sum(
            late["frames"][name] - early["frames"][name]
            for early, late in zip(before, after, strict=True)
            for name in names
        )

    pictures = counted("out")
    return Run(
        viewers=viewers,
        cpu_share=cpu_s / wall_s,
        cpu_ms_per_picture=1000 * cpu_s / max(1, pictures),
        fps=pictures / wall_s,
        dropped=counted("dropped", "late"),
        covered=counted("covered"),
        p50_ms=max(entry["latency_ms"]["p50"] or 0.0 for entry in after),
        p95_ms=max(entry["latency_ms"]["p95"] or 0.0 for entry in after),
        packets_per_s=sum(one["packets"] for one in received) / (wall_s + _SETTLE_S),
        lost=sum(one["lost"] for one in received),
    )


def _median(runs: list[Run]) -> Run:
    return Run(
        viewers=runs[0].viewers,
        cpu_share=statistics.median(run.cpu_share for run in runs),
        cpu_ms_per_picture=statistics.median(run.cpu_ms_per_picture for run in runs),
        fps=statistics.median(run.fps for run in runs),
        dropped=sum(run.dropped for run in runs),
        covered=sum(run.covered for run in runs),
        p50_ms=statistics.median(run.p50_ms for run in runs),
        p95_ms=statistics.median(run.p95_ms for run in runs),
        packets_per_s=statistics.median(run.packets_per_s for run in runs),
        lost=sum(run.lost for run in runs),
    )


def _soak(server: _Server, plan: Plan) -> tuple[tuple[Sample, ...], int]:
    """Viewers, five of the first stream, come and go again and again; what the server holds after each goodbye."""
    begun_s = time.monotonic()
    samples: list[Sample] = []
    joined = 0
    while (at_s := time.monotonic() - begun_s) < plan.soak_s:
        samples.append(server.sample(at_s))
        with _viewers(server, plan, 5) as process:
            process.communicate(timeout=60)
        joined += 5 + plan.streams - 1
        time.sleep(1.0)
    return (*samples, server.sample(time.monotonic() - begun_s)), joined
