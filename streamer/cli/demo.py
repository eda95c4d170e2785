"""`streamer demo`: see it work without a file at hand."""

from pathlib import Path
from typing import Annotated

import typer

from streamer import demo


def command(
    folder: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path(
        "streamer-demo"
    ),
) -> None:
    """Make a short clip with a face and a plate, anonymize it, and write both with a before/after picture."""
    done = demo.run(folder)
    hidden = done.report.as_dict()["hidden"]
    print(f"hidden: {hidden['faces']} faces, {hidden['plates']} plates in {done.report.frames} frames")
    print(f"before: {done.before}\nafter:  {done.after}\nlook:   {done.stills}")
