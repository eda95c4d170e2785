"""Time as a value that is handed in, so that what depends on it can be tested without waiting."""

import time
from collections.abc import Callable
from dataclasses import dataclass

RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # before each new try of what failed; the last one repeats


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that never jumps, and how to wait on it."""

    now: Callable[[], float]  # seconds since some moment
    sleep: Callable[[float], None]  # seconds


SYSTEM = Clock(time.monotonic, time.sleep)
