import signal
import threading
from collections.abc import Iterator

import pytest

from streamer.channel import NoThreadError, Worker, background


class Opened:
    """Something like an opened file: it makes iterators, and its items live as long as it is open."""

    def __init__(self) -> None:
        self.closed = self.left = False

    def __iter__(self) -> Iterator[int]:
        try:
            yield from range(5)
        finally:
            self.left = True

    def close(self) -> None:
        self.closed = True


def test_what_makes_the_items_stays_open_when_they_end() -> None:
    opened = Opened()
    with background(opened, 2) as items:
        assert list(items) == list(range(5))
    assert opened.left
    assert not opened.closed


def test_an_iterator_that_is_left_early_is_closed() -> None:
    opened = Opened()
    with background(opened, 1) as items:
        assert next(items) == 0
    assert opened.left
    assert not opened.closed


def test_a_machine_without_a_further_thread_is_an_error_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(NoThreadError, match=r"no further thread.*decode"):
        Worker(lambda: None, name="decode")


def test_a_worker_is_waited_for_again_after_an_interrupt() -> None:
    """Python before 3.13 took it for dead, and the last recording of a stream stopped by a signal stayed unfinished."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    go_on = threading.Event()
    worker = Worker(lambda: bool(go_on.wait(30)), name="record")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            worker.join(30)
        assert worker.alive
        assert not worker.join(0.01)
    finally:
        signal.signal(signal.SIGALRM, before)
        go_on.set()
    assert worker.join(30)
