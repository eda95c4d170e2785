"""Real-time video anonymizer: every face and licence plate unreadable."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.image.api import anonymize_image as anonymize_image

# ONNX Runtime 1.29 and later tell Microsoft about each process and network unless this is set before it is loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

_LAZY = {"anonymize_image": "streamer.image.api"}  # loaded when first used, so that the import stays light


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
