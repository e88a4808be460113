"""`bertkit score` as a user runs it: metrics on stdout, notes on stderr, one line for whatever is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from bertkit.cli.main import main
from command import NULL, record, run, settings
from conftest import assert_one_line_error


def squad(**references: tuple[str, ...] | None) -> dict[str, Any]:
    """Questions by id; an empty tuple: it has no answer, None: a test set's question."""
    asked: list[dict[str, Any]] = []
    for name, texts in references.items():
        asked.append({"id": name, "question": f"{name}?"})
        if texts is not None:
            known = [{"text": text, "answer_start": 0} for text in texts]
            asked[-1] |= {"answers": known, "is_impossible": not texts}
    return {"version": "x", "data": [{"title": "T", "paragraphs": [{"context": "Some context.", "qas": asked}]}]}


ONE = squad(a=("The cat",), b=("two dogs", "dogs"), c=("bird",))
TWO = squad(a=("The cat",), b=("two dogs", "dogs"), d=(), e=())
SAID = {"a": "cat", "b": "three dogs", "d": "", "e": "fish"}
ODDS = {"a": -3.0, "b": 0.5, "d": 2.0, "e": 1.5}


def write(path: Path, value: object) -> Path:
    """Bytes as they are, anything else as JSON."""
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, value in (("one.json", ONE), ("two.json", TWO), ("said.json", SAID), ("odds.json", ODDS)):
        write(tmp_path / name, value)
    return tmp_path


V1 = ("score", "said.json", "-t", "squad", "--file", "one.json")
V2 = ("score", "said.json", "-t", "squad2", "--file", "two.json")


def test_squad(files: Path) -> None:
    done = run(files, *V1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "squad, 3 examples\n  exact_match  33.3333\n  f1           55.5556\n"
    assert done.stderr == (
        "note: not answered, counted as 0: 1 id: 'c'\nnote: answered but not asked, left out: 2 ids: 'd', 'e'\n"
    )


def test_squad_as_json(files: Path) -> None:
    done = run(files, *V1, "--json")
    found = json.loads(done.stdout)
    assert found.pop("metrics") == pytest.approx({"exact_match": 100 / 3, "f1": 100 * (1 + 2 / 3) / 3})
    assert found == {
        "task": "squad", "file": "one.json", "predictions": "said.json", "examples": 3, "missing": 1, "unknown": 2
    }  # fmt: skip


def test_squad2_with_odds(files: Path) -> None:
    done = run(files, *V2, "--json")
    plain = json.loads(done.stdout)["metrics"]
    assert (plain["exact"], plain["total"], done.stderr) == (50.0, 4, "")
    odds = json.loads(run(files, *V2, "--null-odds", "odds.json", "--json").stdout)["metrics"]
    assert (odds["exact"], odds["NoAns_exact"], odds["best_exact"], odds["best_exact_thresh"]) == (75, 100, 75, -3)
    assert odds["best_f1_thresh"] == 0.5
    done = run(files, *V2, "--null-odds", "odds.json", "--threshold", "-9", "--json")
    assert json.loads(done.stdout)["metrics"]["exact"] == 50.0
    shown = run(files, *V2, "--null-odds", "odds.json").stdout.splitlines()
    assert shown[0] == "squad2, 4 examples"
    assert "  total              4" in shown
    assert "  best_exact_thresh  -3.0000" in shown


def test_strict_passes_what_fits(files: Path) -> None:
    assert run(files, *V2, "--strict").returncode == 0


@pytest.mark.slow
def test_what_a_run_leaves_scores_as_it_says(tmp_path: Path, sample_dir: Path) -> None:
    args = ("--data-dir", str(sample_dir), *settings(data__train_rows=64, data__eval_rows=50), "-o", "run")
    done = run(tmp_path, *NULL, *args)
    assert done.returncode == 0, done.stderr
    lines = (sample_dir / "sample" / "dev.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "dev.tsv").write_text("".join(lines[:51]))
    done = run(tmp_path, "score", "run/predictions/sample-dev.tsv", "-t", "sample", "--file", "dev.tsv", "--json")
    found = json.loads(done.stdout)
    assert found["metrics"] == pytest.approx(record(tmp_path / "run")["metrics"])
    assert (found["examples"], found["missing"], found["unknown"]) == (50, 0, 0)


def test_the_official_numbers(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "squad"
    said = folder / "predictions" / "v1.1_bert-tiny_tf1.json"
    if not said.exists():
        pytest.skip(f"no {said}")
    done = run(tmp_path, "score", said, "-t", "squad", "--file", folder / "dev-v1.1.json", "--strict", "--json")
    wanted = {"exact_match": 37.776726584673604, "f1": 50.62683542311178}
    assert json.loads(done.stdout)["metrics"] == pytest.approx(wanted, abs=1e-9, rel=0)


# Whatever can be wrong: (what is written where, the command line, words of the error)

Bad = tuple[dict[str, object], tuple[str, ...], tuple[str, ...]]
ODDLY = (*V2, "--null-odds", "odds.json")
WRONG: dict[str, Bad] = {
    "no predictions": ({}, ("score", "none.json", *V1[2:]), ("none.json: there is no such file", "check the path")),
    "no gold": ({}, (*V1[:-1], "none.json"), ("none.json: there is no such file",)),
    "a folder": ({}, ("score", ".", *V1[2:]), (".: is a folder",)),
    "no odds": ({}, (*V2, "--null-odds", "none.json"), ("none.json: there is no such file",)),
    "unknown task": ({}, ("score", "said.json", "-t", "squat", "--file", "one.json"), ("'squat'", "squad")),
    "no task": ({}, ("score", "said.json", "--file", "one.json"), ("--task", "score -h")),
    "empty file": ({"said.json": b" \n"}, V1, ("said.json: is empty",)),
    "malformed": ({"said.json": b'{"a": "cat",\n "b" "dogs"}'}, V1, ("said.json:2:6: not JSON", "correct the file")),
    "cut off": ({"said.json": b'{"a": "cat", "b": "do'}, V1, ("said.json:1:19: not JSON", "cut off")),
    "not UTF-8": ({"said.json": b'{"a": "caf\xe9"}'}, V1, ("said.json: not UTF-8 at byte 11",)),
    "nested": ({"said.json": b"[" * 100_000}, V1, ("said.json: is nested too deep",)),
    "a list": ({"said.json": [{"id": "a", "prediction_text": "cat"}]}, V1, ("said.json: holds a list, not an object",)),
    "an answer of null": ({"said.json": {"a": None}}, V1, ("the answer to 'a' is null, not a text",)),
    "an answer of another kind": ({"said.json": {"a": ["cat"]}}, V1, ("the answer to 'a' is a list, not a text",)),
    "no answers": ({"said.json": {}}, V1, ("said.json: holds no question ids and answers",)),
    "an id twice": ({"said.json": b'{"a": "x", "b": "y", "a": "z"}'}, V1, ("said.json: the id 'a' stands twice",)),
    "another set's": ({"said.json": {"x": "cat"}}, V1, ("said.json: answers no question of one.json",)),
    "missing, strict": ({"said.json": {"a": "cat"}}, (*V1, "--strict"), ("said.json: lacks 2 ids: 'b', 'c'",)),
    "unknown, strict": (
        {"said.json": {"a": "cat", "b": "x", "c": "y", "z\n": "u"}},
        (*V1, "--strict"),
        ("said.json: answers what one.json does not ask: 1 id: 'z\\n'", "leave --strict away"),
    ),
    "gold of a test set": ({"one.json": squad(a=None)}, V1, ("one.json: holds no answers", "not the test set")),
    "gold with some answers": (
        {"one.json": squad(a=("cat",), b=())},
        V1,
        ("one.json: question 'b' has no reference answer", "squad2"),
    ),
    "gold is no SQuAD": ({"one.json": {"a": "cat"}}, V1, ("one.json: has no 'data'",)),
    "odds for 1.1": ({}, (*V1, "--null-odds", "odds.json"), ("squad2's, not squad's", "drop them")),
    "a threshold without odds": (
        {},
        (*V2, "--threshold", "0"),
        ("--threshold needs no-answer odds", "--null-odds FILE"),
    ),
    "a threshold of nan": ({}, (*ODDLY, "--threshold", "nan"), ("--threshold is nan",)),
    "odds that are texts": ({"odds.json": ODDS | {"b": "0.5"}}, ODDLY, ("odds of 'b' are a text, not a number",)),
    "odds that are null": ({"odds.json": ODDS | {"b": None}}, ODDLY, ("odds of 'b' are null, not a number",)),
    "odds that are true": ({"odds.json": ODDS | {"b": True}}, ODDLY, ("odds of 'b' are true or false, not a number",)),
    "odds without end": ({"odds.json": ODDS | {"b": float("inf")}}, ODDLY, ("1 of 4 odds are not finite", "'b'")),
    "odds that lack an id": ({"odds.json": {"a": 1.0}}, ODDLY, ("odds.json: the null odds lack 3", "first 'b'")),
    "a table for squad": ({"said.json": b"index\tprediction\n0\tcat\n"}, V1, ("said.json:1:1: not JSON",)),
    "JSON for a task of GLUE": (
        {"dev.tsv": b"sentence\tlabel\nx\t1\n"},
        ("score", "said.json", "-t", "sst2", "--file", "dev.tsv"),
        ("said.json:1: has no column 'index'", "the first line must be"),
    ),
    "too few rows": (
        {"dev.tsv": b"sentence\tlabel\nx\t1\ny\t0\n", "said.tsv": b"index\tprediction\n0\t1\n"},
        ("score", "said.tsv", "-t", "sst2", "--file", "dev.tsv"),
        ("said.tsv: has 1 predictions for the 2 examples of dev.tsv", "index 1"),
    ),
    "an unknown label": (
        {"dev.tsv": b"sentence\tlabel\nx\t1\n", "said.tsv": b"index\tprediction\n0\tgood\n"},
        ("score", "said.tsv", "-t", "sst2", "--file", "dev.tsv"),
        ("said.tsv:2: 'good' is no label", "one of 0, 1"),
    ),
    "options of squad2 for GLUE": (
        {},
        ("score", "said.json", "-t", "sst2", "--file", "one.json", "--null-odds", "odds.json"),
        ("squad2's, not sst2's",),
    ),
}


def test_an_error_of_the_command_itself(files: Path) -> None:
    assert_one_line_error(run(files, *V1[:-1], "none.json"), "none.json: there is no such file", "check the path")


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(
    name: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: each start of the command takes a second."""
    written, arguments, words = WRONG[name]
    for file, value in written.items():
        write(files / file, value)
    before = sorted(os.listdir(files))
    monkeypatch.chdir(files)
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--json"])
    done = CompletedProcess(arguments, int(str(left.value.code)), *capsys.readouterr())
    assert_one_line_error(done, *words)
    assert done.stdout == ""
    assert sorted(os.listdir(files)) == before
