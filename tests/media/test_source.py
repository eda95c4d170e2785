import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from streamer.errors import InputError
from streamer.frame import Frame, Size
from streamer.media import source
from streamer.media.crop import crop_of
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.media.matroska import end_of
from streamer.media.opening import crops_in
from streamer.media.picture import Timing, frame_from_picture
from streamer.media.source import AudioPacket, FileSource
from streamer.media.torn import ps_is_torn, ts_is_torn
from streamer.tally import Tally
from tests import clips
from tests.clips import Clip


def frames_of(path: Path, tally: Tally | None = None) -> list[Frame]:
    with FileSource(path, tally=tally or Tally()) as source:
        return [item for item in source if isinstance(item, Frame)]


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("a.mp4", Clip()),
        ("b_frames.mp4", Clip(options={"bf": "3", "preset": "veryfast"})),
        ("a.mkv", Clip(options={"bf": "2"})),
        ("a.ts", Clip()),
        ("a.avi", Clip(codec="mpeg4")),
        ("hevc.mp4", Clip(codec="libx265")),
        ("vp9.webm", Clip(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"})),
        ("ten_bit.mp4", Clip(pixel_format="yuv420p10le")),
        ("four_four_four.mp4", Clip(pixel_format="yuv444p")),
        ("full_range.mp4", Clip(pixel_format="yuvj420p")),
        ("mjpeg.avi", Clip(codec="mjpeg", pixel_format="yuvj422p")),
        ("ffv1.mkv", Clip(codec="ffv1", pixel_format="bgr0")),
        ("one.mp4", Clip(frames=1)),
    ],
)
def test_every_kind_of_file_becomes_frames_with_the_file_s_own_times(
    tmp_path: Path, name: str, clip: Clip
) -> None:
    path = clips.make(tmp_path / name, clip)
    frames = frames_of(path)
    assert [frame.time_s for frame in frames] == pytest.approx(clips.look(path).times_s)
    assert [frame.index for frame in frames] == list(range(clip.frames))
    first = frames[0]
    assert first.size == Size(192, 108)
    assert first.luma.shape == (108, 192)
    assert first.chroma.shape == (54, 96, 2)
    expected = clips.texture(0, 192, 108).astype(float) @ [0.299, 0.587, 0.114]
    luma = first.luma.astype(float)
    if not first.color.full_range:
        luma = (luma - 16) * 255 / 219
    assert np.abs(luma - expected).mean() < 12


def test_sound_before_the_first_picture_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.make(tmp_path / "a.mkv", Clip(audio="pcm_s16le"))
    data = path.read_bytes()
    with av.open(str(path)) as container:  # no picture can be decoded
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for picture in pictures:
        data = data.replace(picture, bytes(len(picture)))
    path.write_bytes(data)
    monkeypatch.setattr(source, "_MOST_SOUND", 20_000)
    with pytest.raises(InputError, match="only sound"):
        FileSource(path, tally=Tally())
    with pytest.raises(InputError, match="no picture"):
        FileSource(path, tally=Tally(), audio=False)


def with_index_first(path: Path, clip: Clip) -> Path:
    with (
        av.open(str(clips.make(path.with_name("whole.mp4"), clip))) as whole,
        av.open(str(path), "w", options={"movflags": "faststart"}) as file,
    ):
        stream = file.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    return path


def test_a_file_that_is_cut_off_behind_its_index_is_told(tmp_path: Path) -> None:
    path = with_index_first(tmp_path / "a.mp4", Clip())
    tally = Tally()
    frames_of(path, tally)
    assert not tally.notes
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    read = len(frames_of(path, tally))
    assert 0 < read < 30
    assert tally.notes == [f"the file is cut off: {30 - read} of 30 pictures could not be read"]


VP8 = Clip(codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"})
SIZED = {  # containers that say their own size
    "a.mkv": Clip(),
    "a.webm": Clip(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "a.avi": Clip(codec="mpeg4", audio="libmp3lame"),
    "a.wmv": Clip(codec="wmv2"),
}
UNSIZED = {
    "a.flv": Clip(audio="aac"),
    "a.ts": Clip(audio="aac"),
    "a.m2ts": Clip(format="mpegts"),
    "a.ogv": replace(VP8, format="ogg"),
    "a.ivf": VP8,
    "a.y4m": Clip(codec="wrapped_avframe", format="yuv4mpegpipe"),
    "a.dv": Clip(codec="dvvideo", width=720, height=576),
    "a.gif": Clip(codec="gif", pixel_format="rgb8"),
    "a.mpg": Clip(codec="mpeg1video", width=352, height=288, audio="mp2"),
    "a.vob": Clip(codec="mpeg2video", width=352, height=288, audio="mp2"),
}
CUT = 2 / 3


@pytest.mark.parametrize("name", SIZED)
def test_a_file_that_says_its_size_and_is_cut_off_is_read_and_told(tmp_path: Path, name: str) -> None:
    path, tally = clips.make(tmp_path / name, SIZED[name]), Tally()
    frames_of(path, tally)
    assert not tally.notes
    whole = path.read_bytes()
    kept = int(len(whole) * CUT)
    path.write_bytes(whole[:kept])
    assert 0 < len(frames_of(path, tally)) < 30
    assert tally.notes == [f"the file is cut off: {len(whole) - kept} of its {len(whole)} bytes are missing"]
    assert tally.events["read errors"] == 1


@pytest.mark.parametrize("name", UNSIZED)
def test_a_file_that_ends_in_the_middle_of_a_packet_is_read_and_told(tmp_path: Path, name: str) -> None:
    path, tally = clips.make(tmp_path / name, UNSIZED[name]), Tally()
    frames_of(path, tally)
    assert not tally.notes
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * CUT) | 1])
    assert 0 < len(frames_of(path, tally)) <= 30
    assert tally.notes == ["the file is cut off: it ends in the middle of a packet"]
    assert tally.events["read errors"] == 1


def test_a_file_without_its_index_at_the_end_is_read_and_told(tmp_path: Path) -> None:
    path, tally = clips.make(tmp_path / "a.nut", Clip(codec="mjpeg", pixel_format="yuvj420p")), Tally()
    assert len(frames_of(path, tally)) == 30
    assert not tally.notes
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * CUT)])
    assert 0 < len(frames_of(path, tally)) < 30
    assert tally.notes == ["the file is cut off: its end is missing"]
    assert tally.events["read errors"] == 1


@pytest.mark.parametrize("name", ["a.mpg", "a.vob"])
def test_a_last_pack_of_mpeg_ps_is_whole_without_the_end_code(tmp_path: Path, name: str) -> None:
    """Camcorders and discs leave it out; where it ends with the last byte of a packet, nothing is torn."""
    path = clips.make(tmp_path / name, UNSIZED[name])
    whole = path.read_bytes()
    kept = whole[: whole.rindex(b"\0\0\1\xba")]
    for length in range(len(kept), len(kept) - 40, -1):
        path.write_bytes(whole[:length])
        assert ps_is_torn(path) == (length != len(kept)), length
    for length in range(len(kept) + 4, len(kept) + 40):
        path.write_bytes(whole[:length])
        ps_is_torn(path)


@pytest.mark.parametrize("name", [*(UNSIZED.keys() - {"a.y4m", "a.dv"}), *SIZED])
def test_what_lies_behind_a_whole_file_does_not_make_it_cut_off(tmp_path: Path, name: str) -> None:
    path, tally = clips.make(tmp_path / name, {**UNSIZED, **SIZED}[name]), Tally()
    path.write_bytes(path.read_bytes() + bytes(10_001))
    assert len(frames_of(path, tally)) == 30
    assert not tally.notes


def test_a_last_page_of_ogg_that_holds_nothing_is_whole(tmp_path: Path) -> None:
    path, tally = clips.make(tmp_path / "a.ogv", UNSIZED["a.ogv"]), Tally()
    path.write_bytes(path.read_bytes() + b"OggS\0\4" + bytes(21))
    assert len(frames_of(path, tally)) == 30
    assert not tally.notes


@pytest.mark.parametrize("space", [188, 192, 204])
def test_packets_of_mpeg_ts_are_found_whatever_lies_between_them(tmp_path: Path, space: int) -> None:
    path = tmp_path / "a.ts"
    packet = (
        bytes(space - 188 if space == 192 else 0) + b"\x47" + bytes(187) + bytes(16 if space == 204 else 0)
    )
    for before in (b"", b"begins in the middle of one"):
        for length in range(1, 2 * space):
            path.write_bytes(before + packet * 20 + (packet * 2)[:length])
            assert ts_is_torn(path) == (length != space), length
    path.write_bytes(packet * 3)
    assert not ts_is_torn(path)  # too few to be sure


def test_avi_whose_size_counts_its_header_or_was_never_written_is_not_cut_off(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "a.avi", Clip(codec="mpeg4"))
    whole = path.read_bytes()
    for size in (len(whole), 0, 0xFFFFFFFF):
        path.write_bytes(whole[:4] + size.to_bytes(4, "little") + whole[8:])
        tally = Tally()
        assert len(frames_of(path, tally)) == 30
        assert not tally.notes


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x82\0\0", 13),
        (b"\x1a\x45\xdf\xa3\x81\0\xec\x40\x01\0\x18\x53\x80\x67\x40\x0a", 26),  # filling before it
        (b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff", None),  # not known
        (b"\x1a\x45\xdf\xa3\x81\0\xec\x01\xff\xff\xff\xff\xff\xff\xfe", None),  # longer than any file
        (b"\x1a\x45\xdf\xa3\x81\0\x18\x53", None),
        (b"\x1a\x45\xdf\xa3\x81\0" + 100 * b"\xec\x80", None),
        (b"\x18\x53\x80\x67\x82\0\0", None),
        (b"\0\0\0\0", None),
        (b"", None),
    ],
)
def test_the_end_of_matroska_is_what_its_segment_says(tmp_path: Path, data: bytes, end: int | None) -> None:
    (tmp_path / "a.mkv").write_bytes(data)
    assert end_of(tmp_path / "a.mkv") == end
    assert crops_in(tmp_path / "a.mkv") == {}


@pytest.mark.parametrize("share", [0, 0.5, 0.5001, 0.9])
def test_a_file_that_shrinks_while_it_is_read_is_told_with_what_was_read(
    tmp_path: Path, share: float
) -> None:
    path = with_index_first(tmp_path / "a.mp4", Clip(frames=200))
    before, tally, read = path.stat().st_size, Tally(), 0
    after = round(share * before)
    with FileSource(path, tally=tally) as source:
        for item in source:
            read += isinstance(item, Frame)
            if read == 5:
                os.truncate(path, after)
    assert 5 < read < 200
    assert list(tally.notes) == [
        f"the file was changed while it was read, from {before} to {after} bytes",
        f"the file is cut off: {200 - read} of 200 pictures could not be read",
    ]


def test_a_file_that_grows_while_it_is_read_is_told_and_one_that_is_deleted_is_read(tmp_path: Path) -> None:
    path = with_index_first(tmp_path / "a.mp4", Clip(frames=200))
    whole, tally, read = path.read_bytes(), Tally(), 0
    path.write_bytes(whole[: len(whole) // 2])
    with FileSource(path, tally=tally) as source:
        for item in source:
            read += isinstance(item, Frame)
            if read == 5:
                path.write_bytes(whole)
    assert read == 200
    assert list(tally.notes) == [
        f"the file was changed while it was read, from {len(whole) // 2} to {len(whole)} bytes"
    ]
    with FileSource(path, tally=Tally()) as source:
        path.unlink()
        assert sum(isinstance(item, Frame) for item in source) == 200


@pytest.mark.parametrize("options", [{}, {"movflags": "frag_keyframe+empty_moov"}])
def test_that_only_the_first_of_glued_files_is_read_is_told(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "a.mp4"
    with (
        av.open(str(clips.make(tmp_path / "whole.mp4"))) as whole,
        av.open(str(path), "w", options=options) as file,
    ):
        stream = file.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    tally = Tally()
    frames_of(path, tally)
    assert not tally.notes
    path.write_bytes(2 * path.read_bytes())
    frames_of(path, tally)
    assert any("glued together" in note for note in tally.notes)


def test_a_text_that_names_other_files_is_no_video(tmp_path: Path) -> None:
    clips.make(tmp_path / "other.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(InputError, match="names other files and is no video"):
        FileSource(tmp_path / "list.mp4", tally=Tally())


def test_luma_of_plain_video_is_bit_identical(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "a.mp4")
    for frame, luma in zip(frames_of(path), clips.lumas(path), strict=True):
        assert np.array_equal(frame.luma, luma)


def test_variable_frame_times_are_kept(tmp_path: Path) -> None:
    stamps = [0, 40, 120, 130, 400, 410, 900, 905, 910, 2000]
    path = clips.make(tmp_path / "vfr.mkv", Clip(frames=10, pts=stamps))
    assert [frame.time_s for frame in frames_of(path)] == pytest.approx([stamp / 1000 for stamp in stamps])


def test_the_last_pictures_of_an_avi_last_as_long_as_the_others(tmp_path: Path) -> None:
    """Its rate may be that of a clock which is faster than its pictures."""
    path = clips.make(tmp_path / "a.avi", Clip(options={"bf": "3", "preset": "veryfast"}, gop=30))
    with av.open(str(path)) as taken, av.open(str(tmp_path / "b.avi"), "w") as container:
        stream = container.add_stream_from_template(taken.streams.video[0])
        stream.time_base = Fraction(1, 600)
        for number, packet in enumerate(packet for packet in taken.demux(video=0) if packet.size):
            packet.pts = packet.dts = 40 * number
            packet.time_base, packet.stream = Fraction(1, 600), stream
            container.mux(packet)
    times = [frame.time_s for frame in frames_of(tmp_path / "b.avi")]
    assert np.diff(times) == pytest.approx([times[1] - times[0]] * 29)
    assert times[1] - times[0] > 0.03


@pytest.mark.parametrize("fourcc", [b"H264", b"HEVC"])
def test_pictures_of_an_avi_are_shown_one_after_the_other(tmp_path: Path, fourcc: bytes) -> None:
    """AVI knows no times but the order in which pictures are decoded."""
    path, moved = tmp_path / "a.avi", {"x265-params": "log-level=error:bframes=3:keyint=20"}
    clips.make(path, Clip(options={"bf": "3", "preset": "veryfast"}))
    if fourcc == b"HEVC":  # PyAV writes none into an AVI, but others do
        raw = clips.make(tmp_path / "a.hevc", Clip(codec="libx265", options=moved))
        with (
            av.open(str(tmp_path / "a.avi")) as like,
            av.open(str(raw)) as taken,
            av.open(str(tmp_path / "b.avi"), "w") as container,
        ):
            stream = container.add_stream_from_template(like.streams.video[0])
            for number, packet in enumerate(packet for packet in taken.demux(video=0) if packet.size):
                packet.pts = packet.dts = number
                packet.time_base, packet.stream = stream.time_base, stream
                container.mux(packet)
        path.write_bytes((tmp_path / "b.avi").read_bytes().replace(b"H264", fourcc))
    tally = Tally()
    frames = frames_of(path, tally)
    assert np.diff([frame.time_s for frame in frames]) == pytest.approx([1 / 25] * 29)
    assert not tally.events


def test_a_rotated_picture_becomes_upright(tmp_path: Path) -> None:
    def corner(index: int, width: int, height: int) -> np.ndarray:
        picture = np.zeros((height, width, 3), np.uint8)
        picture[: height // 2, : width // 2] = 255
        return picture

    path = clips.make(tmp_path / "phone.mp4", Clip(rotation=90, draw=corner))
    with FileSource(path, tally=Tally()) as source:
        assert source.info.size == Size(108, 192)
        assert source.info.copy_refusal == "the source is rotated"
        frame = next(item for item in source if isinstance(item, Frame))
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
        upright = np.rot90(picture.to_ndarray(format="gray"), picture.rotation // 90)
    assert np.abs(frame.luma.astype(int) - upright.astype(int)).mean() < 25
    assert frame.vectors is None


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(("cut", "copied"), [(8, True), (96, False)])
def test_what_was_cut_off_without_encoding_does_not_travel_in_copied_packets(
    tmp_path: Path, codec: str, cut: int, copied: bool
) -> None:
    """Such a crop is a number in the SPS: the packets still hold all, and nobody looked at what it hides."""
    whole = clips.make(tmp_path / "whole.mp4", Clip(codec=codec))
    with FileSource(clips.cropped(whole, right=cut), tally=Tally()) as source:
        assert source.info.size == Size(192 - cut, 108)
        assert ("cropped" in (source.info.copy_refusal or "")) != copied
        assert all((item.gop is not None) == copied for item in source if isinstance(item, Frame))


@pytest.mark.parametrize("name", ["cropped.mp4", "cropped.mov", "cropped.mkv", "turned.mp4"])
def test_what_the_container_alone_cuts_off_is_not_seen(tmp_path: Path, name: str) -> None:
    """96 columns at the left and 20 rows at the top are hidden, as players do."""
    path = clips.make(tmp_path / name, Clip(frames=12, rotation=90 if name == "turned.mp4" else 0))
    whole = next(clips.lumas(path))
    path.write_bytes(
        _cropped_mkv(path.read_bytes()) if name.endswith("mkv") else _cropped_mp4(path.read_bytes())
    )
    assert np.array_equal(next(clips.lumas(path)), whole)  # FFmpeg shows it
    with FileSource(path, tally=Tally()) as source:
        frames = [item for item in source if isinstance(item, Frame)]
        assert "cropped" in (source.info.copy_refusal or "")
        assert source.info.size == (Size(88, 96) if name == "turned.mp4" else Size(96, 88))
    shown = np.rot90(whole[20:, 96:]) if name == "turned.mp4" else whole[20:, 96:]
    assert np.array_equal(frames[0].luma, shown)
    assert len(frames) == 12
    assert all(frame.gop is None and frame.vectors is None for frame in frames)
    assert [frame.time_s for frame in frames] == pytest.approx(clips.look(path).times_s)
    with LiveSource(LiveSpec(str(path)), tally=Tally()) as live:
        assert np.array_equal(next(item for item in live if isinstance(item, Frame)).luma, shown)


def test_a_crop_is_found_in_a_later_description_of_samples_too(tmp_path: Path) -> None:
    """Files that were joined have several; the packets of a later one would have been shown whole."""
    path = clips.make(tmp_path / "joined.mp4", Clip(frames=3))
    data, cropped = path.read_bytes(), _cropped_mp4(path.read_bytes())
    entry = cropped.rfind(b"avc1") - 4
    second = cropped[entry : entry + int.from_bytes(cropped[entry : entry + 4], "big")]
    joined = bytearray(_with_box(data, second, into=b"stsd"))
    joined[joined.rfind(b"stsd") + 11] = 2  # entries
    path.write_bytes(joined)
    with FileSource(path, tally=Tally()) as source:
        assert source.info.size == Size(96, 88)


def test_a_crop_is_found_behind_cover_art_too(tmp_path: Path) -> None:
    """FFmpeg counts the cover as a video: the first one, where its tags stand before the tracks."""
    path = clips.make(tmp_path / "covered.mp4", Clip(frames=3))
    path.write_bytes(_with_cover_first(_cropped_mp4(path.read_bytes())))
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
    with FileSource(path, tally=Tally()) as source:
        assert source.info.size == Size(96, 88)
    with LiveSource(LiveSpec(str(path)), tally=Tally()) as live:
        assert next(item for item in live if isinstance(item, Frame)).size == Size(96, 88)


def _with_cover_first(data: bytes) -> bytes:
    """An MP4 file with a cover in the tags, before its tracks."""
    cover = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))[1].tobytes()
    tags = _box(b"ilst", _box(b"covr", _box(b"data", bytes([0, 0, 0, 13]) + bytes(4) + cover)))
    meta = _box(b"meta", bytes(4) + _box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9)) + tags)
    box = _box(b"udta", meta)
    movie = data.rfind(b"moov") - 4
    header = movie + 8
    end = header + int.from_bytes(data[header : header + 4], "big")
    size = int.from_bytes(data[movie:header][:4], "big") + len(box)
    return data[:movie] + size.to_bytes(4, "big") + data[movie + 4 : end] + box + data[end:]


def test_what_makes_a_picture_more_than_a_flat_one_is_told(tmp_path: Path) -> None:
    path, tally = clips.make(tmp_path / "around.mp4", Clip(frames=2)), Tally()
    shape = _box(b"equi", bytes(20))
    view = _box(b"sv3d", _box(b"svhd", bytes(5)) + _box(b"proj", _box(b"prhd", bytes(16)) + shape))
    path.write_bytes(_with_box(path.read_bytes(), view + _box(b"st3d", bytes(4) + b"\1")))
    frames_of(path, tally)
    assert len([note for note in tally.notes if "players show it flat" in note]) == 2


def _cropped_mp4(data: bytes) -> bytes:
    """With a `clap` box: 96x88, its centre 48 to the right of the picture's and 10 below."""
    numbers = (96, 1, 88, 1, 48, 1, 10, 1)
    return _with_box(data, _box(b"clap", b"".join(number.to_bytes(4, "big") for number in numbers)))


def _box(kind: bytes, contents: bytes) -> bytes:
    return (8 + len(contents)).to_bytes(4, "big") + kind + contents


def _with_box(data: bytes, box: bytes, into: bytes = b"avc1") -> bytes:
    """An MP4 file with one box more at the end of what it says of its samples, or of the box around that."""
    changed = bytearray(data)
    around = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    for kind in around[: around.index(into) + 1]:
        at = data.rfind(kind) - 4  # behind the pictures: no place that the index names is moved
        size = int.from_bytes(data[at : at + 4], "big")
        changed[at : at + 4] = (size + len(box)).to_bytes(4, "big")
    end = at + size
    return bytes(changed[:end]) + box + bytes(changed[end:])


def _cropped_mkv(data: bytes) -> bytes:
    """With PixelCropLeft and PixelCropTop at the end of the video element, which a void one behind it gives way to."""
    video, after = b"\xb0\x81\xc0\xba\x81\x6c\x54\xb2\x81\x04", b"\x55\xee\x81\0"
    crop = b"\x54\xcc\x81\x60\x54\xbb\x81\x14"
    old = b"\xe0\x8a" + video + after + b"\xec\x01\0\0\0\0\0\0\x02\0\0"
    assert data.count(old) == 1
    return data.replace(old, b"\xe0\x92" + video + crop + after + b"\xec\x81\0")


@pytest.mark.parametrize(
    ("sides", "shown"),
    [
        ((0, 0, 0, 0), None),
        ((60, 0, 60, 0), None),  # nothing would be left
        ((3, 0, 0, 5), (4, 0, 96, 75)),  # colours begin at even places
        ((50, 0, 0, 0), (50, 0, 50, 80)),
        ((0, 6, 0, 0), (0, 6, 100, 74)),
    ],
)
def test_no_crop_shows_more_than_it_says(
    sides: tuple[int, int, int, int], shown: tuple[int, ...] | None
) -> None:
    crop = crop_of(sides, Size(100, 80))
    assert (crop and crop.shown(Size(100, 80))) == shown
    assert crop is None or crop.shown(Size(200, 160))[0] >= 2 * sides[0]
    assert crop is None or crop.shown(Size(100, 80), interlaced=True)[1] % 4 == 0


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_what_was_cut_off_at_the_left_and_the_top_is_not_shown(tmp_path: Path, codec: str) -> None:
    """FFmpeg left columns there that players do not show, if fewer than its rows are aligned to; a copy held them."""
    whole = clips.make(tmp_path / "whole.mp4", Clip(codec=codec))
    cropped = clips.cropped(whole, left=18, right=6, top=4)
    with FileSource(cropped, tally=Tally()) as source:
        assert source.info.size == Size(168, 104)
        assert "cropped" in (source.info.copy_refusal or "")
        frames = [item for item in source if isinstance(item, Frame)]
    with FileSource(whole, tally=Tally()) as source:
        wanted = [item for item in source if isinstance(item, Frame)]
    for frame, reference in zip(frames, wanted, strict=True):
        assert np.array_equal(frame.luma, reference.luma[4:, 18:-6])
        assert np.array_equal(frame.chroma, reference.chroma[2:, 9:-3])
    with LiveSource(LiveSpec(str(cropped)), tally=Tally()) as live:
        first = next(item for item in live if isinstance(item, Frame))
    assert np.array_equal(first.luma, frames[0].luma)


@pytest.mark.parametrize("turn", [0, 90])
def test_a_mirrored_picture_is_seen_as_players_show_it(tmp_path: Path, turn: int) -> None:
    """A front camera's flip is not the half turn as which it looks in the first column of its matrix."""
    mirror = [-65536, 0, 0, 0, 65536, 0] if turn == 0 else [0, 65536, 0, 65536, 0, 0]
    path = clips.make(tmp_path / "selfie.mp4", Clip(frames=2, rotation=180))
    plain = [-65536, 0, 0, 0, -65536, 0]
    old, new = (b"".join(value.to_bytes(4, "big", signed=True) for value in row) for row in (plain, mirror))
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    luma = next(clips.lumas(path))
    with FileSource(path, tally=Tally()) as source:
        assert source.info.copy_refusal == "the source is rotated"
        frame = next(item for item in source if isinstance(item, Frame))
    assert np.array_equal(frame.luma, luma[:, ::-1] if turn == 0 else luma.T)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_planes_of_rotated_pictures_fit_each_other(tmp_path: Path, turn: int) -> None:
    frame = frames_of(clips.make(tmp_path / "phone.mp4", Clip(rotation=turn, width=96, height=64)))[0]
    assert frame.chroma.shape == (frame.luma.shape[0] // 2, frame.luma.shape[1] // 2, 2)


def test_odd_sizes_get_even_planes_with_the_last_line_repeated(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "odd.mkv", Clip(width=191, height=107, codec="ffv1", pixel_format="yuv420p"))
    frame = frames_of(path)[0]
    assert frame.size == Size(191, 107)
    assert frame.luma.shape == (108, 192)
    assert np.array_equal(frame.luma[106], frame.luma[107])
    assert np.array_equal(frame.luma[:, 190], frame.luma[:, 191])


@pytest.mark.parametrize(
    "samples", ["yuyv422", "uyvy422", "yvyu422", "nv16", "nv24", "nv42", "yuv411p", "yuv410p"]
)
@pytest.mark.parametrize("size", [Size(33, 17), Size(33, 18), Size(34, 17), Size(1, 1)])
def test_every_sample_of_an_odd_size_is_written(samples: str, size: Size) -> None:
    """What a conversion leaves out is whatever the memory held before."""
    picture = av.VideoFrame(size.width, size.height, samples)
    for plane in picture.planes:
        plane.update(bytes([200]) * plane.buffer_size)
    for _ in range(3):
        frame = frame_from_picture(picture, Timing(0, 0, Fraction(1, 25)))
        assert np.abs(frame.luma.astype(int) - 200).max() <= 1
        assert np.abs(frame.chroma.astype(int) - 200).max() <= 1


def test_frames_do_not_share_memory_with_the_decoder(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "a.mp4")
    clean = [frame.luma.copy() for frame in frames_of(path)]
    with FileSource(path, tally=Tally()) as source:
        for item in source:
            if isinstance(item, Frame):
                assert np.array_equal(item.luma, clean[item.index])
                item.luma[:] = 0
                item.chroma[:] = 128


def test_audio_comes_in_container_order(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "sound.mp4", Clip(audio="aac"))
    with FileSource(path, tally=Tally()) as source:
        kinds = [type(item) for item in source]
    assert kinds.count(Frame) == 30
    assert kinds.count(AudioPacket) > 30
    with FileSource(path, tally=Tally(), audio=False) as source:
        assert {type(item) for item in source} == {Frame}


def test_groups_hold_the_packets_of_their_frames(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "a.mp4", Clip(options={"bf": "2", "preset": "veryfast"}))
    frames = frames_of(path)
    gops = list(dict.fromkeys(frame.gop for frame in frames))
    assert len(gops) == 3
    assert all(gop.copyable for gop in gops)
    assert [len(gop.packets) for gop in gops] == [10, 10, 10]
    again = list(gops[1].decode_again(7))
    assert [frame.index for frame in again] == list(range(10, 17))
    for first, second in zip(frames[10:17], again, strict=True):
        assert np.array_equal(first.luma, second.luma)
        assert first.pts == second.pts


def test_a_group_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.media.gop.MOST_PACKETS", 20)
    frames = frames_of(clips.make(tmp_path / "a.mp4", Clip(gop=30)))
    assert not frames[-1].gop.copyable
    assert frames[-1].gop.refusal == "longer than what is kept in memory"


def test_open_groups_are_not_copied(tmp_path: Path) -> None:
    path = clips.make(
        tmp_path / "open.mp4",
        Clip(
            frames=40,
            options={"preset": "veryfast", "x264-params": "open-gop=1:bframes=3:keyint=10:scenecut=0"},
        ),
    )
    frames = frames_of(path)
    later = {frame.gop for frame in frames[15:]}
    assert later == {frames[0].gop}, "a group that does not start at an IDR picture was cut off"


def test_a_cut_off_file_gives_what_can_be_decoded(tmp_path: Path) -> None:
    whole = clips.make(tmp_path / "whole.ts", Clip(frames=60))
    cut = tmp_path / "cut.ts"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    tally = Tally()
    frames = frames_of(cut, tally)
    assert 20 < len(frames) < 60
    assert [frame.pts for frame in frames] == sorted({frame.pts for frame in frames})


def test_damage_in_the_middle_is_survived_and_not_copied(tmp_path: Path) -> None:
    whole = clips.make(tmp_path / "whole.ts", Clip(frames=60))
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    hurt = tmp_path / "hurt.ts"
    hurt.write_bytes(data)
    frames = frames_of(hurt)
    assert len(frames) > 30
    assert any(frame.gop is None or not frame.gop.copyable for frame in frames)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"just some words, no video at all\n" * 30, "not a video"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        FileSource(path, tally=Tally())
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_sound_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        FileSource(tmp_path / "missing.mp4", tally=Tally())
    with pytest.raises(InputError, match="is a folder"):
        FileSource(tmp_path, tally=Tally())
    sound = tmp_path / "sound.m4a"
    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        for index in range(10):
            container.mux(stream.encode(clips._tone(index, 25)))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        FileSource(sound, tally=Tally())


def test_a_stream_that_begins_late_costs_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV's demuxer ends with an IndexError at a packet of a stream that was not there when the file was opened."""
    clip = clips.make(tmp_path / "clip.ts")
    whole = len(clips.look(clip).times_s)
    opened = av.open

    class Late:
        def __init__(self, *given: Any, **options: Any) -> None:
            self.real = opened(*given, **options)
            self.calls = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def demux(self, *wanted: Any) -> Iterator[av.Packet]:
            self.calls += 1
            for number, packet in enumerate(self.real.demux(*wanted)):
                yield packet
                if self.calls == 1 and number == 5:
                    raise IndexError("list index out of range")

    monkeypatch.setattr(av, "open", Late)
    tally = Tally()
    with FileSource(clip, tally=tally) as source:
        assert sum(isinstance(item, Frame) for item in source) == whole
    assert tally.events["packets of streams that began late"] == 1


@pytest.mark.parametrize(("opacity", "told"), [(255, False), (90, True)])
def test_transparency_that_is_left_out_is_told(tmp_path: Path, opacity: int, told: bool) -> None:
    shots = [Image.fromarray(clips.texture(index, 96, 64)).convert("RGBA") for index in range(3)]
    for shot in shots:
        shot.putalpha(opacity)
    shots[0].save(tmp_path / "a.png", save_all=True, append_images=shots[1:])
    tally = Tally()
    assert len(frames_of(tmp_path / "a.png", tally)) == 3
    assert any("transparency" in note for note in tally.notes) == told


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize(("pixel_format", "told"), [("yuva420p", True), ("yuv420p", False)])
def test_transparency_beside_vp8_and_vp9_is_told(
    tmp_path: Path, codec: str, pixel_format: str, told: bool
) -> None:
    options = VP8.options | {"auto-alt-ref": "0"}  # which libvpx asks for where there is transparency
    clip = Clip(frames=3, codec=codec, pixel_format=pixel_format, options=options)
    tally = Tally()
    assert len(frames_of(clips.make(tmp_path / "a.webm", clip), tally)) == 3
    assert any("transparency" in note for note in tally.notes) == told
