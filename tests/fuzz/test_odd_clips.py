"""Every odd clip that somebody may bring, made here: it is masked whole, at its own size and length, or refused."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import pytest

from streamer import pipeline
from streamer.errors import InputError
from streamer.pipeline import Job
from tests import clips
from tests.clips import Clip
from tests.fuzz import worker

HDR = {"color_primaries": "bt2020", "color_trc": "smpte2084", "colorspace": "bt2020nc"}
ODD = {
    "ten_bit.mp4": Clip(frames=6, pixel_format="yuv420p10le"),
    "full_chroma.mp4": Clip(frames=6, pixel_format="yuv444p"),
    "half_chroma.mp4": Clip(frames=6, pixel_format="yuv422p"),
    "gray.mkv": Clip(frames=6, pixel_format="gray"),
    "rgb.mkv": Clip(frames=6, codec="ffv1", pixel_format="bgr0"),
    "odd_size.mkv": Clip(frames=6, width=97, height=65, codec="ffv1", pixel_format="yuv444p"),
    "tiny.mp4": Clip(frames=6, width=16, height=16),
    "strip.mp4": Clip(frames=6, width=512, height=16),
    "hdr.mp4": Clip(frames=6, codec="libx265", pixel_format="yuv420p10le", options=HDR),
    "turned.mp4": Clip(frames=6, rotation=90),
    "variable.mp4": Clip(frames=6, pts=[0, 40, 41, 400, 5000, 5001]),
    "starts_late.mp4": Clip(frames=6, pts=[60_000, 60_040, 60_080, 60_120, 60_160, 60_200]),
    "one_frame.mp4": Clip(frames=1),
    "no_times.h264": Clip(frames=6),
    "no_times.hevc": Clip(frames=6, codec="libx265"),
    "animation.gif": Clip(frames=6, codec="gif", pixel_format="rgb8"),
    "old.avi": Clip(frames=6, codec="mpeg4"),
    "full_range.avi": Clip(frames=6, codec="mjpeg", pixel_format="yuvj422p"),
    "b_frames.mp4": Clip(frames=12, options={"preset": "veryfast", "bf": "3"}),
    "open_gop.mkv": Clip(frames=24, options={"preset": "veryfast", "bf": "3", "x264-params": "open-gop=1"}),
    "fast.mp4": Clip(frames=12, rate=240),
    "one_a_second.mp4": Clip(frames=6, rate=1),
    "same_time_twice.mkv": Clip(frames=6, pts=[0, 40, 40, 80, 80, 120]),
    "an_hour_between.mkv": Clip(frames=4, pts=[0, 40, 3_600_000, 3_600_040]),
    "upside_down.mp4": Clip(frames=6, rotation=180),
    "turned_left.mov": Clip(frames=6, rotation=270),
    "one_pixel.mkv": Clip(frames=6, width=1, height=1, codec="ffv1", pixel_format="yuv444p"),
    "full_range.mp4": Clip(frames=6, pixel_format="yuvj420p"),
    "deep_full_chroma.mkv": Clip(frames=6, pixel_format="yuv444p10le"),
    "twelve_bit.mkv": Clip(frames=6, codec="libx265", pixel_format="yuv422p12le"),
    "deep_gray.mkv": Clip(frames=6, codec="ffv1", pixel_format="gray10le"),
    "quarter_chroma.mkv": Clip(frames=6, codec="ffv1", pixel_format="yuv411p"),
    "intra_refresh.mp4": Clip(
        frames=24, options={"preset": "veryfast", "bf": "0", "x264-params": "intra-refresh=1"}
    ),
    "slices.mp4": Clip(frames=6, options={"slices": "4"}),
    "lossless.mp4": Clip(frames=6, options={"qp": "0"}),
    "lossless_rgb.mkv": Clip(frames=6, codec="libx264rgb", pixel_format="rgb24"),
    "interlaced.ts": Clip(frames=6, options={"flags": "+ilme+ildct", "x264-params": "interlaced=1"}),
    "interlaced.mpg": Clip(
        frames=6, codec="mpeg2video", width=352, height=288, options={"flags": "+ilme+ildct"}
    ),
    "prores.mov": Clip(frames=6, codec="prores_ks", pixel_format="yuv422p10le"),
    "prores_alpha.mov": Clip(
        frames=6, codec="prores_ks", pixel_format="yuva444p10le", options={"profile": "4"}
    ),
    "alpha.mkv": Clip(frames=6, codec="ffv1", pixel_format="yuva420p"),
    "alpha.mov": Clip(frames=6, codec="qtrle", pixel_format="argb"),
    "screen.mov": Clip(frames=6, codec="qtrle", pixel_format="rgb24"),
    "deep_png.mov": Clip(frames=6, codec="png", pixel_format="rgb48be"),
    "jpeg2000.mkv": Clip(frames=6, codec="jpeg2000", pixel_format="rgb24"),
    "animation.apng": Clip(frames=6, codec="apng", pixel_format="rgba"),
    "camcorder.mts": Clip(frames=6, format="mpegts"),
    "camcorder_dv.avi": Clip(frames=6, codec="dvvideo", width=720, height=576),
    "disc.vob": Clip(frames=6, codec="mpeg2video", width=352, height=288),
    "broadcast.mxf": Clip(frames=6, codec="mpeg2video", width=352, height=288, options={"b": "2000000"}),
    "edit.mov": Clip(
        frames=6,
        codec="dnxhd",
        width=256,
        height=144,
        pixel_format="yuv422p",
        options={"profile": "dnxhr_sq"},
    ),
    "edit_cineform.mov": Clip(frames=6, codec="cfhd", pixel_format="yuv422p10le"),
    "old.flv": Clip(frames=6, codec="flv"),
    "stream.flv": Clip(frames=6),
    "phone.3gp": Clip(frames=6, codec="h263", width=176, height=144),
    "windows.wmv": Clip(frames=6, codec="wmv2"),
    "ancient.avi": Clip(frames=6, codec="msmpeg4"),
    "huffman.avi": Clip(frames=6, codec="huffyuv", pixel_format="yuv422p"),
    "planes_of_rgb.avi": Clip(frames=6, codec="utvideo", pixel_format="gbrp"),
    "raw_rgb.avi": Clip(frames=6, codec="rawvideo", pixel_format="bgr24"),
    "raw_packed.nut": Clip(frames=6, codec="rawvideo", pixel_format="uyvy422"),
    "raw.y4m": Clip(frames=6, codec="wrapped_avframe"),
    "web.webm": Clip(frames=6, codec="libvpx", options={"deadline": "realtime"}),
    "web_av1.mp4": Clip(frames=6, codec="libsvtav1", options={"preset": "12"}),
}


@pytest.mark.parametrize("name", list(ODD))
def test_an_odd_clip_is_masked_whole(tmp_path: Path, name: str) -> None:
    clip = ODD[name]
    source = clips.make(tmp_path / name, clip)
    target = tmp_path / "out.mp4"
    report = pipeline.run(Job(source, target), worker.engine())
    assert report.frames == clip.frames
    assert not worker.leaks(target)
    shape = (clip.height, clip.width) if clip.rotation % 180 else (clip.width, clip.height)
    (size,) = clips.look(target).sizes
    assert size == tuple(side + side % 2 for side in shape)


def test_of_several_video_tracks_one_comes_out(tmp_path: Path) -> None:
    source, target = tmp_path / "two.mkv", tmp_path / "out.mp4"
    with av.open(str(source), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (96, 192), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        for index in range(6):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(clips.texture(index, stream.width, 64), "rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    report = pipeline.run(Job(source, target), worker.engine())
    assert clips.look(target).kinds == ["video"]
    assert any("video stream" in note for note in report.tally.notes)
    assert not worker.leaks(target)


def test_what_an_edit_list_hides_stays_hidden(tmp_path: Path) -> None:
    """A trimmed clip still carries the pictures before its cut; they must not come back."""
    whole = clips.make(tmp_path / "whole.mp4", Clip(frames=30, gop=30))
    trimmed, target = tmp_path / "trimmed.mp4", tmp_path / "out.mp4"
    with av.open(str(whole)) as source, av.open(str(trimmed), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            packet.pts -= 10 * packet.duration
            packet.dts -= 10 * packet.duration
            packet.stream = stream
            container.mux(packet)
    shown = len(clips.look(trimmed).times_s)
    report = pipeline.run(Job(trimmed, target), worker.engine())
    assert report.frames == shown <= 30
    assert len(clips.look(target).times_s) == shown
    assert not worker.leaks(target)


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_pictures_of_another_size_on_the_way_are_masked_too(tmp_path: Path) -> None:
    small = clips.make(tmp_path / "small.h264", Clip(frames=6))
    large = clips.make(tmp_path / "large.h264", Clip(frames=6, width=320, height=240))
    target = tmp_path / "out.mp4"
    report = pipeline.run(Job(joined(tmp_path / "both.h264", small, large, small), target), worker.engine())
    assert report.frames == 18
    assert clips.look(target).sizes == {(192, 108)}
    assert not worker.leaks(target)


def test_recordings_glued_together_whose_time_begins_again(tmp_path: Path) -> None:
    part, target = clips.make(tmp_path / "part.ts", Clip(frames=12)), tmp_path / "out.mp4"
    report = pipeline.run(Job(joined(tmp_path / "glued.ts", part, part), target), worker.engine())
    times = clips.look(target).times_s
    assert report.frames == len(times) >= 22
    assert all(before < after for before, after in itertools.pairwise(times))
    assert not worker.leaks(target)


def test_a_recording_that_begins_between_key_pictures(tmp_path: Path) -> None:
    whole = clips.make(tmp_path / "whole.ts", Clip(frames=30, gop=10)).read_bytes()
    cut, target = tmp_path / "cut.ts", tmp_path / "out.mp4"
    at = len(whole) // 6 // 188 * 188
    cut.write_bytes(whole[at:])
    report = pipeline.run(Job(cut, target), worker.engine())
    assert 15 <= report.frames < 30
    assert not worker.leaks(target)


def test_pixels_that_are_not_square_keep_their_shape(tmp_path: Path) -> None:
    options = {"x264-params": "sar=16/11"}
    source, target = clips.make(tmp_path / "wide.mp4", Clip(frames=6, options=options)), tmp_path / "out.mp4"
    pipeline.run(Job(source, target), worker.engine())
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
    assert not worker.leaks(target)


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_fragments_whole_or_cut_off(tmp_path: Path, share: float) -> None:
    whole = clips.make(tmp_path / "whole.mp4", Clip(frames=30, gop=5))
    source, target = tmp_path / "fragments.mp4", tmp_path / "out.mp4"
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(whole)) as taken, av.open(str(source), "w", options=options) as container:
        stream = container.add_stream_from_template(taken.streams.video[0])
        for packet in taken.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    data = source.read_bytes()
    source.write_bytes(data[: round(share * len(data))])
    report = pipeline.run(Job(source, target), worker.engine())
    assert report.frames == 30 if share == 1 else 10 <= report.frames < 30
    assert not worker.leaks(target)


def test_what_cannot_be_read_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    whole = clips.make(tmp_path / "whole.mp4", Clip(frames=12))
    cut = tmp_path / "no_index.mp4"
    cut.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(InputError):
        pipeline.run(Job(cut, tmp_path / "out.mp4"), worker.engine())
    assert not list(tmp_path.glob("out*"))


def test_an_animated_webp_is_masked_or_refused(tmp_path: Path) -> None:
    """FFmpeg writes them all, and reads them in its newer versions only."""
    moving = clips.make(tmp_path / "a.webp", Clip(frames=6, codec="libwebp_anim", pixel_format="bgra"))
    assert worker.one(moving, tmp_path / "out.mp4", worker.engine()) in ("passed", "refused InputError")
