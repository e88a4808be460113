"""`bertkit recipes`"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from bertkit.commands.options import Json

app = typer.Typer(invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context, json: Json = False) -> None:
    """List the recipes, or copy one to edit.

    Example:

      bertkit recipes
    """
    if context.invoked_subcommand:
        return
    from bertkit.resolve import describe_recipe, packaged

    table = {name: describe_recipe(path) for name, path in packaged().items()}
    if json:
        print(json_format.dumps(table))
        return
    width = max(len(name) for name in table)
    for name, text in table.items():
        print(f"{name:<{width}}  {text}")


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="The recipe.", show_default=False)],
    to: Annotated[Path | None, typer.Argument(help="The file to write; else NAME.toml here.")] = None,
) -> None:
    """Copy a recipe to a file, to be edited and given to --recipe or --config.

    Example:

      bertkit recipes copy glue my-glue.toml
    """
    from bertkit.disk import write_text
    from bertkit.errors import UserError, nearest
    from bertkit.resolve import packaged

    files = packaged()
    if name not in files:
        raise UserError(f"there is no recipe {name!r}", nearest(name, files))
    target = to or Path(f"{name}.toml")
    if target.exists():
        raise UserError(f"{target} exists", "name another file")
    write_text(target, files[name].read_text(encoding="utf-8"))
    print(f"{target}: edit it, then bertkit train --recipe {target}")
