"""Damage inside coded slices: what one decoder conceals in its own way is not handed on for another to conceal."""

from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from streamer.anonymizer import anonymize
from streamer.config import settings_from
from streamer.frame import Clean, Redacted
from streamer.media.source import FileSource
from streamer.tally import Tally
from tests import clips
from tests.clips import Clip
from tests.fakes import means, sees

X265 = "log-level=error:keyint=10:min-keyint=10:scenecut=0:open-gop=0"
KINDS = {
    "h264": Clip(frames=50, options={"preset": "veryfast", "bf": "3"}),
    "h264 in slices": Clip(frames=50, options={"preset": "veryfast", "bf": "0", "slices": "4"}),
    "hevc": Clip(frames=50, codec="libx265", options={"preset": "ultrafast", "x265-params": X265}),
}


def hurt(path: Path, target: Path, seed: int) -> Path:
    """The file with a few bytes of noise in the second half of a picture of the third group of ten."""
    random = np.random.default_rng(seed)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][random.integers(20, 30)]
    data = bytearray(path.read_bytes())
    assert packet.pos is not None
    start = packet.pos + random.integers(packet.size // 2, packet.size - 1)
    end = min(start + random.choice([1, 4, 60]), packet.pos + packet.size)
    data[start:end] = random.integers(1, 256, end - start, np.uint8).tobytes()
    target.write_bytes(data)
    return target


def groups_that_left(path: Path, tally: Tally) -> tuple[list[Clean], list[Redacted]]:
    settings = settings_from({"detect": {"every": 5}})
    with FileSource(path, tally=tally, audio=False) as source:
        out = list(anonymize(source, means(sees(lambda _: []), settings), tally))
    return [item for item in out if isinstance(item, Clean)], [
        item for item in out if isinstance(item, Redacted)
    ]


def is_concealed(path: Path) -> bool:
    """Whether FFmpeg finds fault with a picture when it is told to be strict, and shows all of them none the less."""
    faults = pictures = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        strict = av.VideoCodecContext.create(stream.codec_context.name, "r")
        strict.options, strict.extradata = {"err_detect": "explode"}, stream.codec_context.extradata
        for packet in container.demux(stream):
            try:
                strict.decode(packet if packet.size else None)
            except av.error.FFmpegError:
                faults += 1
            try:
                pictures += len(stream.decode(packet))
            except av.error.FFmpegError:
                return False
    return faults > 0 and pictures == 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_with_a_concealed_picture_is_encoded_and_the_others_are_copied(
    tmp_path: Path, kind: str
) -> None:
    """In none of the five groups there is anything to hide; what is concealed lies in the third."""
    whole = clips.make(tmp_path / "whole.mp4", KINDS[kind])
    hurts = (hurt(whole, tmp_path / f"{seed}.mp4", seed) for seed in range(200))
    found = list(islice(filter(is_concealed, hurts), 3))
    assert found
    for path in found:
        clean, encoded = groups_that_left(path, Tally())
        assert [item.results[0].index // 10 for item in clean] == [0, 1, 3, 4]
        assert [item.result.index for item in encoded] == list(range(20, 30))


@pytest.mark.parametrize("kind", KINDS)
def test_without_damage_all_are_copied(tmp_path: Path, kind: str) -> None:
    tally = Tally()
    clean, encoded = groups_that_left(clips.make(tmp_path / "in.mp4", KINDS[kind]), tally)
    assert len(clean) == 5
    assert encoded == []
    assert not tally.events["groups with concealed damage"]
