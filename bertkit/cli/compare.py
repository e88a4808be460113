"""`bertkit compare`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o


def compare(
    records: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECORD…",
            help="Runs' folders, folders of runs, records' files or patterns; NAME=… calls a system so.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="NAME", help="What ratios are against.", show_default="the first"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse (exit code 2) where something differs that should not.")
    ] = False,
    target: Annotated[
        float | None,
        typer.Option("--target", help="Score to which time and energy are told.", show_default="what all reached"),
    ] = None,
    parity: Annotated[
        bool, typer.Option("--parity", help="Two runs with one seed: do their losses follow the same curve?")
    ] = False,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Of --parity: the first so many updates.", show_default="all")
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            "--published",
            metavar="NAME,…",
            help="Others' figures beside the baseline; `list` tells the names.",
            show_default=False,
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with plots, whole in itself.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a row for each figure.")] = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Hold runs against one another: what differs that should not, then results, speed, time and energy.

    Runs that differ in nothing but the seed are one system, shown as mean ± standard deviation.

    Examples:

      bertkit compare runs/mrpc-a runs/mrpc-b

      bertkit compare mine='runs/mrpc-seed*' theirs=results/ --baseline theirs --html report.html

      bertkit compare runs/* --strict --csv figures.csv --markdown report.md

      bertkit compare --published list

      bertkit compare runs/squad --published a100,t4

      bertkit compare --parity runs/here runs/there

    Exit codes: 0 compared; 1 a record could not be read, or parity fails; 2 refused, or wrongly used.
    """
    from bertkit.cli.comparing import Words, list_published, run_compare

    if published == "list":
        return list_published(json_)

    return run_compare(
        Words(
            tuple(records or ()), baseline, strict, target, parity, steps, published, markdown, html, csv, json_, quiet
        )
    )
