"""`streamer anonymize`: files, folders and globs in, the same files without faces and plates out."""

import json
import signal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamer import pipeline
from streamer.cli.flags import settings_of
from streamer.cli.inputs import Input, check_kind, find, is_still, target_of
from streamer.cli.screen import Screen
from streamer.config import MOST_BETWEEN, Hide, Settings, Style
from streamer.errors import ConfigError, InputError, OutputError, StreamerError
from streamer.image.api import mask
from streamer.image.limits import OWN_FILES
from streamer.image.result import ResultForm, hand_over
from streamer.image.source import Access
from streamer.image.store import write_whole
from streamer.media.opening import check_regular
from streamer.media.sink import check_beside, check_target
from streamer.pipeline import Engine, Job
from streamer.proof.verify import verify as look_again
from streamer.proof.verify import verify_picture as look_at_picture_again

LEFT = 3  # exit code: the check found something


def command(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Videos, pictures, folders, globs or frame_%04d.png.", metavar="INPUT..."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File or folder for the results.")
    ] = None,
    hide: Annotated[Hide | None, typer.Option(help="What to hide.")] = None,
    style: Annotated[Style | None, typer.Option(help="How to hide it.")] = None,
    margin: Annotated[float | None, typer.Option(help="Share of each side added around a box.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Score from which a box is hidden, 0 to 1; without it the model's own, by size (0.015 to 0.3)."
        ),
    ] = None,
    detect_every: Annotated[
        str | None, typer.Option(help="Frames between detector runs, or auto.", metavar="N|auto")
    ] = None,
    look_ahead: Annotated[
        float | None, typer.Option(help="Seconds that a box found late is hidden earlier.", metavar="SECONDS")
    ] = None,
    codec: Annotated[
        Literal["h264", "hevc", "av1", "vp9"] | None, typer.Option(help="Codec of the result.")
    ] = None,
    crf: Annotated[int | None, typer.Option(help="Quality of the encoder; lower is better.")] = None,
    preset: Annotated[str | None, typer.Option(help="Speed of the encoder, such as veryfast.")] = None,
    audio: Annotated[Literal["keep", "drop"] | None, typer.Option(help="What happens to the sound.")] = None,
    keep_metadata: Annotated[bool, typer.Option(help="Keep titles, dates and places.")] = False,
    reencode: Annotated[
        Literal["needed", "all"] | None, typer.Option(help="Encode what was changed, or everything.")
    ] = None,
    zones: Annotated[
        Path | None, typer.Option(help="JSON file with polygons always or never masked.")
    ] = None,
    objects: Annotated[Path | None, typer.Option(help="Write each frame's objects as JSON lines.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report as JSON.")] = None,
    verify: Annotated[
        bool, typer.Option(help="Look again, more closely, at each result; exit code 3 if anything is left.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Only look; write no video.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to compute.")] = None,
    precision: Annotated[
        Literal["fp32", "fp16"] | None, typer.Option(help="Of the network on a GPU.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Detector of the manifest.")] = None,
    turned: Annotated[
        bool,
        typer.Option("--turned", help="Also look for faces that lie on their side: four times the work."),
    ] = False,
    config_file: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace results that exist.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Hide faces and licence plates in videos and pictures.

    The sound is kept as it is: faces and plates are hidden, not voices. Without -o each result stands beside its
    input as NAME_anonymized.
    """
    _end_as_interrupted()
    _check_result(verify, dry_run)
    flags: dict[str, Any] = {
        "hide": hide,
        "device": device,
        "zones": zones,
        "mask": {"style": style, "margin": margin},
        "detect": {
            "threshold": threshold,
            "every": _every(detect_every),
            "model": model,
            "precision": precision,
            "turned": turned or None,
        },
        "track": {"look_ahead_s": look_ahead},
        "output": {
            "codec": codec,
            "crf": crf,
            "preset": preset,
            "audio": audio,
            "keep_metadata": keep_metadata or None,
            "reencode": reencode,
        },
    }
    settings = settings_of(config_file, flags)
    batch = _Batch(Screen(quiet), settings, verify)
    files = _found(inputs, batch)
    count = len(files) + batch.failures
    jobs = [_job(file, output, count > 1, objects, dry_run, overwrite) for file in files]
    read = [path for path in (config_file, settings.zones) if path is not None]
    for job in jobs:
        if job.objects is not None:
            check_beside(job.objects, [*read, job.source, *([job.target] if job.target is not None else [])])
    if report is not None:
        taken = [path for job in jobs for path in (job.source, job.target, job.objects) if path is not None]
        check_beside(report, [*read, *taken])
    for job in jobs:
        try:
            batch.run(job)
        except (StreamerError, OSError) as error:
            if count == 1:
                raise
            batch.failed(job.source, error)
    if report is not None:
        reports = batch.reports
        values = reports[0] if count == 1 else {"files": reports, "failed": batch.failures}
        _write_text(report, json.dumps(values, indent=2))
    if batch.failures:
        raise StreamerError(f"{batch.failures} of {count} inputs failed")
    if batch.leftovers:
        raise typer.Exit(LEFT)


def _check_result(verify: bool, dry_run: bool) -> None:
    if verify and dry_run:
        raise ConfigError("--dry-run makes no result that --verify could look at; leave out one of the two")


def _end_as_interrupted() -> None:
    """Let a shutdown or a closed terminal end the run as Ctrl-C does, so that no unfinished file is left."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _found(names: list[str], batch: "_Batch") -> list[Input]:
    """What the names stand for; beside others, one that stands for nothing is an input that failed."""
    files: list[Input] = []
    for name in names:
        try:
            files += find(name)
        except InputError as error:
            if len(names) == 1:
                raise
            batch.failed(Path(name), error)
    return files


class _Batch:
    """The inputs of one command: videos share one engine, pictures one network."""

    def __init__(self, screen: Screen, settings: Settings, verify: bool) -> None:
        self.reports: list[dict[str, Any]] = []
        self.failures = 0
        self.leftovers = 0
        self._screen = screen
        self._settings = settings
        self._verify = verify
        self._engine: Engine | None = None
        self._taken: set[Path] = set()

    def run(self, job: Job) -> None:
        """Anonymize one input. Raises StreamerError; then nothing of it stands under the target's name."""
        check_kind(job.source)
        for path in (job.target, job.objects):
            if path in self._taken:
                raise ConfigError(f"another input became this file already; name the results apart: {path}")
        if is_still(job.source):
            values = anonymize_picture(job, self._settings)
            self.reports.append(values)
            self._screen.picture(values)
        else:
            done = self._screen.watch(job, self._opened())
            self.reports.append(done.as_dict())
            self._screen.finished(done)
        self._taken |= {path for path in (job.target, job.objects) if path is not None}
        if self._verify and job.target is not None:
            look = look_at_picture_again if is_still(job.source) else look_again
            stills = job.target.with_name(f"{job.target.stem}_left")
            left = look(job.source, job.target, self._opened(), stills)
            self.reports[-1]["left"] = [item.as_dict() for item in left]
            self._screen.verified(job, left)
            self.leftovers += len(left)

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = pipeline.open_engine(self._settings)
            self._screen.start(self._engine)
        return self._engine

    def failed(self, source: Path, error: StreamerError | OSError) -> None:
        """One of several inputs failed: it is told and the others go on."""
        self._screen.failed(source, error)
        self.failures += 1


def anonymize_picture(job: Job, settings: Settings) -> dict[str, Any]:
    """Anonymize one picture and answer as the image API does. Raises StreamerError, then no file is left."""
    if job.target is not None:
        check_target(job.source, job.target, overwrite=job.overwrite)
    if job.objects is not None:
        check_beside(job.objects, [job.source, *([job.target] if job.target is not None else [])])
    check_regular(job.source)
    try:
        data = job.source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}): {job.source}") from error
    masked = mask(data, settings, Access(OWN_FILES))
    values = {
        "input": str(job.source),
        "output": str(job.target) if job.target else None,
        **masked.result().as_dict(),
        "notes": ["left out: all pictures but the first"] if masked.picture.more else [],
    }
    if job.target is not None:
        hand_over(masked, ResultForm.PATH, out=job.target)
    if job.objects is not None:
        _write_text(job.objects, json.dumps(masked.result().as_dict()))
    return values


def _job(
    source: Input, output: Path | None, several: bool, objects: Path | None, dry_run: bool, overwrite: bool
) -> Job:
    target = None if dry_run else target_of(source, output, several)
    if target is not None and output is not None and (several or not output.suffix):
        _make(target.parent)
    if objects is not None and several:
        if not objects.is_dir():
            raise ConfigError("several inputs need an existing folder after --objects")
        objects = objects / source.below / f"{source.path.stem}.jsonl"
        _make(objects.parent)
    return Job(source.path, target, objects, overwrite)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(
            f"this is no folder; name one, or use --dry-run to write nothing: {folder}"
        ) from error
    except OSError as error:
        raise OutputError(f"the folder cannot be made ({error.strerror}): {folder}") from error


def _every(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not (text.isdecimal() and 1 <= int(text) <= MOST_BETWEEN):
        raise ConfigError(f'--detect-every takes 1 to {MOST_BETWEEN} frames or auto, not "{text}"')
    return int(text)


def _write_text(path: Path, text: str) -> None:
    """Write whole lines: complete or not at all, but through a pipe, device or link. Raises OutputError."""
    data = f"{text}\n".encode()
    if not path.is_symlink() and (path.is_file() or not path.exists()):
        write_whole(path, data, 0o666)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror}): {path}") from error
