"""Flags of the reference systems' Python programs, read into names and values."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from bertkit.migrate.ours import Draft
from bertkit.packaged import packaged_table

ELIDED = ("...", "…")  # a value that a document leaves out
FALSE = ("false", "f", "no", "0")


@functools.cache
def table(name: str) -> Mapping[str, Any]:
    """A packaged table of this folder."""
    return packaged_table("migrate", name)


def read_flags(words: Sequence[str], short: Mapping[str, str] | None = None) -> dict[str, str]:
    """Name, with _ for -, -> value; a flag without one has "". Several words behind a flag are one value."""
    flags: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("-") and not _is_number(word):
            bare, _, value = word.lstrip("-").partition("=")
            name = (short or {}).get(bare, bare).replace("-", "_")
            flags[name] = value
            if "=" in word:
                name = ""
        elif name:
            flags[name] = f"{flags[name]} {word}".strip()
    return flags


def read_assignments(words: Sequence[str]) -> dict[str, str]:
    """``name=value`` words, with _ for - in the name; what follows a second = is cut off, as the old reader does."""
    parts = (word.partition("=") for word in words)
    return {name.replace("-", "_"): value.partition("=")[0] for name, _, value in parts if value not in ELIDED}


def is_on(flags: Mapping[str, str], name: str) -> bool:
    return name in flags and flags[name].lower() not in FALSE


def carry_over(draft: Draft, flags: Mapping[str, str], without: Sequence[str] = ()) -> None:
    """Put into `draft` what has its own option or setting, and note what has none."""
    known = table("flags.toml")
    for name, value in flags.items():
        if name in without or (not value and name in known["options"] | known["settings"]):
            continue
        if name in known["options"]:
            draft.options[known["options"][name]] = value
        elif name in known["settings"]:
            draft.sets[known["settings"][name]] = value
        elif name in known["lost"]:
            draft.lost(f"--{name}", known["lost"][name])
        elif name not in known["by_itself"]["flags"]:
            draft.lost(f"--{name}", "there is nothing like it here")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
