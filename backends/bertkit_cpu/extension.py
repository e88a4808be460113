"""Intel Extension for PyTorch: imported where it is installed and was built for this torch.

Importing it puts its own kernels for LayerNorm, softmax and others behind torch's names. It ended with version 2.8
and is measured no faster than torch 2.13 alone, so its absence costs nothing.
"""

from __future__ import annotations

import importlib
from importlib import metadata, util

NAME = "intel_extension_for_pytorch"


def load_extension() -> str:
    """Import the extension if it fits. Returns what was done and why, for the log."""
    if util.find_spec(NAME) is None:
        return "not installed"
    version = metadata.version(NAME)
    if not fits(version, metadata.version("torch")):
        return f"{version} is installed but not used: it needs torch {_minor(version)}"
    importlib.import_module(NAME)
    return f"{version} in use"


def fits(extension: str, torch: str) -> bool:
    """Each release is built for one minor version of torch and crashes on others."""
    return _minor(extension) == _minor(torch)


def _minor(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])
