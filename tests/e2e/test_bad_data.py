"""Pre-training data and SQuAD-like files that cannot be: `data inspect`, `data prepare`, `train` and `predict` say so
in one line and exit with 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from command import CPU, NULL, run, settings
from conftest import assert_one_line_error
from pretraining_files import known_sequences, write_hdf5, write_parquet, write_tfrecord, write_vocabulary

KNOWN = known_sequences(12)
TEXT = "The dog said it was good. The cat was not good.\n\nThe story was written by a clerk.\n"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    write_vocabulary(tmp_path)
    return tmp_path / "shards"


def with_value(name: str, place: tuple[int, ...], value: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_hdf5(folder / "a.hdf5", KNOWN)
        with h5py.File(folder / "a.hdf5", "a") as file:
            values = file[name][:].astype(np.int64)
            values[place] = value
            del file[name]
            file[name] = values

    return write


def with_group(folder: Path) -> None:
    write_hdf5(folder / "a.hdf5", KNOWN)
    with h5py.File(folder / "a.hdf5", "a") as file:
        del file["input_ids"]
        file.create_group("input_ids")


def with_broken_manifest(folder: Path) -> None:
    write_hdf5(folder / "a.hdf5", KNOWN)
    (folder / "manifest.json").write_text('{"manifest": 1, "settings": 5}')


BAD: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "id 2^40": (with_value("input_ids", (0, 1), 2**40), ("a.hdf5: sequence 0: input_ids has 1099511627776",)),
    "label 7": (with_value("next_sentence_labels", (3,), 7), ("a.hdf5: sequence 3: its next_sentence_labels are not",)),
    "group": (with_group, ("a.hdf5: input_ids is not an array",)),
    "manifest": (with_broken_manifest, ("manifest.json: ", "copy the folder again")),
    "cut": (lambda folder: (folder / "a.tfrecord").write_bytes(b"x" * 9) and None, ("a.tfrecord: is cut off",)),
}


@pytest.mark.parametrize("name", BAD)
def test_inspect_and_train_name_what_cannot_be(name: str, shards: Path, tmp_path: Path) -> None:
    spoil, words = BAD[name]
    spoil(shards)
    assert_one_line_error(run(tmp_path, "data", "inspect", "shards"), *words)
    recipe = ("train", "--backend", "cpu", "-t", "pretrain", "-m", "tiny", "-s", "32", "-d", "fp32", "-o", "run")
    more = settings(data__dir="shards", model__vocab="vocab.txt", train__steps=1, train__batch_size=4)
    assert_one_line_error(run(tmp_path, *recipe, *more), *words)
    assert not (tmp_path / "run" / "record.json").exists()


def test_a_dictionary_is_read_as_its_values(shards: Path, tmp_path: Path) -> None:
    write_parquet(shards / "part.0.parquet", KNOWN)
    plain = run(tmp_path, "data", "inspect", "shards")
    table = pq.read_table(shards / "part.0.parquet")
    for name in ("A", "B"):
        table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
    pq.write_table(table, shards / "part.0.parquet")
    found = run(tmp_path, "data", "inspect", "shards")
    assert (found.returncode, found.stdout) == (0, plain.stdout)


def test_inspect_says_how_many_are_masked_not_how_many_could_be(shards: Path, tmp_path: Path) -> None:
    for name, write in (("a.hdf5", write_hdf5), ("a.tfrecord", write_tfrecord)):
        write(shards / name, [one for one in KNOWN if len(one.masks) <= 3])
        found = run(tmp_path, "data", "inspect", f"shards/{name}", "--vocab", "vocab.txt", "--json")
        assert json.loads(found.stdout)["masks"]["most"] == 3


def prepare(folder: Path, format: str, *more: str) -> tuple[str, ...]:
    options = ("-o", "out", "--vocab", "vocab.txt", "-s", "64", "--workers", "1", "--masking", "static", "--overwrite")
    return ("data", "prepare", "corpus", *options, "--format", format, *more)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"content": "The dog."}\n' * 3, ('a.jsonl: is JSON without "text"', "'content'")),
        ("a.csv", "id,text\n1,The dog.\n2,The cat.\n", ("a.csv: is a table of comma-separated values (id, text)",)),
    ],
)
def test_prepare_refuses_what_is_no_text(
    name: str, text: str, words: tuple[str, ...], shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / name).write_text(text)
    assert_one_line_error(run(tmp_path, *prepare(tmp_path, "hdf5")), *words)
    assert not (tmp_path / "out").exists()


VOCABULARY = ("[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", *"abcdefghijklmnopqrstuvwxyz", "[", "]", ".", "the", "mask")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_id_0_and_names_of_special_tokens(workers: str, tmp_path: Path) -> None:
    """With [UNK] as the piece 0, all formats hold the same targets; and "[MASK]" in a text is never one."""
    (tmp_path / "corpus").mkdir()
    for number in range(4):
        (tmp_path / "corpus" / f"{number}.txt").write_text(("the [MASK] dog [SEP] a b c. the a b.\n" * 9 + "\n") * 9)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    shares = []
    for format in ("parquet", "hdf5", "tfrecord"):
        made = run(tmp_path, *prepare(tmp_path, format, "--workers", workers))
        assert made.returncode == 0, made.stderr
        found = json.loads(run(tmp_path, "data", "inspect", "out", "--samples", "9", "--json").stdout)
        shares.append(found["masks"]["share"])
        assert found["masks"]["special"] == 0
        assert not any("|[MASK]" in sample["text"] for sample in found["samples"])
    assert shares[0] == shares[1] == shares[2]


# SQuAD-like files


def squad(start: int, id: object = 262) -> str:
    asked = {"id": id, "question": "the plot is ?", "answers": [{"text": "good", "answer_start": start}]}
    return json.dumps({"data": [{"title": 1, "paragraphs": [{"context": "the plot is good .", "qas": [asked]}]}]})


def test_answers_that_all_stand_elsewhere(sample_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(squad(3))
    (tmp_path / "dev.json").write_text(squad(12))
    words = ("train.json: all 1 of its questions were left out", "answer_start")
    command = (*NULL[:3], "-t", "squad", "-m", "tiny", "-s", "64", "-d", "fp32", "-o", "run")
    vocab = str(sample_dir / "sample" / "vocab.txt")
    more = settings(
        data__train_file="train.json",
        data__dev_file="dev.json",
        data__doc_stride=16,
        model__vocab=vocab,
        model__start="random",
    )
    for last in ((), ("--dry-run",)):
        assert_one_line_error(run(tmp_path, *command, *more, *last), *words)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_whole_numbers_as_ids_are_answered(sample_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(squad(12))
    vocab = str(sample_dir / "sample" / "vocab.txt")
    more = settings(
        data__train_file="train.json",
        data__dev_file="train.json",
        data__doc_stride=16,
        model__vocab=vocab,
        model__start="random",
        train__steps=1,
    )
    command = (*CPU[:3], "-t", "squad", "-m", "tiny", "-s", "64", "-d", "fp32", "-o", "run")
    assert run(tmp_path, *command, *more).returncode == 0
    answered = run(tmp_path, "predict", "run", "--backend", "cpu", "-t", "squad", "--file", "train.json", "-o", "out")
    assert answered.returncode == 0, answered.stderr
    assert list(json.loads((tmp_path / "out" / "predictions.json").read_text())) == ["262"]
