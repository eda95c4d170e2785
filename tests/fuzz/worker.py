"""Runs whole files through the product in a process of its own, so that a crash of a decoder is a finding.

`python -m tests.fuzz.worker FOLDER KIND FIRST COUNT` writes one line per case to its standard output before it starts
(`case N`) and after it ended (`ended N ...`), so that the parent knows which one crashed or hung.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

from streamer import detection, pipeline
from streamer.anonymizer import Means
from streamer.config import settings_from
from streamer.device.cpu import CpuDevice
from streamer.errors import StreamerError
from streamer.pipeline import Engine, Job
from streamer.zones import Zones
from tests import clips

EVERYWHERE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
KINDS = {
    "mp4": clips.Clip(frames=8, width=96, height=64, gop=4, audio="aac"),
    "mkv": clips.Clip(frames=8, width=96, height=64, gop=4),
    "ts": clips.Clip(frames=8, width=96, height=64, gop=4),
    "avi": clips.Clip(frames=8, width=96, height=64, codec="mpeg4"),
    "mpg": clips.Clip(frames=8, width=96, height=64, codec="mpeg2video"),
    "h264": clips.Clip(frames=8, width=96, height=64, gop=4),
    "hevc": clips.Clip(frames=8, width=96, height=64, gop=4, codec="libx265"),
    "webm": clips.Clip(frames=6, width=96, height=64, codec="libvpx", options={"deadline": "realtime"}),
    "mjpeg": clips.Clip(frames=6, width=96, height=64, codec="mjpeg", pixel_format="yuvj420p"),
}


class MaskedEngine(Engine):
    """The product's engine with a blind detector and a zone over everything: each frame that leaves is masked."""

    def means(self) -> Means:
        return Means(lambda frame: detection.none(), {}, self.device, self.settings, self.zones)


def engine() -> Engine:
    settings = settings_from({"mask": {"style": "solid"}, "output": {"preset": "ultrafast"}})
    return MaskedEngine(settings, CpuDevice(), "test", None, Zones(mask=(EVERYWHERE,)))  # type: ignore[arg-type]


def mutated(whole: bytes, rng: np.random.Generator) -> bytes:
    """The file with a few things wrong: flipped bits, holes, repeated, moved or missing pieces, a cut end."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 1 + max(1, len(data) // 8)))
        match int(rng.integers(0, 7)):
            case 0:
                for place in rng.integers(0, len(data), int(rng.integers(1, 60))):
                    data[int(place)] ^= 1 << int(rng.integers(0, 8))
            case 1:
                data[at : at + length] = bytes(len(data[at : at + length]))
            case 2:
                data[at : at + 4] = rng.choice([0, 1, 0x7F, 0x80, 0xFF], 4).astype(np.uint8).tobytes()
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                del data[at : at + length]
            case 5:
                data[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
            case _:
                del data[max(1, at) :]
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def leaks(path: Path) -> bool:
    """Whether any picture of a result shows detail: all of it was to be painted over."""
    return any(float(luma.astype(np.float32).std()) > 4 for luma in clips.lumas(path))


def one(source: Path, target: Path, ours: Engine) -> str:
    """What became of one file, in a word; `wrong` starts those that should not be."""
    try:
        pipeline.run(Job(source, target, overwrite=True), ours)
    except StreamerError as error:
        if target.exists():
            return "wrong: a file stands under the final name after an error"
        if "\n" in str(error):
            return f"wrong: an error of several lines: {error!r}"
        return f"refused {type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - whatever is not an error of ours is a finding
        return f"wrong: {type(error).__name__}: {error}"
    finally:
        if target.with_name(target.name + ".part").exists():
            say("wrong: an unfinished file was left")
    if leaks(target):
        return "wrong: LEAK"
    return "passed"


def say(line: str) -> None:
    """One line for the parent."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: Path, kind: str, first: int, count: int) -> None:
    warnings.simplefilter("ignore")
    whole = (folder / f"whole.{kind}").read_bytes()
    ours = engine()
    for number in range(first, first + count):
        say(f"case {number}")
        source, target = folder / f"case_{number}.{kind}", folder / "result.mp4"
        source.write_bytes(mutated(whole, np.random.default_rng(number)))
        target.unlink(missing_ok=True)
        say(f"ended {number} {one(source, target, ours)}")
        source.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
