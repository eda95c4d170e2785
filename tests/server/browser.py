"""A headless Chromium or Firefox, driven by the few WebDriver commands (W3C) that the page's tests need.

Chromium is asked through its driver, over HTTP. Firefox takes the same commands itself, as lines over a socket
(Marionette, which its driver speaks too): Debian has no driver for it.
"""

import base64
import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import httpx

from tests.browser import FIREFOX_SETTINGS, firefox
from tests.conftest import need

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element reference, as the standard has it
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage", "--window-size=1100,1400",
]  # fmt: skip
_START_S = 60.0

Send = Callable[[str, dict[str, Any]], Any]  # a command's name and parameters to what it answers


class Browser:
    """One session."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def open(self, url: str) -> None:
        self._send("Navigate", {"url": url})
        self.wait(
            "return document.readyState === 'complete'"
        )  # the driver may answer before the scripts have run

    def run(self, script: str, *arguments: Any) -> Any:
        return self._send("ExecuteScript", {"script": script, "args": list(arguments)})

    def type(self, selector: str, text: str) -> None:
        found = self._send("FindElement", {"using": "css selector", "value": selector})
        self._send("ElementSendKeys", {"id": found[_ELEMENT], "text": text})

    def wait(self, script: str, limit_s: float = 30) -> Any:
        """What the script returns, once that is true."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}\n{self.run('return document.body.innerText')}")

    def screenshot(self) -> bytes:
        return base64.b64decode(self._send("TakeScreenshot", {}))


@contextmanager
def browsing(name: str, folder: Path) -> Iterator[Browser]:
    """A browser whose profile lies in `folder`; skips where there is none, unless a real one is demanded."""
    with {"chromium": _chromium, "firefox": _firefox}[name](folder) as send:
        yield Browser(send)


@contextmanager
def _started(command: list[str], output: int | IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=output, stderr=log, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=20)
            if process.stdout is not None:
                process.stdout.close()


_PATHS = {  # of Chromium's driver, in a session
    "Navigate": ("POST", "url"),
    "ExecuteScript": ("POST", "execute/sync"),
    "FindElement": ("POST", "element"),
    "ElementSendKeys": ("POST", "element/{id}/value"),
    "TakeScreenshot": ("GET", "screenshot"),
}


@contextmanager
def _chromium(folder: Path) -> Iterator[Send]:
    driver = shutil.which("chromedriver")
    need("chromedriver (apt-get install chromium chromium-driver)", driver is not None)
    with _started([str(driver), "--port=0"], subprocess.PIPE) as process:
        assert process.stdout is not None
        port = (
            next(line for line in process.stdout if "successfully on port" in line)
            .rstrip(". \n")
            .rsplit(" ", 1)[-1]
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            options = {"args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
            wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
            answer = client.post("/session", json={"capabilities": wanted}).json()["value"]
            assert "sessionId" in answer, answer
            session = f"/session/{answer['sessionId']}"

            def send(command: str, parameters: dict[str, Any]) -> Any:
                method, path = _PATHS[command]
                body = parameters if method == "POST" else None
                response = client.request(method, f"{session}/{path.format(**parameters)}", json=body)
                value = response.json()["value"]
                assert response.status_code == 200, value
                return value

            try:
                yield send
            finally:
                client.delete(session)


@contextmanager
def _firefox(folder: Path) -> Iterator[Send]:
    program = firefox()
    need("Firefox (apt-get install firefox-esr)", program is not None)
    profile = folder / "profile"
    profile.mkdir()
    (profile / "user.js").write_text(FIREFOX_SETTINGS + 'user_pref("marionette.port", 0);\n')
    command = [str(program), "--headless", "--no-remote", "--marionette", "--profile", str(profile)]
    with _started([*command, "--width", "1100", "--height", "1400"], subprocess.DEVNULL):
        port = _written(profile / "MarionetteActivePort")
        with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as connection:
            stream = cast(BinaryIO, connection.makefile("rwb"))
            _take(stream)  # who it is
            numbers = itertools.count()

            def send(command: str, parameters: dict[str, Any]) -> Any:
                message = json.dumps([0, next(numbers), f"WebDriver:{command}", parameters]).encode()
                stream.write(b"%d:%s" % (len(message), message))
                stream.flush()
                _, _, error, result = _take(stream)
                assert error is None, error
                return result["value"] if set(result or ()) == {"value"} else result

            send("NewSession", {})
            try:
                yield send
            finally:
                send("DeleteSession", {})


def _written(file: Path) -> str:
    """What a browser writes into a file when it is ready."""
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s:
        if file.exists() and (text := file.read_text()):
            return text
        time.sleep(0.05)
    raise AssertionError(f"no {file.name} in {_START_S} s")


def _take(stream: BinaryIO) -> Any:
    """The next message: its length, a colon, JSON."""
    digits = b"".join(iter(lambda: stream.read(1), b":"))
    return json.loads(stream.read(int(digits)))
