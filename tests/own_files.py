"""Tables as users bring them, for tests."""

from __future__ import annotations

import csv
from pathlib import Path


def write_reviews(path: Path, sample_dir: Path, rows: int = 240) -> None:
    """The sample task's rows as a spreadsheet would save them."""
    lines = (sample_dir / "sample" / "train.tsv").read_text(encoding="utf-8").splitlines()[1 : rows + 1]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "review", "stars"])
        for number, line in enumerate(lines):
            text, label = line.split("\t")
            text = f'{text}, "so to say"\nand so on' if number % 5 == 0 else text
            writer.writerow([number, text, {"0": "bad", "1": "good"}[label]])
