"""`bertkit check`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put_json, writing


def check(
    backend: Annotated[str, typer.Argument(help="The backend's name or alias.", show_default=False)],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="One check; may be repeated.", show_default=False)
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="device.KEY=VALUE", help="A setting of the backend.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Keep the report in this JSON file.", show_default=False)
    ] = None,
    json: Json = False,
) -> int:
    """Run the contract that every backend must keep, on this machine. Exit code 1 where a check fails.

    The report (-o or --json) says what ran, on what and with which versions: send it to us from hardware that we lack.

    Examples:

      bertkit check cpu

      bertkit check cpu -o report.json

      bertkit check cpu --only resume --only dropout --set device.threads=1
    """
    from bertkit.conformance import run_checks
    from bertkit.conformance.report import chosen, configured, count, make_report
    from bertkit.engine.registry import choose
    from bertkit.files.disk import to_json, write_json

    choice = choose(backend)
    tried = configured(choice.backend, sets or ())
    names = chosen(only or ())
    out = sys.stderr if json else sys.stdout
    results = []
    with writing():
        print(f"{tried.name}: {choice.reason}", file=out)
    for result in run_checks(tried, names):
        results.append(result)
        with writing():
            print(f"{result.outcome:<7} {result.seconds:6.2f} s  {result.name}: {result.detail}", file=out, flush=True)
    passed, failed, skipped = (count(results, outcome) for outcome in ("passed", "failed", "skipped"))
    with writing():
        print(f"{passed} passed, {failed} failed, {skipped} skipped", file=out)
    if json or output:
        report = make_report(tried, results)
        if output:
            write_json(output, report)
        if json:
            put_json(to_json(report))
    return 1 if failed else 0
