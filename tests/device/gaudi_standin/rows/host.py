"""Rows of a host without the device: the stand-in's folder is on the path, its library is not built."""

from __future__ import annotations

import pickle
import sys

import torch
from table import raises, row, run

FOLDER = sys.argv[2]


@row("1.1 a package without its library does not break `import torch`, and says what is missing when it is imported")
def _no_library() -> None:
    assert not hasattr(torch, "hpu")
    with raises(ImportError, "HPU_STANDIN_LIBRARY"):
        import habana_frameworks.torch  # noqa: F401


@row("1.9 without the device: an eager file needs map_location, a lazy one, of protocol 4, needs weights_only=False")
def _files() -> None:
    with raises(RuntimeError, "HPU"):
        torch.load(f"{FOLDER}/eager.pt")
    assert torch.load(f"{FOLDER}/eager.pt", map_location="cpu")["x"].device.type == "cpu"
    with raises(pickle.UnpicklingError, "Unsupported operand"):
        torch.load(f"{FOLDER}/lazy.pt")
    assert torch.load(f"{FOLDER}/lazy.pt", weights_only=False)["x"].shape == (2,)


if __name__ == "__main__":
    run()
