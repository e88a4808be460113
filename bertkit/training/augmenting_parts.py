"""OUT.unfinished: the candidates that are found so far, for whoever resumes the work.

A part is the candidates of some texts, sealed; it is there when it is done. What shaped them stands in the key, so
parts of another file, model or way are never taken for this one's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bertkit.console import Display
from bertkit.errors import UserError
from bertkit.files.disk import read_sealed, read_sealed_arrays, sweep, write_sealed, write_sealed_arrays
from bertkit.files.inputs import exists, is_file
from bertkit.files.locks import NAME as LOCK

KEY = "key.json"
NAME = "candidates"


def parts_folder(output: Path) -> Path:
    """Beside the file that is made."""
    return output.with_name(f"{output.name}.unfinished")


class CandidateParts:
    """The parts in a folder that this process alone works in. Opening it removes what is of other work."""

    def __init__(self, folder: Path, key: Mapping[str, object], overwrite: bool, display: Display) -> None:
        """Raises UserError where the folder holds work of another key, unless `overwrite`."""
        self.folder, self.display = folder, display
        sweep(folder)
        if self._is_ours(key):
            display.say(f"resuming the work of an earlier run in {folder}")
            return
        if any(path.name != LOCK for path in folder.iterdir()):
            ours = is_file(folder / KEY)
            if not (overwrite and ours):
                cure = "remove it with --overwrite, or choose another -o" if ours else "choose another -o"
                raise UserError(f"{folder}: holds unfinished work of another file, model or options", cure)
            self.remove()
        write_sealed(folder / KEY, key)

    def _is_ours(self, key: Mapping[str, object]) -> bool:
        if not is_file(self.folder / KEY):
            return False
        with contextlib.suppress(UserError):
            return read_sealed(self.folder / KEY) == key
        return False

    def read(self, number: int, shape: tuple[int, int]) -> np.ndarray | None:
        """A part that is done; None: it is not, or it is damaged, which is reported."""
        path = self._place(number)
        if not exists(path):
            return None
        try:
            found = read_sealed_arrays(path)[0][NAME]
            if found.shape != shape:
                raise UserError(f"{path}: has the shape {found.shape}, not {shape}", "remove it")
            return found
        except (UserError, KeyError) as error:
            self.display.warn(f"what an earlier run has finished is damaged and computed again: {error}")
            return None

    def write(self, number: int, candidates: np.ndarray) -> None:
        write_sealed_arrays(self._place(number), {NAME: candidates}, {})

    def remove(self) -> None:
        """All of them, the key last."""
        for path in self.folder.glob("part-*.safetensors"):
            path.unlink(missing_ok=True)
        (self.folder / KEY).unlink(missing_ok=True)

    def _place(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.safetensors"
