"""The command line. One module per command; only here is anything printed."""

import sys
from typing import NoReturn

import typer
from rich.console import Console
from typer.exceptions import TyperException

from streamer import __version__
from streamer.channel import NoThreadError
from streamer.cli import anonymize, bench, demo, doctor, evaluate, image, live, models, prove, serve
from streamer.errors import ConfigError, StreamerError

app = typer.Typer(
    name="streamer",
    help="Make every face and licence plate in a video unreadable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("anonymize")(anonymize.command)
app.command("bench")(bench.command)
app.command("demo")(demo.command)
app.command("doctor")(doctor.command)
app.command("image")(image.command)
app.command("live")(live.command)
app.command("eval")(evaluate.command)
app.add_typer(models.app, name="models")
app.command("prove")(prove.command)
app.command("serve")(serve.command)

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Make every face and licence plate in a video unreadable."""


def main() -> NoReturn:
    """Run the command line; errors of ours become one line and an exit code.

    0: done. 1: an input failed. 2: wrong usage or settings. 3: a check found something left. 130: interrupted.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except ConfigError as error:
        errors.print(f"error: {error}", style="red", markup=False)
        sys.exit(USAGE)
    except (StreamerError, NoThreadError) as error:
        errors.print(f"error: {error}", style="red", markup=False)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        errors.print("interrupted; no unfinished file was left", style="red")
        sys.exit(INTERRUPTED)
    except TyperException as error:  # wrong usage
        errors.print(f"error: {error}; see --help", style="red", markup=False)
        sys.exit(USAGE)
    sys.exit(code)
