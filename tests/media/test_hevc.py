"""HEVC: groups of pictures are copied, and our parameter sets stand beside the source's under other ids."""

import subprocess
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.config import OutputPolicy
from streamer.media import hevc, nal
from streamer.media.source import FileSource
from streamer.tally import Tally
from tests import clips
from tests.clips import Clip
from tests.media.test_sink import convert, packets_of

HEVC = OutputPolicy(codec="hevc")
CLOSED = "log-level=error:keyint=10:min-keyint=10:scenecut=0:open-gop=0"
KINDS = {
    "plain": f"{CLOSED}:bframes=0",
    "b_frames": f"{CLOSED}:bframes=4:b-adapt=0",
    "leading": f"{CLOSED}:bframes=3:b-adapt=0:radl=2",
    "sets_in_band": f"{CLOSED}:bframes=2:repeat-headers=1:aud=1:hrd=1:vbv-maxrate=2000:vbv-bufsize=2000",
    "slices": f"{CLOSED}:bframes=3:slices=2:ref=3",
}
OPEN = "log-level=error:keyint=10:min-keyint=10:scenecut=0:open-gop=1:bframes=3:b-adapt=0"


def clip(path: Path, params: str, *, audio: str | None = None, frames: int = 50, **more: object) -> Path:
    options = {"x265-params": params, "preset": "superfast"}
    return clips.make(path, Clip(frames=frames, codec="libx265", options=options, audio=audio, **more))  # type: ignore[arg-type]


def kinds_of(path: Path) -> list[set[int]]:
    return [{hevc.kind(unit) for unit in nal.from_lengths(bytes(packet), 4)} for packet in packets_of(path)]


def group_numbers(path: Path) -> list[int]:
    """The number of the group of each picture; leading pictures are shown before the key picture of theirs."""
    with FileSource(path, tally=Tally(), audio=False) as source:
        gops = [frame.gop for frame in source]
    order = list(dict.fromkeys(gops))
    return [order.index(gop) for gop in gops]


def check_with_ffmpeg(path: Path, frames: int) -> None:
    """The command line, which is a build of its own: no complaint, and as many pictures."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "warning", "-err_detect", "explode", "-i", str(path)]
    done = subprocess.run(
        [*command, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framehash", "-"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
    assert sum(not line.startswith("#") for line in done.stdout.splitlines()) == frames


def check_after_seeking(path: Path) -> None:
    """From every key picture on, the same pictures as from the start."""
    with av.open(str(path)) as container:
        whole = {picture.pts: picture.to_ndarray() for picture in container.decode(video=0)}
    keys = [packet for packet in packets_of(path) if packet.is_keyframe]
    assert len(keys) >= 2
    for key in keys:
        with av.open(str(path)) as container:
            container.seek(key.pts, stream=container.streams.video[0])
            pictures = [picture for picture in container.decode(video=0) if picture.pts >= key.pts]
            assert [picture.pts for picture in pictures] == sorted(pts for pts in whole if pts >= key.pts)
            assert all(np.array_equal(picture.to_ndarray(), whole[picture.pts]) for picture in pictures)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clean", [{0, 2, 4}, {1, 3}, {0, 1, 2, 3, 4}])
def test_copied_groups_are_bit_identical_and_every_time_stamp_holds(
    tmp_path: Path, ending: str, kind: str, clean: set[int]
) -> None:
    path = clip(tmp_path / "in.mp4", KINDS[kind], audio="aac")
    target = tmp_path / f"out.{ending}"
    convert(path, target, HEVC, clean=frozenset(clean))
    groups = group_numbers(path)
    assert max(groups) == 4
    before, after = clips.look(path), clips.look(target)
    spans = np.subtract(after.times_s, after.times_s[0])
    assert spans == pytest.approx(np.subtract(before.times_s, before.times_s[0]), abs=0.0011)
    with av.open(str(path)) as first, av.open(str(target)) as second:
        pairs = zip(first.decode(video=0), second.decode(video=0), strict=True)
        for index, (old, new) in enumerate(pairs):
            a, b = old.to_ndarray(), new.to_ndarray()
            if groups[index] in clean:
                assert np.array_equal(a, b), f"picture {index} was changed"
            else:
                assert not np.array_equal(a, b), f"picture {index} was copied"
                assert np.abs(a.astype(int) - b.astype(int)).mean() < 6
    check_with_ffmpeg(target, 50)
    check_after_seeking(target)
    if ending == "mkv":
        return  # Matroska stores no decoding time stamps
    assert packets_of(target)[0].stream.codec_context.codec_tag == "hvc1"
    stamps = [packet.dts for packet in packets_of(target) if packet.dts is not None]
    assert all(first < second for first, second in pairwise(stamps))
    assert all(packet.dts is None or packet.dts <= packet.pts for packet in packets_of(target))


def test_nothing_but_slices_travels_with_copied_packets(tmp_path: Path) -> None:
    path = clip(tmp_path / "in.mkv", KINDS["sets_in_band"], frames=20)
    assert {35, 39} <= set().union(*kinds_of(path)), "the clip should carry delimiters and SEI messages"
    target = tmp_path / "out.mp4"
    convert(path, target, HEVC, clean=frozenset({0}))
    assert b"x265" in path.read_bytes()
    assert b"x265" not in target.read_bytes()
    assert set().union(*kinds_of(target)) <= {0, 1, 19, 20}


def test_ours_and_theirs_stand_in_the_header_under_different_ids(tmp_path: Path) -> None:
    path, target = clip(tmp_path / "in.mp4", KINDS["plain"], frames=20), tmp_path / "out.mp4"
    convert(path, target, HEVC, clean=frozenset({0}))
    with av.open(str(target)) as container:
        sets = hevc.parameter_sets(bytes(container.streams.video[0].codec_context.extradata or b""))
    names = [(hevc.kind(unit), hevc.set_id(unit)) for unit in sets]
    assert names == [(32, 0), (32, 1), (33, 0), (33, 1), (34, 0), (34, 16)]


def test_open_groups_are_encoded(tmp_path: Path) -> None:
    """Behind a CRA picture come pictures that refer to the group before: there is one group, and it is not copied."""
    path = clip(tmp_path / "in.mp4", OPEN)
    assert {8, 9} & set().union(*kinds_of(path)), "the clip should have RASL pictures"
    with FileSource(path, tally=Tally(), audio=False) as source:
        gops = {frame.gop for frame in source}
    assert len(gops) == 1
    (gop,) = gops
    assert not gop.copyable
    assert "open group" in gop.refusal


def test_leading_pictures_belong_to_the_key_picture_behind_them(tmp_path: Path) -> None:
    path = clip(tmp_path / "in.mp4", KINDS["leading"])
    assert {6, 7} & set().union(*kinds_of(path)), "the clip should have RADL pictures"
    with FileSource(path, tally=Tally(), audio=False) as source:
        frames = list(source)
    gops = list(dict.fromkeys(frame.gop for frame in frames))
    assert len(gops) == 5
    assert all(gop.copyable and gop.whole for gop in gops)
    assert sum(len(list(gop.decode_again(gop.frames))) for gop in gops) == 50


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p"])
def test_other_samples_are_encoded_and_it_is_said_why(tmp_path: Path, pixel_format: str) -> None:
    path = clip(tmp_path / "in.mp4", CLOSED, pixel_format=pixel_format, frames=10)
    with FileSource(path, tally=Tally()) as source:
        assert source.info.copy_refusal == f"the source has {pixel_format} samples"


def test_a_file_of_the_other_codec_takes_no_packets(tmp_path: Path) -> None:
    path = clip(tmp_path / "in.mp4", CLOSED, frames=10)
    with FileSource(path, tally=Tally(), into="h264") as source:
        assert source.info.copy_refusal == "the source is hevc, the output h264 (--codec hevc could copy)"


def unit(kind: int, *payload: int, layer: int = 0) -> bytes:
    return bytes([kind << 1 | layer >> 5, (layer & 31) << 3 | 1, *payload])


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ([unit(1, 0xC0, 1)], None),
        ([unit(19, 0xA0, 1), unit(39, 1), unit(62, 1)], None),
        ([unit(21, 0xA0, 1)], None),
        ([unit(8, 0xC0, 1)], "open group"),
        ([unit(9, 0xC0, 1)], "open group"),
        ([unit(16, 0xA0, 1)], "open group"),
        ([unit(1, 0xC0, 1), unit(1, 0xC0, 1, layer=1)], "second layer"),
        ([unit(1, 0xC0, 1), unit(1, 0xC0, 1, layer=32)], "second layer"),
        ([unit(22, 0xA0, 1)], "reserved"),
        ([unit(1, 0xC0, 1), unit(36)], "ends within"),
        ([unit(19, 0xE0, 1)], "discards"),
        ([unit(1)], "empty"),
    ],
)
def test_packets_that_may_not_be_copied(units: list[bytes], reason: str | None) -> None:
    found = hevc.refusal(units)
    assert found == reason if reason is None else reason in (found or "")


def test_only_slices_of_the_base_layer_travel() -> None:
    units = [unit(kind, 1, 1) for kind in (35, 32, 33, 34, 39, 19, 1, 40, 38, 48, 62, 63)]
    units.append(unit(1, 1, 1, layer=1))
    assert [hevc.kind(each) for each in hevc.pictures(units)] == [19, 1]


@given(
    st.sampled_from([0, 1, 6, 7, 19, 20, 21]),
    st.integers(0, 255),
    st.binary(min_size=1, max_size=20),
    st.sampled_from([number for number in range(15, 31) if (number + 1) & 3]),
)
def test_a_renamed_slice_says_the_same_under_another_number(
    kind: int, first: int, rest: bytes, pps: int
) -> None:
    at = 2 if kind >= 16 else 1
    first |= 0x80 >> at  # PPS 0
    before = unit(kind, first, *rest)
    after = hevc.renamed(before, hevc.Ids(1, 1, pps))
    old, new = hevc._bits(before), hevc._bits(after)
    number, behind = hevc._number(new, at)
    assert number == pps
    assert new[:at] == old[:at]
    assert new[behind:] == old[at + 1 :]
    assert len(after) == len(before) + 1
    assert b"\0\0" not in after[:4]


def test_what_does_not_have_the_id_0_is_not_renamed() -> None:
    with pytest.raises(ValueError, match="not number 0"):
        hevc.renamed(unit(1, 0x80, 1), hevc.Ids(1, 1, 16))
    with pytest.raises(ValueError, match="an id already"):
        hevc.renamed(unit(34, 0b01010000, 0x80), hevc.Ids(1, 1, 16))


def test_where_every_id_is_taken_nothing_is_copied() -> None:
    sets = [
        unit(34, *int(f"{hevc._code(number)}1".ljust(16, "0"), 2).to_bytes(2, "big")) for number in range(64)
    ]
    assert [hevc.set_id(each) for each in sets] == list(range(64))
    assert hevc.free_ids(sets) is None
    assert hevc.free_ids(sets[:17]) == hevc.Ids(1, 1, 17)


def test_of_a_header_that_is_cut_off_the_sets_that_it_holds_are_read(tmp_path: Path) -> None:
    path = clip(tmp_path / "in.mp4", CLOSED, frames=2)
    with av.open(str(path)) as container:
        box = bytes(container.streams.video[0].codec_context.extradata or b"")
    assert [hevc.kind(each) for each in hevc.parameter_sets(box)] == [32, 33, 34]
    for length in range(len(box)):
        for each in hevc.parameter_sets(box[:length]):
            assert hevc.set_id(each) in (-1, 0)
