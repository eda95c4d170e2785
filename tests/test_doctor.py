"""The doctor says what a run would use, and never fails for what is missing."""

import json

from typer.testing import CliRunner

from streamer import doctor
from streamer.cli import app
from streamer.device import cuda_probe
from streamer.media import hardware


def test_without_a_gpu_the_doctor_says_why_the_cpu_is_used(monkeypatch) -> None:
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(problem="no driver at all"))
    report = doctor.examine()
    assert report.device == "cpu"
    assert "no driver at all" in report.reason
    facts = {fact.name: fact for fact in report.facts}
    assert facts["cuda driver"].good is False
    assert facts["av"].text[0].isdigit()
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert "device: cpu (the CPU is used: no driver at all)" in shown.output
    assert json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)["device"] == "cpu"


def test_with_a_driver_everything_is_tried(monkeypatch) -> None:
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(hardware, "try_decoding", lambda codec: hardware.Answer(codec == "h264", "tried"))
    monkeypatch.setattr(
        hardware,
        "try_encoding",
        lambda codec, memory: hardware.Answer(memory is not _Opened.device.video, "no NVENC"),
    )
    monkeypatch.setattr(doctor, "open_device", lambda choice, spec: asked.append(spec.name) or _Opened)
    asked: list[str] = []
    facts = {fact.name: fact for fact in doctor.examine().facts}
    assert asked == ["fast"]  # a run would find out as much
    assert facts["cuda driver"].text == "CUDA 13.0, 1 GPU"
    assert facts["decode h264 on the GPU"].good
    assert not facts["encode av1 on the GPU"].good


class _Opened:
    """A device that was opened."""

    reason = "it is there"

    class device:
        name = "cuda:0"
        video = "the GPU's memory"  # from which runs encode, so that is what is tried
