"""MRPC from Microsoft's raw files: GLUE's train and dev are both in the raw train file, told apart by `dev_ids.tsv`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bertkit.data.tasks.tables import read_rows
from bertkit.data.tasks.task import SplitName
from bertkit.errors import UserError
from bertkit.files import inputs

RAW: dict[SplitName, str] = {
    "train": "msr_paraphrase_train.txt",
    "dev": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
ID_COLUMNS = slice(1, 3)  # "#1 ID" and "#2 ID" of the raw file


def belongs(folder: Path, split: SplitName) -> Callable[[list[str]], bool]:
    """Whether a raw row's cells belong to `split`. Raises UserError without `dev_ids.tsv`."""
    if split == "test":
        return lambda cells: True
    ids = folder / "dev_ids.tsv"
    if not inputs.exists(ids):
        raise UserError(f"{ids} is missing, so the raw MRPC file cannot be split", "`bertkit data get mrpc` fetches it")
    dev = {tuple(cells) for _, cells in read_rows(ids)}
    return lambda cells: (tuple(cells[ID_COLUMNS]) in dev) == (split == "dev")
