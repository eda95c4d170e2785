"""Starts and stops the real RTSP server of the tests."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
_SCRIPT = Path(__file__).with_name("rtsp_server.py")
_PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def available() -> bool:
    """Whether the system's Python has GStreamer's RTSP server."""
    if not Path(SYSTEM_PYTHON).exists():
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", _PROBE], capture_output=True, check=False).returncode == 0


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def serving(
    clip: Path, port: int, *, recorded: Path | None = None, login: tuple[str, str] | None = None
) -> Iterator[None]:
    """A server that offers `clip` at rtsp://127.0.0.1:PORT/clip; killed, not asked, when the block is left."""
    arguments = [str(port), str(clip), str(recorded or clip.with_suffix(".recorded.ts")), *(login or ())]
    server = subprocess.Popen(
        [SYSTEM_PYTHON, str(_SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        yield
    finally:
        server.kill()
        server.wait(10)
