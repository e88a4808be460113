"""`bertkit.training.predictor`: every form that examples may have, and what is said of those that are none.

The engine here says class 1 where a sequence has an even number of tokens: what is tested is what comes to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bertkit.data.tasks import find_task
from bertkit.data.tasks.sample import vocabulary
from bertkit.errors import UserError
from bertkit.model.loading import find_source
from bertkit.recipes.recipe import Recipe
from bertkit.training import predictor
from bertkit.training.inference import Loaded
from bertkit.training.predictor import Predictor
from bertkit.training.preparing import Prediction


class Parity:
    """Logits by a sequence's number of tokens."""

    def __init__(self, outputs: int) -> None:
        self.outputs, self.sequences, self.closed = outputs, 0, False

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        lengths = np.diff(batch["cu_seqlens"])
        self.sequences += len(lengths)
        logits = np.zeros((len(lengths), self.outputs), np.float32)
        logits[:, -1] = lengths if self.outputs == 1 else np.where(lengths % 2 == 0, 1, -1)
        return {"logits": logits}

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """`made(task)`: a Predictor for it, with the sample's words."""
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(vocabulary()) + "\n")

    def make(name: str) -> Predictor:
        task = find_task(name)
        engine: Any = Parity(task.head.outputs)
        return Predictor(Loaded(task, find_source("tiny", str(words)), engine, "fp32", "stand-in"), Recipe(task=name))

    return make


ODD, EVEN = "good", "good plot"  # with [CLS] and [SEP]: 3 and 4 tokens


def labels(found: Any) -> list[str | None]:
    return [one.label for one in found]


def test_a_text_gives_one_prediction(made: Any) -> None:
    found = made("sample").predict(EVEN)
    assert found.label == "1"
    assert found.scores == pytest.approx({"0": 1 / (1 + np.e), "1": np.e / (1 + np.e)})
    assert found.value is None


@pytest.mark.parametrize(
    "examples",
    [
        [ODD, EVEN],
        (ODD, EVEN),
        np.array([ODD, EVEN]),
        pd.Series([ODD, EVEN]),
        [{"text": ODD}, {"sentence": EVEN}],
        pd.DataFrame({"number": [1, 2], "sentence": [ODD, EVEN]}, index=[7, 3]),
        pd.DataFrame({"text": [ODD, EVEN]}),
        [[ODD], (EVEN,)],
    ],
    ids=["list", "tuple", "array", "series", "dicts", "frame with the task's column", "frame with text", "of one each"],
)
def test_many_give_a_list_in_their_order(examples: Any, made: Any) -> None:
    found = made("sample").predict(examples)
    assert isinstance(found, list)
    assert labels(found) == ["0", "1"]


@pytest.mark.parametrize(
    "examples",
    [
        [(ODD, ODD), [ODD, EVEN]],
        [{"text": ODD, "text_pair": ODD}, {"#1 String": ODD, "#2 String": EVEN}],
        pd.DataFrame({"text": [ODD, ODD], "text_pair": [ODD, EVEN]}),
    ],
    ids=["pairs", "dicts", "frame"],
)
def test_pairs_are_encoded_together(examples: Any, made: Any) -> None:
    assert labels(made("mrpc").predict(examples)) == ["0", "1"]  # 5 and 6 tokens, with a [SEP] more


def test_a_number_is_a_value(made: Any) -> None:
    assert made("stsb").predict([(ODD, EVEN)]) == [Prediction(label=None, scores={}, value=6.0)]


def test_an_iterator_is_answered_piece_by_piece(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "AT_ONCE", 3)
    taken: list[int] = []

    def texts() -> Any:
        for number in range(8):
            taken.append(number)
            yield EVEN if number % 2 else ODD

    model = made("sample")
    found = model.predict(texts())
    assert taken == []
    assert next(found).label == "0"
    assert (len(taken), model.loaded.engine.sequences) == (3, 3)
    assert labels(found) == ["1", "0", "1", "0", "1", "0", "1"]
    assert model.predict(iter([])) is not None
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("task", "examples", "words"),
    [
        ("sample", 7, ("cannot predict of int",)),
        ("sample", {"text": ODD}, ("cannot predict of dict",)),
        ("sample", b"good", ("cannot predict of bytes",)),
        ("sample", [ODD, None], ("example 1 is neither a text nor a pair of texts: NoneType",)),
        ("sample", [{"text": 3}], ("example 0 is neither", "dict of int")),
        ("sample", [(ODD, ODD, ODD)], ("example 0 is neither", "tuple of str, str, str")),
        ("sample", [(ODD, EVEN)], ("example 0 has 2 texts", "single texts")),
        ("sample", [{"words": ODD}], ("example 0 has none of the columns sentence, text",)),
        ("cola", [{"words": ODD}], ("example 0 has none of the columns text",)),
        ("mrpc", ODD, ("example 0 has one text", "pairs of texts")),
        ("mrpc", [(ODD, EVEN), ODD], ("example 1 has one text",)),
        ("mrpc", [{"text": ODD}], ("example 0 has none of the columns #2 String, text_pair",)),
        ("squad", [ODD], ("squad has no classes", ".answer(question, context)")),
    ],
)
def test_what_is_no_example_is_named(task: str, examples: Any, words: tuple[str, ...], made: Any) -> None:
    with pytest.raises(UserError) as caught:
        made(task).predict(examples)
    for word in words:
        assert word in str(caught.value)


def test_only_a_model_of_spans_answers_questions(made: Any) -> None:
    with pytest.raises(UserError, match="does not answer questions"):
        made("sample").answer("who?", "Ann.")


def test_the_end_of_a_with_closes_the_engine(made: Any) -> None:
    with made("sample") as model:
        assert model.labels == ("0", "1")
    assert model.loaded.engine.closed
