"""Memory that was freed stays with the process: fresh pages for each frame would cost more than the pixel work."""

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT = 128 << 20  # bytes that may lie free at the heap's end before they go back to the system
_LARGEST = 32 << 20  # bytes of a block that comes from the heap; glibc allows no more


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's allocator, once and for the whole process; False where it is another one.

    By default glibc gives freed memory back as soon as a few megabytes lie at the heap's end, which a 1080p frame's
    planes do, and asks for it again with the next frame: 700 to 1,400 page faults for each detector's view alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
