"""From flags of the command line to settings."""

from pathlib import Path
from typing import Any

from streamer import config
from streamer.config import Settings
from streamer.zones import load_zones


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Only what was said on the command line: no None, and no group without a flag.

    >>> given({"hide": None, "mask": {"style": "solid", "margin": None}, "track": {"hold_s": None}})
    {'mask': {'style': 'solid'}}
    """
    nested = {key: given(value) if isinstance(value, dict) else value for key, value in flags.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}


def settings_of(file: Path | None, flags: dict[str, Any]) -> Settings:
    """The settings of a file, or the defaults, with the command line's flags on top. Raises ConfigError, also
    for zones that cannot be read: each input would fail by them."""
    if file is not None:
        settings = config.load(file, given(flags))
    else:
        settings = config.settings_from(given(flags), origin="the command line")
    if settings.zones is not None:
        load_zones(settings.zones)
    return settings
