"""Marks that depend on what a machine has: skipped with a reason, or failed where the part is required."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

if TYPE_CHECKING:
    from streamer.image.redact import Redactor

settings.register_profile("ci", derandomize=True)  # the same examples in every run of CI, others elsewhere
if os.environ.get("CI"):
    settings.load_profile("ci")

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # under `nohup`: programs that a test starts would ignore it too, but a handler they do not inherit
    signal.signal(signal.SIGHUP, lambda *_: None)

FIELD = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `field` tests only where the real footage is absent."""
    if FIELD.is_dir():
        return
    for item in items:
        if item.get_closest_marker("field"):
            item.add_marker(pytest.mark.skip(reason="needs the footage of ../shared/data"))


def need(part: str, present: bool) -> None:
    """Skip a test whose real part is missing; fail it where STREAMER_REQUIRE_REAL=1 says that it must be there."""
    if present:
        return
    if os.environ.get("STREAMER_REQUIRE_REAL") == "1":
        pytest.fail(f"{part} is required (STREAMER_REQUIRE_REAL=1) and missing")
    pytest.skip(f"needs {part}")


@pytest.fixture
def field() -> Path:
    """The folder with real footage and pictures."""
    return FIELD


@pytest.fixture(scope="session")
def person() -> NDArray[np.uint8]:
    """A photograph with one face (public domain), 512 x 512; see `tests.image.pictures.FACE`."""
    from skimage.data import astronaut

    return np.asarray(astronaut())


@pytest.fixture(scope="session")
def jpeg(person: NDArray[np.uint8]) -> bytes:
    """The same as a file."""
    from tests.image.pictures import encoded

    return encoded(person, "JPEG", quality=90)


@pytest.fixture(scope="session")
def redactor() -> "Redactor":
    """The way of still pictures, with the network that ships."""
    from streamer.config import Settings
    from streamer.image.redact import open_redactor

    return open_redactor(Settings())
