"""The data files that come with bertkit, by their place in the package."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any


def packaged_text(*place: str) -> str:
    return resources.files("bertkit").joinpath(*place).read_text(encoding="utf-8")


def packaged_table(*place: str) -> dict[str, Any]:
    """A TOML file."""
    return tomllib.loads(packaged_text(*place))
