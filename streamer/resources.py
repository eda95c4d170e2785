"""Finds the files that ship beside the code: kernels/, models/, configs/."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def path(name: str) -> Path:
    """The file `name` (such as `"models/manifest.toml"`) in an installed wheel or in a checkout.

    Raises FileNotFoundError if neither holds it: the installation is broken.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        found = root / name
        if found.exists():
            return found
    raise FileNotFoundError(f"streamer's own file {name} is missing: install the package again")
