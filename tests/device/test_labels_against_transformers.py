"""The same labels as transformers' own pipeline gives, whatever order the model's outputs stand in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bertkit.console import Display
from bertkit.data.tasks import TASKS
from bertkit.data.tasks.sample import vocabulary
from bertkit.distributed.world import World
from bertkit.model.config import Head, ModelConfig
from bertkit.model.parameters import initial
from bertkit.model.saving import write_model
from bertkit.model.vocabulary import Vocabulary
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.resolve import resolve
from bertkit.training.inference import predict

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = Vocabulary(Path("vocab.txt"), tuple(vocabulary()), lower_case=True)
CONFIG = ModelConfig(16, 1, 2, 32, vocab_size=len(WORDS.pieces), max_position_embeddings=64)
TEXTS = (
    "the plot is good", "the plot is bad", "not a bad film", "the camera was dull , but the score is bright",
    "the hero is silly", "warm and tender", "although the ending is cold , the humour is sharp", "comedy",
)  # fmt: skip

MODELS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "as the task has them": ("sst2", ("0", "1")),
    "reversed": ("sst2", ("1", "0")),
    "reversed, as the dataset calls them": ("sst2", ("POSITIVE", "NEGATIVE")),
    "not named": ("sst2", ("LABEL_0", "LABEL_1")),
    "of three": ("mnli", ("entailment", "neutral", "contradiction")),
    "of three, in capitals": ("mnli", ("NEUTRAL", "ENTAILMENT", "CONTRADICTION")),
    "reversed, with a hyphen": ("rte", ("Not-Entailment", "Entailment")),
}
MEANING = {"NEGATIVE": "0", "POSITIVE": "1", "LABEL_0": "0", "LABEL_1": "1"}


def recipe(folder: Path, task: str) -> Recipe:
    return resolve(
        {"task": task, "model.name": str(folder), "precision": "fp32", "backend": "cpu", "data.seq_length": 32,
         "data.cache": "off"}, env={},
    ).recipe  # fmt: skip


def file_of(task: str, folder: Path) -> Path:
    """The texts as a test file of the task, alone or in pairs."""
    columns = TASKS[task].splits["test"][0].columns
    assert columns is not None
    names = [columns.first] if columns.second is None else [columns.first, columns.second]
    rows = [[text] if len(names) == 1 else [text, other] for text, other in zip(TEXTS, TEXTS[::-1], strict=True)]
    lines = ["\t".join(["index", *map(str, names)]), *("\t".join([str(n), *row]) for n, row in enumerate(rows))]
    path = folder / "test.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("case", MODELS)
def test_labels_are_those_of_the_pipeline(case: str, tmp_path: Path) -> None:
    task, names = MODELS[case]
    head = Head("classification", len(names))
    # 20 times as large as at a start, so that the answers are not all the same
    weights = {n: array * np.float32(1 if "LayerNorm" in n else 20) for n, array in initial(CONFIG, head, 3).items()}
    model = tmp_path / "model"
    model.mkdir()
    write_model(model, CONFIG, head, names, WORDS, weights)
    (made,) = predict(recipe(model, task), file_of(task, tmp_path), tmp_path / "out", World(), Display(quiet=True))
    said = [line.split("\t")[1] for line in Path(made["predictions"]).read_text().splitlines()[1:]]
    logits = np.array(json.loads(Path(made["predictions"]).with_suffix(".logits.json").read_text()))

    pipe = transformers.pipeline("text-classification", model=str(model), top_k=None, function_to_apply="none")
    pairs = TASKS[task].splits["test"][0].columns
    assert pairs is not None
    single = pairs.second is None
    pairs_of = zip(TEXTS, TEXTS[::-1], strict=True)
    asked = [text if single else {"text": text, "text_pair": other} for text, other in pairs_of]
    theirs = pipe(asked)
    labels = TASKS[task].labels
    known = {name: MEANING.get(name, name.lower().replace("-", "_")) for name in names}
    best = [known[max(scores, key=lambda one: one["score"])["label"]] for scores in theirs]
    assert said == best
    assert len(set(said)) > 1
    columns = [[next(one["score"] for one in scores if known[one["label"]] == label) for label in labels]
               for scores in theirs]  # fmt: skip
    assert np.abs(logits - np.array(columns)).max() < 1e-5
