"""`bertkit check`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put_json, writing


def check(
    backend: Annotated[str, typer.Argument(help="Backend to check: a name or an alias.", show_default=False)],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Run only this check; repeatable.", show_default=False),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="device.KEY=VALUE", help="Override a setting of the backend.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the report to this JSON file.", show_default=False)
    ] = None,
    json: Json = False,
) -> int:
    """Run the conformance tests of a backend on this host. Exit code 1 if a test fails.

    The report (-o or --json) holds results, hardware and versions: please send yours if the hardware is new to us.

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
