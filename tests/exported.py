"""What tests of `bertkit export` share: a small model's folder, and its job."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from bertkit.data.tasks import find_task
from bertkit.engine.interface import Job
from bertkit.files.disk import write_arrays, write_json
from bertkit.model.config import ARCHITECTURES, Head, to_mapping
from bertkit.model.parameters import initial
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.recipes.resolve import resolve
from bertkit.training.run_task import write_task

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(95)))
CONFIG = dataclasses.replace(ARCHITECTURES["tiny"], vocab_size=len(PIECES), max_position_embeddings=40)


def small(head: Head) -> Job:
    """A model whose logits are about 1."""
    weights = {
        name: array * np.float32(8 if name.endswith("weight") and array.ndim == 2 else 1)
        for name, array in initial(CONFIG, head, 1).items()
    }
    return Job(CONFIG, head, weights)


def model_folder(folder: Path, head: Head) -> Path:
    job = small(head)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    write_json(folder / "config.json", to_mapping(CONFIG, head, ()))
    write_arrays(folder / "model.safetensors", dict(job.weights), {})
    return folder


def run_folder(folder: Path, task: str, **settings: int) -> Path:
    """A run of that task, as its training would leave it; `settings`: of its section `data`."""
    made = find_task(task)
    model_folder(folder, made.head)
    recipe = resolve({"task": task, **{f"data.{name}": value for name, value in settings.items()}}).recipe
    write_task(folder, made, recipe, read_vocabulary(folder / "vocab.txt"), {})
    return folder
