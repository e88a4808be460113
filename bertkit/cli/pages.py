"""The pages of docs/, for the terminal: in a checkout they lie there, in an installed package beside this file.

The index, docs/README.md, is the list of them: sections, names and what each is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertkit.errors import UserError

INDEX = "README.md"
ENTRY = re.compile(r"- \[[^\]]+\]\((?P<file>[^)]+)\): (?P<about>.+)")
CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]*`|\[[^\]\n]*\]\([^)\n]*\))", re.DOTALL | re.MULTILINE)
MENTION = re.compile(r"(?<![\w/.-])(?:docs/)?(?P<file>(?:[\w-]+/)?[\w-]+\.md)\b(?!/)")


@dataclass(frozen=True, kw_only=True)
class Topic:
    topic: str  # the file's name without folder and ending
    kind: str  # the section of the index: tutorials, how-to guides, reference, concepts
    about: str
    file: str  # below the folder of pages


def folder() -> Path:
    """Where the pages lie. Raises UserError where there are none."""
    here = Path(__file__).resolve()
    for place in (here.parent / "documents", here.parents[2] / "docs"):
        if (place / INDEX).is_file():
            return place
    raise UserError("this installation has no pages", "install bertkit anew from a whole checkout or its wheel")


def pages(index: str) -> tuple[Topic, ...]:
    """The pages that an index lists, in its order."""
    found: list[Topic] = []
    kind = ""
    for line in index.splitlines():
        if line.startswith("## "):
            kind = line[3:].partition(":")[0]
        elif entry := ENTRY.fullmatch(line):
            topic = Path(entry["file"]).stem
            found.append(Topic(topic=topic, kind=kind, about=entry["about"], file=entry["file"]))
    return tuple(found)


def read(place: Path, file: str) -> str:
    return (place / file).read_text(encoding="utf-8")


def with_mentions(text: str, replace: Callable[[str], str | None]) -> str:
    """A page with each plain mention of another's file, as docs/serve.md, replaced; code and links stay as they are.

    `replace` gets the file, as serve.md; None leaves it.
    """
    parts = CODE.split(text)  # code at the odd places
    for number in range(0, len(parts), 2):
        parts[number] = MENTION.sub(lambda found: replace(found["file"]) or found[0], parts[number])
    return "".join(parts)
