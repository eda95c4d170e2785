"""Other programs through the same harness, where they are installed."""

import shutil
import subprocess
from pathlib import Path

from streamer.errors import ConfigError, StreamerError

PEERS = {"deface": ("deface", "{source}", "-o", "{target}")}  # with their own defaults
_LONGEST_S = 1800


def check(name: str) -> None:
    """Raises ConfigError where a peer is unknown or not installed."""
    if name not in PEERS:
        raise ConfigError(f'no peer is called "{name}"; known: {", ".join(sorted(PEERS))}')
    if shutil.which(PEERS[name][0]) is None:
        raise ConfigError(f"{name} is not installed; pip install {name}")


def run(name: str, source: Path, target: Path) -> None:
    """Let a peer work on one file. Raises StreamerError if it fails."""
    command = [part.format(source=source, target=target) for part in PEERS[name]]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_LONGEST_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise StreamerError(f"{name} failed on a clip: {error}") from error
    if not target.is_file():
        raise StreamerError(f"{name} wrote no file")
