"""Settings as keywords of a Python call: `learning_rate=2e-5` for `optimizer.learning_rate`."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertkit.errors import UserError, nearest
from bertkit.recipes.recipe import KEYS, Value, check_key

# Keywords that are no setting's last part, or that several settings end in: the one that is meant.
MEANT = {
    "model": "model.name",
    "data_dir": "data.dir",
    "batch_size": "train.batch_size",
    "optimizer": "optimizer.name",
    "schedule": "schedule.name",
}


def keywords() -> dict[str, str]:
    """Keyword -> dotted key: the settings whose last part is no other setting's (phase 2's aside), and `MEANT`."""
    first = [key for key in KEYS if not key.startswith("phase2.")]
    leaves = Tally(key.rpartition(".")[2] for key in first)
    unique = {leaf: key for key in first if leaves[leaf := key.rpartition(".")[2]] == 1}
    return unique | {key: key for key in KEYS if "." not in key} | MEANT


def from_keywords(
    given: Mapping[str, Any], settings: Mapping[str, Any] | None = None, options: Sequence[str] = ()
) -> dict[str, Value]:
    """Settings by dotted key. `given`: keywords; `settings`: by dotted key, `device.…` among them.

    `options`: what the function takes besides, which a misspelt keyword may mean. None is as if it were not given.

    Raises UserError for an unknown one, naming the nearest, and for one that is given twice.
    """
    known = keywords()
    found: dict[str, Value] = {}
    for name, value in given.items():
        if name not in known:
            several = [key for key in KEYS if key.rpartition(".")[2] == name]
            which = f"say which in settings={{…}}: {', '.join(several)}"
            raise UserError(f"there is no keyword {name!r}", which if several else nearest(name, [*known, *options]))
        if value is not None:
            found[known[name]] = _plain(value)
    for key, value in (settings or {}).items():
        check_key(key, "settings")
        if key in found:
            raise UserError(f"{key} is given twice, as a keyword and in settings", "give it once")
        if value is not None:
            found[key] = _plain(value)
    return found


def _plain(value: Any) -> Value:
    """Paths as text and NumPy's numbers as Python's. Whatever is no setting's type is refused later, by its name."""
    if isinstance(value, np.generic):
        value = value.item()
    plain: Value = os.fspath(value) if isinstance(value, os.PathLike) else value
    return plain
