"""XNLI and SWAG as they are published: which rows, which labels, which files are fetched for what, and their scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.features import Features
from bertkit.data.tasks import TASKS, find_task
from bertkit.data.tasks.sample import vocabulary
from bertkit.data.tasks.scoring import score_file
from bertkit.data.tasks.swag import SwagFormat
from bertkit.data.tasks.task import AnswerRules, Part, Shape, SplitName, Task, split_files
from bertkit.data.tasks.xnli import LANGUAGES, by_language
from bertkit.errors import UserError
from bertkit.files.downloads import Download, fetch, load_sources, unpack_zip
from bertkit.model.vocabulary import Vocabulary
from bertkit.recipes.resolve import resolve
from bertkit.training.run_task import RunTask, check_task
from bertkit.training.supply import lacking_data
from publisher import make_zip, quiet

WORDS = Vocabulary(Path("vocab.txt"), tuple(vocabulary()), lower_case=True)
RULES = AnswerRules()
# The columns of XNLI-1.0; parses are empty in the published files, and some rows have all five annotators' labels
HEADER = (
    "language gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 "
    "sentence2 promptID pairID genre label1 label2 label3 label4 label5 sentence1_tokenized sentence2_tokenized match"
).split()


def row(language: str, label: str, first: str, second: str) -> str:
    cells = {"language": language, "gold_label": label, "sentence1": first, "sentence2": second, "match": "True"}
    return "\t".join(cells.get(name, "") for name in HEADER)


ROWS = [
    row("ar", "neutral", 'قال: "نعم', "لا"),  # a quotation mark that is not closed means nothing
    row("de", "contradiction", "der Film ist gut", "er ist nicht gut"),
    row("de", "entailment", "ja", "ja"),
    row("zh", "entailment", "你好", "好"),
]
XNLI_TSV = "\n".join(["\t".join(HEADER), *ROWS]) + "\n"
MT_TSV = "premise\thypo\tlabel\nein Film\tkein Film\tcontradictory\ngut\tgut\tentailment\n"
SWAG_COLUMNS = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3"
SWAG_ROW = '0,anetv_x,3416,"A man, left. He","A man, left.",He,gold,is good,"is ""bad""",was fine,is None'


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """As `bertkit data get xnli xnli-mt swag` leaves it, from archives of the publishers' layout."""
    folder = tmp_path / "XNLI"
    dev_and_test = {
        "XNLI-1.0/xnli.dev.tsv": XNLI_TSV,
        "XNLI-1.0/xnli.test.tsv": XNLI_TSV,
        "XNLI-1.0/xnli.dev.jsonl": "{}\n",
        "XNLI-1.0/README.md": "XNLI",
        "__MACOSX/XNLI-1.0/._xnli.dev.tsv": "\0",
    }
    translated = {f"XNLI-MT-1.0/multinli/multinli.train.{language}.tsv": MT_TSV for language in LANGUAGES}
    translated |= {"XNLI-MT-1.0/xnli/xnli.test.de.en.tsv": "x\n", "XNLI-MT-1.0/README": "x\n"}
    for name, members in (("xnli", dev_and_test), ("xnli-mt", translated)):
        source = load_sources()[name]
        (download,) = source.downloads
        archive = make_zip(tmp_path / download.name, {member: text.encode() for member, text in members.items()})
        unpack_zip(archive, folder, download.strip, [file.name for file in source.files])
        archive.unlink()
    assert len(list(folder.iterdir())) == 17
    swag = tmp_path / "SWAG"
    swag.mkdir()
    for name in ("train.csv", "val.csv"):
        (swag / name).write_text(f"{SWAG_COLUMNS},label\n{SWAG_ROW},2\n", encoding="utf-8")
    (swag / "test.csv").write_text(f"{SWAG_COLUMNS}\n{SWAG_ROW}\n", encoding="utf-8")
    return tmp_path


def read(task: Task, data_dir: Path, split: SplitName, rows: int = 0) -> Features:
    (one,) = task.splits[split]
    path = task.format.find(task, data_dir / task.folder, split, one)
    return task.format.features(
        task, path, split, one, WORDS, Shape(seq_length=32, rows=rows), lambda done, total: None
    )


def test_xnli_reads_all_languages_or_one(data_dir: Path) -> None:
    everything = read(find_task("xnli"), data_dir, "dev")
    assert [LANGUAGES[number] for number in everything.notes["languages"]] == ["ar", "de", "de", "zh"]
    assert everything.labels["labels"].tolist() == [2, 0, 1, 1]
    german = read(find_task("xnli-de"), data_dir, "test")
    assert german.labels["labels"].tolist() == [0, 1]
    assert len(read(find_task("xnli-de"), data_dir, "dev", rows=1)) == 1
    with pytest.raises(UserError, match="holds no examples"):
        read(find_task("xnli-sw"), data_dir, "dev")


def test_the_translated_training_set_calls_contradictions_otherwise(data_dir: Path) -> None:
    assert read(find_task("xnli-de"), data_dir, "train").labels["labels"].tolist() == [0, 1]
    (data_dir / "XNLI" / "multinli.train.de.tsv").write_text("premise\thypo\tlabel\na\tb\tno\n")
    with pytest.raises(UserError, match=r"multinli\.train\.de\.tsv:2: 'no' is no label of xnli-de"):
        read(find_task("xnli-de"), data_dir, "train")


def test_a_table_of_ones_own_without_languages_is_read_whole(data_dir: Path) -> None:
    (data_dir / "XNLI" / "xnli.dev.tsv").write_text("sentence1\tsentence2\tgold_label\na\tb\tneutral\n")
    features = read(find_task("xnli-de"), data_dir, "dev")
    assert (len(features), len(features.notes["languages"])) == (1, 0)
    part = Part("", Path("own.tsv"), "", features, 1, ())
    answered = find_task("xnli-de").format.answer(find_task("xnli-de"), part, {"logits": np.eye(3)[[2]]}, RULES)
    assert answered.metrics == {"accuracy": 1.0}


def test_xnlis_accuracy_is_the_mean_over_languages(data_dir: Path, tmp_path: Path) -> None:
    task = find_task("xnli")
    features = read(task, data_dir, "dev")
    logits = np.eye(3, dtype=np.float32)[[2, 0, 0, 1]]  # the second German one is wrong
    part = Part("", Path("xnli.dev.tsv"), "", features, len(features), ())
    answered = task.format.answer(task, part, {"logits": logits}, RULES)
    assert answered.metrics == {
        "accuracy": pytest.approx(2.5 / 3), "accuracy_ar": 1.0, "accuracy_de": 0.5, "accuracy_zh": 1.0,
    }  # fmt: skip
    written = answered.write(tmp_path, "-dev")
    assert written.name == "XNLI-dev.tsv"
    one = by_language(logits[1:3], features.labels["labels"][1:3], features.notes["languages"][1:3])
    assert one == {"accuracy": 0.5}


def test_predictions_of_one_language_are_scored_against_the_whole_file(data_dir: Path) -> None:
    said = data_dir / "said.tsv"
    said.write_text("index\tprediction\n0\tcontradiction\n1\tneutral\n")
    score = score_file(said, "xnli-de", data_dir / "XNLI" / "xnli.dev.tsv")
    assert (score.metrics, score.examples) == ({"accuracy": 0.5}, 2)
    with pytest.raises(UserError, match="bertkit evaluate RUN -t swag"):
        score_file(said, "swag", data_dir / "SWAG" / "val.csv")


def test_a_run_on_mnli_or_a_translation_answers_xnli() -> None:
    for name in ("xnli", "xnli-zh"):
        task = find_task(name)
        assert task.labels == find_task("mnli").labels
        for trained in ("mnli", "xnli-de"):
            told = run_on(trained)
            assert check_task(told, task, "runs/a", force=False) == ()
        with pytest.raises(UserError, match="was trained on rte"):
            check_task(run_on("rte"), task, "runs/a", force=False)
    with pytest.raises(UserError, match="task xnli has no train set; train mnli"):
        split_files(find_task("xnli"), "train")


def run_on(name: str) -> RunTask:
    return RunTask(name, 1, 128, 128, 64, "cased", TASKS[name].head.kind, "built in", "")


def test_only_the_archive_that_a_split_needs_is_fetched(data_dir: Path) -> None:
    def lacking(name: str, *splits: SplitName) -> list[str]:
        recipe = resolve({"task": name, "data.dir": str(data_dir)}).recipe
        return [source.name for source in lacking_data(recipe, find_task(name), splits, data_dir)]

    assert lacking("xnli-de", "train", "dev") == []
    (data_dir / "XNLI" / "multinli.train.de.tsv").unlink()
    assert lacking("xnli-de", "dev") == []
    assert lacking("xnli-de", "train", "dev") == ["xnli-mt"]
    assert lacking("xnli", "dev") == []
    for path in (data_dir / "XNLI").iterdir():
        path.unlink()
    assert lacking("xnli-de", "train", "dev") == ["xnli", "xnli-mt"]
    assert lacking("xnli", "dev") == ["xnli"]


def test_swag_is_four_sequences_an_example(data_dir: Path) -> None:
    task = find_task("swag")
    features = read(task, data_dir, "train")
    assert (len(features), features.each, features.labels["labels"].tolist()) == (1, 4, [2])
    assert "labels" not in read(task, data_dir, "test").labels
    assert isinstance(task.format, SwagFormat)
    texts, _, _ = task.format.rows.examples_of(data_dir / "SWAG" / "train.csv", "train")
    assert texts == [("A man, left.", "He is good", 'He is "bad"', "He was fine", "He is None")]
    part = Part("", Path("val.csv"), "", features, 1, ())
    logits = np.array([[0.0, 1.0, 2.0, 0.5]], np.float32)
    answered = task.format.answer(task, part, {"logits": logits}, RULES)
    assert answered.metrics == {"accuracy": 1.0}
    assert answered.write(data_dir, "").read_text().startswith("row,choice,probability\n0,2,")


def test_swag_says_which_file_is_missing(data_dir: Path) -> None:
    (data_dir / "SWAG" / "val.csv").unlink()
    with pytest.raises(UserError, match=r"val\.csv is missing; `bertkit data get swag` fetches"):
        read(find_task("swag"), data_dir, "dev")
    lost = dataclasses.replace(find_task("xnli-de"), folder="none")
    with pytest.raises(UserError, match="`bertkit data get xnli xnli-mt` fetches"):
        read(lost, data_dir, "train")


@pytest.mark.parametrize("member", ["../xnli.dev.tsv", "/xnli.dev.tsv", "XNLI-1.0/../../xnli.dev.tsv"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path, member: str) -> None:
    archive = make_zip(tmp_path / "XNLI-1.0.zip", {"XNLI-1.0/xnli.dev.tsv": b"x", member: b"x"})
    with pytest.raises(UserError, match="would leave its folder"):
        unpack_zip(archive, tmp_path / "XNLI", "XNLI-1.0", ["xnli.dev.tsv"])
    assert not (tmp_path / "XNLI").exists()


def test_another_archive_than_the_published_one_is_refused(tmp_path: Path) -> None:
    (download,) = load_sources()["xnli"].downloads
    target = make_zip(tmp_path / download.name, {"XNLI-1.0/xnli.dev.tsv": b"x"})
    with pytest.raises(UserError, match=f"published is {download.sha256}"):
        fetch(Download(download.name, download.sha256, url="http://127.0.0.1:9/x"), target, quiet)
