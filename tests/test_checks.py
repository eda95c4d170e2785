"""What holds for the code as a whole: style, types, layers, settings, what ships."""

import subprocess
import sys
from pathlib import Path

import pytest

from streamer import config, models, resources
from streamer.errors import ConfigError

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--check", "--no-cache", "."],
        ["mypy"],
        ["lint-imports", "--no-cache"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_code_passes_its_checks(command: list[str]) -> None:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_default_configuration_says_what_the_code_does() -> None:
    assert config.load(resources.path("configs/default.toml")) == config.Settings()


def test_every_setting_stands_in_the_default_configuration() -> None:
    text = resources.path("configs/default.toml").read_text(encoding="utf-8")
    for name, field in config.Settings.model_fields.items():
        part = getattr(field.annotation, "model_fields", {name: None})
        for key in part:
            assert f"{key} =" in text, f"{name}.{key} is not explained"


def test_the_shipped_weights_are_those_of_the_manifest() -> None:
    assert models.find("fast").weights.is_file()


def test_a_wrong_key_names_the_right_one() -> None:
    with pytest.raises(config.ConfigError, match=r'mask\.margn: unknown key, did you mean "margin"'):
        config.settings_from({"mask": {"margn": 0.2}})


def test_no_module_is_a_drawer_for_everything() -> None:
    for path in (ROOT / "streamer").rglob("*.py"):
        assert path.stem not in {"utils", "util", "common", "helper", "helpers", "manager", "misc"}, path


def test_settings_as_yaml_are_told_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text("streams:\n  front:\n    source: '0'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="streamer serve"):
        config.load(path)
