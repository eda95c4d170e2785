"""The only threads: a bounded channel and `prefetch`, which runs an iterator on a thread of its own."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The other side of the channel is gone."""


class NoThreadError(OSError):
    """The machine gives no further thread."""


class Channel(Generic[T]):
    """A bounded queue between two threads.

    When full, `put` waits (back-pressure, for files); a lossy channel drops its oldest item instead (newest
    wins, for live) and counts it in `dropped`. `finish` ends it from the producer's side, with an optional
    error that `get` raises once the items are used up; `close` ends it from the consumer's side.
    """

    def __init__(self, size: int, *, lossy: bool = False) -> None:
        if size < 1:
            raise ValueError("a channel holds at least one item")
        self.dropped = 0
        self._items: deque[T] = deque()
        self._size = size
        self._lossy = lossy
        self._changed = threading.Condition()
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add an item; waits or drops the oldest when full. Raises Closed once the consumer has gone."""
        with self._changed:
            while len(self._items) >= self._size and not self._closed:
                if self._lossy:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._closed:
                raise Closed
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> T:
        """The oldest item. Raises Closed at the end, the producer's error if it had one, TimeoutError when late."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._finished or self._closed, timeout_s):
                raise TimeoutError
            if self._items and not self._closed:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise Closed

    def finish(self, error: BaseException | None = None) -> None:
        """No more items will come; `error` is raised at the consumer after the last one."""
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """The consumer wants no more: waiting items are let go, `put` raises Closed."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the consumer has gone."""
        return self._closed

    def __len__(self) -> int:
        return len(self._items)


class Worker:
    """One function on a thread of its own. What it raises is kept in `error`.

    It says itself when it is done: Python before 3.13 takes a thread for dead once an interrupt has ended a wait for
    it. Raises NoThreadError.
    """

    def __init__(self, work: Callable[[], None], *, name: str) -> None:
        self.error: BaseException | None = None
        self._work = work
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # Python's only word for it
            raise NoThreadError(
                f"the machine gives no further thread, end something else first: {name}"
            ) from error

    def _run(self) -> None:
        try:
            self._work()
        except Closed:
            pass
        except BaseException as caught:  # noqa: BLE001 - kept for the owner
            self.error = caught
        finally:
            self._done.set()

    @property
    def alive(self) -> bool:
        """Whether the function still runs."""
        return not self._done.is_set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; whether it has ended."""
        if self._done.wait(timeout_s):
            self._thread.join()
        return not self.alive


class Turns:
    """A lock that is handed on in the order of asking, so that a busy thread cannot starve the others."""

    def __init__(self, places: int = 1) -> None:
        """`places`: how many may hold it at once."""
        self._changed = threading.Condition()
        self._places = places
        self._next = 0
        self._left = 0  # so many have had their turn

    @property
    def taken(self) -> bool:
        """Whether who comes now has to wait."""
        return self._next - self._left >= self._places

    def __enter__(self) -> None:
        with self._changed:
            mine = self._next
            self._next += 1
            self._changed.wait_for(lambda: mine - self._left < self._places)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._left += 1
            self._changed.notify_all()


def feed(items: Iterable[T], channel: Channel[T], *, name: str) -> Worker:
    """Iterate `items` into `channel` on a thread of its own until either ends.

    The exception of `items` is raised at the channel's reader after the last item. A generator is closed on that
    thread; what merely makes an iterator (an opened file) is not: its items may still need it.
    """

    def work() -> None:
        error: BaseException | None = None
        iterator: Iterator[T] | None = None
        try:
            iterator = iter(items)
            for item in iterator:
                channel.put(item)
        except Closed:
            pass
        except BaseException as caught:  # noqa: BLE001 - carried to the consumer, which raises it
            error = caught
        close = getattr(iterator, "close", None)
        try:
            if close is not None:
                close()
        except BaseException as caught:  # noqa: BLE001 - as above
            error = error or caught
        channel.finish(error)

    return Worker(work, name=name)


def prefetch(items: Iterable[T], size: int, *, name: str = "prefetch", lossy: bool = False) -> Iterator[T]:
    """Iterate `items` on a thread of its own, up to `size` items ahead; lossy ones drop the oldest when full.

    The thread's exception is raised here with its type; closing the iterator early ends the thread (and
    closes `items` on that thread, if it is a generator) before this returns.
    """
    channel: Channel[T] = Channel(size, lossy=lossy)
    worker: Worker | None = None
    try:
        worker = feed(items, channel, name=name)
        while True:
            try:
                item = channel.get()
            except Closed:
                return
            yield item
    finally:
        channel.close()
        if worker is not None:
            worker.join()


@contextmanager
def background(items: Iterable[T], size: int, *, name: str = "prefetch") -> Iterator[Iterator[T]]:
    """`prefetch` for a with-statement: the thread is gone when the block is left, however it is left."""
    stream = prefetch(items, size, name=name)
    try:
        yield stream
    finally:
        stream.close()  # type: ignore[attr-defined]
