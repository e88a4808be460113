"""`bertkit push`"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put

NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


def push(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the model hub.", show_default=False)],
    licence: Annotated[
        str | None,
        typer.Option("--license", metavar="NAME", help="Licence of the model, as apache-2.0.", show_default=False),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as private.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking.")] = False,
    dry_run: o.DryRun = False,
) -> None:
    """Upload a run's model to the model hub, with a README made from its record.

    The model's files and the README are uploaded, nothing else of the run's folder. Log in with `hf auth login` first.

    Examples:

      bertkit push runs/stars my-team/stars --license apache-2.0 --dry-run

      bertkit push runs/stars my-team/stars --license apache-2.0 --private --yes
    """
    from bertkit.comparison.report.hub_readme import README, files_of_model, hub_readme
    from bertkit.files.hub import endpoint, upload

    run = run.expanduser()
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a repository", "write it as ORG/NAME")
    if not licence:
        raise UserError("the model's licence is not named", "name it with --license, as in --license apache-2.0")
    files, text = files_of_model(run), hub_readme(run, name, licence)
    size = sum(path.stat().st_size for path in files) + len(text.encode())
    listed = ", ".join([*(path.name for path in files), README])
    if dry_run:
        put(text)
        put(f"would upload to {endpoint()}/{name} ({size / 1e6:.1f} MB): {listed}")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("nothing is uploaded without being asked for", "say --yes, or look with --dry-run")
        typer.confirm(f"upload {listed} ({size / 1e6:.1f} MB) to {endpoint()}/{name}?", abort=True, err=True)
    put(upload(name, files, {README: text.encode()}, private, f"bertkit push of {run.name}"))
