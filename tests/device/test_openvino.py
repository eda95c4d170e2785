"""The other CPU runtime gives the same answers, and says what is missing where it cannot run."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer import models
from streamer.config import DetectPolicy
from streamer.device import open_device
from streamer.device.cpu import CpuDevice, OnnxSession
from streamer.device.openvino import OpenvinoSession
from streamer.errors import DeviceError, ModelError


def test_both_runtimes_agree() -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra `openvino`)")
    spec = models.find("fast")
    batch = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 160)).astype(np.float32)
    session = open_device("cpu", policy=DetectPolicy(runtime="openvino")).device.load(spec, 640)
    assert isinstance(session, OpenvinoSession)
    for ours, theirs in zip(session(batch), OnnxSession(spec)(batch), strict=True):
        assert ours.shape == theirs.shape
        assert np.allclose(ours, theirs, atol=2e-3)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra `openvino`)")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be loaded"):
        OpenvinoSession(replace(models.find("fast"), weights=broken))


def test_a_missing_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceError, match=r"streamer-anonymizer\[openvino\]"):
        CpuDevice(1, "openvino").load(models.find("fast"), 640)
