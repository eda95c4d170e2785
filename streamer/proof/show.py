"""The figures as text for a README and as a plot."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import onnxruntime

from streamer import __version__
from streamer.errors import ConfigError
from streamer.proof.clips import Plan
from streamer.proof.score import Exposure, Score

COLUMNS = ("objects", "frames", "covered", "tracks", "ever seen", "never hidden", "seen first", "flicker")
LIMITS = (
    "These clips are annotated photographs under a moving camera, and faces and plates cut out of such photographs that"
    " move by themselves: they have pans, shakes, cuts, blur, light and motion, but no head that turns and no crowd"
    " that walks. Small or blurred objects that the annotators skipped do not count."
    " The figures tell how settings compare and what is to be expected; they are no guarantee for other footage."
    " Anonymization reduces what can be recognised; it does not make it impossible."
)


@dataclass(frozen=True, slots=True)
class Section:
    """The figures of one kind of clips."""

    title: str
    plan: Plan
    scores: Sequence[Score]


def row(group: Exposure) -> tuple[str, ...]:
    """One group of objects in the order of `COLUMNS`."""
    late = f"{group.late} (at most {group.longest_late} frames)" if group.late else "0"
    return (
        group.name,
        str(group.object_frames),
        percent(group.covered),
        str(group.tracks),
        str(group.tracks_exposed),
        str(group.tracks_missed),
        late,
        percent(group.flicker),
    )


def percent(share: float) -> str:
    """A share with two digits behind the point, `-` where nothing was there."""
    return "-" if share != share else f"{100 * share:.2f} %"


def machine() -> str:
    """What the figures were taken on: processor, cores and the versions that matter."""
    versions = f"streamer {__version__}, Python {platform.python_version()}, PyAV {av.__version__}"
    return f"{_processor()}, {os.cpu_count()} cores; {versions}, ONNX Runtime {onnxruntime.__version__}"


def markdown(sections: Sequence[Section]) -> str:
    """The tables of a README."""
    return "\n".join([machine(), "", *(line for section in sections for line in _lines(section)), LIMITS, ""])


def _lines(section: Section) -> list[str]:
    plan = section.plan
    lines = [
        f"{section.title}: {plan.clips} clips of {plan.shots} shots of {plan.shot_frames} frames at {plan.size.width}x"
        f"{plan.size.height}, seed {plan.seed}.",
        "",
    ]
    for score in section.scores:
        lines += [
            f"**{score.name}**: {score.area.ratio:.1f} times the true area masked,"
            f" {score.frames / score.seconds:.1f} frames/s",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|" + " --- |" * len(COLUMNS),
            *(
                "| " + " | ".join(row(group)) + " |"
                for group in [*score.headline, *score.difficulty, *score.sizes, *score.moves]
                if group.object_frames
            ),
            "",
        ]
    return lines


def plot(sections: Sequence[Section], path: Path) -> None:
    """A picture, a row for each section: coverage by size, and leaks against masked area.

    Raises ConfigError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError('the plot needs matplotlib: pip install "streamer-anonymizer[prove]"') from error
    figure = Figure(figsize=(11, 4.2 * len(sections)), layout="constrained")
    for section, (left, right) in zip(
        sections, figure.subplots(len(sections), 2, squeeze=False), strict=True
    ):
        _draw(section, left, right)
    figure.savefig(path, dpi=120)


def _draw(section: Section, left: Any, right: Any) -> None:
    left.set_title(section.title)
    for score in section.scores:
        groups = [group for group in score.sizes if group.object_frames]
        left.plot(
            [group.name for group in groups],
            [100 * group.covered for group in groups],
            "o-",
            label=score.name,
        )
        leak = [100 * (1 - group.covered) for group in score.headline if group.object_frames]
        right.scatter(score.area.ratio, max(leak, default=0.0))
        right.annotate(score.name, (score.area.ratio, max(leak, default=0.0)), fontsize=8)
    left.set_ylabel("object-frames covered, %")
    left.tick_params(axis="x", rotation=40)
    left.legend(fontsize=8)
    right.set_xlabel("masked area / true area")
    right.set_ylabel("object-frames not covered (worse class), %")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
