"""The manifest: what ships can be used, and nothing else without hash, file and an accepted licence."""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer import models, resources
from streamer.decoders import DECODERS
from streamer.device.cpu import OnnxSession
from streamer.errors import ConfigError, ModelError

WEIGHTS = b"weights of somebody"
HASH = hashlib.sha256(WEIGHTS).hexdigest()
ENTRY = f"""
[theirs]
file = "theirs.onnx"
url = "https://example.org/theirs.onnx"
sha256 = "{HASH}"
licence = "MIT"
decoder = "scrfd"
classes = ["face"]
thresholds = {{ face = 0.4 }}
input = {{ layout = "RGB", scale = 0.5, offset = -1, stride = 32, fixed_side = 320 }}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, which describes one of them."""
    monkeypatch.setenv("STREAMER_MODELS", str(tmp_path))
    (tmp_path / "manifest.toml").write_text(ENTRY, encoding="utf-8")
    return tmp_path


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A network that delivers WEIGHTS and notes what was asked of it."""
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(WEIGHTS)

    monkeypatch.setattr(models.urllib.request, "urlopen", urlopen)
    return asked


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_ours_ships_and_is_what_the_manifest_says(name: str) -> None:
    spec = models.find(name)
    assert spec.weights.name == f"streamer_{name}.onnx"
    assert not spec.rgb
    assert spec.side is None
    assert all(
        large.small < large.side and large.score > spec.thresholds[label]
        for label, large in spec.large.items()
    )


@pytest.mark.parametrize(("name", "entry"), models.manifest().items())
def test_every_entry_is_well_formed(name: str, entry: dict[str, Any]) -> None:
    assert entry["licence"]
    assert re.fullmatch("[0-9a-f]{64}", entry.get("sha256", "0" * 64))
    assert entry.get("url", "https://").startswith("https://")
    assert "sha256" in entry or "url" not in entry, "what has no known hash must not be fetched"
    if "context" in entry:
        assert set(entry["context"]) == set(entry["moved"]) == set(entry["weights"]) == set(entry["classes"])
    elif "decoder" in entry:
        assert entry["decoder"] in DECODERS
        assert set(entry["thresholds"]) == set(entry["classes"])
    else:
        assert entry["note"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"the manifest has: .*fast"):
        models.find("slow")


def test_what_cannot_be_run_says_why() -> None:
    with pytest.raises(ModelError, match="TorchScript"):
        models.find("egoblur_face")
    with pytest.raises(ModelError, match="state its sha256"):
        models.find("scrfd")


def test_missing_weights_name_the_command(own: Path, network: list[str]) -> None:
    with pytest.raises(ModelError, match="streamer models fetch theirs"):
        models.find("theirs")
    assert not network


def test_a_licence_must_be_accepted_first(own: Path, network: list[str]) -> None:
    with pytest.raises(ModelError, match="MIT"):
        models.fetch("theirs", accept_licence=False)
    (own / "theirs.onnx").write_bytes(WEIGHTS)
    with pytest.raises(ModelError, match="not accepted"):
        models.find("theirs")
    assert not network


def test_fetched_weights_are_ready(own: Path, network: list[str]) -> None:
    assert models.fetch("theirs", accept_licence=True).read_bytes() == WEIGHTS
    spec = models.find("theirs")
    assert (spec.rgb, spec.scale, spec.offset, spec.side) == (True, 0.5, -1, 320)
    models.fetch("theirs", accept_licence=True)
    assert network == ["https://example.org/theirs.onnx"]


def test_a_licence_that_changed_must_be_accepted_again(own: Path, network: list[str]) -> None:
    models.fetch("theirs", accept_licence=True)
    (own / "manifest.toml").write_text(ENTRY.replace("MIT", "GPL"), encoding="utf-8")
    with pytest.raises(ModelError, match="GPL"):
        models.find("theirs")


def test_another_content_is_not_kept(own: Path, network: list[str]) -> None:
    (own / "manifest.toml").write_text(ENTRY.replace(HASH, "0" * 64), encoding="utf-8")
    with pytest.raises(ModelError, match="not the file we know"):
        models.fetch("theirs", accept_licence=True)
    assert [path.name for path in own.iterdir()] == ["manifest.toml"]


def test_altered_weights_are_refused(own: Path, network: list[str]) -> None:
    models.fetch("theirs", accept_licence=True).write_bytes(WEIGHTS + b"!")
    with pytest.raises(ModelError, match="damaged or altered"):
        models.find("theirs")


def test_a_failed_download_is_ours(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise OSError("no route")

    monkeypatch.setattr(models.urllib.request, "urlopen", refuse)
    with pytest.raises(ModelError, match="no route"):
        models.fetch("theirs", accept_licence=True)


def test_what_ships_is_not_fetched() -> None:
    with pytest.raises(ModelError, match="ships with streamer"):
        models.fetch("fast", accept_licence=True)


def test_a_broken_own_manifest_is_named(own: Path) -> None:
    (own / "manifest.toml").write_text("[theirs\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"manifest\.toml"):
        models.find("fast")
    (own / "manifest.toml").unlink()
    (own / "accepted.json").write_text(json.dumps({}), encoding="utf-8")
    assert models.find("fast").name == "fast"


def test_a_file_that_is_no_network_is_refused(own: Path, network: list[str]) -> None:
    models.fetch("theirs", accept_licence=True)
    with pytest.raises(ModelError, match="cannot be loaded"):
        OnnxSession(models.find("theirs"))


def test_an_input_of_another_shape_is_refused() -> None:
    session = OnnxSession(models.find("fast"))
    with pytest.raises(ModelError, match="the network failed"):
        session(np.zeros((1, 1, 64, 64), np.float32))


def test_the_shipped_manifest_lists_our_own_first() -> None:
    text = resources.path("models/manifest.toml").read_text(encoding="utf-8")
    assert re.findall(r"^\[(\w+)\]", text, re.MULTILINE)[:2] == ["fast", "accurate"]
