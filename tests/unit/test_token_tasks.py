"""Tasks that label tokens: CoNLL's columns, schemes of tags, labels on first pieces, entity scores as seqeval's."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.encoding import encode, encode_with_places, encode_words
from bertkit.data.features import Features
from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import TableOptions
from bertkit.data.tasks.own.base import OwnData
from bertkit.data.tasks.own.making import from_values, make_own_task, to_values
from bertkit.data.tasks.own.tags import Entity, count_entities, entities, scheme_of, whole_set
from bertkit.data.tasks.own.tokens import TokenFormat
from bertkit.data.tasks.sample import vocabulary
from bertkit.data.tasks.task import AnswerRules, Part, Shape, Split, Task
from bertkit.engine.interface import NO_LABEL
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary
from conftest import ROOT

WORDS = Vocabulary(Path("vocab.txt"), tuple(vocabulary()), lower_case=True)
CONLL = "-DOCSTART- -X- O\n\nthe DT O\nplot NN B-THING\nis VB O\n\n\nmovies NN B-THING\ngood JJ I-THING\n"
NER = OwnData(kind="ner", options=TableOptions(conll=True))


def written(folder: Path, content: str, name: str = "a.conll") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def made(path: Path) -> tuple[Task, TokenFormat]:
    task = make_own_task(path, NER, lambda text: None)
    assert isinstance(task.format, TokenFormat)
    return task, task.format


def read(path: Path) -> list[dict[str, Any]]:
    return [dict(row.cells) for row in open_table(path, TableOptions(conll=True)).rows()]


def test_sentences_of_columns(tmp_path: Path) -> None:
    wanted = [
        {"tokens": ["the", "plot", "is"], "tags": ["O", "B-THING", "O"]},
        {"tokens": ["movies", "good"], "tags": ["B-THING", "I-THING"]},
    ]
    assert read(written(tmp_path, CONLL)) == wanted
    tabs = CONLL.replace(" ", "\t").replace("\n", "\r\n")
    assert read(written(tmp_path, tabs)) == wanted
    assert read(written(tmp_path, "# sent_id = 1\n" + CONLL.rstrip())) == wanted
    assert read(written(tmp_path, "# O\nb O\n"))[0]["tokens"] == ["#", "b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\tO\nb O\n", "a.conll:2: has 1 columns, not 2; part all columns alike"),
        ("a X O\nb O\n", "a.conll:2: has 2 columns, not 3"),
        ("a\nb\n", "a.conll:1: has one column, so no tag"),
        ("\n\n", "holds no tokens"),
        ("a O\nb O\n", "holds 1 tag only"),
    ],
)
def test_what_is_wrong_with_columns(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        made(written(tmp_path, content))
    assert words in str(caught.value)


def test_lists_of_tokens_and_numbered_tags(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "ner_tags": [0, 1]}, {"tokens": ["c"], "ner_tags": [2]}]
    path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")
    assert made(path)[0].labels == ("0", "1", "2")
    path = written(tmp_path, json.dumps(rows[0] | {"ner_tags": [0]}) + "\n" + json.dumps(rows[1]), "b.jsonl")
    with pytest.raises(UserError, match=r"b\.jsonl:1: has 2 tokens, but 1 tags; give each token one tag"):
        made(path)


# ---- tags ----


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("O B-P I-P O B-L", [("P", 1, 2), ("L", 4, 4)]),
        ("B-P B-P I-P", [("P", 0, 0), ("P", 1, 2)]),
        ("I-P I-P O I-L", [("P", 0, 1), ("L", 3, 3)]),  # IOB1
        ("B-P I-L", [("P", 0, 0), ("L", 1, 1)]),
        ("S-P B-P I-P E-P", [("P", 0, 0), ("P", 1, 3)]),
        ("U-P B-P L-P O", [("P", 0, 0), ("P", 1, 2)]),
        ("NN NN VB", [("NN", 0, 1), ("VB", 2, 2)]),
        ("O O", []),
    ],
)
def test_entities_of_tags(tags: str, wanted: list[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == [Entity(*each) for each in wanted]


@pytest.mark.parametrize(
    ("tags", "scheme", "whole"),
    [
        (["O", "B-P"], "IOB", ("O", "B-P", "I-P")),
        (["S-P", "O", "B-L"], "IOBES", ("O", "B-L", "I-L", "E-L", "S-L", "B-P", "I-P", "E-P", "S-P")),
        (["U-P", "O"], "BILOU", ("O", "B-P", "I-P", "L-P", "U-P")),
        (["NN", "VB", "O"], "", ("O", "NN", "VB")),
    ],
)
def test_a_scheme_has_all_its_tags(tags: list[str], scheme: str, whole: tuple[str, ...]) -> None:
    assert scheme_of(tags) == scheme
    assert whole_set(tags, scheme) == whole


def test_scores_are_those_of_seqeval() -> None:
    """1,000 random taggings; precision, recall, F1 and macro F1 were written down from seqeval 1.2.2."""
    golden = iter(json.loads((ROOT / "tests" / "golden" / "entity_scores.json").read_text()))
    for letters, seed in itertools.product(("BI", "BIES"), range(500)):
        tags = ["O"] * 2 + [f"{letter}-{type_}" for type_ in ("PER", "LOC", "MISC") for letter in letters]
        stream = np.random.default_rng([seed, len(letters)])
        gold = [[tags[place] for place in stream.integers(0, len(tags), n)] for n in stream.integers(1, 12, 5)]
        said = [
            [tag if stream.random() < 0.7 else tags[stream.integers(0, len(tags))] for tag in each] for each in gold
        ]
        counts = count_entities(gold, said)
        assert [*counts.scores(), counts.macro_f1] == pytest.approx(next(golden), abs=1e-11)
    assert not list(golden)


# ---- features and answers ----


def features(folder: Path, length: int = 16) -> tuple[Task, Part]:
    path = written(folder, CONLL)
    task, own = made(path)
    shape = Shape(seq_length=length)
    found = own.features(task, path, "train", Split("train"), WORDS, shape, lambda done, of: None)
    return task, Part("", path, "", found, len(found), own.faults(found))


def test_labels_stand_on_first_pieces(tmp_path: Path) -> None:
    task, part = features(tmp_path)
    labels = part.features.labels["token_labels"]
    firsts = part.features.notes["first"]
    assert [task.labels[number] for number in labels[firsts]] == ["O", "B-THING", "O", "B-THING", "I-THING"]
    others = np.setdiff1d(np.arange(len(labels)), firsts)
    assert (labels[others] == NO_LABEL).all()
    pieces = [WORDS.pieces[number] for number in part.features.input_ids]
    assert all(not pieces[place].startswith("##") for place in firsts)


def test_the_right_outputs_score_1_and_words_that_are_cut_count_as_o(tmp_path: Path) -> None:
    task, part = features(tmp_path)
    right = np.eye(len(task.labels))[np.maximum(part.features.labels["token_labels"], 0)]
    answered = task.format.answer(task, part, {"logits": right}, AnswerRules())
    assert answered.metrics == dict.fromkeys(answered.metrics, 1.0)
    path = answered.write(tmp_path / "out", "-dev")
    assert path.read_text() == "the\tO\nplot\tB-THING\nis\tO\n\nmovies\tB-THING\ngood\tI-THING\n"
    task, short = features(tmp_path, 3)  # [CLS], one piece, [SEP]
    assert "words stand behind the maximum length" in short.faults[0]
    right = np.eye(len(task.labels))[np.maximum(short.features.labels["token_labels"], 0)]
    assert task.format.answer(task, short, {"logits": right}, AnswerRules()).metrics["entity_recall"] < 1


def test_a_tag_that_training_lacks(tmp_path: Path) -> None:
    task, own = made(written(tmp_path, CONLL))
    other = written(tmp_path, "a X O\nb X B-THNG\n", "dev.conll")
    with pytest.raises(UserError, match=r"dev\.conll:1: the tag 'B-THNG' does not occur in the training file; did you"):
        own.sentences(task, other, "dev")


def test_it_is_kept_and_taken_up_again(tmp_path: Path) -> None:
    task, own = made(written(tmp_path, CONLL))
    assert from_values(json.loads(json.dumps(to_values(own))), list(task.labels), task.primary, "x", "y") == task


def test_words_of_a_text_know_their_characters() -> None:
    text = "The  plot, unaffectedly good!"
    features, (found,) = encode_with_places(WORDS, [text], 64)
    assert features.digest() == encode(WORDS, [text], None, {}, 64).digest()
    assert [text[word.start : word.end] for word in found] == ["The", "plot", ",", "unaffectedly", "good", "!"]
    assert len({word.token for word in found}) == 6


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
def test_a_batch_takes_the_labels_of_its_tokens(lengths: list[int], seed: int) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(starts[-1], dtype=np.int32)
    made = Features(tokens, np.zeros_like(tokens), starts, {"token_labels": 10 * tokens.astype(np.int64)})
    chosen = np.random.default_rng(seed).permutation(len(lengths))[: 1 + seed % len(lengths)]
    batch = made.batch(chosen)
    assert (batch["token_labels"] == 10 * batch["input_ids"]).all()
    assert batch["cu_seqlens"][-1] == len(batch["token_labels"])


def test_words_without_pieces_and_words_that_are_cut_have_no_token() -> None:
    _, first = encode_words(WORDS, [["the", "\x02", "plot"], ["a"] * 9], 6)
    assert first[0] >= 0
    assert (first[3:] >= 0).sum() == 4


def test_rows_without_tokens_are_counted_and_settings_for_rows_refused(tmp_path: Path) -> None:
    rows = [{"tokens": ["the", "plot"], "tags": ["O", "B-P"]}, {"tokens": [], "tags": []}]
    path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")
    task, own = made(path)
    found = own.features(task, path, "train", Split("train"), WORDS, Shape(seq_length=16), lambda done, of: None)
    assert own.faults(found) == ("1 rows without tokens are left out",)
    with pytest.raises(UserError, match=r"table\.separator is for rows with texts and labels"):
        make_own_task(path, OwnData(kind="ner", separator="|"), lambda text: None)
