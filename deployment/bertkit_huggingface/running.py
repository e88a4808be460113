"""What was written, as transformers loads and computes it on the CPU."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from bertkit.plugin import Arrays, PaddedModel


def load(folder: Path) -> PaddedModel:
    """The class that `config.json` names."""
    name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    transformers.utils.logging.disable_progress_bar()
    model, told = getattr(transformers, name).from_pretrained(folder, output_loading_info=True, local_files_only=True)
    odd = {key: values for key, values in told.items() if values}
    if odd:
        raise ValueError(f"transformers does not take all of {folder} as it is: {odd}")
    return functools.partial(_computed, model.eval(), "MultipleChoice" in name)


def _computed(model: Any, of_choices: bool, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Rows of a choice are given as examples with one choice each."""
    given = {name: torch.tensor(values, dtype=torch.int64) for name, values in inputs.items()}
    if of_choices:
        given = {name: values[:, None] for name, values in given.items()}
    with torch.no_grad():
        found = model(**given)
    return {name: values.float().numpy() for name, values in found.items() if name.endswith("logits")}
