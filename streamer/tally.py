"""What a run counts while it works: events, seconds by stage, and notes for the report."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Tally:
    """Counters of one run. Stages may run on different threads; each stage belongs to one thread."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.levels: defaultdict[str, float] = defaultdict(float)  # what was last measured, such as an age
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        """Keep a line for the report, once."""
        if line not in self.notes:
            self.notes.append(line)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent in the block to the stage's seconds."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - start
