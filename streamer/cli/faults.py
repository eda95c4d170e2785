"""`streamer prove --faults`: try every fault and print what left meanwhile."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table

from streamer.errors import ConfigError, OutputError
from streamer.proof import show
from streamer.proof.faults import CONTROL, FILES, LIVE, run_apart
from streamer.proof.outcome import Outcome

COLUMNS = ("fault", "what happened", "out", "covered", "uncovered", "back after", "verdict")
_WIDTH = 150  # of a table that goes into a file
_LEAKED, _FAILED = 3, 1


def command(only: Sequence[str], json_file: Path | None, *, readme: bool) -> None:
    """Try the faults one after the other, each in a process of its own. Raises ConfigError for an unknown name."""
    known = (*LIVE, *FILES)
    for name in only:
        if name not in known:
            raise ConfigError(f'no fault is called "{name}"; known: {", ".join(known)}')
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    control = run_apart(CONTROL)
    if not control.leaked:
        say.print(f"the judge did not see a face that nobody masked: {control.happened}", markup=False)
        raise typer.Exit(_FAILED)
    outcomes = []
    for number, name in enumerate(only or known):
        say.print(f"{number + 1} of {len(only or known)}: {name}", markup=False)
        outcomes.append(run_apart(name))
    _print(outcomes, control, readme=readme)
    if json_file is not None:
        _write(json_file, outcomes, control)
    if any(outcome.leaked for outcome in outcomes):
        raise typer.Exit(_LEAKED)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(_FAILED)


def row(outcome: Outcome) -> tuple[str, ...]:
    """One fault in the order of `COLUMNS`."""
    seen = outcome.pictures
    back = "-" if outcome.back_s is None else f"{outcome.back_s:.2f} s"
    return (
        outcome.fault,
        outcome.happened,
        str(seen.out),
        str(seen.covered),
        str(seen.uncovered),
        back,
        outcome.verdict,
    )


def _print(outcomes: Sequence[Outcome], control: Outcome, *, readme: bool) -> None:
    seen = control.pictures
    note = (
        f"With the detector blind the judge saw the face in {seen.uncovered} of {seen.out} frames. "
        '"Back after": from the end of the fault to the next frame masked as usual (files: the time of the next run). '
        "Out: frames that viewers, recordings or files got; covered: whole, because no mask could be trusted."
    )
    if readme:
        print("| " + " | ".join(COLUMNS) + " |")
        print("|" + " --- |" * len(COLUMNS))
        for outcome in outcomes:
            print("| " + " | ".join(row(outcome)) + " |")
        print(f"\n{note} {show.machine()}.")
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    table = Table(
        *(
            Column(name, no_wrap=name not in COLUMNS[:2], min_width=12 if name == "fault" else None)
            for name in COLUMNS
        )
    )
    for outcome in outcomes:
        table.add_row(*row(outcome), style="red" if outcome.failed else None)
    console.print(table)
    console.print(note, markup=False)


def _write(path: Path, outcomes: Sequence[Outcome], control: Outcome) -> None:
    values: dict[str, Any] = {
        "machine": show.machine(),
        "control": control.as_dict(),
        "faults": [outcome.as_dict() for outcome in outcomes],
        "uncovered": sum(outcome.pictures.uncovered for outcome in outcomes),
    }
    try:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the figures cannot be written ({error.strerror}): {path}") from error
