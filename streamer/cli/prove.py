"""`streamer prove`: measure what a run lets through, on clips whose faces and plates are known."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streamer import config
from streamer.cli.inputs import check_input
from streamer.errors import ConfigError, OutputError
from streamer.frame import Size
from streamer.proof import clips, harness, moving, show, truth
from streamer.proof.clips import Plan
from streamer.proof.harness import Maker, Task, Variant
from streamer.proof.score import Score
from streamer.proof.show import Section


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
    still_clips: Annotated[
        int,
        typer.Option(
            "--clips",
            min=0,
            max=200,
            help="Clips of still pictures under a moving camera; eight show every move.",
        ),
    ] = 4,
    moving_clips: Annotated[
        int,
        typer.Option(
            "--moving",
            min=0,
            max=200,
            help="Clips in which faces and plates move by themselves; four show every movement.",
        ),
    ] = 4,
    frames: Annotated[int, typer.Option(min=10, max=500, help="Frames of each shot of a clip.")] = 40,
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

    Camera moves over annotated pictures, and faces and plates that are cut out of them and move by themselves, give
    clips in which the place of every face and plate is known. Each kind has figures of its own; those of the second
    count only what moves. Each clip is anonymized as a user would, and the result is judged by its pixels alone.
    With --faults instead: what leaves when cameras, detectors, disks and viewers fail, on streams whose "face" is a
    pattern that nothing may show.
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
    kinds = _kinds(data, Plan(_size(size), still_clips, 2, frames, seed), moving_clips)
    base = config.load(config_file).model_dump(mode="json") if config_file is not None else {}
    variants = [Variant("defaults" if config_file is None else config_file.name, base)]
    for text in vary or []:
        variants += _varied(text, base)
    for variant in variants:
        config.settings_from(variant.values, origin=variant.name)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    say = partial(console.print, markup=False)
    sections = [
        Section(
            title, plan, harness.prove(Task(data, plan, tuple(variants), tuple(peer or ()), keep, make), say)
        )
        for title, plan, make in kinds
    ]
    if readme:
        print(show.markdown(sections))
    else:
        _print(sections)
    if json_file is not None:
        _write(json_file, sections)
    if plot is not None:
        try:
            show.plot(sections, plot)
        except ConfigError as error:
            console.print(f"no plot: {error}", markup=False)


def _kinds(data: Path, still: Plan, moving_clips: int) -> list[tuple[str, Plan, Maker]]:
    kinds: list[tuple[str, Plan, Maker]] = []
    if still.clips:
        kinds.append(("Still pictures under a moving camera", still, clips.make))
    if moving_clips:
        moving.stock_of(truth.load(data))  # says before any work if there is nothing to move
        plan = replace(still, clips=moving_clips, shots=moving.SHOTS)
        kinds.append(("Faces and plates that move by themselves", plan, moving.make))
    if not kinds:
        raise ConfigError("--clips and --moving are both 0: there is nothing to measure")
    return kinds


def _print(sections: list[Section]) -> None:
    for section in sections:
        for score in section.scores:
            _print_score(section.title, score)
    Console(highlight=False).print(show.LIMITS, markup=False)


def _print_score(kind: str, score: Score) -> None:
    title = (
        f"{kind}, {score.name}: masked {score.area.ratio:.2f} times the true area,"
        f" {100 * score.area.needless:.2f} % of the picture needlessly; {score.frames / score.seconds:.1f} frames/s"
    )
    table = Table(*show.COLUMNS, title=title, title_justify="left")
    for part in (score.headline, score.difficulty, score.sizes, score.moves):
        for group in part:
            if group.object_frames:
                table.add_row(*show.row(group))
        table.add_section()
    Console(highlight=False).print(table)


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


def _write(path: Path, sections: list[Section]) -> None:
    values = {
        "machine": show.machine(),
        "limits": show.LIMITS,
        "sections": [
            {
                "title": section.title,
                "clips": {
                    "count": section.plan.clips,
                    "shots": section.plan.shots,
                    "shot_frames": section.plan.shot_frames,
                    "size": [section.plan.size.width, section.plan.size.height],
                    "seed": section.plan.seed,
                },
                "scores": [score.as_dict() for score in section.scores],
            }
            for section in sections
        ],
    }
    try:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the figures cannot be written ({error.strerror}): {path}") from error
