"""How many pictures a second our server answers with one worker and with more, and whether it grows meanwhile."""

import http.client
import itertools
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.errors import StreamerError

_BOUNDARY = "streamer-load"
_CLIENTS_MORE = 2  # than workers, so that none of them waits for a request
_WARM_UP = 20
_SAMPLES = 20  # looks at the memory in a run


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of requests cost. Memory is the server's resident set."""

    workers: int
    requests: int
    failures: int
    rate: float  # answers a second
    cpu_ms: float  # of the server, per request
    memory_mib: tuple[float, ...]  # at even steps of the run, the first after the warm-up

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        growth = statistics.mean(self.memory_mib[-4:]) - statistics.mean(self.memory_mib[:4])
        return {
            "workers": self.workers,
            "requests": self.requests,
            "failures": self.failures,
            "requests_per_s": round(self.rate, 1),
            "cpu_ms_per_request": round(self.cpu_ms, 1),
            "memory_mib": round(self.memory_mib[-1]),
            "memory_growth_mib": round(growth, 1),
        }


def measure(picture: Path, workers: int, requests: int) -> Load:
    """Ask a server of its own, on loopback, `requests` times to mask `picture`. Raises StreamerError."""
    body, headers = _request(picture.read_bytes())
    with _server(workers) as (process, port):
        _Clients(port, body, headers).send(_WARM_UP * workers, workers + _CLIENTS_MORE)
        clients = _Clients(port, body, headers, process.pid, max(1, requests // _SAMPLES))
        before, start = _cpu_s(process.pid), time.perf_counter()
        clients.send(requests, workers + _CLIENTS_MORE)
        seconds = time.perf_counter() - start
        cpu_s = _cpu_s(process.pid) - before
    memory = tuple(clients.memory)
    return Load(workers, requests, clients.failures, requests / seconds, 1000 * cpu_s / requests, memory)


@dataclass(slots=True)
class _Clients:
    port: int
    body: bytes
    headers: dict[str, str]
    pid: int | None = None  # whose memory is looked at
    every: int = 0  # requests
    failures: int = 0
    memory: list[float] = field(default_factory=list)

    def send(self, requests: int, clients: int) -> None:
        """Send so many requests from so many connections; returns when all are answered."""
        numbers = itertools.count()
        lock = threading.Lock()

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            while True:
                with lock:
                    number = next(numbers)
                    if number >= requests:
                        break
                    if self.pid is not None and number % self.every == 0:
                        self.memory.append(_memory_mib(self.pid))
                if not self._ask(connection):
                    with lock:
                        self.failures += 1
            connection.close()

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        try:
            connection.request("POST", "/v1/results", self.body, self.headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return False
        return answer.status == 200


def _request(picture: bytes) -> tuple[bytes, dict[str, str]]:
    head = (
        f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name=image; filename=picture\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + picture + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


@contextmanager
def _server(workers: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "streamer", "serve", "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr
    try:
        line = errors.readline()
        found = re.search(r"http://[^:]+:(\d+)", line)
        if found is None:
            raise StreamerError(f"the server did not start: {line.strip()}")
        drain = threading.Thread(target=lambda: [None for _ in errors], daemon=True)
        drain.start()
        yield process, int(found.group(1))
    finally:
        process.terminate()
        process.wait()


def _memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100  # clock ticks, of which Linux has 100 a second
