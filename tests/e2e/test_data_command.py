"""`bertkit data` as a user runs it. Nothing here reaches a network: port 9 of this machine refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOWHERE = "http://127.0.0.1:9"


def data(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bertkit", "data", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("bertkit: ")
    return line


def test_list_json_is_json_and_nothing_else(tmp_path: Path) -> None:
    result = data("list", "--json", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["sample"]["kind"] == "generated"
    assert rows["mrpc"]["kind"] == "download"
    assert rows["mrpc"]["folder"] == "glue/MRPC"
    assert rows["cola"]["bytes"] == 376971
    assert rows["bert-base-uncased"]["bytes"] is None
    assert all(row["terms"] and (row["files"] or row["kind"] == "dumps") for row in rows.values())


def test_list_shows_every_name(tmp_path: Path) -> None:
    lines = data("list", folder=tmp_path).stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"sample", "cola", "ax", "squad", "squad2", "bert-base-chinese"} <= set(names)
    assert "generated" in lines[names.index("sample")]


@pytest.mark.parametrize("command", [[], ["list"], ["get"], ["verify"]])
def test_help_has_a_short_form(command: list[str], tmp_path: Path) -> None:
    result = data(*command, "-h", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout
    assert not command or f"bertkit data {command[0]}" in result.stdout


def test_an_unknown_name_is_one_line_with_the_nearest(tmp_path: Path) -> None:
    line = only_line(data("get", "mrcp", folder=tmp_path))
    assert "'mrcp'" in line
    assert "mrpc" in line
    assert not list(tmp_path.iterdir())


def test_offline_is_one_line_with_the_folder_to_fill(tmp_path: Path) -> None:
    line = only_line(data("get", "cola", "--url-base", NOWHERE, folder=tmp_path))
    assert "127.0.0.1:9 cannot be reached" in line
    assert str(Path("data", "glue", "CoLA")) in line
    assert all(name in line for name in ("train.tsv", "dev.tsv", "test.tsv", "CoLA.zip"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_offline_the_first_of_several_downloads_is_named(tmp_path: Path) -> None:
    line = only_line(data("get", "mrpc", "--url-base", NOWHERE, "--data-dir", "here", folder=tmp_path))
    assert "put msr_paraphrase_train.txt into " + str(Path("here", "glue", "MRPC")) in line


def test_the_sample_needs_no_network(tmp_path: Path) -> None:
    result = data("get", "sample", "--url-base", NOWHERE, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    made = {path.name for path in (tmp_path / "data" / "sample").iterdir()}
    assert {"train.tsv", "dev.tsv", "test.tsv", "vocab.txt"} <= made
    checked = data("verify", "sample", "--json", folder=tmp_path)
    assert checked.returncode == 0
    assert {file["state"] for file in json.loads(checked.stdout)[0]["files"]} == {"unknown"}


def test_verify_exits_with_1_where_a_file_is_not_the_published_one(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "glue" / "CoLA"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("gj04\t1\t\tNot the published sentences.\n")
    result = data("verify", "--json", folder=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    (entry,) = json.loads(result.stdout)
    assert (entry["name"], entry["ok"]) == ("cola", False)
    states = {file["name"]: file["state"] for file in entry["files"]}
    assert states == {"train.tsv": "differs", "dev.tsv": "missing", "test.tsv": "missing"}


def test_verify_of_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "no known data in data" in only_line(data("verify", folder=tmp_path))
