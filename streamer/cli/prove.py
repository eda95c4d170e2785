"""`streamer prove`: measure what a run lets through, on clips whose faces and plates are known."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streamer import config
from streamer.cli.inputs import check_input
from streamer.errors import ConfigError, OutputError
from streamer.frame import Size
from streamer.proof import harness, show
from streamer.proof.clips import Plan
from streamer.proof.harness import Task, Variant
from streamer.proof.score import Score


def command(
    data: Annotated[
        Path | None, typer.Argument(help="Folder with eval.json: annotated pictures.", metavar="[FOLDER]")
    ] = None,
    with_faults: Annotated[
        bool, typer.Option("--faults", help="Try every fault of live streams and file runs; needs no FOLDER.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Try this fault alone; may be repeated.", metavar="FAULT")
    ] = None,
    clips: Annotated[
        int, typer.Option(min=1, max=200, help="How many clips to make; eight show every move.")
    ] = 4,
    frames: Annotated[int, typer.Option(min=10, max=500, help="Frames of each of a clip's two shots.")] = 40,
    size: Annotated[str, typer.Option(help="Size of the clips.", metavar="WxH")] = "1280x720",
    seed: Annotated[int, typer.Option(help="The same seed makes the same clips.")] = 7,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="Also measure other values of a setting.", metavar="detect.side=640,960"),
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="Another installed program to measure beside it: deface.")
    ] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a plot (needs matplotlib).")] = None,
    readme: Annotated[bool, typer.Option(help="Print the tables as Markdown.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep clips and results in this folder.")] = None,
) -> None:
    """Measure what a run lets through.

    Camera moves over annotated pictures give clips in which the place of every face and plate is known. Each clip
    is anonymized as a user would, and the result is judged by its pixels alone. With --faults instead: what leaves
    when cameras, detectors, disks and viewers fail, on streams whose "face" is a pattern that nothing may show.
    Exit code 3 if anything leaked, 1 if something did not come back.
    """
    if with_faults:
        try:
            from streamer.cli import faults
        except ModuleNotFoundError as error:  # limits of the system, which only Unix has
            raise ConfigError(f"the faults need {error.name}, which is not on this system") from error
        faults.command(only or (), json_file, readme=readme)
        return
    if data is None or only:
        raise ConfigError("give a FOLDER with annotated pictures, or --faults (and --only for some of them)")
    check_input(str(data))
    plan = Plan(_size(size), clips, 2, frames, seed)
    base = config.load(config_file).model_dump(mode="json") if config_file is not None else {}
    variants = [Variant("defaults" if config_file is None else config_file.name, base)]
    for text in vary or []:
        variants += _varied(text, base)
    for variant in variants:
        config.settings_from(variant.values, origin=variant.name)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    task = Task(data, plan, tuple(variants), tuple(peer or ()), keep)
    scores = harness.prove(task, lambda text: console.print(text, markup=False))
    if readme:
        print(show.markdown(scores, plan))
    else:
        _print(scores)
    if json_file is not None:
        _write(json_file, scores, plan)
    if plot is not None:
        try:
            show.plot(scores, plot)
        except ConfigError as error:
            console.print(f"no plot: {error}", markup=False)


def _print(scores: list[Score]) -> None:
    console = Console(highlight=False)
    for score in scores:
        title = (
            f"{score.name}: masked {score.area.ratio:.2f} times the true area,"
            f" {100 * score.area.needless:.2f} % of the picture needlessly; {score.frames / score.seconds:.1f} frames/s"
        )
        table = Table(*show.COLUMNS, title=title, title_justify="left")
        for part in (score.headline, score.difficulty, score.sizes, score.moves):
            for group in part:
                if group.object_frames:
                    table.add_row(*show.row(group))
            table.add_section()
        console.print(table)
    console.print(show.LIMITS, markup=False)


def _size(text: str) -> Size:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(
        side.isdigit() and int(side) % 2 == 0 and int(side) >= 128 for side in sides
    ):
        raise ConfigError(f'--size takes an even width and height such as 1280x720, not "{text}"')
    return Size(int(sides[0]), int(sides[1]))


def _varied(text: str, base: dict[str, Any]) -> tuple[Variant, ...]:
    name, _, values = text.partition("=")
    if "." not in name or not values:
        raise ConfigError(f'--vary takes a setting and its values such as detect.side=640,960, not "{text}"')
    return harness.sweep(name, [_value(value) for value in values.split(",")], base)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _write(path: Path, scores: list[Score], plan: Plan) -> None:
    values = {
        "machine": show.machine(),
        "clips": {
            "count": plan.clips,
            "shots": plan.shots,
            "shot_frames": plan.shot_frames,
            "size": [plan.size.width, plan.size.height],
            "seed": plan.seed,
        },
        "limits": show.LIMITS,
        "scores": [score.as_dict() for score in scores],
    }
    try:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the figures cannot be written ({error.strerror}): {path}") from error
