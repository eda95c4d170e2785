"""The manifest of detectors: which weights there are, whose they are, and how their outputs are read.

Ours ships with the package. A third party's runs once its licence was accepted and its file lies in `folder()`
with the hash that the manifest states. Nothing is ever fetched, and no other model taken, without being told to.
"""

import hashlib
import json
import os
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer import resources
from streamer.detection import Label
from streamer.errors import ConfigError, ModelError

_LABELS = {"face": Label.FACE, "plate": Label.PLATE}
_LARGEST = 1 << 29  # bytes that a download may have
_FETCH_TIMEOUT_S = 60.0
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Large:
    """What a class's large boxes need: see Note [Large boxes] in detector.py."""

    small: float  # root of the area, in input pixels, up to which the class's threshold holds
    side: float  # from which `score` is needed; in between something in between
    score: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One detector of the manifest, with its weights found and checked."""

    name: str
    weights: Path
    sha256: str
    decoder: str  # a key of decoders.DECODERS
    labels: tuple[Label, ...]  # what its class channels mean
    thresholds: dict[Label, float]  # default score per class, in (0, 1)
    rgb: bool = False  # channel order of the input; False is BGR
    scale: float = 1.0  # factor on 0..255 samples
    offset: float = 0.0  # added after scaling
    stride: int = 32  # input sides are multiples of this
    largest: int | None = (
        None  # longest side in input pixels of the objects it was trained on; None: no limit known
    )
    side: int | None = None  # the only input side it takes; None: any multiple of `stride`
    large: dict[Label, Large] = field(default_factory=dict)  # classes whose large boxes must be surer
    votes: int = (
        0  # cells that mark an object, if its score is to count what they agree on; 0: they do not vote
    )
    second: "Second | None" = None  # what looks again at its boxes

    def needed(self, labels: NDArray[np.uint8], sides: NDArray[np.float32]) -> NDArray[np.float32]:
        """The score (n,) from which boxes count, of `labels` (n,) and `sides` (n,): root of the area, input pixels."""
        least = np.array([self.thresholds.get(label, np.inf) for label in Label], np.float32)[labels]
        for label, large in self.large.items():
            ours = labels == label
            if not ours.any():
                continue
            grown = np.log(np.maximum(sides, 1e-3) / large.small) / np.log(large.side / large.small)
            more = least + (large.score - least) * np.clip(grown, 0, 1)
            least = np.where(ours, more, least).astype(np.float32)
        return least


@dataclass(frozen=True, slots=True)
class Second:
    """A network of the second stage: see Note [Second stage] in second.py."""

    spec: ModelSpec  # its weights and its input; `labels` are those of its outputs, in the order of Label
    least: float  # the detector's score from which it looks
    context: dict[Label, float]  # side of a crop by the longest side of the box
    moved: dict[Label, tuple[float, float, float]]
    """Up to the first side (root of the area, view pixels) a box goes to where the second stage sees it, from the
    second on only by the share that is the third."""
    weights: dict[Label, tuple[float, float, float, float]]
    """In the log-odds of the score: of its own, of those of the first score, of the size, and what is added."""


def folder() -> Path:
    """Where the user's own models lie: STREAMER_MODELS, or `streamer/models` in the user's data folder.

    Raises ModelError for a user without a home.
    """
    if named := os.environ.get("STREAMER_MODELS"):
        return Path(named)
    try:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise ModelError("this user has no home; name a folder for models in STREAMER_MODELS") from error
    return Path(data) / "streamer" / "models"


def manifest() -> dict[str, Any]:
    """The manifest's entries by name; those of the user's own manifest come on top. Raises ModelError.

    A home that is not there or may not be entered, as a service's, has no manifest.
    """
    entries = tomllib.loads(resources.path("models/manifest.toml").read_text(encoding="utf-8"))
    try:
        own = folder() / "manifest.toml"
    except ModelError:
        return entries
    if _is_there(own):
        try:
            entries |= tomllib.loads(own.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"your manifest of models cannot be read ({error}): {own}") from error
    return entries


def find(name: str) -> ModelSpec:
    """The detector called `name`, its weights present and unaltered.

    Raises ConfigError if the manifest has no such name, ModelError if it has no way to run it, its licence was not
    accepted, the file is missing, or its SHA-256 is another.
    """
    entry = _entry(name)
    if "context" in entry:
        raise ConfigError(f'"{name}" is the second stage of other detectors: it finds nothing by itself')
    if "decoder" not in entry:
        raise ModelError(
            f'"{name}" cannot be run: {entry.get("note", "its manifest entry names no decoder")}'
        )
    second = _second(str(entry["second"])) if "second" in entry else None
    return replace(_checked(name, entry, _spec), second=second)


def _checked(name: str, entry: dict[str, Any], made: Callable[[str, dict[str, Any], Path], _Made]) -> _Made:
    """What `made` makes of an entry whose weights are there and unaltered."""
    weights = _weights(name, entry)
    try:
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f'the weights of "{name}" cannot be read ({error.strerror}): {weights}') from error
    if found != entry["sha256"]:
        raise ModelError(f'the weights of "{name}" are damaged or altered; install them again: {weights}')
    try:
        return made(name, entry, weights)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f'the manifest entry of "{name}" lacks or misstates {error}') from error


def fetch(name: str, *, accept_licence: bool) -> Path:
    """Download the weights of `name` into `folder()`, checked by hash; accepts its licence on the user's word.

    Raises ConfigError for a name that is none, and ModelError: licence not accepted, no URL or hash known, network,
    another content than expected, or a folder that cannot be written.
    """
    entry = _entry(name)
    if _bundled(entry):
        raise ModelError(f'"{name}" ships with streamer; there is nothing to fetch')
    if not accept_licence:
        raise ModelError(f'"{name}" is under {entry["licence"]}; accept it with --accept-licence')
    target = folder() / str(entry["file"])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not _is_there(target):
            _put(target, name, entry)
        _accept(name, entry["licence"])
    except OSError as error:
        raise ModelError(f"models cannot be kept there ({error.strerror}): {target.parent}") from error
    return target


def _put(target: Path, name: str, entry: dict[str, Any]) -> None:
    """Download the weights to `target`, under that name once they are whole and checked."""
    if "url" not in entry or "sha256" not in entry:
        raise ModelError(f'"{name}" cannot be fetched: {_by_hand(entry)}')
    data = _download(entry["url"])
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ModelError(f'what came for "{name}" is not the file we know; nothing was kept: {entry["url"]}')
    part = target.with_name(target.name + ".part")
    part.write_bytes(data)
    part.replace(target)


def _is_there(path: Path) -> bool:
    """Whether there is such a file that can be reached; `Path.is_file` raises for folders that may not be entered."""
    return os.path.isfile(path)  # noqa: PTH113 - as said


def _entry(name: str) -> dict[str, Any]:
    entries = manifest()
    if name not in entries:
        raise ConfigError(f'no detector is called "{name}"; the manifest has: {", ".join(sorted(entries))}')
    entry: dict[str, Any] = entries[name]
    return entry


def _bundled(entry: dict[str, Any]) -> bool:
    try:
        return resources.path(f"models/{entry['file']}").is_file()
    except FileNotFoundError:
        return False


def _weights(name: str, entry: dict[str, Any]) -> Path:
    if _bundled(entry):
        return resources.path(f"models/{entry['file']}")
    path = folder() / str(entry["file"])
    if "sha256" not in entry:
        raise ModelError(f'"{name}" cannot be run: {_by_hand(entry)}')
    if not _is_there(path):
        way = f"run `streamer models fetch {name}`" if "url" in entry else _by_hand(entry)
        raise ModelError(f'the weights of "{name}" are not here; {way}: {path}')
    if _accepted().get(name) != entry["licence"]:
        raise ModelError(
            f'the licence of "{name}" ({entry["licence"]}) was not accepted;'
            f" do so with `streamer models fetch {name} --accept-licence`"
        )
    return path


def _by_hand(entry: dict[str, Any]) -> str:
    note = entry.get("note", "no address is known")
    if "sha256" in entry:
        return f"{note}; the folder is {folder()}"
    return f"{note}; put it in place and state its sha256 in {folder() / 'manifest.toml'}"


def _spec(name: str, entry: dict[str, Any], weights: Path) -> ModelSpec:
    reading = entry["input"]
    return ModelSpec(
        name=name,
        weights=weights,
        sha256=entry["sha256"],
        decoder=entry["decoder"],
        labels=tuple(_LABELS[kind] for kind in entry["classes"]),
        thresholds={_LABELS[kind]: float(score) for kind, score in entry["thresholds"].items()},
        rgb=reading["layout"] == "RGB",
        scale=float(reading.get("scale", 1.0)),
        offset=float(reading.get("offset", 0.0)),
        stride=int(reading["stride"]),
        largest=reading.get("largest"),
        side=reading.get("fixed_side"),
        votes=int(entry.get("votes", 0)),
        large={
            _LABELS[kind]: Large(float(small), float(side), float(score))
            for kind, (small, side, score) in entry.get("large", {}).items()
        },
    )


def _second(name: str) -> Second:
    return _checked(name, _entry(name), _second_of)


def _second_of(name: str, entry: dict[str, Any], weights: Path) -> Second:
    labels = tuple(_LABELS[kind] for kind in entry["classes"])
    if labels != tuple(Label):
        raise ValueError("classes: a second stage knows all of them, in this order: face, plate")
    spec = ModelSpec(
        name, weights, entry["sha256"], "second", labels, {}, stride=1, side=int(entry["input"]["fixed_side"])
    )
    return Second(
        spec,
        least=float(entry["least"]),
        context={_LABELS[kind]: float(entry["context"][kind]) for kind in entry["classes"]},
        moved={_LABELS[kind]: _floats(entry["moved"][kind], 3) for kind in entry["classes"]},
        weights={_LABELS[kind]: _floats(entry["weights"][kind], 4) for kind in entry["classes"]},
    )


def _floats(values: list[Any], count: int) -> Any:
    if len(values) != count:
        raise ValueError(f"{values}: {count} numbers are wanted")
    return tuple(float(value) for value in values)


def _download(url: str) -> bytes:
    if not url.startswith("https://"):
        raise ModelError(f"models are fetched over https only, not from {url}")
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT_S) as answer:
            data: bytes = answer.read(_LARGEST + 1)
    except (OSError, urllib.error.URLError) as error:
        raise ModelError(
            f"the download failed ({error}); try again, or put the file in place: {url}"
        ) from error
    if len(data) > _LARGEST:
        raise ModelError(f"the download is larger than {_LARGEST >> 20} MB; nothing was kept: {url}")
    return data


def _accepted() -> dict[str, str]:
    path = folder() / "accepted.json"
    try:
        accepted: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if _is_there(path) else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"the list of accepted licences cannot be read ({error}): {path}") from error
    return accepted


def _accept(name: str, licence: str) -> None:
    accepted = _accepted() | {name: licence}
    (folder() / "accepted.json").write_text(json.dumps(accepted, indent=2) + "\n", encoding="utf-8")
