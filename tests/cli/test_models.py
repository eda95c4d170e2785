"""`streamer models` says what can be used, and fetches nothing without a licence."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamer.cli import app
from streamer.errors import ModelError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_MODELS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


def test_the_list_names_every_model_and_its_state() -> None:
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert "ready" in lines["fast"]
    assert "face, plate" in lines["fast"]
    assert "Apache-2.0" in lines["yunet"]
    assert "ready" not in lines["yunet"]


def test_nothing_is_fetched_before_the_licence_is_accepted(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["models", "fetch", "yunet"])
    assert isinstance(result.exception, ModelError)
    assert "--accept-licence" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_file_put_in_place_by_hand_is_accepted_by_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "hyperlpr3_y5fu_320x_sim.onnx").write_bytes(b"altered")
    result = CliRunner().invoke(app, ["models", "fetch", "hyperlpr", "--accept-licence"])
    assert result.exit_code == 0
    assert "hyperlpr3_y5fu_320x_sim.onnx" in result.output
    listed = CliRunner().invoke(app, ["models"]).output
    assert "damaged or altered" in listed
