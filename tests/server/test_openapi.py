"""What OpenAPI promises is what the server does: requests made from the document alone, sound ones and broken ones."""

import subprocess
import sys
from pathlib import Path

from tests.server.running import running

RULES = Path(__file__).parent / "schemathesis.toml"


def test_the_document_is_kept(tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("[limits]\nurls = false")  # made-up hosts are not to be looked up
    with running(tmp_path, "--workers", "2", "--config", str(config)) as url:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(RULES),
                "run", f"{url}/openapi.json", "--max-examples", "15",
                "--seed", "1", "--no-color", "--request-timeout", "20",
            ],
            cwd=tmp_path, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 selected / 7 total" in done.stdout
