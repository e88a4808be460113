"""Flags of the reference systems' Python programs, read into names and values."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bertkit.cli.hf_flags import SWITCHES, WITH_VALUE, spelled
from bertkit.cli.migration.command import Draft
from bertkit.files.packaged import packaged_table

ELIDED = ("...", "…")  # a value that a document leaves out
XLA = "device.xla"  # a setting of backends that compile by XLA only where they are told to
FALSE = ("false", "f", "no", "0")


@functools.cache
def table(name: str) -> Mapping[str, Any]:
    """A packaged table of this folder."""
    return packaged_table("cli", "migration", name)


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


def carry_over(draft: Draft, flags: Mapping[str, str], without: Collection[str] = ()) -> None:
    """Put into `draft` what has its own option or setting, and note what has none."""
    itself = table("flags.toml")["by_itself"]["flags"]
    for name, value in flags.items():
        if name in without or name in itself:
            continue
        if name == "loss_scale":
            _loss_scale(draft, value)
        elif name == "use_xla":
            if is_on(flags, name):
                draft.wish(f"--{name}", lost_reason(name), XLA, "true")
        elif name in SWITCHES or (value and name in WITH_VALUE):
            draft.say(spelled(name, value))
        elif name not in WITH_VALUE:
            draft.lost(f"--{name}", lost_reason(name))


def lost_reason(name: str) -> str:
    """Why nothing of ours says it."""
    known = table("flags.toml")["lost"]
    return str(known[name]["why"]) if name in known else "there is nothing like it here"


def _loss_scale(draft: Draft, value: str) -> None:
    """0 is a scale that follows the overflows, as ours by itself."""
    if value not in ("", "0", "0.0", "dynamic"):
        draft.sets |= {"loss_scaling.initial": value, "loss_scaling.dynamic": "false"}


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
