import resource
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
from av.codec.context import Flags
from av.stream import Disposition

from streamer.config import OutputPolicy
from streamer.errors import ConfigError, OutputError, RedactionError
from streamer.frame import Clean, Frame, FrameResult, Redacted
from streamer.media import encoders, nal, splice
from streamer.media.fields import TopFirst, is_top_first
from streamer.media.gop import PacketGop
from streamer.media.sink import FileSink, check_output
from streamer.media.source import AudioPacket, FileSource
from streamer.media.vorbis import without_comments
from streamer.tally import Tally
from tests import clips
from tests.clips import Clip

B_FRAMES = {"bf": "3", "preset": "veryfast"}


def redacted(frame: Frame) -> Redacted:
    return Redacted(frame, FrameResult(frame.index, frame.pts, frame.time_s, *_size(frame)))


def _size(frame: Frame) -> tuple[int, int]:
    return frame.size.width, frame.size.height


def convert(
    path: Path, target: Path, policy: OutputPolicy = OutputPolicy(), clean: frozenset[int] = frozenset()
) -> Tally:
    """Pass a file through; the groups of pictures numbered in `clean` go as packets."""
    tally = Tally()
    with FileSource(path, tally=tally) as source, FileSink(target, source, policy, tally=tally) as sink:
        for item in _by_group(source, clean):
            sink.write(item)
    return tally


def _by_group(source: FileSource, clean: frozenset[int]) -> Iterator[Redacted | Clean | AudioPacket]:
    held: list[Frame] = []
    number = -1

    def leave() -> Iterator[Redacted | Clean]:
        if held and number in clean and held[0].gop is not None:
            assert held[0].gop.copyable
            yield Clean(held[0].gop)
        else:
            yield from (redacted(frame) for frame in held)
        held.clear()

    for item in source:
        if isinstance(item, AudioPacket):
            yield item
            continue
        if not held or item.gop is not held[0].gop:
            yield from leave()
            number += 1
        held.append(item)
    yield from leave()


def packets_of(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(container.streams.video[0]) if packet.size]


def test_a_track_of_sound_in_which_there_is_none_is_left_out(tmp_path: Path) -> None:
    source, target = clips.make(tmp_path / "in.ts", Clip(audio="aac")), tmp_path / "out.mp4"
    data = source.read_bytes()
    units = [data[at : at + 188] for at in range(0, len(data), 188)]
    kept = [unit for unit in units if int.from_bytes(unit[1:3], "big") & 0x1FFF != 0x101]  # not its packets
    assert len(kept) < len(units)
    source.write_bytes(b"".join(kept))
    assert "left out: audio stream 1" in convert(source, target).notes
    assert clips.look(target).kinds == ["video"]


def commented(header: bytes, *, sized: bool) -> bytes:
    """The header of Vorbis with a name and a place, in either of the two forms in which containers keep it."""
    first, setup = header[3:33], header[header.index(b"\x05vorbis") :]
    tags = [b"ARTIST=Jane Doe", b"LOCATION=" + 600 * b"Main Street "]
    said = b"".join(len(tag).to_bytes(4, "little") + tag for tag in tags)
    comments = b"\x03vorbis" + bytes(4) + len(tags).to_bytes(4, "little") + said + b"\x01"
    if sized:
        return b"".join(len(part).to_bytes(2, "big") + part for part in (first, comments, setup))
    lacing = b"\xff" * (len(comments) // 255) + bytes([len(comments) % 255])
    return b"\x02\x1e" + lacing + first + comments + setup


def with_vorbis_comments(path: Path, *, sized: bool) -> Path:
    """A clip with sound in Vorbis."""
    whole = path.with_name("whole.mkv")
    with av.open(str(whole), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("vorbis", rate=48_000, layout="stereo", options={"strict": "-2"})
        for index in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(clips.texture(index, 96, 64), "rgb24")))
            sound = av.AudioFrame.from_ndarray(np.full((2, 1920), 0.1, np.float32), "fltp", "stereo")
            sound.sample_rate, sound.pts = 48_000, 1920 * index
            container.mux(audio.encode(sound))
        container.mux([*video.encode(None), *audio.encode(None)])
    with av.open(str(whole)) as taken, av.open(str(path), "w") as container:
        streams = [container.add_stream_from_template(stream) for stream in taken.streams]
        streams[1].codec_context.extradata = commented(
            bytes(taken.streams[1].codec_context.extradata), sized=sized
        )
        for packet in taken.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                container.mux(packet)
    return path


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_no_name_travels_in_the_header_of_vorbis(tmp_path: Path, ending: str, sized: bool) -> None:
    source, target = with_vorbis_comments(tmp_path / "in.mkv", sized=sized), tmp_path / f"out.{ending}"
    assert b"Jane Doe" in source.read_bytes()
    notes = convert(source, target).notes
    assert not any("encoded as" in note for note in notes)
    assert b"Jane Doe" not in target.read_bytes()
    assert b"Main Street" not in target.read_bytes()
    assert clips.look(target).audio_s == clips.look(source).audio_s


def test_headers_of_vorbis_that_cannot_be_read_are_not_passed() -> None:
    for headers in (
        b"",
        b"\x02",
        b"\x02\xff\xff",
        b"\x02\x00\x00",
        b"\x00\x1e" + bytes(30),
        90 * b"\x01vorbis",
    ):
        assert without_comments(headers) is None


def test_neither_another_kind_of_sound_nor_a_clock_set_anew_ends_a_file(tmp_path: Path) -> None:
    parts = []
    for name, layout, clock_s in (("a", "mono", "0"), ("b", "stereo", "50000")):
        options = {"output_ts_offset": clock_s}
        with av.open(str(tmp_path / f"{name}.ts"), "w", options=options) as container:
            video = container.add_stream("libx264", rate=25, options={"bf": "0"})
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            audio = container.add_stream("mp2", rate=48_000, layout=layout)
            for index in range(25):
                picture = av.VideoFrame.from_ndarray(clips.texture(index, 96, 64), "rgb24")
                picture.pts = index
                samples = np.zeros((1, 1920 * audio.codec_context.layout.nb_channels), np.int16)
                sound = av.AudioFrame.from_ndarray(samples, "s16", layout)
                sound.sample_rate, sound.pts = 48_000, 1920 * index
                container.mux([*video.encode(picture), *audio.encode(sound)])
            container.mux([*video.encode(None), *audio.encode(None)])
        parts.append((tmp_path / f"{name}.ts").read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    convert(tmp_path / "in.ts", tmp_path / "out.mp4")
    seen = clips.look(tmp_path / "out.mp4")
    assert np.diff(seen.times_s) == pytest.approx([1 / 25] * 49, abs=0.0011)
    assert seen.audio_s is not None
    assert seen.audio_s[1] - seen.audio_s[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_damaged_packet_of_sound_is_left_out_and_not_the_file(tmp_path: Path, ending: str) -> None:
    """AAC of MPEG-TS says in each packet how it is coded, MP4 and Matroska once: FFmpeg reads it for them."""
    source, target = clips.make(tmp_path / "in.ts", Clip(audio="aac")), tmp_path / f"out.{ending}"
    before = clips.look(source)
    with av.open(str(source)) as container:
        header = [bytes(packet)[:7] for packet in container.demux(audio=0) if packet.size][20]
    data = bytearray(source.read_bytes())
    at = data.index(header)
    data[at + 1] &= 0xFE  # with a checksum and in several blocks, which FFmpeg does not implement
    data[at + 6] |= 3
    source.write_bytes(data)
    assert convert(source, target).events["damaged packets"] == 1
    after = clips.look(target)
    assert len(after.times_s) == 30
    assert before.audio_s is not None
    assert after.audio_s is not None
    assert np.subtract(after.audio_s, after.times_s[0]) == pytest.approx(
        np.subtract(before.audio_s, before.times_s[0]), abs=0.002
    )


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts", "flv"])
def test_times_frames_and_size_are_those_of_the_input(tmp_path: Path, ending: str) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(options=B_FRAMES, audio="aac"))
    target = tmp_path / f"out.{ending}"
    convert(path, target, OutputPolicy(reencode="all"))
    before, after = clips.look(path), clips.look(target)
    assert len(after.times_s) == len(before.times_s)
    assert after.sizes == before.sizes
    spans = np.subtract(after.times_s, after.times_s[0])
    assert spans == pytest.approx(np.subtract(before.times_s, before.times_s[0]), abs=0.0011)
    assert after.audio_s is not None
    assert before.audio_s is not None
    offset = after.times_s[0] - before.times_s[0]
    assert after.audio_s[0] - before.audio_s[0] == pytest.approx(offset, abs=0.03)


@pytest.mark.parametrize(
    ("codec", "name", "ending"),
    [("h264", "h264", "mp4"), ("hevc", "hevc", "mp4"), ("av1", "av1", "mkv"), ("vp9", "vp9", "webm")],
)
def test_every_codec_can_be_written_and_read_again(
    tmp_path: Path, codec: str, name: str, ending: str
) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(audio="aac"))
    target = tmp_path / f"out.{ending}"
    convert(path, target, OutputPolicy(codec=codec))
    seen = clips.look(target)
    assert seen.codec in (name, "libdav1d", "libvpx-vp9")
    assert len(seen.times_s) == 30
    spans = np.subtract(seen.times_s, seen.times_s[0])
    assert spans == pytest.approx(clips.look(path).times_s, abs=0.0011)
    assert seen.audio_s is not None


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("options", [{}, B_FRAMES], ids=["plain", "b_frames"])
@pytest.mark.parametrize("clean", [{0, 2, 4}, {1, 3}, {0, 1, 2, 3, 4}, {1, 2}])
def test_copied_groups_are_bit_identical_and_every_time_stamp_holds(
    tmp_path: Path, ending: str, options: dict[str, str], clean: set[int]
) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=50, options=options, audio="aac"))
    target = tmp_path / f"out.{ending}"
    convert(path, target, clean=frozenset(clean))
    before, after = clips.look(path), clips.look(target)
    spans = np.subtract(after.times_s, after.times_s[0])
    assert spans == pytest.approx(np.subtract(before.times_s, before.times_s[0]), abs=0.0011)
    for index, (old, new) in enumerate(zip(clips.lumas(path), clips.lumas(target), strict=True)):
        if index // 10 in clean:
            assert np.array_equal(old, new), f"picture {index} was changed"
        else:
            assert np.abs(old.astype(int) - new.astype(int)).mean() < 6
    if ending == "mkv":
        return  # Matroska stores no decoding time stamps
    stamps = [packet.dts for packet in packets_of(target) if packet.dts is not None]
    assert all(first < second for first, second in pairwise(stamps))
    assert all(packet.dts is None or packet.dts <= packet.pts for packet in packets_of(target))


def test_nothing_but_slices_travels_with_copied_packets(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=20))
    assert b"x264 - core" in path.read_bytes(), "the clip should carry an SEI message to begin with"
    target = tmp_path / "out.mp4"
    convert(path, target, clean=frozenset({0, 1}))
    assert b"x264 - core" not in target.read_bytes()
    for packet in packets_of(target):
        assert {nal.kind(unit) for unit in nal.from_lengths(bytes(packet), 4)} <= {1, 5}


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_pixels_keep_the_shape_that_only_the_container_says(tmp_path: Path, ending: str) -> None:
    """As `ffmpeg -aspect 2:1 -c copy` leaves it: copied packets would bring back the shape that the stream says."""
    square, path = clips.make(tmp_path / "square.mp4", Clip()), tmp_path / "in.mp4"
    with av.open(str(square)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.codec_context.sample_aspect_ratio = Fraction(9, 8)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(9, 8)
    convert(path, tmp_path / f"out.{ending}", clean=frozenset({0, 1}))
    with av.open(str(tmp_path / f"out.{ending}")) as container:
        next(container.decode(video=0))
        assert container.streams.video[0].sample_aspect_ratio == Fraction(9, 8)


def test_metadata_travels_only_if_asked(tmp_path: Path) -> None:
    tags = {"title": "Anna", "location": "+48.1+011.5/", "creation_time": "2020-01-01T00:00:00Z"}
    path = clips.make(tmp_path / "in.mov", Clip(metadata=tags))
    convert(path, tmp_path / "without.mov")
    assert "Anna" not in str(clips.look(tmp_path / "without.mov").metadata)
    assert b"Anna" not in (tmp_path / "without.mov").read_bytes()
    assert b"+48.1" not in (tmp_path / "without.mov").read_bytes()
    convert(path, tmp_path / "with.mov", OutputPolicy(keep_metadata=True))
    assert clips.look(tmp_path / "with.mov").metadata["title"] == "Anna"


def test_subtitles_data_and_cover_art_stay_behind_and_are_named(tmp_path: Path) -> None:
    plain = clips.make(tmp_path / "plain.mkv", Clip(frames=10))
    path = tmp_path / "in.mkv"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        text = new.add_mux_stream("subrip")
        new.add_attachment("cover.jpg", "image/jpeg", b"\xff\xd8 not looked at \xff\xd9")
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = video
                new.mux(packet)
        words = av.Packet(b"Anna goes home")
        words.pts, words.dts, words.duration, words.time_base, words.stream = 0, 0, 300, text.time_base, text
        new.mux(words)
    tally = convert(path, tmp_path / "out.mkv")
    assert clips.look(tmp_path / "out.mkv").kinds == ["video"]
    assert b"Anna" not in (tmp_path / "out.mkv").read_bytes()
    assert any("subtitle" in note for note in tally.notes)


def test_audio_can_be_dropped_and_is_encoded_where_the_container_wants_it(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mkv", Clip(audio="pcm_s16le"))
    convert(path, tmp_path / "without.mp4", OutputPolicy(audio="drop"))
    assert clips.look(tmp_path / "without.mp4").kinds == ["video"]
    tally = convert(path, tmp_path / "with.mp4")
    assert clips.look(tmp_path / "with.mp4").audio_s is not None
    assert any("encoded as aac" in note for note in tally.notes)
    convert(path, tmp_path / "same.mkv")
    assert clips.look(tmp_path / "same.mkv").audio_s == clips.look(path).audio_s


@pytest.mark.parametrize(
    ("codec", "rate", "ending", "becomes"),
    [
        ("libopus", 48_000, "mov", "aac"),
        ("pcm_s24be", 48_000, "mov", "pcm_s24be"),
        ("pcm_s16le", 192_000, "mp4", "aac"),
        ("pcm_s16le", 5_500, "mp4", "aac"),
        ("pcm_s16le", 44_100, "webm", "opus"),
    ],
)
def test_unusual_sound_comes_along(tmp_path: Path, codec: str, rate: int, ending: str, becomes: str) -> None:
    video = clips.make(tmp_path / "video.mkv", Clip(frames=25))
    path, target = tmp_path / "in.mkv", tmp_path / f"out.{ending}"
    with av.open(str(video)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        sound = new.add_stream(codec, rate=rate, layout="stereo")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * rate), np.int16), "s16", "stereo")
        silence.sample_rate = rate
        packets = [*sound.encode(silence), *sound.encode(None)]  # the header needs it opened
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
        new.mux(packets)
    convert(path, target, OutputPolicy(preset=None))
    with av.open(str(target)) as container:
        track = container.streams.audio[0]
        assert track.codec_context.name.removeprefix("lib") == becomes
        lasts_s = sum(frame.samples / frame.sample_rate for frame in container.decode(track))
    assert lasts_s == pytest.approx(1, abs=0.15)  # the last block is filled up


def test_a_file_that_starts_late_starts_late(tmp_path: Path) -> None:
    stamps = [5000 + 40 * i for i in range(20)]
    path = clips.make(tmp_path / "late.mkv", Clip(frames=20, pts=stamps))
    convert(path, tmp_path / "out.mkv")
    assert clips.look(tmp_path / "out.mkv").times_s == pytest.approx([stamp / 1000 for stamp in stamps])


def test_interlaced_material_stays_interlaced(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "tv.ts", Clip(frames=20, options={"x264-params": "tff=1"}))
    convert(path, tmp_path / "out.ts")
    with av.open(str(tmp_path / "out.ts")) as container:
        assert all(picture.interlaced_frame for picture in container.decode(video=0))


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_the_track_of_sound_that_was_played_still_is(tmp_path: Path, ending: str) -> None:
    """The second one, in another language, was the default; MP4's muxer else takes the first."""
    source, target = tmp_path / "in.mkv", tmp_path / f"out.{ending}"
    kinds = {"eng": Disposition.comment, "deu": Disposition.default}
    with (
        av.open(str(clips.make(tmp_path / "one.mp4", Clip(audio="aac")))) as old,
        av.open(str(source), "w") as new,
    ):
        video = new.add_stream_from_template(old.streams.video[0])
        sounds = [new.add_stream_from_template(old.streams.audio[0]) for _ in kinds]
        for sound, (language, kind) in zip(sounds, kinds.items(), strict=True):
            sound.metadata["language"], sound.disposition = language, kind
        for packet in old.demux():
            data = bytes(packet)
            for stream in [video] if packet.stream.type == "video" else sounds:
                if packet.size:
                    copy = av.Packet(data)
                    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                    copy.stream, copy.is_keyframe = stream, packet.is_keyframe
                    new.mux(copy)
    convert(source, target)
    with av.open(str(target)) as container:
        defaults = {
            stream.language: bool(stream.disposition & Disposition.default)
            for stream in container.streams.audio
        }
    assert defaults == {"eng": False, "ger" if ending == "mov" else "deu": True}


@pytest.mark.parametrize(
    ("name", "top_first"), [("upper.mpg", True), ("lower.mpg", False), ("camcorder.dv", False)]
)
@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".ts"])
def test_the_field_that_was_shown_first_still_is(
    tmp_path: Path, name: str, top_first: bool, ending: str
) -> None:
    """x264 asks each picture which it is, and the container of DV does not know."""
    source, target = tmp_path / name, tmp_path / f"out{ending}"
    mark = TopFirst()
    with av.open(str(source), "w") as container:
        stream = container.add_stream("dvvideo" if name.endswith("dv") else "mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        for index in range(6):
            picture = av.VideoFrame.from_ndarray(clips.texture(index, 720, 576), "rgb24").reformat(
                format="yuv420p"
            )
            picture.pts = index
            container.mux(stream.encode(mark.marked(picture) if top_first else picture))
        container.mux(stream.encode(None))
    convert(source, target)
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        for picture in container.decode(video=0):
            assert picture.interlaced_frame
            assert is_top_first(picture, context) is top_first


def test_that_pictures_become_interlaced_on_the_way_is_said(tmp_path: Path) -> None:
    film = clips.make(tmp_path / "film.h264", Clip(frames=6)).read_bytes()
    live = clips.make(tmp_path / "live.h264", Clip(frames=6, options={"x264-params": "tff=1"})).read_bytes()
    (tmp_path / "both.h264").write_bytes(film + live)
    (tmp_path / "other.h264").write_bytes(live + film)
    tally = convert(tmp_path / "both.h264", tmp_path / "both.mp4")
    assert any("interlaced pictures come on the way" in note for note in tally.notes)
    assert not convert(tmp_path / "other.h264", tmp_path / "other.mp4").notes


@pytest.mark.parametrize("height", [486, 241])
def test_interlaced_pictures_of_a_height_that_h264_does_not_know_are_written(
    tmp_path: Path, height: int
) -> None:
    """486 lines are those of NTSC in studios."""
    path, target, mark = tmp_path / "studio.mov", tmp_path / "out.mov", TopFirst()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("prores_ks", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, height, "yuv422p10le"
        stream.codec_context.flags |= Flags.interlaced_dct
        for index in range(3):
            picture = av.VideoFrame.from_ndarray(clips.texture(index, 720, height), "rgb24")
            picture.pts = index
            container.mux(stream.encode(mark.marked(picture.reformat(format="yuv422p10le"))))
        container.mux(stream.encode(None))
    with FileSource(path, tally=Tally()) as source:
        assert source.info.top_field_first
    tally = convert(path, target)
    assert any("written as progressive" in note for note in tally.notes)
    assert clips.look(target).sizes == {(720, height + height % 2)}


def test_a_codec_that_knows_no_fields_is_said(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "tv.ts", Clip(frames=6, options={"x264-params": "tff=1"}))
    tally = convert(path, tmp_path / "out.mkv", OutputPolicy(codec="hevc"))
    assert any("interlaced" in note for note in tally.notes)


def test_odd_sizes_are_exact_where_the_codec_can(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "odd.mkv", Clip(width=191, height=107, codec="ffv1", frames=5))
    convert(path, tmp_path / "out.webm")
    assert clips.look(tmp_path / "out.webm").sizes == {(191, 107)}
    tally = convert(path, tmp_path / "out.mp4")
    assert clips.look(tmp_path / "out.mp4").sizes == {(192, 108)}
    assert any("even sizes" in note for note in tally.notes)


def test_a_raw_frame_is_refused_at_run_time(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4")
    target = tmp_path / "out.mp4"
    with pytest.raises(RedactionError), FileSource(path, tally=Tally()) as source:
        with FileSink(target, source, OutputPolicy(), tally=Tally()) as sink:
            for item in source:
                sink.write(item)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_no_file_at_all(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4")

    class Stop(Exception):
        pass

    def half() -> None:
        with FileSource(path, tally=Tally()) as source:
            with FileSink(tmp_path / "out.mp4", source, OutputPolicy(), tally=Tally()) as sink:
                for item in source:
                    assert isinstance(item, Frame)
                    sink.write(redacted(item))
                    assert not (tmp_path / "out.mp4").exists()
                    if item.index == 15:
                        raise Stop

    with pytest.raises(Stop):
        half()
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end."""
    path = clips.make(tmp_path / "in.mp4", Clip(frames=60, options={"crf": "1"}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            convert(path, tmp_path / "out.mp4", OutputPolicy(reencode="all", crf=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == [path]


class _FailsAtTheEnd:
    """An encoder, or its stream, that takes every picture and cannot give back the last ones."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def encode(self, picture: av.VideoFrame | None = None) -> list[av.Packet]:
        if picture is None:
            raise av.error.ExternalError(1, "the chip is gone")
        return list(self._real.encode(picture))


@pytest.mark.parametrize(
    ("reencode", "clean"), [("all", frozenset()), ("needed", frozenset()), ("needed", frozenset({1}))],
    ids=["one stretch", "the last stretch", "before a copied group"],
)  # fmt: skip
def test_an_encoder_that_fails_when_it_is_emptied_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reencode: Any, clean: frozenset[int]
) -> None:
    """The pictures that it still held would be missing: an error of ours, and nothing under the final name."""
    frames = 5 if reencode == "all" else 50  # so few that x264 gives none back before
    path = clips.make(tmp_path / "in.mp4", Clip(frames=frames))
    monkeypatch.setattr(
        splice, "open_encoder", lambda *a, **k: _FailsAtTheEnd(encoders.open_encoder(*a, **k))
    )
    tally = Tally()
    with pytest.raises(OutputError, match=r"the encoder failed .*chip is gone") as caught:
        with FileSource(path, tally=tally) as source:
            with FileSink(tmp_path / "out.mp4", source, OutputPolicy(reencode=reencode), tally=tally) as sink:
                if reencode == "all":
                    monkeypatch.setattr(sink, "_stream", _FailsAtTheEnd(sink._stream))
                for item in _by_group(source, clean):
                    sink.write(item)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_clean_group_of_another_source_is_refused(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4")
    gop = PacketGop(0, 0, lambda packets, first, strict: iter(()))
    with pytest.raises(RedactionError), FileSource(path, tally=Tally()) as source:
        with FileSink(tmp_path / "o.mp4", source, OutputPolicy(reencode="all"), tally=Tally()) as sink:
            sink.write(Clean(gop))


def test_outputs_that_would_destroy_something_are_refused(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=2))
    other = tmp_path / "other.mp4"
    other.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="replace the input"):
        check_output(path, path, overwrite=True)
    with pytest.raises(ConfigError, match="--overwrite"):
        check_output(path, other, overwrite=False)
    with pytest.raises(OutputError, match="no such folder"):
        check_output(path, tmp_path / "nowhere" / "out.mp4", overwrite=False)
    with pytest.raises(ConfigError, match="ending"):
        check_output(path, tmp_path / "out.xyz", overwrite=False)
    check_output(path, other, overwrite=True)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_few_pictures_of_hevc_are_written(tmp_path: Path, frames: int, ending: str) -> None:
    clip = Clip(frames=frames, width=16, height=16, codec="ffv1", pixel_format="yuv444p")
    source, target = clips.make(tmp_path / "in.mkv", clip), tmp_path / f"out.{ending}"
    convert(source, target, OutputPolicy(codec="hevc"))
    assert clips.look(target).times_s == pytest.approx(clips.look(source).times_s)


@pytest.mark.parametrize(
    ("codec", "width", "height", "taken"),
    [
        ("h264", 2, 2, True), ("h264", 16_386, 64, False), ("h264", 64, 16_386, False), ("hevc", 14, 64, False),
        ("hevc", 16, 16, True), ("av1", 2, 64, False), ("av1", 4, 4, True), ("av1", 64, 8706, False),
        ("vp9", 1, 1, True), ("vp9", 16_386, 64, True),
    ],
)  # fmt: skip
def test_a_size_that_a_codec_does_not_know_is_said(
    tmp_path: Path, codec: Literal["h264", "hevc", "av1", "vp9"], width: int, height: int, taken: bool
) -> None:
    clip = Clip(frames=5, width=width, height=height, codec="ffv1", pixel_format="yuv444p")
    source, target = clips.make(tmp_path / "in.mkv", clip), tmp_path / "out.mkv"
    if taken:
        convert(source, target, OutputPolicy(codec=codec))
        assert clips.look(target).sizes == {(width, height)}
        return
    with pytest.raises(OutputError, match=f"not at {width}x{height}; another --codec may take it"):
        convert(source, target, OutputPolicy(codec=codec))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
