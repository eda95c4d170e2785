"""The command line. One module per command; only here is anything printed."""

import atexit
import contextlib
import io
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, NoReturn

import cv2
import typer
from PIL import Image
from rich.console import Console
from typer.core import TyperCommand
from typer.exceptions import TyperException

from streamer import __version__
from streamer.channel import NoThreadError
from streamer.cli import anonymize, bench, demo, doctor, evaluate, image, live, models, prove, serve
from streamer.cli.inputs import check_file
from streamer.cli.screen import shown
from streamer.errors import ConfigError, StreamerError

_ONCE = frozenset({"hide", "zones"})  # names of parameters


class _Command(TyperCommand):
    """A command whose files and folders are neither addresses nor `-`, and have a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words, _, order = self.make_parser(ctx).parse_args(args=list(args))
        _check_once(order)
        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            if isinstance(value, Path):
                word = words.get(name)  # a path without a name is the current folder
                check_file(word if isinstance(word, str) else value)
        return rest


def _check_once(order: list[Any]) -> None:
    """Refuse two things to hide or two files of zones, of which the last alone would count, and less be covered than
    was meant; of other options that is what everybody expects. Raises ConfigError.
    """
    for option in order:
        if option.name in _ONCE and order.count(option) > 1:
            raise ConfigError(f"{option.opts[-1]} stands there twice; say it once")


app = typer.Typer(
    name="streamer",
    help="Make every face and licence plate in a video unreadable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("anonymize", cls=_Command)(anonymize.command)
app.command("bench", cls=_Command)(bench.command)
app.command("demo", cls=_Command)(demo.command)
app.command("doctor", cls=_Command)(doctor.command)
app.command("image", cls=_Command)(image.command)
app.command("live", cls=_Command)(live.command)
app.command("eval", cls=_Command)(evaluate.command)
app.add_typer(models.app, name="models")
app.command("prove", cls=_Command)(prove.command)
app.command("serve", cls=_Command)(serve.command)

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
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are refused in our words
    _print_any_name()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # and so are those that it cannot read
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except ConfigError as error:
        _say(f"error: {shown(error)}")
        code = USAGE
    except (StreamerError, NoThreadError, OSError) as error:
        _say(f"error: {shown(error)}")
        code = FAILED
    except KeyboardInterrupt:
        _say("interrupted; no unfinished file was left")
        code = INTERRUPTED
    except TyperException as error:  # wrong usage
        if said := _usage(error):  # without a command nothing: the help was printed already
            _say(f"error: {shown(said)}; see --help")
        code = USAGE
    _leave(code)


def _print_any_name() -> None:
    """Let no name of a file that was written end the run by its letters: paths are printed."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and out.errors == "strict":
        out.reconfigure(errors="surrogateescape" if out.encoding.lower() == "utf-8" else "backslashreplace")


def _usage(error: TyperException) -> str:
    """What is wrong and, unlike in the message alone, with which option; without pydantic's word for its own errors."""
    return error.format_message().replace("Value error, ", "").rstrip(".")


def _leave(code: int) -> NoReturn:
    """End the process, also while a thread is at work that an interrupt or a hanging camera has left behind.

    Python's own end would tear such a thread out of the library that it is in, which aborts the process.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or its reader is gone
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(text, style="red", markup=False)
