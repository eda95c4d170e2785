"""`streamer image`: pictures, folders and URLs in, the same pictures without faces and plates out."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.address import redacted_name
from streamer.cli.flags import settings_of
from streamer.cli.inputs import PICTURES, check_named
from streamer.cli.screen import in_one_line, shown
from streamer.config import Style
from streamer.errors import ConfigError, InputError, OutputError, StreamerError
from streamer.image.api import mask
from streamer.image.limits import OWN_FILES, ImageLimits
from streamer.image.picture import EXTENSIONS, WRITTEN, Format
from streamer.image.redact import MaskedPicture
from streamer.image.result import ImageResult, ResultForm, check_written, form_from, hand_over, hide_from
from streamer.image.source import Access, ImageInput

_LONGEST_SHOWN = 200  # characters; longer text is base64
_LONGEST_PATH = 4096
_DIGITS = 8  # characters of a byte in a printed array, at most


def command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Pictures: files, folders, URLs or base64; - is standard input, which may also hold a JSON Buffer"
            " or array.",
            metavar="IN...",
        ),
    ],
    hide: Annotated[str | None, typer.Option(help="everything, faces or plates.")] = None,
    style: Annotated[Style | None, typer.Option(help="How to hide it.")] = None,
    margin: Annotated[float | None, typer.Option(help="Share of each side added around a box.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Score from which a box is hidden, 0 to 1; without it the model's own, by size (0.015 to 0.3)."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Detector of the manifest.")] = None,
    turned: Annotated[
        bool,
        typer.Option("--turned", help="Also look for faces that lie on their side: four times the work."),
    ] = False,
    result: Annotated[str, typer.Option(help="path, url, base64, buffer or array.")] = "path",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File or folder for the results of --result path.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each answer as one line of JSON.")] = False,
    private_urls: Annotated[
        bool, typer.Option("--private-urls", help="Let URLs point into the private network.")
    ] = False,
    config_file: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
) -> None:
    """Hide faces and licence plates in pictures.

    Each result is printed: the path of a new file in the system's temporary folder, or what --result asks
    for. With -o the results get the names of their inputs; a folder keeps its structure.
    """
    form = form_from(result)
    if output is not None and form is not ResultForm.PATH:
        raise ConfigError("-o takes files; leave it out, or use --result path")
    flags = {
        "hide": None if hide is None else hide_from(hide),
        "mask": {"style": style, "margin": margin},
        "detect": {"threshold": threshold, "model": model, "turned": turned or None},
    }
    settings = settings_of(config_file, flags)
    access = Access(OWN_FILES.model_copy(update={"private_urls": private_urls}))
    jobs = list(_jobs(inputs, output))
    if not jobs:
        raise InputError(f"no pictures in the folder: {', '.join(inputs)}")
    taken = {path for job in jobs if (path := _file_of(job.image)) is not None}
    failed = 0
    with _bar() as bar:
        for job in bar.track(jobs, description="pictures"):
            try:
                masked = mask(_from_stdin(ImageLimits()) if job.image == "-" else job.image, settings, access)
                answer = _handed_over(job, masked, form, taken)
            except StreamerError as error:
                failed += 1
                bar.console.print(f"error: {shown(_told(error, job.name))}", style="red", markup=False)
                if as_json:
                    print(json.dumps({"input": job.name, "error": shown(error)}), flush=True)
                continue
            print(_line(job, answer, as_json, len(jobs) > 1), flush=True)
            if masked.picture.more:
                told = f"note: {job.name}: its first picture was taken, the others left out"
                bar.console.print(in_one_line(told), markup=False)
    if failed:
        raise typer.Exit(1)


def _told(error: StreamerError, name: str) -> str:
    """What went wrong, and with which picture, named once."""
    return str(error) if str(error).endswith(f": {name}") else f"{name}: {error}"


@dataclass(frozen=True, slots=True)
class _Job:
    image: str  # as `mask` takes it; "-" is standard input
    name: str  # for people
    folder: Path | None = None  # where the result goes under the picture's name
    file: Path | None = None  # or the file that it becomes

    def target(self, format: Format) -> Path | None:
        """The result's file, whose ending is `format` where none is known; None is one in the temporary folder."""
        if self.folder is None:
            return self.file
        name = _file_name(self.name) or "picture"
        suffix = "" if Path(name).suffix.lower() in WRITTEN else f".{EXTENSIONS[format]}"
        return self.folder / f"{name}{suffix}"


def _jobs(inputs: list[str], output: Path | None) -> Iterator[_Job]:
    for text in inputs:
        check_named(text)
    several = len(inputs) > 1 or _is_folder(inputs[0])
    to_file = output is not None and not output.is_dir() and output.suffix.lower() in PICTURES
    if several and to_file:
        raise ConfigError(f"several pictures need a folder after -o, not {output}")
    if to_file and output is not None:
        check_written(output)
    for text in inputs:
        name = "picture" if text == "-" or len(text) > _LONGEST_SHOWN else _shown(text)
        if _is_folder(text):
            if output is None:
                raise ConfigError(f"say with -o which folder the results go to: {text}")
            yield from _folder_jobs(Path(text), output)
        elif to_file:
            yield _Job(text, name, file=output)
        else:
            yield _Job(text, name, folder=output)


def _folder_jobs(folder: Path, output: Path) -> Iterator[_Job]:
    """Every picture below `folder`, but none of the results where `output` lies inside it."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in PICTURES or not path.is_file():
            continue
        if output.resolve() == folder.resolve() or not path.resolve().is_relative_to(output.resolve()):
            yield _Job(str(path), str(path), folder=(output / path.relative_to(folder)).parent)


def _handed_over(job: _Job, masked: MaskedPicture, form: ResultForm, taken: set[Path]) -> ImageResult:
    """The answer; its file is none of `taken`, the pictures and earlier results of this run, and becomes one."""
    target = job.target(masked.picture.format)
    if target is not None:
        if target.resolve() in taken or _is_same(target, job.image):
            raise ConfigError(f"the result would replace another picture; choose another place than {target}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder cannot be made ({error.strerror}): {target.parent}") from error
    answer = hand_over(masked, form, out=target)
    if target is not None:
        taken.add(target.resolve())
    return answer


def _from_stdin(limits: ImageLimits) -> ImageInput:
    """The picture on standard input: a file, or text in any of the forms that `--result` prints."""
    data = sys.stdin.buffer.read(limits.max_bytes * _DIGITS + 1)
    if not data.isascii():
        return data  # no picture file is ASCII
    text = data.decode("ascii").strip()
    if not text.startswith(("{", "[")):
        return text
    try:
        found: ImageInput = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("standard input is neither a picture nor JSON") from error
    return found


def _is_same(target: Path, image: str) -> bool:
    """Whether both are one file, also where names differ in their capitals only."""
    try:
        return target.exists() and target.samefile(image)
    except (OSError, ValueError):
        return False


def _file_of(image: str) -> Path | None:
    """The file that a picture is, with all links followed."""
    try:
        path = Path(image)
        return path.resolve() if len(image) < _LONGEST_PATH and path.is_file() else None
    except (OSError, ValueError):
        return None


def _shown(text: str) -> str:
    return text if _file_of(text) is not None or _is_folder(text) else redacted_name(text)


def _file_name(name: str) -> str:
    """What a file is called that comes from a path or a URL: tokens behind a URL's path are no part of it."""
    is_url = name.lower().startswith(("http://", "https://"))
    return Path(unquote(urlsplit(name).path) if is_url else name).name


def _line(job: _Job, answer: ImageResult, as_json: bool, several: bool) -> str:
    if as_json:
        return json.dumps({"input": job.name, **answer.as_dict()} if several else answer.as_dict())
    return answer.result if isinstance(answer.result, str) else json.dumps(answer.result)


def _is_folder(text: str) -> bool:
    try:
        return len(text) < _LONGEST_PATH and Path(text).is_dir()
    except (OSError, ValueError):
        return False


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False, soft_wrap=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
