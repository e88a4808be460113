"""`bertkit data augment` within this process: files in and out, resumes, seeds, what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertkit
from bertkit.data.augmentation.variants import copies
from bertkit.data.tasks.sample import vocabulary
from bertkit.data.tasks.squad.reader import Paragraph, Question, ReferenceAnswer, read_squad
from bertkit.errors import Stopped, UserError
from bertkit.files.disk import write_arrays
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.parameters import initial
from bertkit.training import augmenting, augmenting_work
from bertkit.training.augmenting import AugmentationReport
from bertkit.training.augmenting_parts import CandidateParts, parts_folder
from bertkit.training.masked_words import best
from squad_files import reviews, write_squad

MODEL = ModelConfig(32, 1, 2, 64, vocab_size=len(vocabulary()), max_position_embeddings=64)
PRETRAINING = Head("pretraining", 2)
Augment = Callable[..., AugmentationReport]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model(tmp_path_factory.mktemp("model"))


def made_model(folder: Path, head: Head = PRETRAINING, without: str = "nothing") -> Path:
    (folder / "config.json").write_text(json.dumps(to_mapping(MODEL, head, ())))
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    weights = {name: array for name, array in initial(MODEL, head, 1).items() if not name.startswith(without)}
    write_arrays(folder / "model.safetensors", weights, {"format": "pt"})
    return folder


@pytest.fixture
def augment(model: Path, monkeypatch: pytest.MonkeyPatch) -> Augment:
    """On an engine whose logits follow from the sequence alone, in parts of a few sequences."""
    monkeypatch.setattr(augmenting_work, "PART", 8)
    seen: list[tuple[int, ...]] = []

    def predict(self: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = []
        for place in batch["masked_positions"]:
            start, end = between(batch["cu_seqlens"], place)
            ids = batch["input_ids"][start:end].tobytes()
            seen.append((*batch["input_ids"][start:end].tolist(), int(place - start)))
            rows.append(np.random.default_rng([zlib.crc32(ids), int(place - start)]).normal(size=MODEL.vocab_size))
        return {"masked_logits": np.array(rows, np.float32), "logits": np.zeros((1, 2), np.float32)}

    monkeypatch.setattr("bertkit_null.engine.NullEngine.predict", predict)

    def run(file: Path, output: Path, **options: Any) -> AugmentationReport:
        return bertkit.augment(file, output, model, backend="null", **options)

    run.seen = seen  # type: ignore[attr-defined]
    return run


def between(starts: np.ndarray, place: int) -> tuple[int, int]:
    number = int(np.searchsorted(starts, place, side="right")) - 1
    return int(starts[number]), int(starts[number + 1])


@pytest.fixture
def rows(tmp_path: Path, sample_dir: Path) -> Path:
    """Forty rows of the sample task, two of them the same text."""
    lines = (sample_dir / "sample" / "train.tsv").read_text().splitlines()[:40]
    (tmp_path / "train.tsv").write_text("\n".join([*lines, lines[5]]) + "\n")
    return tmp_path / "train.tsv"


def test_the_likeliest_words_without_the_one_that_stands_there() -> None:
    logits = np.array([[0, 5, 3, 9, 4, -1], [9, 0, 1, 2, 3, 4]], np.float32)
    assert best(logits, np.array([3, -1]), 3).tolist() == [[1, 2, 4], [0, 4, 5]]
    logits[1, 2] = np.nan
    with pytest.raises(UserError, match="logits that are not finite"):
        best(logits, np.array([3, -1]), 3)


# ---- files ----


def test_a_tasks_table_keeps_header_labels_and_originals(augment: Augment, rows: Path, tmp_path: Path) -> None:
    made = augment(rows, tmp_path / "out.tsv", task="sample", copies=5)
    before, after = rows.read_text().splitlines(), (tmp_path / "out.tsv").read_text().splitlines()
    assert after[0] == before[0] == "sentence\tlabel"
    assert [line for line in after if line in before] == before, "each original is there, in its order"
    assert len(after) - len(before) == made.copies > 3 * len(before)
    assert made.examples == len(before) - 1
    last = ""
    for line in after[1:]:
        last = line if line in before else last
        assert (line.split("\t")[1], len(line.split())) == (last.split("\t")[1], len(last.split()))


def test_equal_texts_are_computed_once_and_drawn_apart(augment: Augment, rows: Path, tmp_path: Path) -> None:
    augment(rows, tmp_path / "out.tsv", task="sample", copies=5)
    assert max(Counter(augment.seen).values()) == 1  # type: ignore[attr-defined]
    lines = (tmp_path / "out.tsv").read_text().splitlines()
    text = rows.read_text().splitlines()[-1]
    first, second = (place for place, line in enumerate(lines) if line == text)
    assert lines[first + 1 : first + 3] != lines[second + 1 : second + 3]


def test_a_table_without_a_header_and_pairs(augment: Augment, tmp_path: Path) -> None:
    (tmp_path / "cola.tsv").write_text('s\t1\t\tthe plot is good\ns\t0\t*\tthe "film" was slow\n')
    augment(tmp_path / "cola.tsv", tmp_path / "cola-out.tsv", task="cola", copies=3)
    made = [line.split("\t") for line in (tmp_path / "cola-out.tsv").read_text().splitlines()]
    assert next(row[3] for row in made if row[1] == "1") == "the plot is good"
    assert {tuple(row[:3]) for row in made} == {("s", "1", ""), ("s", "0", "*")}
    assert len(made) > 4
    rte = "index\tsentence1\tsentence2\tlabel\n7\tthe plot is good\tthe plot is good\tentailment\n"
    (tmp_path / "rte.tsv").write_text(rte)
    augment(tmp_path / "rte.tsv", tmp_path / "rte-out.tsv", task="rte")
    made = [line.split("\t") for line in (tmp_path / "rte-out.tsv").read_text().splitlines()]
    assert {(row[0], row[3]) for row in made[1:]} == {("7", "entailment")}
    assert len({row[1] for row in made}) > 3
    assert sum(row[1] == row[2] for row in made) < len(made) / 2


def test_tables_of_ones_own_come_out_as_they_came_in(augment: Augment, tmp_path: Path) -> None:
    cells = [["a;b", 'The PLOT is "good"; it\'s\nfine', "5"], ["c", "", "1"], ["", "bad", "2"]]
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows([["id", "review", "stars"], *cells])
    augment(tmp_path / "in.csv", tmp_path / "out.csv", copies=4)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        header, *made = csv.reader(file, delimiter=";")
    assert header == ["id", "review", "stars"]
    assert [row for row in made if row in cells] == cells
    for row in made:
        if row[0] == "a;b":
            words = row[1].replace('"', " ").replace(";", " ").split()
            assert row[1].startswith("The ")
            assert row[1].endswith("; it's\n" + words[-1])
            assert (words[1].isupper(), words[3].islower()) == (True, True)
    lines = [{"label": {"a": 1}, "text": "the plot is good", "n": 3}, {"text": None, "n": 4}, {"text": "bad ☃"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    augment(tmp_path / "in.jsonl", tmp_path / "out.jsonl", text="text", copies=2)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line for line in found if line in lines] == lines
    assert {line["n"] for line in found if line.get("label")} == {3}


def test_several_columns_and_parquet(augment: Augment, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"title": ["the plot"], "body": ["it is good and slow"], "stars": pa.array([4], pa.int8())})
    pq.write_table(table, tmp_path / "in.parquet")
    augment(tmp_path / "in.parquet", tmp_path / "out.parquet", text="{title}: {body}", copies=9, share=0.8)
    made = pq.read_table(tmp_path / "out.parquet")
    assert made.schema == table.schema
    assert min(len(set(made.column(name).to_pylist())) for name in ("title", "body")) > 3
    assert set(made.column("stars").to_pylist()) == {4}


@pytest.mark.parametrize("version2", [False, True])
def test_squads_answers_stand_where_they_are_said(augment: Augment, tmp_path: Path, version2: bool) -> None:
    source = write_squad(tmp_path / "in.json", reviews(12, version2), version2)
    augment(source, tmp_path / "out.json", task="squad2" if version2 else "squad", copies=4)
    before, made = list(read_squad(source)), list(read_squad(tmp_path / "out.json"))
    assert [one for one in made if one.questions[0].id in {old.questions[0].id for old in before}] == [
        type(one)("Title", one.context, one.questions) for one in before
    ]
    assert len(made) > 3 * len(before)
    answers = [(one.context, answer) for one in made for question in one.questions for answer in question.answers]
    assert answers
    for context, answer in answers:
        assert context[answer.start : answer.start + len(answer.text)] == answer.text
    assert any(question.impossible for one in made for question in one.questions) == version2


def test_equal_answers_and_equal_contexts(augment: Augment, tmp_path: Path) -> None:
    """An answer is where it was, though the same word stands before it, or the same context has other answers."""
    context = "the plot was good and bold , the cast was really good"
    end = len(context) - len("good")
    asked = {"a": ReferenceAnswer("good", end), "b": ReferenceAnswer("bold", 22)}
    held = [Paragraph("Title", context, (Question(name, "what ?", (answer,)),)) for name, answer in asked.items()]
    write_squad(tmp_path / "in.json", held)
    augment(tmp_path / "in.json", tmp_path / "out.json", task="squad", copies=20)
    made = list(read_squad(tmp_path / "out.json"))
    first_stays = 0
    for one in made:
        (question,) = one.questions
        (answer,) = question.answers
        assert one.context[answer.start :][: len(answer.text)] == answer.text
        if question.id.startswith("a"):
            assert answer.start + len("good") == len(one.context)
            first_stays += one.context.index("good") < answer.start
    assert 2 < first_stays < len(made) / 2
    assert any(not one.context.endswith("good") for one in made), "which is no answer there"


def test_long_texts_are_varied_from_end_to_end(augment: Augment, tmp_path: Path) -> None:
    """Of 400 pieces, where a sequence has room for 30: no word takes another's candidates."""
    text = " ".join(["the plot is good ,", "a slow film ."] * 50)
    (tmp_path / "in.csv").write_text(f'text,label\n"{text}",1\n')
    made = augment(tmp_path / "in.csv", tmp_path / "out.csv", copies=6)
    assert made.words == 200
    changed = set()
    for row in csv.reader((tmp_path / "out.csv").read_text().splitlines()[2:]):
        pairs = [*zip(text.split(), row[0].split(), strict=True)]
        changed |= {place for place, (old, new) in enumerate(pairs) if old != new}
        assert all(old == new for old, new in pairs if old in ("the", "is", ",", "a", "."))
    assert len(changed) > 180
    positions = {len(ids) for ids in augment.seen}  # type: ignore[attr-defined]
    assert max(positions) <= 64 + 1


# ---- seeds, resumes ----


def test_the_same_bytes_whatever_the_batch_and_another_file_by_another_seed(
    augment: Augment, rows: Path, tmp_path: Path
) -> None:
    for name, options in {"a": {}, "b": {"batch_size": 3}, "c": {"seed": 2}, "d": {"masks": 4}}.items():
        augment(rows, tmp_path / f"{name}.tsv", task="sample", copies=3, **options)
    made = {name: (tmp_path / f"{name}.tsv").read_bytes() for name in "abcd"}
    assert made["a"] == made["b"]
    assert len({*made.values()}) == 3


@pytest.mark.parametrize("after", [1, 4])
def test_work_that_was_ended_is_resumed_to_the_same_bytes(
    augment: Augment, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    augment(rows, tmp_path / "whole.tsv", task="sample", copies=3)
    whole = len(augment.seen)  # type: ignore[attr-defined]
    augment.seen.clear()  # type: ignore[attr-defined]
    write = CandidateParts.write

    def fail(self: CandidateParts, number: int, candidates: np.ndarray) -> None:
        if number == after:
            raise KeyboardInterrupt
        write(self, number, candidates)

    output = tmp_path / "out.tsv"
    monkeypatch.setattr(CandidateParts, "write", fail)
    with pytest.raises(Stopped, match="stopped; what is finished is kept: the same command resumes"):
        augment(rows, output, task="sample", copies=3)
    monkeypatch.setattr(CandidateParts, "write", write)
    assert not output.exists()
    done = sorted(path.name for path in parts_folder(output).iterdir())
    assert done == ["key.json", *(f"part-{number:06d}.safetensors" for number in range(after))]
    computed = len(augment.seen)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"out.tsv.unfinished: holds unfinished work of another file, model or options"):
        augment(rows, output, task="sample", copies=3, candidates=4)
    damaged = parts_folder(output) / done[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    augment(rows, output, task="sample", copies=3)
    assert output.read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert not parts_folder(output).exists()
    again = len(augment.seen) - computed  # type: ignore[attr-defined]
    assert again < whole if after > 1 else again <= whole


def test_a_fault_while_the_file_is_written_leaves_none(
    augment: Augment, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augmenting, "copies", lambda *given: 1 / 0 if given[-1] == "1 9" else [])
    with pytest.raises(ZeroDivisionError):
        augment(rows, tmp_path / "out.tsv", task="sample")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tsv.unfinished", "train.tsv"]
    monkeypatch.setattr(augmenting, "copies", copies)
    augment.seen.clear()  # type: ignore[attr-defined]
    augment(rows, tmp_path / "out.tsv", task="sample", copies=2)
    assert not augment.seen, "every candidate was there"  # type: ignore[attr-defined]


# ---- vectors ----


def test_words_of_several_pieces_are_replaced_by_near_ones(
    augment: Augment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.tsv").write_text("sentence\tlabel\nthe Zebra is good\t1\nzebras , quux\t0\n")
    (tmp_path / "v.txt").write_text("zebra 1 0\nhorse 1 0.1\ndonkey 1 0.2\nzebras 0 1\n")
    made = augment(tmp_path / "in.tsv", tmp_path / "a.tsv", task="sample", quiet=False)
    assert (
        "3 of 3 words are not one word piece and stay as they are (--vectors FILE replaces them)"
        in capsys.readouterr().err
    )
    assert (made.words, made.kept_words, made.unchanged) == (1, 3, 1)
    made = augment(tmp_path / "in.tsv", tmp_path / "b.tsv", task="sample", vectors=tmp_path / "v.txt", candidates=2)
    assert made.kept_words == 1
    text = (tmp_path / "b.tsv").read_text()
    assert {word for word in text.split() if word[0].isupper()} == {"Zebra", "Horse", "Donkey"}
    assert "quux" in text


# ---- what is refused ----


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "ner"}, "tags of tokens are not augmented"),
        ({"task": "ax"}, "task ax has no train set"),
        ({"task": "pretrain"}, "files of task pretrain are not augmented"),
        ({"task": "sample", "text": "sentence"}, "table.text is for data of your own"),
        ({"task": "mrpc"}, "has no column '#1 String'"),
        ({"text": "nothing"}, "has no column 'nothing' for the text"),
        ({"task": "sample", "copies": 0}, "--copies 0 is below 1; use 1 or more"),
        ({"task": "sample", "share": 0.0}, "--share 0 is not a share of the words"),
        ({"task": "sample", "seed": -1}, "the seed -1 is below 0"),
        ({"task": "sample", "seq_length": 8}, "sequences of 8 tokens have no room for a text twice; use -s 11 or more"),
        ({"task": "sample", "seq_length": 65}, "sequence length 65 is over"),
        ({"task": "sample", "precision": "int8"}, "has no int8"),
        ({"task": "sample", "vectors": "nothing.txt"}, "nothing.txt: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(
    augment: Augment, rows: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        augment(rows, tmp_path / "out.tsv", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["train.tsv"]


def test_files_that_cannot_be_written(augment: Augment, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "there.tsv").write_text("mine")
    packed = tmp_path / "in.csv.gz"
    packed.write_bytes(gzip.compress(b"text,label\nthe plot is good,1\n"))
    for source, name, said in (
        (rows, "there.tsv", "is there already; name another file with -o, or --overwrite it"),
        (rows, "train.tsv", "train.tsv is the file that is augmented"),
        (rows, "", "is a folder; name the file to write"),
        (packed, "out.jsonl", "its ending is not that of what is written"),
        (packed, "out.csv.gz", "its ending is not that of what is written"),
    ):
        task = "sample" if source == rows else None
        with pytest.raises(UserError, match=said):
            augment(source, tmp_path / name, task=task, overwrite=name == "train.tsv")
    assert (tmp_path / "there.tsv").read_text() == "mine"
    augment(rows, tmp_path / "there.tsv", task="sample", copies=1, overwrite=True)
    augment(packed, tmp_path / "out.csv", copies=1)
    assert (tmp_path / "out.csv").read_text().startswith("text,label\nthe plot is good,1\n")


def test_a_model_without_a_masked_word_head_is_refused(rows: Path, tmp_path: Path) -> None:
    for number, head in enumerate((Head("classification", 2), Head("pretraining", 2))):
        folder = tmp_path / str(number)
        folder.mkdir()
        made_model(folder, head, without="cls.predictions.transform.dense.")
        lacking = rf"{number}: has no head for masked words: its weights lack cls.predictions"
        with pytest.raises(UserError, match=lacking):
            bertkit.augment(rows, tmp_path / "out.tsv", folder, task="sample", backend="null")
    folder = tmp_path / "encoder"
    folder.mkdir()
    made_model(folder, without="cls.seq_relationship.")
    bertkit.augment(rows, tmp_path / "out.tsv", folder, task="sample", backend="null", copies=1)  # is not asked
