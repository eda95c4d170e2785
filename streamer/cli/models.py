"""`streamer models`: which detectors there are, and how to get one that does not ship with streamer."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamer import models
from streamer.errors import ConfigError, ModelError

app = typer.Typer(help="List detectors, or fetch one.", invoke_without_command=True)


@app.callback()
def show(context: typer.Context) -> None:
    """List the manifest: name, licence, what it finds, whether it can be used now."""
    if context.invoked_subcommand is not None:
        return
    table = Table("model", "finds", "licence", "state", box=None)
    for name, entry in models.manifest().items():
        try:
            models.find(name)
            state = "ready"
        except (ModelError, ConfigError) as error:
            state = str(error)
        table.add_row(name, ", ".join(dict.fromkeys(entry.get("classes", ()))), entry["licence"], state)
    Console(soft_wrap=True).print(table)


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A model of the manifest.")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read its licence and accept it.")
    ] = False,
) -> None:
    """Download a model, check its hash and note that you accepted its licence."""
    print(models.fetch(name, accept_licence=accept_licence))
