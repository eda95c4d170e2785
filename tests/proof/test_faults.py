"""Every fault as `streamer prove --faults` tries it, with shorter waits; and what the command makes of the outcomes."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from streamer.cli import app, faults
from streamer.errors import ConfigError
from streamer.proof.faults import CONTROL, FILES, LIVE, run_apart
from streamer.proof.outcome import Outcome, Pictures, outcome_from, without_pictures
from streamer.proof.whole_faults import Program


@pytest.mark.parametrize("name", [*LIVE, *FILES])
def test_nothing_leaks_and_all_comes_back(name: str) -> None:
    outcome = run_apart(name, hurried=True)
    assert outcome.verdict == "held", outcome
    assert outcome.pictures.uncovered == 0
    assert outcome.pictures.out >= 40


def test_the_judge_objects_to_a_face_that_nobody_masks() -> None:
    outcome = run_apart(CONTROL, hurried=True)
    assert outcome.verdict == "LEAKED"
    assert outcome.pictures.uncovered >= 20


def test_a_crash_is_an_outcome() -> None:
    outcome = run_apart("no such fault")
    assert outcome.verdict == "crashed"
    assert "no such fault" in outcome.happened


def test_a_program_that_does_not_end_tells_where_it_is(tmp_path) -> None:
    hangs = "import time\ndef waits_for_ever():\n    print('here', flush=True)\n    time.sleep(60)\nwaits_for_ever()"
    log = tmp_path / "log.txt"
    with log.open("w") as said:
        command = [sys.executable, "-X", "faulthandler", "-c", hangs]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "here\n"
    assert "waits_for_ever" in Program(process, tmp_path, log).whereabouts()
    assert process.returncode is not None


HELD = Outcome("no fault", "nothing", Pictures(50, 1, 0), 0.04, "held")
LEAK = Outcome("no fault", "nothing", Pictures(50, 1, 2), 0.04, "LEAKED")
SEEN = Outcome(CONTROL, "blind", Pictures(25, 0, 25), None, "LEAKED")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (HELD, 0),
        (LEAK, 3),
        (without_pictures("no fault", "late", "not back"), 1),
        (without_pictures("no fault", "died", "crashed"), 1),
        (without_pictures("no fault", "needs a part", "not run"), 0),
    ],
)
def test_the_exit_code_tells_a_leak(outcome: Outcome, code: int, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(faults, "run_apart", lambda name: SEEN if name == CONTROL else outcome)
    target = tmp_path / "faults.json"
    done = CliRunner().invoke(app, ["prove", "--faults", "--only", "no fault", "--json", str(target)])
    assert done.exit_code == code
    assert outcome.verdict in done.output
    figures = json.loads(target.read_text())
    assert figures["uncovered"] == outcome.pictures.uncovered
    assert outcome_from(figures["faults"][0]) == outcome


def test_without_a_judge_that_sees_nothing_is_proved(monkeypatch) -> None:
    monkeypatch.setattr(faults, "run_apart", lambda name: without_pictures(name, "saw nothing", "not back"))
    done = CliRunner().invoke(app, ["prove", "--faults", "--only", "no fault"])
    assert done.exit_code == 1
    assert "held" not in done.output


@pytest.mark.parametrize("words", [["--faults", "--only", "earthquake"], [], ["--only", "no fault"]])
def test_wrong_usage_is_said_before_any_work(words) -> None:
    with pytest.raises(ConfigError):
        CliRunner().invoke(app, ["prove", *words], catch_exceptions=False)
