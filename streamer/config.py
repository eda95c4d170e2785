"""Settings: one frozen model that TOML, command line and HTTP all build, so that a wrong key is caught once.

Every key has a default here; `configs/default.toml` shows the same values with a comment each (a test compares).
"""

import difflib
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer.detection import Label
from streamer.errors import ConfigError


class Hide(StrEnum):
    """What is hidden, in the image API's words."""

    EVERYTHING = "everything"
    FACES = "faces"
    PLATES = "plates"

    @property
    def labels(self) -> tuple[Label, ...]:
        """The detector's labels that this hides."""
        return {
            Hide.EVERYTHING: (Label.FACE, Label.PLATE),
            Hide.FACES: (Label.FACE,),
            Hide.PLATES: (Label.PLATE,),
        }[self]


class Style(StrEnum):
    """How a region is made unreadable. All three keep at most `cells` values across its short side."""

    BLUR = "blur"
    MOSAIC = "mosaic"
    SOLID = "solid"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class MaskPolicy(_Part):
    """What a mask looks like. Strength is relative to the masked box, never a pixel count."""

    style: Style = Style.BLUR
    margin: Annotated[float, Field(ge=0, le=2)] = 0.2  # share of each side added around a detected box
    cells: Annotated[int, Field(ge=1, le=6)] = 1  # effective cells across the short side of a face's mask
    soft_edge: Annotated[float, Field(ge=0, le=1)] = (
        0.12  # width of the soft edge outside, share of short side
    )


MOST_BETWEEN = 60  # frames between runs of the detector
Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "fp16"]


class DetectPolicy(_Part):
    """Which network looks, how closely and how often."""

    model: str = "fast"  # a name of models/manifest.toml
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: the model's own, per class
    every: Annotated[int, Field(ge=1, le=MOST_BETWEEN)] | Literal["auto"] = "auto"  # frames between runs
    side: Annotated[int, Field(ge=128, le=4096)] = 960  # long side of the detector's view in pixels
    tiles: bool = False  # also look at overlapping tiles of the full picture (4K, small faces)
    turned: bool = False  # also look at the picture turned by quarters (people who lie, cameras on ceilings)
    runtime: Runtime = "onnxruntime"  # of networks on the CPU; openvino needs the extra of that name
    precision: Precision = "fp32"  # of networks on the GPU; the CPU always computes in fp32


class TrackPolicy(_Part):
    """How long a box lives without being seen again."""

    hold_s: Annotated[float, Field(ge=0, le=10)] = 0.8  # a lost box is masked this long
    look_ahead_s: Annotated[float, Field(ge=0, le=5)] = 1.0  # a box found late is masked this much earlier


class OutputPolicy(_Part):
    """What a file result looks like."""

    codec: Literal["h264", "hevc", "av1", "vp9"] | None = None  # None: what suits the container, H.264 first
    crf: Annotated[int, Field(ge=0, le=63)] | None = None  # None: the encoder's usual value
    preset: str | None = None  # None: veryfast, or what is closest to it
    audio: Literal["keep", "drop"] = "keep"
    keep_metadata: bool = False
    reencode: Literal["needed", "all"] = "needed"  # needed: groups of pictures without masks are copied


class Settings(_Part):
    """Everything that a run can be told."""

    hide: Hide = Hide.EVERYTHING
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mask: MaskPolicy = MaskPolicy()
    detect: DetectPolicy = DetectPolicy()
    track: TrackPolicy = TrackPolicy()
    output: OutputPolicy = OutputPolicy()
    zones: Path | None = None  # JSON file with polygons that are always or never masked


def several(value: Any) -> Any:
    """What a list is made of where one thing, or nothing, was written instead of a list."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str | Path) else value


def settings_from(values: dict[str, Any], *, origin: str = "the settings") -> Settings:
    """Checked settings from nested plain values; a ConfigError names the key and the nearest right one."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{_explain(error)} (in {origin})") from error


def load(path: Path, overrides: dict[str, Any] | None = None) -> Settings:
    """Settings from a TOML file, with nested `overrides` laid on top. Raises ConfigError."""
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration ({error.strerror}): {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "streams as YAML are for streamer serve" if path.suffix.lower() in (".yaml", ".yml") else error
        raise ConfigError(f"not a TOML file ({what}): {path}") from error
    return settings_from(overlay(values, overrides or {}), origin=str(path))


def overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested `base` in which `top`'s values win.

    >>> overlay({"mask": {"cells": 4, "margin": 0.1}}, {"mask": {"cells": 3}})
    {'mask': {'cells': 3, 'margin': 0.1}}
    """
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = overlay(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = [str(step) for step in problem["loc"]]
    if problem["type"] != "extra_forbidden":
        return f"{'.'.join(place)}: {problem['msg']}, got {problem['input']!r}"
    part: Any = Settings
    for step in place[:-1]:
        part = part.model_fields[step].annotation
    near = difflib.get_close_matches(place[-1], part.model_fields, n=1)
    hint = f', did you mean "{near[0]}"?' if near else f"; known: {', '.join(part.model_fields)}"
    return f"{'.'.join(place)}: unknown key{hint}"
