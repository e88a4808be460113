"""`bertkit report`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put, put_json


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Output file (HTML).")] = Path(
        "report.html"
    ),
    texts: Annotated[
        bool, typer.Option("--texts", help="Show the texts of the worst errors, which are of your data.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: o.Json = False,
) -> None:
    """Write the report of a run: curves, confusions, each label, calibration, errors, settings.

    The page is one file that loads nothing. It holds none of your data's texts without --texts.

    Examples:

      bertkit report runs/stars -o report.html

      bertkit report runs/stars --texts
    """
    from bertkit.comparison.report.page import to_html
    from bertkit.comparison.report.reading import read_report
    from bertkit.errors import UserError
    from bertkit.files.disk import to_json, write_text
    from bertkit.files.inputs import exists

    made = read_report(run.expanduser(), texts)
    if as_json:
        put_json(to_json({"run": str(run), "metrics": made.record["metrics"], "details": made.details}, indent=1))
        return
    if exists(output) and not overwrite:
        raise UserError(f"{output} is already there", "replace it with --overwrite, or name another with -o")
    write_text(output, to_html(made))
    put(str(output))
