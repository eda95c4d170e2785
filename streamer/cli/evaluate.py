"""`streamer eval`: how well detectors find what was labelled, as a table and as JSON."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from streamer import evaluate, models
from streamer.cli.inputs import check_input
from streamer.config import DetectPolicy
from streamer.errors import ConfigError, OutputError


def command(
    data: Annotated[Path, typer.Argument(help="Folder with eval.json and its pictures.")],
    model: Annotated[list[str] | None, typer.Option(help="Detector of the manifest; again for more.")] = None,
    side: Annotated[int, typer.Option(help="Long side of the network's input.", min=128, max=4096)] = 640,
    tiles: Annotated[bool, typer.Option("--tiles", help="Also look at tiles.")] = False,
    turned: Annotated[bool, typer.Option("--turned", help="Also look at the picture turned.")] = False,
    every: Annotated[int, typer.Option(help="Take each n-th picture only.", min=1)] = 1,
    turn: Annotated[
        int, typer.Option(help="Turn the pictures counterclockwise: 0, 90, 180 or 270 degrees.")
    ] = 0,
    to_json: Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")] = None,
) -> None:
    """Measure detectors on labelled pictures: AP50, recall at the default threshold, time on one thread."""
    if turn not in (0, 90, 180, 270):
        raise ConfigError(f"pictures can be turned by 0, 90, 180 or 270 degrees, not by {turn}")
    check_input(str(data))
    pictures = evaluate.read(data)[::every]
    policy = DetectPolicy(side=side, tiles=tiles, turned=turned)
    reports = []
    for name in model or ["fast"]:
        spec = models.find(name)
        progress = track(
            evaluate.look(spec, pictures, policy, quarters=turn // 90),
            description=name,
            total=len(pictures),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        numbers = evaluate.report(spec, list(progress))
        reports.append(
            numbers | {"side": side, "turn": turn, "ms_640x384": round(evaluate.milliseconds(spec), 2)}
        )
    _print(reports)
    if to_json is not None:
        try:
            to_json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"the numbers cannot be written ({error.strerror}): {to_json}") from error


def _print(reports: list[dict[str, Any]]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for numbers in reports:
        table = Table(
            *("boxes of", "number", "AP50", "AP50 strict", "recall", "alarms/picture"),
            title=f"{numbers['model']}: {numbers['pictures']} pictures at {numbers['side']},"
            f" {numbers['ms_640x384']} ms for 640x384",
        )
        for kind in ("face", "plate"):
            for group, rows in numbers.get(kind, {}).items():
                for name, row in rows.items() if group != "all" else [("", rows)]:
                    table.add_row(f"{kind} {group} {name}".strip(), str(row["boxes"]), *_cells(row))
        console.print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    values = (row.get(name) for name in ("ap50", "ap50_strict", "recall", "alarms_per_picture"))
    return ["" if value is None else f"{value:.3f}" for value in values]
