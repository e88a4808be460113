"""A script of the user's as a rank runs it: `bertkit launch -n 2 -- python my.py --lr 3e-5`.

It runs as `python my.py --lr 3e-5` would, in the Python that runs bertkit, with its own folder first on the search
path. An exception comes out as its traceback and then, as the errors of bertkit's commands, in one line that the
launcher reports with the rank; a `UserError` in that line alone.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bertkit.errors import CAUSE_LIMIT, UserError, one_line

PYTHONS = ("python", "python3", sys.executable)  # each means the Python that runs bertkit
RESUME = "BERTKIT_RESUME"  # "1": trainings that a script starts go on from their newest checkpoints
ON_AGAIN = "--resume"  # before a script's words: it is started again after a failure
IGNORED = ("-u",)  # a rank's output is not buffered in any case


@dataclass(frozen=True)
class Script:
    """What is to be run."""

    name: str  # of a file, or of a module
    module: bool
    arguments: tuple[str, ...]


def is_script(command: Sequence[str]) -> bool:
    """Whether these words start a script, and no command of bertkit's."""
    return any(word in PYTHONS or word.endswith(".py") for word in _own(command)[:1])


def resumed_script(command: Sequence[str]) -> tuple[str, ...]:
    """The words as a launcher starts them again."""
    return (ON_AGAIN, *_own(command))


def environment(command: Sequence[str]) -> dict[str, str]:
    """Variables that the script gets."""
    return {RESUME: "1"} if is_resumed(command) else {}


def is_resumed(command: Sequence[str]) -> bool:
    return bool(command) and command[0] == ON_AGAIN


def _own(command: Sequence[str]) -> Sequence[str]:
    """The user's words."""
    return command[1:] if is_resumed(command) else command


def parse_script(command: Sequence[str]) -> Script:
    """The script of `my.py …`, `python my.py …` or `python -m package.module …`. Raises UserError for other words."""
    rest = list(_own(command))
    if rest[0] in PYTHONS:
        rest.pop(0)
    while rest and rest[0] in IGNORED:
        rest.pop(0)
    module = rest[:1] == ["-m"]
    if module:
        rest.pop(0)
    elif rest and rest[0].startswith("-"):
        raise UserError(
            f"the option {rest[0]} of python's is not passed on", "set its variable instead, as PYTHONOPTIMIZE"
        )
    if not rest:
        raise UserError("no script is named", "as in `bertkit launch -n 2 -- python my.py`")
    return Script(rest[0], module, tuple(rest[1:]))


def check_script(command: Sequence[str], here: bool) -> None:
    """Raises UserError for what can be known without running it. `here`: it must be on this machine."""
    script = parse_script(command)
    path = Path(script.name).expanduser()
    if script.module or (not here and not path.exists()):
        return
    if not path.is_file():
        raise UserError(f"{script.name}: there is no such script", "check the path")
    try:
        compile(path.read_bytes(), script.name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: zero bytes
        raise UserError(f"{script.name}: is no Python: {error}", "correct the script") from None


def job_name(command: Sequence[str]) -> str:
    """A name for a batch system."""
    word = Path(parse_script(command).name).stem if is_script(command) else command[0]
    return f"bertkit-{re.sub(r'[^A-Za-z0-9.+_-]', '_', word)}"


# ---- running ----


def main(words: Sequence[str]) -> int:
    """Run the script; returns the exit code of one that raised. One that calls `sys.exit` has its own."""
    script = parse_script(words)
    try:
        _run(script)
    except UserError as error:
        return _failed(error, str(error), error.exit_code)
    except SystemExit as error:
        if error.code not in (None, 0):
            _leave_others(error)
        raise
    except Exception as error:
        trace = _from_script(error)
        traceback.print_exception(type(error), error, trace)
        return _failed(error, f"{_place(script, trace)}: {type(error).__name__}: {error}", 1)
    return 0


def _run(script: Script) -> None:
    if script.module:
        sys.argv[:] = [script.name, *script.arguments]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(script.name, run_name="__main__", alter_sys=True)
        return
    path = Path(script.name).expanduser()
    if not path.is_file():
        raise UserError(f"{script.name}: there is no such script", "check the path")
    sys.argv[:] = [str(path), *script.arguments]
    sys.path.insert(0, str(path.resolve().parent))
    runpy.run_path(str(path), run_name="__main__")


def _failed(error: Exception, message: str, code: int) -> int:
    _leave_others(error)
    print(f"bertkit: {one_line(message, CAUSE_LIMIT)}", file=sys.stderr, flush=True)
    return code


def _leave_others(error: BaseException) -> None:
    """Have what ends with the process take this for an error that nobody caught, and wait for no other rank."""
    sys.last_value = error


def _from_script(error: Exception) -> TracebackType | None:
    """The traceback without what runs the script."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    return trace


def _place(script: Script, trace: TracebackType | None) -> str:
    """Where in the script, as "my.py:7"."""
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == script.name]
    return f"{script.name}:{lines[-1]}" if lines else script.name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
