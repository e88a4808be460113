"""Whether the installed torch is one that the vendor's package takes: read from files, neither is imported.

Source: habana_frameworks/torch/__init__.py of releases 1.19 to 1.22: it asserts the major and minor version of
`required_version.txt`, and in lazy mode the vendor's own build of torch, whose version says +git… or +hpu….
"""

from __future__ import annotations

import re
from importlib import util
from pathlib import Path

from bertkit.plugin import read_text_if_there

CURE = (
    "install the vendor's build of torch (habanalabs-installer.sh install --type pytorch), or put bertkit beside the "
    "one of its container: docs/backends.md"
)


def required_torch(folder: Path | None = None) -> str:
    """What the vendor's package was built for, as 2.11.0; "" where it does not say. `folder`: the package's own."""
    if folder is None:
        spec = util.find_spec("habana_frameworks")
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            return ""
        folder = Path(places[0])
    return read_text_if_there(folder / "torch" / "required_version.txt").strip()


def misfit(required: str, torch: str | None, lazy: bool) -> str:
    """What does not fit, in words; "" where all does, or where the package does not say what it takes."""
    if not required:
        return ""
    if torch is None:
        return f"it needs torch {required}, which is not installed"
    if _minor(torch) != _minor(required):
        return f"it is built for torch {required}, and this is torch {torch}"
    if lazy and not torch.partition("+")[2].startswith(("git", "hpu")):
        return f"lazy mode needs the vendor's own build of torch {required}, and this is torch {torch}"
    return ""


def _minor(version: str) -> tuple[int, ...]:
    """(2, 11) of 2.11.0a0+git1234567; () of what is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()
