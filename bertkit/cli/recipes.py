"""`bertkit recipes`"""

from __future__ import annotations

import json as json_format
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put, put_json

app = typer.Typer(invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context, json: Json = False) -> None:
    """List recipes, or copy one to edit.

    Example:

      bertkit recipes
    """
    if context.invoked_subcommand:
        return
    from bertkit.recipes.resolve import describe_recipe, packaged

    table = {name: describe_recipe(path) for name, path in packaged().items()}
    if json:
        put_json(json_format.dumps(table))
        return
    width = max(len(name) for name in table)
    for number, group in enumerate(_groups(list(table))):
        if number:
            put()
        for name in group:
            put(f"{name:<{width}}  {table[name]}")


def _groups(names: list[str]) -> list[list[str]]:
    """Our own first, then those of each system, which share their first word; by name."""
    first = Counter(name.split("-")[0] for name in names)
    systems = sorted(word for word, count in first.items() if count > 1)
    own = sorted(name for name in names if name.split("-")[0] not in systems)
    return [own, *(sorted(name for name in names if name.split("-")[0] == word) for word in systems)]


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="Recipe to copy.", show_default=False)],
    to: Annotated[Path | None, typer.Argument(help="File to write; default: NAME.toml in the current folder.")] = None,
) -> None:
    """Copy a recipe to a file, to edit and pass to --recipe or --config.

    Example:

      bertkit recipes copy glue my-glue.toml
    """
    from bertkit.errors import UserError, nearest
    from bertkit.files.disk import write_text
    from bertkit.files.inputs import exists
    from bertkit.recipes.resolve import packaged

    files = packaged()
    if name not in files:
        raise UserError(f"there is no recipe {name!r}", nearest(name, files))
    target = to or Path(f"{name}.toml")
    if exists(target):
        raise UserError(f"{target} exists", "name another file")
    write_text(target, files[name].read_text(encoding="utf-8"))
    put(f"{target}: edit it, then bertkit train --recipe {target}")
