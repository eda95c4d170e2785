from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from streamer.image.redact import Redactor
from streamer.server.app import create_app
from streamer.server.keys import Keys
from streamer.server.settings import ServeSettings

LOCAL = "http://127.0.0.1:8080"

Start = Callable[..., TestClient]


@pytest.fixture
def start(tmp_path: Path, redactor: Redactor) -> Iterator[Start]:
    """Starts servers of these settings; they end with the test."""
    with ExitStack() as open_servers:

        def begin(keys: Keys = Keys(), redactors: Any = None, **settings: Any) -> TestClient:
            made = ServeSettings(**{"store": tmp_path / "store", **settings})
            app = create_app(made, keys, redactors or [redactor])
            client = TestClient(app, base_url=LOCAL, raise_server_exceptions=False)
            return open_servers.enter_context(client)

        yield begin


@pytest.fixture
def client(start: Start) -> TestClient:
    return start()
