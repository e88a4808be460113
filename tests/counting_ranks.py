"""The command, with a note of every sequence that its rank learns from: `python counting_ranks.py FOLDER ARGUMENT ...`.

Each update is a line in FOLDER/RANK-PROCESS.jsonl before it is learnt, so that a kill loses none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bertkit.cli import main
from bertkit.engine.interface import Scalars, Update
from bertkit_null.engine import NullEngine

plain = NullEngine.train_step


def train_step(engine: NullEngine, update: Update, learning_rate: float) -> Scalars:
    ids = [number for batch in update.micro_batches for number in batch["example_ids"].tolist()]
    with Path(sys.argv[0], f"{engine.world.rank}-{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps({"step": update.step, "ids": ids}) + "\n")
    return plain(engine, update, learning_rate)


if __name__ == "__main__":
    del sys.argv[0]
    NullEngine.train_step = train_step  # type: ignore[method-assign]
    main.main()
