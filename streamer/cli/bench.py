"""`streamer bench`: how fast it is beside a plain transcode of the same file."""

import json
import os
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streamer import bench, live_bench, load, models, resident_bench
from streamer.cli.flags import settings_of
from streamer.cli.inputs import PICTURES, check_input
from streamer.config import Settings
from streamer.device import cuda_bench, open_cuda
from streamer.device.base import letterbox
from streamer.errors import ConfigError
from streamer.frame import Frame
from streamer.image.timing import time_image
from streamer.media.opening import check_regular
from streamer.media.source import FileSource
from streamer.tally import Tally

_FEWEST_PICTURES = 20  # a picture is quick, and one round says little


def command(
    name: Annotated[
        str, typer.Argument(help="A video file or a picture; with --live also an address.", metavar="FILE")
    ],
    rounds: Annotated[int, typer.Option(help="Rounds; the median counts.", min=1, max=50)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    device: Annotated[
        str, typer.Option(help="cuda: time each stage on the GPU, on frames of the file.")
    ] = "cpu",
    batch: Annotated[int, typer.Option(help="Frames at once on the GPU.", min=1, max=16)] = 8,
    requests: Annotated[
        int | None, typer.Option(help="Of a picture: ask a server on loopback so often.", min=100)
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Serve it live and count what viewers over WebRTC cost.")
    ] = False,
    streams: Annotated[int, typer.Option(help="Live: streams of that source.", min=1, max=64)] = 1,
    viewers: Annotated[
        int, typer.Option(help="Live: viewers of the first stream, beside one.", min=2, max=100)
    ] = 20,
    seconds: Annotated[float, typer.Option(help="Live: length of a measurement.", min=5)] = 20.0,
    soak: Annotated[
        float, typer.Option(help="Live: minutes of viewers coming and going, with memory watched.", min=0)
    ] = 0.0,
) -> None:
    """Time decode only, plain transcode, streamer and (where installed) deface on the same file.

    Of a picture, time its way from file to masked file, on one core; with --requests, our HTTP server, with one
    worker and with one per core. With --live, serve the file (or address) as a live stream, and measure the added
    delay, drops, and the processor time with one viewer and with many.
    """
    if live:
        plan = live_bench.Plan(name, streams, viewers, seconds, rounds, soak * 60)
        _live(plan, settings_of(config_file, {}), as_json)
        return
    check_input(name)
    source = Path(name)
    check_regular(source)
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device is cpu or cuda here, not {device}")
    if device == "cuda":
        _cuda(source, settings_of(config_file, {}), rounds, batch, as_json)
        return
    if requests is not None:
        _requests(source, requests, as_json)
        return
    if source.suffix.lower() in PICTURES:
        _picture(source, max(rounds, _FEWEST_PICTURES), settings_of(config_file, {}), as_json)
        return
    result = bench.run(source, settings_of(config_file, {}), rounds)
    if as_json:
        print(json.dumps(result.as_dict(), indent=2))
        return
    values = result.as_dict()
    machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    table = Table(title=f"{source.name}: median of {rounds} rounds", caption=machine)
    for name in ("case", "fps", "beside a plain transcode", "CPU ms a frame", "peak MiB"):
        table.add_column(name, justify="left" if name == "case" else "right")
    for case in values["cases"]:
        table.add_row(
            case["name"],
            f"{case['fps']:.1f}",
            f"{case['ratio_to_transcode']:.2f}",
            f"{case['cpu_ms_per_frame']:.1f}",
            str(case["peak_mib"]),
        )
    Console().print(table)


def _live(plan: live_bench.Plan, settings: Settings, as_json: bool) -> None:
    result = live_bench.run(plan, settings)
    if as_json:
        print(json.dumps(result.as_dict(), indent=2))
        return
    width, height = result.size
    machine = ", ".join(f"{key} {value}" for key, value in bench.machine().items())
    title = f"{plan.streams} x {width}x{height} live, {result.encoder}: median of {plan.rounds} rounds"
    table = Table(title=title, caption=machine)
    names = ("viewers", "pictures/s", "dropped", "covered", "delay p50, ms", "p95, ms", "CPU ms a picture")
    for name in (*names, "cores", "packets/s", "packets lost"):
        table.add_column(name, justify="right")
    for run in result.runs:
        counts = (str(run.viewers), f"{run.fps:.1f}", str(run.dropped), str(run.covered))
        times = (
            f"{run.p50_ms:.1f}",
            f"{run.p95_ms:.1f}",
            f"{run.cpu_ms_per_picture:.2f}",
            f"{run.cpu_share:.2f}",
        )
        table.add_row(*counts, *times, f"{run.packets_per_s:.0f}", str(run.lost))
    Console().print(table)
    print(f"{plan.viewers} viewers cost {100 * (result.fan_out - 1):+.1f} % processor time beside one")
    if result.samples:
        print(f"{result.joined} viewers came and went:")
        for sample in (result.samples[0], result.samples[len(result.samples) // 2], result.samples[-1]):
            held = f"{sample.mib:.0f} MiB, {sample.threads} threads, {sample.handles} handles"
            print(f"  after {sample.at_s / 60:.1f} min: {held}")


def _cuda(source: Path, settings: Settings, rounds: int, batch: int, as_json: bool) -> None:
    spec = models.find(settings.detect.model)
    gpu = open_cuda(cuda_bench.Stopwatch, settings.detect, spec)
    batch = min(batch, gpu.most_views(spec.side or settings.detect.side))
    with FileSource(source, tally=Tally(), audio=False, groups=False) as video:
        frames = list(islice((item for item in video if isinstance(item, Frame)), batch))
    box = letterbox(frames[0].size, settings.detect.side, spec.stride)
    stages = cuda_bench.measure(gpu, frames, box, spec, settings.mask.style, rounds)
    whole = resident_bench.measure(frames, settings, batch, rounds)
    runs = bench.end_to_end(source, settings, rounds)
    if as_json:
        values = {
            "gpu": gpu.driver.fingerprint,
            "machine": bench.machine(),
            "resident": [asdict(stage) | {"fps": round(stage.rate, 1)} for stage in stages],
            "detect_track_mask": {name: run.as_dict() for name, run in whole.items()},
            "end_to_end": {name: run.as_dict() for name, run in runs.items()},
        }
        print(json.dumps(values, indent=2))
        return
    table = Table(title=f"{source.name}: {len(frames)} frames at once", caption=gpu.driver.fingerprint)
    names = (
        "stage",
        "median, ms",
        "p95, ms",
        "memory floor, ms",
        "frames a second",
        "CPU median, ms",
        "CPU p95, ms",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in stages:
        floor, *cpu = (
            "" if value is None else f"{value:.3f}"
            for value in (stage.floor_ms, stage.cpu_median_ms, stage.cpu_p95_ms)
        )
        table.add_row(
            stage.name, f"{stage.median_ms:.3f}", f"{stage.p95_ms:.3f}", floor, f"{stage.rate:.0f}", *cpu
        )
    Console().print(table)
    masked = Table(title=f"{source.name}: detect, track and mask resident frames, streams at once: {batch}")
    for name in (
        "device",
        "ms a frame",
        "p95, ms a frame",
        "frames a second",
        "CPU ms a frame",
        "masks a frame",
    ):
        masked.add_column(name, justify="right" if "frame" in name else "left")
    for name, each in whole.items():
        spent = f"{1000 * each.cpu_s / each.frames:.3f}"
        masked.add_row(name, *_rates(each.as_dict(), each.rate), spent, f"{each.masks / each.frames:.1f}")
    Console().print(masked)
    ends = Table(title=f"{source.name}: file to file, median of {rounds} rounds")
    for name in ("device", "ms a frame", "p95, ms a frame", "frames a second", "pictures"):
        ends.add_column(name, justify="right" if "frame" in name else "left")
    for name, run in runs.items():
        ends.add_row(name, *_rates(run.as_dict(), run.rate), f"{run.decoding}, {run.encoding}")
    Console().print(ends)


def _rates(values: dict[str, Any], rate: float) -> tuple[str, str, str]:
    return (f"{values['median_ms_per_frame']:.3f}", f"{values['p95_ms_per_frame']:.3f}", f"{rate:.0f}")


def _requests(source: Path, requests: int, as_json: bool) -> None:
    cores = os.cpu_count() or 1
    loads = [load.measure(source, workers, requests).as_dict() for workers in sorted({1, cores})]
    if as_json:
        print(json.dumps(loads, indent=2))
        return
    table = Table(title=f"{source.name}: {requests} requests to a server on loopback, {cores} cores")
    for name in loads[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in loads:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def _picture(source: Path, rounds: int, settings: Settings, as_json: bool) -> None:
    times = time_image(source.read_bytes(), settings, rounds)
    if as_json:
        print(json.dumps(times.as_dict(), indent=2))
        return
    title = (
        f"{source.name}, {times.width} x {times.height}, {times.objects} objects: median of {rounds} rounds"
    )
    table = Table(title=title, caption="one core")
    for name in ("decode", "look and mask", "write", "all of it", "processor time"):
        table.add_column(f"{name}, ms", justify="right")
    values = (times.decode_ms, times.mask_ms, times.write_ms, times.wall_ms, times.cpu_ms)
    table.add_row(*(f"{value:.1f}" for value in values))
    Console().print(table)
