"""`streamer doctor`: what this machine has, and what a run would use and why."""

import json
from typing import Annotated

import typer
from rich.console import Console

from streamer import doctor


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine has, and which device `--device auto` takes."""
    report = doctor.examine()
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"device: {report.device} ({report.reason})", markup=False)
    marks = {True: "yes", False: "no ", None: "   "}
    for fact in report.facts:
        console.print(f"{marks[fact.good]} {fact.name}: {fact.text}", markup=False)
