"""What `import torch` calls: the device registers itself in eager mode, and stays away in lazy mode."""

from __future__ import annotations

import os
from pathlib import Path

is_loaded = False


def wanted() -> bool:
    forced = os.environ.get("PT_HPU_AUTOLOAD")
    if forced is not None:
        return forced == "1"
    return os.environ.get("PT_HPU_LAZY_MODE", os.environ.get("HPU_STANDIN_DEFAULT_LAZY", "0")) == "0"


def __autoload() -> None:
    # A folder on the path without the built library must not break `import torch`.
    library = os.environ.get("HPU_STANDIN_LIBRARY")
    if not is_loaded and wanted() and library and Path(library).is_file():
        import habana_frameworks.torch  # noqa: F401
