"""Python processes that bertkit starts: they import this bertkit, whatever lies in the working folder.

`python -m` looks into the working folder first. A folder `bertkit` there, as beside every checkout, would stand for the
package, and a file `torch.py` for the framework. So every child is started with `-P` (Python 3.11), and what it starts
itself inherits PYTHONSAFEPATH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from bertkit import version

SAFE_PATH, SEARCH_PATH = "PYTHONSAFEPATH", "PYTHONPATH"


def module_command(python: str, module: str, *words: str) -> tuple[str, ...]:
    """The words that run a module of an installed package."""
    return (python, "-P", "-m", module, *words)


def keep_working_folder_out(env: MutableMapping[str, str] = os.environ, search: Sequence[str] = sys.path) -> None:
    """Let no child of this process look for modules in its working folder.

    An empty part of PYTHONPATH means that folder too and is dropped. Where this very bertkit was found through one of
    these (`python -m bertkit` in a checkout that is not installed), its own folder is named instead.
    """
    asked = env.get(SEARCH_PATH, "").split(os.pathsep)
    named = [part for part in asked if part]
    home = str(Path(version.__file__).resolve().parent.parent)
    before = search[0] if search and not sys.flags.safe_path else None
    if home == os.getcwd() and (before in ("", home) or named != asked) and home not in map(os.path.abspath, named):
        named.append(home)
    env[SAFE_PATH] = "1"
    if named:
        env[SEARCH_PATH] = os.pathsep.join(named)
    else:
        env.pop(SEARCH_PATH, None)
