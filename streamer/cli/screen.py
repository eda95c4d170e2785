"""What a run of the command line shows: a bar on a terminal, one JSON line per file elsewhere."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamer import pipeline
from streamer.address import without_secrets
from streamer.errors import StreamerError
from streamer.pipeline import Engine, Job, Report
from streamer.proof.verify import Leftover

_UNSEEN = {code: ascii(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def shown(error: object) -> str:
    """What an error says, in one line and without secrets: whatever was typed may be an address or an odd name."""
    if (
        isinstance(error, OSError) and error.filename is not None
    ):  # the system's own, which gives numbers first
        return shown(f"{error.strerror}: {os.fsdecode(error.filename)}")
    return in_one_line(without_secrets(str(error), *sys.argv[1:]))


def in_one_line(text: str) -> str:
    """A text with names in it, which may hold ends of lines and what a terminal takes for orders."""
    return text.translate(_UNSEEN)


class Screen:
    """What the user sees: a bar on a terminal, one JSON line per file elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def start(self, engine: Engine) -> None:
        """The first video is about to start."""
        if self._live:
            self._console.print(f"device: {engine.device.name} ({engine.reason})", markup=False)

    def watch(self, job: Job, engine: Engine) -> Report:
        """Run a job under the user's eyes."""
        if not self._live:
            return pipeline.run(job, engine)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(in_one_line(job.source.name), total=None, numbers="")

            def show(now: pipeline.Progress) -> None:
                speed = bar.tasks[0].speed
                rate = f"{speed:.0f} fps, " if speed else ""
                numbers = f"{rate}{now.faces} faces, {now.plates} plates"
                bar.update(task, completed=now.frames, total=now.total, numbers=numbers)

            return pipeline.run(job, engine, show)

    def finished(self, report: Report) -> None:
        """A video is done."""
        values = report.as_dict()
        if self._live:
            hidden, frames = values["hidden"], values["frames"]
            rate = report.frames / report.wall_s if report.wall_s else 0
            told = (
                f"{report.job.source.name}: {report.frames} frames ({rate:.0f} fps), {hidden['faces']} faces and"
                f" {hidden['plates']} plates tracked, {frames['copied_without_encoding']} frames copied"
                f" -> {report.job.target or 'nothing written (dry run)'}"
            )
            self._console.print(in_one_line(told), markup=False)
            self._console.print(f"  {report.decoding}; {report.encoding or 'not encoded'}", markup=False)
            for note in report.tally.notes:
                self._console.print(f"  {note}", markup=False)
        elif not self._quiet:
            keys = ("input", "output", "device", "video", "hidden", "frames", "seconds", "notes")
            self._say({key: values[key] for key in keys})

    def picture(self, values: dict[str, Any]) -> None:
        """A picture is done."""
        if self._live:
            found = f"{len(values['objects'])} objects"
            told = (
                f"{Path(values['input']).name}: {found} -> {values['output'] or 'nothing written (dry run)'}"
            )
            self._console.print(in_one_line(told), markup=False)
            for note in values["notes"]:
                self._console.print(f"  {note}", markup=False)
        elif not self._quiet:
            self._say(values)

    def verified(self, job: Job, left: list[Leftover]) -> None:
        """A result was looked at again."""
        if self._live:
            for item in left:
                told = (
                    f"  left: {item.label.text} at {item.first_s:.2f} s to {item.last_s:.2f} s, score {item.score:.2f}"
                    f"{f', masked still: {item.still}' if item.still else ''}"
                )
                self._console.print(in_one_line(told), style="red", markup=False)
            if not left:
                self._console.print("  looked again: nothing is left", markup=False)
        elif not self._quiet:
            found = [item.as_dict() for item in left]
            self._say({"verified": str(job.target), "left": found})

    def failed(self, source: Path, error: StreamerError | OSError) -> None:
        """One of several inputs failed."""
        told = shown(error)
        if str(source) not in str(error):
            told = shown(f"{source}: {told}")
        self._console.print(f"error: {told}", style="red", markup=False)
        if not self._live and not self._quiet:
            self._say({"input": str(source), "error": shown(error)})

    def _say(self, values: dict[str, Any]) -> None:
        """One line for whoever reads standard output; the work goes on when they have read enough (`| head -1`)."""
        try:
            print(json.dumps(values), flush=True)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())  # else the rest of the line fails again at the end
            os.close(nowhere)
