"""What gives way when a machine cannot keep up, and that those who watch are told."""

from streamer.live.governor import Governor


def test_the_interval_gives_way_before_the_view_and_less_than_the_whole_view_is_told() -> None:
    governor, stretches, views = Governor(), [1.0], [1.0]
    for second in range(40):
        governor.update(frames=25 * second, dropped=10 * second, at_s=float(second))
        stretches.append(governor.stretch)
        views.append(governor.view)
        assert (governor.problem is None) == (governor.view == 1)
    assert stretches == sorted(stretches)
    assert views == sorted(views, reverse=True)
    assert views[stretches.index(stretches[-1])] == 1
    assert governor.view == 0.5
    assert governor.problem is not None
    assert "50%" in governor.problem


def test_a_few_drops_change_nothing() -> None:
    governor = Governor()
    for second in range(60):
        governor.update(frames=25 * second, dropped=second, at_s=float(second))
    assert (governor.stretch, governor.view, governor.problem) == (1, 1, None)


def test_what_gave_way_comes_back_step_by_step_when_it_is_calm() -> None:
    governor = Governor()
    for second in range(40):
        governor.update(frames=25 * second, dropped=10 * second, at_s=float(second))
    views = []
    for second in range(40, 200):
        governor.update(frames=25 * second, dropped=390, at_s=float(second))
        views.append(governor.view)
    assert views == sorted(views)
    assert views[5] < 1
    assert (governor.stretch, governor.view, governor.problem) == (1, 1, None)


def test_a_machine_between_two_levels_does_not_go_to_and_fro() -> None:
    """Each change of what is told is a line of the log, and each step back a while of overload."""
    governor, told, dropped = Governor(), [], 0
    for second in range(3600):
        dropped += 10 if governor.level < 3 else 0
        governor.update(frames=25 * second, dropped=dropped, at_s=float(second))
        if not told or told[-1] != governor.problem:
            told.append(governor.problem)
    assert governor.view == 0.75
    assert len(told) < 30
    for second in range(3600, 3600 + 1800):  # the load has gone
        governor.update(frames=25 * second, dropped=dropped, at_s=float(second))
    assert governor.level == 0
    for second in range(5400, 5600):  # and comes for a while: the way back is short again
        dropped += 10 if second < 5420 else 0
        governor.update(frames=25 * second, dropped=dropped, at_s=float(second))
    assert governor.level == 0
