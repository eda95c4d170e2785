"""Every fault by name, and how to try one in a process of its own: `python -m streamer.proof.faults NAME`."""

import json
import subprocess
import sys
from collections.abc import Callable

from streamer.live import supervisor, timing
from streamer.proof import file_faults, live_faults, whole_faults
from streamer.proof.outcome import NotRun, Outcome, Unfinished, outcome_from, without_pictures

CONTROL = "blind detector"
LIVE = (*live_faults.STORIES, *whole_faults.STORIES)
FILES = tuple(file_faults.STORIES)
_TRIED: dict[str, Callable[[str], Outcome]] = {
    CONTROL: live_faults.blind,
    **live_faults.STORIES,
    **whole_faults.STORIES,
    **file_faults.STORIES,
}
_LONGEST_S = 300


def run_apart(name: str, *, hurried: bool = False) -> Outcome:
    """Try one fault in a process of its own; a crash or a hang of that process is the outcome.

    A hurried run shortens the supervisor's waits (silence, retries), which are seconds to half a minute in the product.
    """
    command = [sys.executable, "-m", "streamer.proof.faults", name, *(["hurried"] if hurried else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return without_pictures(name, f"no end within {_LONGEST_S} s", "hung")
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        return without_pictures(name, f"exit code {done.returncode}: {said}"[:300], "crashed")
    return outcome_from(json.loads(lines[-1]))


def run_here(name: str) -> Outcome:
    """Try one fault in this process, which is of no use for anything else afterwards."""
    try:
        return _TRIED[name](name)
    except NotRun as missing:
        return without_pictures(name, str(missing), "not run")
    except Unfinished as late:
        return without_pictures(name, str(late), "not back")


def _hurry() -> None:
    timing.DELAYS_S = (0.3, 0.5)
    supervisor.STALL_S = 1.0
    supervisor._OPENING_S = 4.0  # recognising a stream takes its second


def main(name: str, pace: str = "") -> None:
    """One fault, its outcome as a line of JSON."""
    if pace:
        _hurry()
    sys.stdout.write(json.dumps(run_here(name).as_dict()) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
