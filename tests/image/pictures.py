"""Pictures that the tests make, and a web server that has one."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FACE = (180, 70, 270, 190)  # x0 y0 x1 y1 of the face in the fixture `person`, in pixels


def encoded(samples: NDArray[Any] | Image.Image, format: str, **options: Any) -> bytes:
    image = samples if isinstance(samples, Image.Image) else Image.fromarray(samples)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def samples_of(data: bytes, mode: str = "RGB") -> NDArray[np.uint8]:
    return np.asarray(opened(data).convert(mode))


def detail(samples: NDArray[Any]) -> float:
    """How much neighbouring pixels differ: fine detail makes it large."""
    return float(np.abs(np.diff(samples.astype(np.float32), axis=1)).mean())


@contextmanager
def served(data: bytes) -> Iterator[str]:
    """The address of a server on this machine that answers every GET with `data`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        worker = threading.Thread(target=server.serve_forever, daemon=True)
        worker.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            worker.join()
