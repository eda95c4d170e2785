from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer import anonymizer
from streamer.anonymizer import anonymize
from streamer.config import settings_from
from streamer.detection import Detections
from streamer.errors import RedactionError
from streamer.frame import Clean, Frame, Redacted
from streamer.tally import Tally
from streamer.zones import Zones
from tests.fakes import Box, means, noise_frame, sees

FACE: Box = (100.0, 60.0, 140.0, 110.0)
EVERY_FRAME = {"detect": {"every": 1}}


class ListGop:
    """A group of pictures over frames made anew from their index."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count
        self.copyable = True
        self.silent = False
        self.released = False
        self.decoded = 0

    def decode_again(self, count: int, *, strict: bool = False) -> Iterator[Frame]:
        self.decoded += count
        return (replace(noise_frame(self.first + i), gop=self) for i in range(count))

    def release(self) -> None:
        self.released = True


def grouped(gops: list[ListGop]) -> Iterator[Frame]:
    for gop in gops:
        for i in range(gop.count):
            yield replace(noise_frame(gop.first + i), gop=gop)


def is_masked(frame: Frame, box: Box) -> bool:
    """Whether the noise in the box is gone."""
    x0, y0, x1, y1 = (round(side) for side in box)
    original = noise_frame(frame.index)
    same = frame.luma[y0:y1, x0:x1] == original.luma[y0:y1, x0:x1]
    return float(same.mean()) < 0.2


def untouched(frame: Frame) -> bool:
    original = noise_frame(frame.index)
    return np.array_equal(frame.luma, original.luma) and np.array_equal(frame.chroma, original.chroma)


def frames_of(items: Iterator[object]) -> list[Frame]:
    return [item.frame for item in items if isinstance(item, Redacted)]


def test_every_frame_comes_out_once_in_order_and_other_items_pass() -> None:
    items = [noise_frame(0), "sound", noise_frame(1), noise_frame(2)]
    out = list(anonymize(items, means(sees(lambda _: [])), Tally()))
    assert "sound" in out
    assert [item.frame.index for item in out if isinstance(item, Redacted)] == [0, 1, 2]


def test_what_is_detected_is_masked_and_the_rest_is_bit_identical() -> None:
    frames = frames_of(anonymize((noise_frame(i) for i in range(10)), means(sees(lambda _: [FACE])), Tally()))
    for frame in frames:
        assert is_masked(frame, FACE)
        original = noise_frame(frame.index)
        assert np.array_equal(frame.luma[:, :60], original.luma[:, :60])
        assert np.array_equal(frame.luma[150:], original.luma[150:])


def test_without_detections_nothing_changes() -> None:
    assert all(
        untouched(frame)
        for frame in frames_of(
            anonymize((noise_frame(i) for i in range(5)), means(sees(lambda _: [])), Tally())
        )
    )


def test_a_face_found_late_is_masked_early() -> None:
    late = sees(lambda index: [FACE] if index >= 10 else [])
    settings = settings_from(EVERY_FRAME)
    still = (replace(noise_frame(0), index=i, pts=i) for i in range(30))
    items = list(anonymize(still, means(late, settings), Tally()))
    original = noise_frame(0)
    for item in items:
        assert isinstance(item, Redacted)
        masked = not np.array_equal(item.frame.luma[70:100, 110:130], original.luma[70:100, 110:130])
        assert masked == bool(item.result.objects)
        assert masked, f"frame {item.frame.index} shows the face"


def test_frames_and_not_their_masks_are_counted_as_masked_early() -> None:
    late = sees(lambda index: [FACE, (200.0, 60.0, 240.0, 110.0)] if index >= 10 else [])
    tally = Tally()
    still = (replace(noise_frame(0), index=i, pts=i) for i in range(30))
    list(anonymize(still, means(late, settings_from(EVERY_FRAME)), tally))
    assert tally.events["frames masked early"] == 10


def test_a_face_that_appears_in_a_large_still_picture_is_masked_from_its_first_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of large pictures the look-ahead holds few: the detector may not rest for longer than they last."""
    monkeypatch.setattr(anonymizer, "HELD_BYTES", 0)
    monkeypatch.setattr(anonymizer, "HELD_AT_LEAST", 5)
    still = [replace(noise_frame(0), index=i, pts=i) for i in range(60)]
    for first in range(20, 30):  # at whatever place between two looks
        seen = sees(lambda index, first=first: [FACE] if index >= first else [])
        frames = [replace(frame, luma=frame.luma.copy(), chroma=frame.chroma.copy()) for frame in still]
        items = list(anonymize(frames, means(seen), Tally()))
        late = [
            item.frame.index
            for item in items
            if isinstance(item, Redacted) and item.frame.index >= first and not item.result.objects
        ]
        assert not late


@pytest.mark.parametrize("settings", [{}, {"detect": {"every": 60}}])
@pytest.mark.parametrize("after", [0, 1, 20])
@pytest.mark.parametrize("shown", [1, 2, 5])
def test_what_shows_only_at_the_end_of_a_scene_is_masked(
    shown: int, after: int, settings: dict[str, Any]
) -> None:
    """No later look comes that could be carried back: neither past a cut nor past the end."""
    scene = [replace(noise_frame(0), index=i, pts=i) for i in range(31)]
    other = [replace(noise_frame(1), index=31 + i, pts=31 + i) for i in range(after)]
    seen = sees(lambda index: [FACE] if 31 - shown <= index < 31 else [])
    items = list(anonymize([*scene, *other], means(seen, settings_from(settings)), Tally()))
    results = [item.result for item in items if isinstance(item, Redacted)]
    assert len(results) == 31 + after
    assert all(result.objects for result in results[31 - shown : 31])


@pytest.mark.parametrize("at", range(20, 26))
def test_the_last_frame_of_a_scene_is_told_by_itself_not_by_the_one_before(at: int) -> None:
    """Restless pictures: each is like the one before, but the two around the cut are not like each other."""
    random = np.random.default_rng(1)
    ground, *others = random.normal(0, 8, (at + 3, 36, 64))
    shown = [ground + (1.3 if index >= at else 0.7) * other for index, other in enumerate(others)]
    frames = [noise_frame(index) for index in range(len(shown))]
    for frame, picture in zip(frames, shown, strict=True):
        frame.luma[:] = np.kron(np.clip(picture + 128, 0, 255), np.ones((5, 5))).astype(np.uint8)
    seen = sees(lambda index: [FACE] if index == at else [])
    items = list(anonymize(frames, means(seen, settings_from({"detect": {"every": 60}})), Tally()))
    assert [item.result.objects != () for item in items if isinstance(item, Redacted)][at]


def test_a_live_frame_waits_for_no_other() -> None:
    settings = settings_from({"track": {"look_ahead_s": 0}})
    given: list[int] = []

    def camera() -> Iterator[Frame]:
        for index in range(5):
            given.append(index)
            yield noise_frame(index)

    live = anonymize(camera(), means(sees(lambda _: []), settings, on_error="cover"), Tally())
    for index, item in enumerate(live):
        assert isinstance(item, Redacted)
        assert item.frame.index == index == given[-1]


def test_a_picture_that_comes_in_the_place_of_a_judged_one_does_not_leave() -> None:
    """Decoded again, a damaged group may give another picture than the one that was found to be clean."""

    class Shifted(ListGop):
        def decode_again(self, count: int, *, strict: bool = False) -> Iterator[Frame]:
            return (replace(noise_frame(self.first + i + 1), gop=self) for i in range(count))

    seen = sees(lambda index: [FACE] if index >= 40 else [])
    with pytest.raises(RedactionError, match="the same way twice"):
        list(anonymize(grouped([Shifted(0, 60)]), means(seen, settings_from(EVERY_FRAME)), Tally()))


def test_a_damaged_picture_that_looks_different_the_second_time_is_covered_whole() -> None:
    """A fresh decoder conceals damage in its own way: nobody has judged what it makes of it."""

    class Damaged(ListGop):
        def decode_again(self, count: int, *, strict: bool = False) -> Iterator[Frame]:
            for frame in super().decode_again(count):
                yield replace(noise_frame(99), index=7, pts=7, gop=self) if frame.index == 7 else frame

    tally = Tally()
    seen = sees(lambda index: [FACE] if index >= 40 else [])
    out = frames_of(anonymize(grouped([Damaged(0, 60)]), means(seen, settings_from(EVERY_FRAME)), tally))
    assert [frame.index for frame in out] == list(range(60))
    assert len(np.unique(out[7].luma)) == 1
    assert untouched(out[6])
    assert untouched(out[8])
    assert tally.events["frames covered whole"] == 1


@pytest.mark.parametrize("fault", ["raises", "differs"])
def test_a_group_whose_decoder_conceals_in_silence_is_copied_only_if_it_decodes_strictly(fault: str) -> None:
    class Silent(ListGop):
        def decode_again(self, count: int, *, strict: bool = False) -> Iterator[Frame]:
            if strict and self.first == 20 and fault == "raises":
                raise RedactionError("damaged")
            off = 1 if strict and self.first == 20 else 0
            return (replace(noise_frame(self.first + i + off), gop=self) for i in range(count))

    gops = [Silent(start, 10) for start in (0, 10, 20, 30)]
    for gop in gops:
        gop.silent = True
    out = list(anonymize(grouped(gops), means(sees(lambda _: [])), Tally()))
    assert [item.results[0].index for item in out if isinstance(item, Clean)] == [0, 10, 30]
    assert [frame.index for frame in frames_of(iter(out))] == list(range(20, 30))


def test_a_failing_detector_stops_a_file_before_anything_uncovered_leaves() -> None:
    def fails(frame: Frame) -> Detections:
        if frame.index >= 5:
            raise RuntimeError("no")
        return sees(lambda _: [FACE])(frame)

    out: list[object] = []
    with pytest.raises(RedactionError, match="the detector failed"):
        out.extend(
            anonymize((noise_frame(i) for i in range(20)), means(fails, settings_from(EVERY_FRAME)), Tally())
        )
    assert not out


def test_live_covers_the_whole_picture_while_the_detector_fails() -> None:
    def fails(frame: Frame) -> Detections:
        if 5 <= frame.index < 8:
            raise RuntimeError("no")
        return sees(lambda _: [])(frame)

    settings = settings_from({**EVERY_FRAME, "track": {"look_ahead_s": 0}})
    tally = Tally()
    items = list(
        anonymize((noise_frame(i) for i in range(12)), means(fails, settings, on_error="cover"), tally)
    )
    for item in items:
        assert isinstance(item, Redacted)
        covered = 5 <= item.frame.index < 8
        assert (item.result.covered is not None) == covered
        if covered:
            same = item.frame.luma == noise_frame(item.frame.index).luma
            assert float(same.mean()) < 0.05
        else:
            assert untouched(item.frame)
    assert tally.events["frames covered whole"] == 3


def test_a_failing_tracker_or_mask_never_lets_a_frame_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("broken")

    for name in ("streamer.anonymizer.Tracker.update", "streamer.anonymizer.MotionEstimator.update"):
        with monkeypatch.context() as patch:
            patch.setattr(name, broken)
            out: list[object] = []
            with pytest.raises(RedactionError):
                out.extend(
                    anonymize((noise_frame(i) for i in range(30)), means(sees(lambda _: [FACE])), Tally())
                )
            assert not out
    with monkeypatch.context() as patch:
        patch.setattr("streamer.device.cpu.CpuDevice.redact", broken)
        out = []
        with pytest.raises(RedactionError):
            out.extend(anonymize((noise_frame(i) for i in range(30)), means(sees(lambda _: [FACE])), Tally()))
        assert not out


@pytest.mark.parametrize(
    "name",
    [
        "streamer.anonymizer.Tracker.update",
        "streamer.anonymizer.MotionEstimator.update",
        "streamer.device.cpu.CpuDevice.redact",
    ],
)
def test_live_covers_frames_while_tracking_or_masking_fails(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(name, broken)
    settings = settings_from({**EVERY_FRAME, "track": {"look_ahead_s": 0.2}})
    doing = means(sees(lambda _: [FACE]), settings, on_error="cover")
    items = list(anonymize((noise_frame(i) for i in range(20)), doing, Tally()))
    assert [item.frame.index for item in items if isinstance(item, Redacted)] == list(range(20))
    assert all(is_masked(frame, (0, 0, 320, 180)) for frame in frames_of(iter(items)))


def test_live_sends_a_frame_once_whose_way_back_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr("streamer.motion.Motion.backward", broken)
    doing = means(
        sees(lambda index: [FACE] if index >= 5 else []),
        settings_from({**EVERY_FRAME, "track": {"look_ahead_s": 0.2}}),
        on_error="cover",
    )
    still = (replace(noise_frame(0), index=i, pts=i) for i in range(12))
    items = list(anonymize(still, doing, Tally()))
    assert [item.frame.index for item in items if isinstance(item, Redacted)] == list(range(12))


def test_clean_groups_leave_as_packets_and_dirty_ones_whole() -> None:
    gops = [ListGop(0, 10), ListGop(10, 10), ListGop(20, 10)]
    settings = settings_from({**EVERY_FRAME, "track": {"look_ahead_s": 0, "hold_s": 0}})
    sometimes = sees(lambda index: [FACE] if index in (17, 18) else [])
    tally = Tally()
    out = list(anonymize(grouped(gops), means(sometimes, settings), tally))
    assert [item.gop for item in out if isinstance(item, Clean)] == [gops[0], gops[2]]
    frames = frames_of(iter(out))
    assert [frame.index for frame in frames] == list(range(10, 20))
    assert is_masked(frames[7], FACE)
    assert is_masked(frames[8], FACE)
    assert all(untouched(frame) for frame in frames[:7])
    assert gops[1].decoded == 7
    assert gops[1].released
    assert not gops[0].released
    assert tally.events["frames copied"] == 20


def test_look_ahead_reaches_into_the_group_before() -> None:
    gops = [ListGop(0, 10), ListGop(10, 10)]
    late = sees(lambda index: [FACE] if index >= 12 else [])
    settings = settings_from({**EVERY_FRAME, "track": {"look_ahead_s": 0.4}})
    still = (replace(noise_frame(0), index=i, pts=i, gop=gops[i // 10]) for i in range(20))
    out = list(anonymize(still, means(late, settings), Tally()))
    assert not [item for item in out if isinstance(item, Clean)], (
        "a group was copied that shows the face early"
    )


def test_a_group_that_turns_out_damaged_is_encoded_after_all() -> None:
    gop = ListGop(0, 10)

    def frames() -> Iterator[Frame]:
        yield from grouped([gop])
        gop.copyable = False

    settings = settings_from({"track": {"look_ahead_s": 0}})
    out = list(anonymize(frames(), means(sees(lambda _: []), settings), Tally()))
    assert [frame.index for frame in frames_of(iter(out))] == list(range(10))


def test_results_are_the_image_api_s_answer_for_each_frame() -> None:
    items = list(anonymize((noise_frame(i) for i in range(3)), means(sees(lambda _: [FACE])), Tally()))
    answer = items[0].result.as_dict()
    assert answer["width"] == 320
    assert answer["height"] == 180
    assert [thing["class"] for thing in answer["objects"]] == ["Face"]
    box = answer["objects"][0]["box"]
    assert box["x"] == pytest.approx(100 / 320, abs=0.02)
    assert box["y"] == pytest.approx(60 / 180, abs=0.03)
    assert box["w"] == pytest.approx(40 / 320, abs=0.03)
    assert box["h"] == pytest.approx(50 / 180, abs=0.06)
    assert answer["objects"][0]["track_id"] >= 1


def test_zones_mask_always_or_never() -> None:
    zones = Zones(mask=(((0.0, 0.0), (0.2, 0.0), (0.2, 0.3), (0.0, 0.3)),), keep=())
    gop = ListGop(0, 5)
    out = list(anonymize(grouped([gop]), means(sees(lambda _: []), zones=zones), Tally()))
    frames = frames_of(iter(out))
    assert len(frames) == 5, "a group with a masked zone was copied"
    assert all(is_masked(frame, (0, 0, 62, 52)) for frame in frames)
    everywhere = Zones(mask=(), keep=(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),))
    out = list(
        anonymize(
            (noise_frame(i) for i in range(5)), means(sees(lambda _: [FACE]), zones=everywhere), Tally()
        )
    )
    assert all(untouched(frame) for frame in frames_of(iter(out)))
    assert not any(item.result.objects for item in out)


def test_a_face_that_is_kept_hides_none_before_it_that_is_not() -> None:
    zones = Zones(keep=(((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)),))
    inside, outside = (120.0, 20.0, 260.0, 160.0), (125.0, 60.0, 155.0, 95.0)
    seen = sees(lambda index: [inside] if index < 5 else [inside, outside])
    still = (replace(noise_frame(0), index=i, pts=i) for i in range(9))
    items = list(anonymize(still, means(seen, settings_from(EVERY_FRAME), zones), Tally()))
    assert [len(item.result.objects) for item in items if isinstance(item, Redacted)] == [1] * 9


def test_only_one_module_makes_receipts() -> None:
    package = Path(__file__).parent.parent / "streamer"
    makers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "Redacted(" in line or "Clean(" in line
    }
    assert makers == {"anonymizer.py"} | {"frame.py"} & makers
