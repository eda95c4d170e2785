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
