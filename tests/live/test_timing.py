import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.live.timing import TICKS, Backoff, Pacer, Timeline


def test_follows_a_steady_source_exactly_after_jittery_arrival() -> None:
    timeline = Timeline()
    jitter = (0.0, 0.03, 0.0, 0.02, 0.01)
    stamps = [timeline.stamp(1000 + n * 0.04, at_s=5 + n * 0.04 + jitter[n % 5]) for n in range(50)]
    steps = [after - before for before, after in itertools.pairwise(stamps)]
    assert stamps[0] == 0
    assert max(abs(step - 3600) for step in steps) < 90  # a millisecond


@pytest.mark.parametrize("jump_s", [-3600.0, -0.5, 5.0, 3600.0 * 24])
def test_time_stamps_that_jump_do_not_reach_the_output(jump_s: float) -> None:
    timeline = Timeline()
    stamps = [timeline.stamp(n * 0.04 + (jump_s if n >= 25 else 0), at_s=n * 0.04) for n in range(50)]
    steps = [after - before for before, after in itertools.pairwise(stamps)]
    assert min(steps) > 0
    assert max(steps) < 0.1 * TICKS
    assert timeline.jumps == 1


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(-1e6, 1e6)), st.floats(0, 2)), min_size=1, max_size=60)
)
def test_whatever_comes_time_never_runs_backward_nor_far_from_the_clock(
    arrivals: list[tuple[float | None, float]],
) -> None:
    timeline = Timeline()
    at_s, start_s, last = 100.0, 100.0, -1
    for place, (source_s, wait_s) in enumerate(arrivals):
        at_s += wait_s if place else 0
        stamp = timeline.stamp(source_s, at_s=at_s)
        assert stamp > last
        assert abs(stamp / TICKS - (at_s - start_s)) < 0.6
        last = stamp


def test_a_burst_after_connecting_is_not_spread_over_the_future() -> None:
    timeline = Timeline()
    stamps = [timeline.stamp(n * 0.04, at_s=n * 0.001) for n in range(100)]
    assert stamps[-1] < 0.7 * TICKS


def test_drifting_clocks_are_followed_without_jumps() -> None:
    timeline = Timeline()
    stamps = [timeline.stamp(n * 0.04 * 1.001, at_s=n * 0.04) for n in range(50_000)]
    assert timeline.jumps == 0
    assert abs(stamps[-1] / TICKS - 49_999 * 0.04) < 0.1


def test_delays_grow_and_begin_anew_after_a_good_connection() -> None:
    backoff = Backoff()
    assert [backoff.next_s(held_s=0) for _ in range(7)] == [1, 2, 5, 10, 30, 30, 30]
    assert backoff.next_s(held_s=3) == 30
    assert backoff.next_s(held_s=60) == 1
    assert backoff.next_s(held_s=0) == 2


def test_a_covered_picture_is_due_after_the_patience_and_then_at_the_rate() -> None:
    pacer = Pacer(0.5, 0.5)
    assert pacer.wait_s(10.0) is None
    for n in range(200):
        assert pacer.admit(n * 3600, age_s=0.05, now_s=n * 0.04) == n * 3600
    last_s = 199 * 0.04
    assert pacer.wait_s(last_s) == pytest.approx(0.5)
    first = pacer.stand_in(now_s=last_s + 0.5)
    assert first == 199 * 3600 + 45_000
    assert pacer.wait_s(last_s + 0.5) == pytest.approx(0.04, rel=0.05)
    assert pacer.stand_in(now_s=last_s + 0.54) == first + 3600


def test_a_picture_that_is_too_old_never_leaves() -> None:
    pacer = Pacer(0.5, 0.8)
    assert pacer.admit(0, age_s=0.81, now_s=1.0) is None
    assert pacer.last_pts is None


def test_pictures_after_a_covered_one_come_behind_it_and_find_their_own_time_again() -> None:
    pacer = Pacer(0.5, 2.0)
    for n in range(10):
        pacer.admit(n * 3600, age_s=0.3, now_s=0.3 + n * 0.04)
    stood = pacer.stand_in(now_s=1.5)
    out = [pacer.admit(n * 3600, age_s=1.0, now_s=1.0 + n * 0.04) for n in range(20, 2000)]
    assert out[0] is not None
    assert out[0] > stood
    assert all(b is not None and a is not None and 0 < b - a <= 3600 for a, b in itertools.pairwise(out))
    assert out[-1] == 1999 * 3600


def test_a_slow_camera_is_waited_for() -> None:
    pacer = Pacer(0.5, 0.5)
    for n in range(10):
        at_s = float(n)
        if n > 1:
            assert pacer.wait_s(at_s) == pytest.approx(1.0)  # a second late, and still not overdue
        assert pacer.admit(n * TICKS, age_s=0.05, now_s=at_s) == n * TICKS


@pytest.mark.parametrize("step_s", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("ahead_s", [0.0, 0.3])
def test_a_slow_camera_is_recognised_though_covered_pictures_stood_in(step_s: float, ahead_s: float) -> None:
    """With look-ahead a picture leaves when the next one comes: that does not make it too old."""
    pacer = Pacer(0.5, 0.5 + ahead_s, looks_ahead=ahead_s > 0)
    waits_s = step_s if ahead_s else 0.0
    stood_in = []
    for n in range(10):
        due_s = n * step_s + waits_s
        while (
            wait_s := pacer.wait_s(at_s := max(pacer._last_at_s, 0.0))
        ) is not None and at_s + wait_s < due_s:
            stood_in.append(n)
            pacer.stand_in(now_s=at_s + wait_s)
        left = pacer.admit(round(n * step_s * TICKS), age_s=waits_s + 0.05, now_s=due_s, index=n)
        assert left is not None or n < 2
    assert max(stood_in, default=0) <= 3, stood_in


def test_pictures_that_are_far_apart_since_others_were_dropped_do_not_loosen_the_limit() -> None:
    pacer = Pacer(0.5, 0.8, looks_ahead=True)
    for n in range(20):
        left = pacer.admit(n * TICKS, age_s=1.3, now_s=n + 1.3, index=25 * n)
        assert left is None
