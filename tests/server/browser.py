"""A headless Chromium, driven over WebDriver (W3C) by the few commands that the page's tests need."""

import base64
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element reference, as the standard has it
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage", "--window-size=1100,1400",
]  # fmt: skip


class Browser:
    """One session."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._session = session

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = self._client.request(
            method, f"/session/{self._session}/{path}".rstrip("/"), json=body if method == "POST" else None
        )
        value = response.json()["value"]
        assert response.status_code == 200, value
        return value

    def open(self, url: str) -> None:
        self.call("POST", "url", {"url": url})
        self.wait(
            "return document.readyState === 'complete'"
        )  # the driver may answer before the scripts have run

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def type(self, selector: str, text: str) -> None:
        found = self.call("POST", "element", {"using": "css selector", "value": selector})
        self.call("POST", f"element/{found[_ELEMENT]}/value", {"text": text})

    def wait(self, script: str, limit_s: float = 30) -> Any:
        """What the script returns, once that is true."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}\n{self.run('return document.body.innerText')}")

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("GET", "screenshot"))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser whose profile lies in `folder`; skips where there is none, unless a real one is demanded."""
    driver = shutil.which("chromedriver")
    if driver is None:
        if os.environ.get("STREAMER_REQUIRE_REAL") == "1":
            pytest.fail("chromedriver is missing: apt-get install chromium chromium-driver")
        pytest.skip("needs chromedriver (apt-get install chromium chromium-driver)")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
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
                browser = Browser(client, answer["sessionId"])
                try:
                    yield browser
                finally:
                    browser.call("DELETE", "")
        finally:
            process.terminate()
            process.wait(timeout=20)
            assert process.stdout is not None
            process.stdout.close()
