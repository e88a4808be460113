"""`bertkit check`"""

from __future__ import annotations

import dataclasses
import json as json_format
from typing import Annotated

import typer

from bertkit.commands.options import Json


def check(
    backend: Annotated[str, typer.Argument(help="The backend's name or alias.", show_default=False)],
    json: Json = False,
) -> int:
    """Run the contract that every backend must keep, on this machine. Exit code 1 where a check fails.

    Example:

      bertkit check cpu
    """
    from bertkit.checks import run_checks
    from bertkit.registry import choose

    choice = choose(backend)
    results = []
    if not json:
        print(f"{choice.backend.name}: {choice.reason}")
    for result in run_checks(choice.backend):
        results.append(result)
        if not json:
            print(f"{result.outcome:<7} {result.seconds:6.2f} s  {result.name}: {result.detail}", flush=True)
    failed = sum(result.outcome == "failed" for result in results)
    if json:
        print(json_format.dumps([dataclasses.asdict(result) for result in results]))
    else:
        skipped = sum(result.outcome == "skipped" for result in results)
        print(f"{len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0
