"""What torch was built for, read from its files: a card looks without importing it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path


@dataclass(frozen=True)
class Build:
    """The installed torch."""

    version: str  # with the builder's own suffix, as 2.13.0+cpu
    toolkits: dict[str, str]  # as cuda -> 12.8, hip -> 6.4; those it was built with

    @property
    def suffix(self) -> str:
        return self.version.partition("+")[2]


def torch_build() -> Build | None:
    """None where torch is not installed."""
    spec = util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return read_build(Path(spec.origin).parent / "version.py", version)


def read_build(file: Path, version: str = "unknown") -> Build:
    """From torch's `version.py`; what it does not say is not known."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return Build(version, {})
    found = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    toolkits = re.findall(r"^(\w+): Optional\[str\] = '([^']+)'", text, re.MULTILINE)
    return Build(found[1] if found else version, dict(toolkits))
