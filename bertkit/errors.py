"""The one error type for what a user can cause: a cause, a cure, and no traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NO_CAUSE = "an error that does not say what is wrong"
CAUSE_LIMIT, CURE_LIMIT = 500, 400  # characters; what comes from a damaged file can be of any length
# control characters, separators of lines, marks that turn the direction of a line, bytes of names that are not UTF-8
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """Something that the user can put right. The command prints it as one line and exits with 2.

    `cause` says what is wrong (with file and line where there is one), `cure` what would help.
    """

    exit_code = 2

    def __init__(self, cause: str, cure: str = "") -> None:
        super().__init__(cause, cure)
        self.cause = one_line(cause, CAUSE_LIMIT).strip(";: ") or NO_CAUSE
        self.cure = one_line(cure, CURE_LIMIT)

    def __str__(self) -> str:
        return f"{self.cause}; {self.cure}" if self.cure else self.cause


class Stopped(UserError):
    """Ctrl-C where nothing waits to be saved."""

    exit_code = 130


class PeersLost(UserError):
    """Other processes of the job are gone or silent: a consequence, whose cause another process tells of."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class DoesNotFit(UserError):
    """A batch needs more memory than the device has."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean a or b?`` for a mistyped `word`, or the first few known words where none is near."""
    names = list(known)
    leaf = {name.rsplit(".", 1)[-1]: name for name in names}
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    close += [
        leaf[near]
        for near in difflib.get_close_matches(word.rsplit(".", 1)[-1], leaf, n=2, cutoff=0.6)
        if leaf[near] not in close
    ]
    if close:
        return "did you mean " + " or ".join(close[:3]) + "?"
    shown = sorted(names)[:12]
    return "known: " + ", ".join(shown) + (", …" if len(names) > len(shown) else "")


def one_line(text: str, limit: int) -> str:
    """The text on one line of about `limit` characters, what cannot be seen escaped; of a longer one start and end."""
    return _cut(visible(_cut(" ".join(text.split()), limit)), limit)


def _cut(text: str, limit: int) -> str:
    end = limit // 4
    return text if len(text) <= limit else f"{text[: limit - end]} … {text[-end:]}"


def visible(text: str) -> str:
    """The text with escapes for what a terminal would obey or cannot show; line ends and tabs stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


OUT_OF_MEMORY = (
    "memoryerror", "outofmemory", "out of memory", "allocate memory", "not enough memory", "resource_exhausted",
    "resourceexhausted",
)  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether a framework's error means that something did not fit; frameworks name it in words."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)
