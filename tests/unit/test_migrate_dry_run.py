"""Every documented old command gives one that `--dry-run` accepts, with small files in place of the user's own.

The backends are the installed ones; that their hardware is not here does not matter to a dry run.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bertkit.cli import main
from bertkit.disk import write_arrays
from bertkit.downloads import find_sources
from bertkit.migrate.ours import Command
from bertkit.migrate.translate import migrate
from bertkit.model_config import ARCHITECTURES, Head, to_mapping
from bertkit.parameters import initial
from bertkit.tokenizer import SPECIAL
from conftest import ROOT
from pretraining_files import known_sequences, padded
from squad_files import reviews, write_squad

GOLDEN = ROOT / "tests" / "golden"
CASES: list[dict[str, Any]] = [
    case
    for path in sorted((GOLDEN / "migrate").glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))
]
WORDS = "the plot music cast ending hero pace is was and good dull bold flat rich so really ? .".split()
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
OWN_FILES = ("model.vocab=", "data.train_file=", "data.dev_file=")


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """A backend's card sets variables for the framework, which the next test must not see."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """A tiny model with a head for answers, and a few rows of each task's data."""
    folder = tmp_path_factory.mktemp("home")
    pieces = [*SPECIAL, *WORDS]
    config = dataclasses.replace(ARCHITECTURES["tiny"], vocab_size=len(pieces))
    (folder / "model").mkdir()
    (folder / "sample").symlink_to(sample_dir)
    (folder / "model" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (folder / "model" / "config.json").write_text(json.dumps(to_mapping(config, Head("span", 2), ())))
    write_arrays(folder / "model" / "model.safetensors", initial(config, Head("span", 2), 1), {})
    for split in ("train", "dev"):
        write_squad(folder / "data" / "squad" / f"{split}-v1.1.json", reviews(6))
        _write_table(folder / "data" / "MRPC" / f"{split}.tsv", MRPC, "1\t1\t2\t")
        _write_table(folder / "data" / "SST-2" / f"{split}.tsv", "sentence\tlabel", "")
    arrays = {name: np.minimum(array, len(pieces) - 1) for name, array in padded(known_sequences(200)).items()}
    (folder / "shards").mkdir()
    with h5py.File(folder / "shards" / "part_0_of_1.hdf5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return folder


def _write_table(path: Path, header: str, before: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = f"{before}the plot is good .\tthe cast was good ." if before else "the plot is good .\t1"
    path.write_text("\n".join([header, *[row] * 8]) + "\n")


def at_home(words: Sequence[str], home: Path, tmp_path: Path) -> list[str]:
    """The command with the folder's files in place of the user's."""
    found: list[str] = []
    rest = list(words)
    folders = {"-m": home / "model", "--data-dir": home / "data", "-o": tmp_path / "out"}
    if "pretrain" in words:
        folders |= {"--data-dir": home / "shards", "--eval-dir": home / "shards"}
    if rest[0] in ("evaluate", "ask"):
        found, rest = [rest[0], str(home / "model")], rest[2:]
    while rest:
        word = rest.pop(0)
        if word == "--set" and rest[0].startswith(OWN_FILES):
            rest.pop(0)
        elif (word in folders and found[:1] != ["bench"]) or (word in ("--data-dir", "-m") and "infer" in found):
            rest.pop(0)
            found += [word, str(folders[word])]
        else:
            found.append(word)
    if found[0] == "train" and "demo" not in found:
        found += [] if "-m" in found else ["-m", str(folders["-m"])]
        found += [] if "--data-dir" in found else ["--data-dir", str(folders["--data-dir"])]
    return found


def run(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command itself, in this process; what it said."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert ended.value.code == 0, f"{' '.join(words)}\n{said.err}"
    return said.out + said.err


def check(command: Command, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Dry-run one command, and for a launch also what it starts."""
    words = list(command.words)
    if words[0] == "export":
        assert words[1].startswith("MULTI_HLS_IPS=")  # read by launch as it is
        return "exported"
    assert words.pop(0) == "bertkit"
    if words[0] == "launch":
        start = words.index("--")
        launch, inner = words[1:start], words[start + 1 :]
        topology = ["--topology", str(GOLDEN / "topologies" / "8sockets.xml")]
        run(["launch", *launch, *topology, "--dry-run", "--", *at_home(inner, home, tmp_path)], capsys)
        words = inner
    words = at_home(words, home, tmp_path)
    if words[:2] == ["data", "get"]:
        find_sources(words[2:])
        return run([*words, "--data-dir", str(tmp_path), "--dry-run"], capsys)
    if words[:2] == ["data", "prepare"]:
        (tmp_path / "text.txt").write_text("the plot is good .\n\nthe cast was flat .\n")
        vocab = words.index("--vocab")
        words[2], words[vocab + 1] = str(tmp_path / "text.txt"), str(home / "model" / "vocab.txt")
    if words[:2] == ["data", "inspect"]:
        return run(["data", "inspect", str(home / "shards"), "--vocab", str(home / "model" / "vocab.txt")], capsys)
    if words[0] in ("backends",) or "-h" in words:
        return run(words, capsys)
    if words[:3] == ["train", "--recipe", "demo"]:
        words += ["--data-dir", str(home / "sample")]
    return run([*words, "--dry-run"], capsys)


@pytest.mark.parametrize("case", CASES, ids=[case["old"][:60] for case in CASES])
def test_a_dry_run_accepts_it(
    case: dict[str, Any],
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BERTKIT_CACHE", str(home / "cache"))  # encoded once for all
    for command in migrate(case["old"]).commands:
        said = check(command, home, tmp_path, capsys)
        assert said
        assert not (tmp_path / "out").exists(), "a dry run writes nothing"


def test_predict_has_one_too(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTKIT_CACHE", str(home / "cache"))
    file = home / "data" / "squad" / "dev-v1.1.json"
    words = ["predict", str(home / "model"), "-t", "squad", "--file", str(file), "-o", str(tmp_path / "out")]
    said = " ".join(run([*words, "--backend", "null", "-d", "fp32", "--dry-run"], capsys).split())
    assert f"file: {file}, 12 examples" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match="2"):
        main([*words[:5], str(tmp_path / "absent.json"), "--backend", "null", "--dry-run"])


def test_a_dry_run_still_refuses_a_wrong_setting(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = migrate("./demo_bert finetuning -d bf16 -m base -t mrpc -b 32 -s 600").commands
    with pytest.raises(AssertionError, match="sequence length 600 is over"):
        check(command, home, tmp_path, capsys)
