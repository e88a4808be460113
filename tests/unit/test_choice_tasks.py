"""Multiple choice: which columns, how a label names a choice, a sequence for each, and what cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.conformance.fixtures import example_batch, part
from bertkit.data.encoding import encode
from bertkit.data.features import cached
from bertkit.data.sampler import Sampler, updates
from bertkit.data.tasks.own.base import OwnData
from bertkit.data.tasks.own.choices import ChoiceFormat
from bertkit.data.tasks.own.held_out import HeldOut
from bertkit.data.tasks.own.making import from_values, make_own_task, to_values
from bertkit.data.tasks.sample import vocabulary
from bertkit.data.tasks.task import AnswerRules, Part, Shape, Split, Task
from bertkit.engine.interface import label_counts
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary

WORDS = Vocabulary(Path("vocab.txt"), tuple(vocabulary()), lower_case=True)
CHOICE = OwnData(kind="choice")
SWAG = "sent1,sent2,ending0,ending1,label\nthe plot,is,good,bad,1\nthe movie,was,bad,good,0\n"


def written(folder: Path, content: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def made(path: Path, **said: Any) -> tuple[Task, ChoiceFormat, list[str]]:
    lines: list[str] = []
    task = make_own_task(path, dataclasses.replace(CHOICE, **said), lines.append)
    assert isinstance(task.format, ChoiceFormat)
    return task, task.format, lines


def features(task: Task, path: Path, split: Any = "train", rows: int = 0) -> Any:
    shape = Shape(seq_length=16, rows=rows)
    return task.format.features(task, path, split, Split(""), WORDS, shape, lambda done, of: None)


def test_a_choice_is_a_sequence_beside_the_text(tmp_path: Path) -> None:
    path = written(tmp_path, SWAG)
    task, own, lines = made(path, pair="sent2")
    assert (task.head.kind, task.head.outputs, own.choices) == ("choice", 2, ("ending0", "ending1"))
    assert "2 choices in ending0, ending1, each begins with sent2; label in label (from 0)" in lines[0]
    found = features(task, path)
    wanted = encode(
        WORDS, ["the plot"] * 2 + ["the movie"] * 2, ["is good", "is bad", "was bad", "was good"], {}, 16
    )  # fmt: skip
    assert (found.input_ids.tolist(), found.cu_seqlens.tolist()) == (
        wanted.input_ids.tolist(),
        wanted.cu_seqlens.tolist(),
    )
    assert (len(found), found.each, found.labels["labels"].tolist()) == (2, 2, [1, 0])
    assert found.sizes.tolist() == [found.lengths[:2].sum(), found.lengths[2:].sum()]
    batch = found.batch(np.array([1]))
    assert batch["input_ids"].tolist() == wanted.input_ids[wanted.cu_seqlens[2] :].tolist()
    assert (batch["labels"].tolist(), len(batch["cu_seqlens"])) == ([0], 3)
    assert label_counts("choice", [batch]) == {"sequences": 1}


def test_features_are_kept_with_their_sequences(tmp_path: Path) -> None:
    path = written(tmp_path, SWAG)
    task, _, _ = made(path)
    first = cached(tmp_path / "cache", "a", "key", lambda: features(task, path))
    again = cached(tmp_path / "cache", "a", "key", lambda: pytest.fail("was not kept"))
    assert (again.each, again.digest()) == (2, first.digest())
    assert first.digest() != dataclasses.replace(first, each=1).digest()


def test_examples_are_dealt_whole(tmp_path: Path) -> None:
    rows = "".join(f"the plot,{'good ' * (n % 5)}film,bad,{n % 2}\n" for n in range(20))
    path = written(tmp_path, f"text,choice1,choice2,label\n{rows}")
    task, _, _ = made(path)
    found = features(task, path)
    hands = [next(updates(found, Sampler(20, 8, 1), "choice", 1, 1, rank, 2, 2)) for rank in range(2)]
    dealt = [number for hand in hands for batch in hand.micro_batches for number in batch["example_ids"]]
    assert sorted(dealt) == sorted(Sampler(20, 8, 1).batch(1))
    for hand in hands:
        assert hand.label_counts == {"sequences": 8}
        for batch in hand.micro_batches:
            assert len(batch["cu_seqlens"]) == 2 * len(batch["labels"]) + 1


@pytest.mark.parametrize(
    ("labels", "naming", "numbers"),
    [
        (("0", "1"), "from 0", [0, 1]),
        (("2", "1"), "from 1", [1, 0]),
        (("A", "b"), "letters", [0, 1]),
        (("good", "good"), "texts", [0, 1]),
    ],
)
def test_how_a_label_names_a_choice(tmp_path: Path, labels: tuple[str, str], naming: str, numbers: list[int]) -> None:
    rows = f"the plot,good,bad,{labels[0]}\nthe film,bad,good,{labels[1]}\n"
    task, own, lines = made(written(tmp_path, f"question,option_a,option_b,answer\n{rows}"))
    assert own.naming == naming
    assert features(task, tmp_path / "a.csv").labels["labels"].tolist() == numbers
    assert any("counted from 1" in line for line in lines) == (naming == "from 1")


def test_lists_and_objects_of_choices(tmp_path: Path) -> None:
    lists = [{"question": "the plot", "choices": ["good", "bad"], "answer": 1}]
    objects = [{"question": "the plot", "choices": {"text": ["good", "bad"], "label": ["A", "B"]}, "answer": "B"}]
    digests = set()
    for number, rows in enumerate((lists, objects)):
        path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), f"{number}.jsonl")
        task, _, _ = made(path)
        digests.add(features(task, path).digest())
    assert len(digests) == 1


def test_a_part_is_held_out_and_the_format_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path, "text,choice1,choice2,label\n" + "a,good,bad,0\nb,good,bad,1\n" * 20)
    task, own, _ = made(path, held_out=HeldOut(0.25, 1))
    assert (len(features(task, path)), len(features(task, path, "dev")), own.stratified) == (30, 10, True)
    again = from_values(json.loads(json.dumps(to_values(own))), [], task.primary, "x", "y")
    assert (again.head, again.format, again.primary) == (task.head, own, "accuracy")


def test_answers_go_by_the_files_own_names(tmp_path: Path) -> None:
    path = written(tmp_path, "question,option_a,option_b,answer\nthe plot,good,bad,A\nthe film,bad,good,B\n")
    task, _, _ = made(path)
    made_part = Part("", path, "", features(task, path), 2, ())
    logits = np.array([[2.0, 0.0], [1.0, 0.0]], np.float32)
    answered = task.format.answer(task, made_part, {"logits": logits}, AnswerRules())
    assert answered.metrics == {"accuracy": 0.5}
    lines = answered.write(tmp_path, "").read_text().splitlines()
    assert lines == ["row,choice,probability", "0,A,0.880797", "1,A,0.731059"]


@pytest.mark.parametrize(
    ("content", "said", "words"),
    [
        ("text,label\na,0\n", {}, "which column holds the choices?"),
        ("a,choice1,choice2,label\nx,good,bad,0\n", {}, "which column holds the text?"),
        ("text,choice1,choice2\nx,good,bad\n", {}, "which column holds the label?"),
        ("text,choice1,choice2,label\nx,good,bad,7\n", {}, "holds 7, which name none of the 2 choices"),
        ("text,choice1,choice2,label\nx,good,bad,0\ny,good,,1\n", {}, "a.csv:3: a choice holds no text"),
        ("text,choice1,choice2,label\nx,good,bad,0\ny,good,bad,\n", {}, "a.csv:3: column label holds no label"),
        ("text,choice1,choice2,label\nx,good,bad,0\n", {"choices": "choice1,choice9"}, "has no column 'choice9'"),
        ("text,choice1,choice2,label\nx,good,bad,0\n", {"label": "text"}, "one column is named for two things"),
        ("text,choice1,choice2,label\nx,good,bad,0\n", {"choices": "choice1"}, "holds 'good', not a list of texts"),
        ("text,choice1,choice2,label\nx,good,bad,0\n", {"separator": "|"}, "table.separator is not for multiple"),
    ],
)
def test_what_is_wrong(tmp_path: Path, content: str, said: dict[str, Any], words: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        features(made(path, **said)[0], path)
    assert words in str(caught.value)


def test_rows_with_another_number_of_choices(tmp_path: Path) -> None:
    rows = [{"text": "a", "choices": ["x"] * n, "label": 0} for n in (2, 3)]
    path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")
    task, _, _ = made(path)
    with pytest.raises(UserError, match="has 3 choices, but the training file's first row has 2"):
        features(task, path)


def test_choices_are_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"table\.choices is for multiple choice"):
        make_own_task(written(tmp_path, SWAG), OwnData(choices="ending0,ending1", text="sent1"), lambda text: None)


def test_a_part_of_a_batch_has_whole_examples() -> None:
    batch = example_batch("choice")
    some = part(batch, np.array([2, 0]))
    assert (len(some["labels"]), len(some["cu_seqlens"])) == (2, 7)
    starts = batch["cu_seqlens"]
    assert some["input_ids"][: starts[9] - starts[6]].tolist() == batch["input_ids"][starts[6] : starts[9]].tolist()
