"""Connects to cameras that answer oddly, in a process of its own: `python -m tests.fuzz.rtsp_worker FIRST COUNT`.

Eight at a time, as most of the time is spent waiting. One line per case before it starts and after it ended.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from streamer.errors import InputError
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.tally import Tally
from tests.fake_rtsp import FakeRtsp, damage_of
from tests.fuzz.worker import say

OPEN_S, READ_S = 2.0, 1.5
SLACK_S = 8.0  # of a busy machine
WANTED = 15  # pictures, then it has gone well


def one(seed: int) -> str:
    """What became of one connection, in a word; `wrong` starts those that should not be."""
    begun = time.monotonic()
    end, shown = "ended", 0
    with FakeRtsp(damage_of(seed)) as camera:
        try:
            with LiveSource(LiveSpec(camera.url, open_s=OPEN_S, read_s=READ_S), tally=Tally()) as source:
                for _ in source:
                    shown += 1
                    if shown == WANTED:
                        end = "passed"
                        break
        except InputError as error:
            end = "refused"
            if "\n" in str(error):
                return f"wrong: an error of several lines: {error!r}"
        except Exception as error:  # noqa: BLE001 - whatever is not an error of ours is a finding
            return f"wrong: {type(error).__name__}: {error}"
        took_s = time.monotonic() - begun
    if took_s > OPEN_S + READ_S + WANTED / 25 + SLACK_S:
        return f"wrong: took {took_s:.1f} s"
    return end


def tried(seed: int) -> None:
    say(f"case {seed}")
    say(f"ended {seed} {one(seed)}")


def main(first: int, count: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tried, range(first, first + count)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
