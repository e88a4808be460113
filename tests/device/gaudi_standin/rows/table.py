"""A table of rows: the contract's statement, and a function that fails where the stand-in departs from it."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Check = Callable[[], None]
TABLE: dict[str, Check] = {}


def row(statement: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        assert statement not in TABLE, statement
        TABLE[statement] = check
        return check

    return add


@contextmanager
def raises(kind: type[BaseException], words: str = "") -> Iterator[None]:
    said = None
    try:
        yield
    except kind as error:
        said = str(error)
    assert said is not None, f"nothing was raised: {kind.__name__} {words}"
    assert words in said, f"{words!r} is not in {said}"


def run(before: Check | None = None) -> None:
    """Every row, each after `before`; the file named on the command line gets what failed, by statement."""
    failed = {}
    for statement, check in TABLE.items():
        if before is not None:
            before()
        try:
            check()
        except Exception:
            failed[statement] = traceback.format_exc(limit=-2)
    Path(sys.argv[1]).write_text(json.dumps({"rows": len(TABLE), "failed": failed}))
