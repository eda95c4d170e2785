"""MPEG-TS that was written in pieces, each by a muxer of its own, made one stream (ISO/IEC 13818-1, 2.4.3.3)."""

import numpy as np

_PACKET = 188
_NULL = 0x1FFF  # packets without content, whose counters say nothing


class Continuity:
    """Continues the counter of each PID over pieces that all begin at 0.

    Readers that play them one behind the other take a step for loss, and the first picture of each piece for damaged.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def continued(self, data: bytes) -> bytes:
        """The next piece, whole packets, with its counters moved behind those of the piece before; a copy."""
        packets = np.frombuffer(data, np.uint8).reshape(-1, _PACKET).copy()
        pids = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]
        for pid in map(int, np.unique(pids[pids != _NULL])):
            rows = np.flatnonzero(pids == pid)
            loaded = packets[rows, 3] >> 4 & 1  # one without payload repeats the counter of the one before
            counts = self._counts.get(pid, -1) + np.cumsum(loaded, dtype=np.int64)
            packets[rows, 3] = packets[rows, 3] & 0xF0 | (counts & 15).astype(np.uint8)
            self._counts[pid] = int(counts[-1])
        return packets.tobytes()
