"""What one stream measures about itself: rates and latencies of the last seconds, and totals for metrics."""

from bisect import bisect_left
from collections import deque

from streamer.errors import StreamerError

BUCKETS_S = (0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of the latency histogram
_WINDOW = 600  # frames
_TOLD_S = 60.0


class Meter:
    """Written by the egress thread, read by anyone: readers copy."""

    def __init__(self) -> None:
        self.frames_out = 0
        self.latency_counts = [0] * (len(BUCKETS_S) + 1)
        self.latency_sum_s = 0.0
        self._trouble: tuple[str, float] | None = None
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._latencies: deque[float] = deque(maxlen=_WINDOW)

    def sent(self, at_s: float, latency_s: float | None) -> None:
        """One frame left at `at_s`, so long after it was decoded (None: it stood in for one that did not come)."""
        self.frames_out += 1
        self._times.append(at_s)
        if latency_s is not None:
            self._latencies.append(latency_s)
            self.latency_sum_s += latency_s
            self.latency_counts[bisect_left(BUCKETS_S, latency_s)] += 1

    def trouble(self, error: Exception, at_s: float) -> None:
        """Something failed at `at_s` that is tried again."""
        reason = str(error) if isinstance(error, StreamerError) else type(error).__name__
        self._trouble = reason, at_s

    def problem(self, now_s: float) -> str | None:
        """What failed last, for a minute: nobody says that it works again."""
        trouble = self._trouble
        return trouble[0] if trouble is not None and now_s - trouble[1] < _TOLD_S else None

    def rate(self, now_s: float) -> float:
        """Frames per second over the last 5 s."""
        recent = [at_s for at_s in tuple(self._times) if now_s - at_s <= 5]
        return (len(recent) - 1) / (now_s - recent[0]) if len(recent) > 1 and now_s > recent[0] else 0.0

    def latency_ms(self, share: float) -> float | None:
        """A quantile (0 to 1) of the latency of the last frames, in milliseconds."""
        ordered = sorted(self._latencies)
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None
