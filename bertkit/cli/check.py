"""`bertkit check`"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put_json, writing

if TYPE_CHECKING:
    from bertkit.conformance import Result
    from bertkit.conformance.progress import CheckPlan
    from bertkit.engine.interface import Backend


Limit = Annotated[
    float | None,
    typer.Option(
        "--limit",
        metavar="MINUTES",
        min=0.01,
        help="End after this many minutes; what is not finished by then has failed. Default: by a trial of the "
        "device, 10 at the least.",
        show_default=False,
    ),
]


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
    limit: Limit = None,
    json: Json = False,
) -> int:
    """Run the conformance tests of a backend on this host. Exit code 1 if a test fails.

    The report (-o or --json) holds results, hardware and versions: please send yours if the hardware is new to us.

    Examples:

      bertkit check cpu

      bertkit check cpu -o report.json

      bertkit check cpu --only resume --only dropout --set device.threads=1
    """
    from bertkit.conformance import CHECKS
    from bertkit.conformance.progress import plan
    from bertkit.conformance.report import chosen, configured, count, make_report
    from bertkit.engine.registry import choose
    from bertkit.files.disk import to_json, write_json

    choice = choose(backend)
    tried = configured(choice.backend, sets or ())
    names = chosen(only or ()) or tuple(CHECKS)
    out = sys.stderr if json else sys.stdout
    _put(f"{tried.name}: {choice.reason}", out)
    ahead = plan(tried, names, None if limit is None else 60 * limit)
    _put(str(ahead), out)
    results = _follow(tried, ahead, out)
    passed, failed, skipped = (count(results, outcome) for outcome in ("passed", "failed", "skipped"))
    _put(f"{passed} passed, {failed} failed, {skipped} skipped", out)
    if json or output:
        report = make_report(tried, results)
        if output:
            write_json(output, report)
        if json:
            put_json(to_json(report))
    return 1 if failed else 0


def _follow(tried: Backend, ahead: CheckPlan, out: TextIO) -> list[Result]:
    """Each check of the plan, with a bar while it goes on and its result after it."""
    from bertkit.conformance import run_check
    from bertkit.console import Display

    display, until, results = Display(), time.perf_counter() + ahead.limit, []
    for name, total in ahead.engines.items():
        with display.progress(name, total, transient=True) as bar:
            result = run_check(tried, name, bar.to, until)
        results.append(result)
        _put(f"{result.outcome:<7} {result.seconds:6.2f} s  {result.name}: {result.detail}", out)
    return results


def _put(line: str, out: TextIO) -> None:
    with writing():
        print(line, file=out, flush=True)
