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
