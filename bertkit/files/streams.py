"""Standard output and standard error, whatever they are: of any encoding, closed, full, a terminal that obeys codes.

What the encoding cannot spell is escaped. Data from files is shown by `put`, which makes control characters visible on
a terminal; into a file or a pipe they go as they are.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from bertkit.errors import UserError, visible


class NotWritten(UserError):
    """What was to be shown did not reach standard output."""

    exit_code = 1


def prepare() -> None:
    """To be called before anything is opened or said."""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:  # closed (`>&-`): else the next file would take its number
        pass
    os.close(free)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # as Python itself does on standard error (PEP 538)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


def put(text: str = "", flush: bool = False) -> None:
    """A line on standard output. Raises NotWritten where it takes no more, as on a full disk."""
    put_json(visible(text) if sys.stdout.isatty() else text, flush)


def put_json(text: str, flush: bool = False) -> None:
    """As `put`, of JSON: it has escapes of its own for what a terminal would obey."""
    with writing():
        print(text, flush=flush)


def tell(text: str) -> None:
    """A line on standard error, what cannot be seen in it escaped; where nobody hears it the work goes on."""
    with contextlib.suppress(OSError):
        print(visible(text), file=sys.stderr)


def finish() -> None:
    """Write out what still waits. Raises NotWritten."""
    with writing():
        sys.stdout.flush()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Within it, what standard output says of a write is an error of one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        forget(sys.stdout)
        raise NotWritten(f"standard output cannot be written: {error.strerror}", "free some space") from None


def forget(stream: object) -> None:
    """Let nothing more of the stream's be written: what waits in it would fail once more when Python ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)
