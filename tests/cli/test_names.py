"""What is typed where a file is meant: addresses with passwords, `-`, things that are no files, odd names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.cli import main
from tests import clips
from tests.clips import Clip

Cli = Callable[..., tuple[int, str, str]]  # arguments -> exit code, stdout, stderr
URL = "rtsp://user:hunter22@192.0.2.1/x"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command line in a folder of its own, in which `in.mp4` lies."""
    clips.make(tmp_path / "in.mp4", Clip(frames=3))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["streamer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, errors = capfd.readouterr()
        return int(ended.value.code or 0), out, errors

    return run


def one_line(text: str) -> bool:
    return len(text.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "anonymize URL",
        "anonymize URL in.mp4",
        "anonymize URL/*",
        "anonymize in.mp4 -o URL",
        "anonymize in.mp4 --config URL",
        "anonymize in.mp4 --objects URL",
        "anonymize in.mp4 --report=URL",
        "anonymize in.mp4 --zones URL",
        "bench URL",
        "bench in.mp4 --config URL",
        "image in.png -o URL",
        "prove URL",
        "prove . --json URL",
        "eval URL",
        "demo -o URL",
        "live URL --record URL",
        "serve --keys URL",
        "serve --config URL",
    ],
)
@pytest.mark.parametrize("url", [URL, "http://me:hunter22@/x.mp4", "foo://:hunter22 'x\\@host"])
def test_an_address_where_a_file_is_meant_is_refused_without_its_password(
    cli: Cli, tmp_path: Path, arguments: str, url: str
) -> None:
    code, out, errors = cli(*(word.replace("URL", url) for word in arguments.split()))
    assert code == 2
    assert one_line(errors), errors
    assert "streamer live" in errors
    assert "***@" in errors
    assert "hunter22" not in out + errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["image", URL], 1),
        (["image", "--json", URL], 1),
        (["image", "user:hunter22@192.0.2.1/x"], 1),
        (["anonymize", "user:hunter22@192.0.2.1/x"], 2),
        (["anonymize", "rtsp:/user:hunter22@192.0.2.1/x"], 2),
        (["bench", "user:hunter22@192.0.2.1/x"], 2),
        (["eval", "user:hunter22@192.0.2.1/x"], 2),
        (["live", "user:hunter22@192.0.2.1/x", "--record", "out"], 2),
        (["live", "rtsp:/user:hunter22@192.0.2.1/x", "--record", "out"], 2),
        ([URL], 2),
        (["bench", "in.mp4", URL], 2),
        (["anonymize", "in.mp4", "--hide", URL], 2),
        (["anonymize", "in.mp4", f"--model={URL}"], 1),
        (["anonymize", "in.mp4", "--config", "zones.toml"], 2),
        (["anonymize", "in.mp4", "in.mp4", "--config", "zones.toml"], 1),
    ],
)
def test_whatever_holds_a_password_is_not_told_on(
    cli: Cli, tmp_path: Path, arguments: list[str], code: int
) -> None:
    (tmp_path / "zones.toml").write_text(f'zones = "{URL}"\n')
    found, out, errors = cli(*arguments)
    assert found == code
    assert errors.startswith("error: ")
    assert "hunter22" not in out + errors


@pytest.mark.parametrize(
    "arguments",
    [
        "anonymize -",
        "anonymize in.mp4 -",
        "anonymize in.mp4 -o -",
        "anonymize in.mp4 --objects -",
        "anonymize in.mp4 --report -",
        "bench -",
        "image in.png -o -",
        "demo -o -",
    ],
)
def test_standard_input_and_output_are_refused_where_they_cannot_be_used(
    cli: Cli, tmp_path: Path, arguments: str
) -> None:
    code, out, errors = cli(*arguments.split())
    assert (code, out) == (2, "")
    assert one_line(errors), errors
    assert "standard input and output" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_file_that_is_there_is_no_address(cli: Cli, tmp_path: Path) -> None:
    for name in ("a:b@c.mp4", "cam:/-", "cam:/x@y.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / "in.mp4").read_bytes())
        code, out, errors = cli("anonymize", name, "--dry-run")
        assert code == 0, errors
        assert json.loads(out)["input"] == name
