"""`bertkit data augment` as a user types it: a file, a summary, a plan; a run that is killed and repeated; faults."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bertkit.data.tasks.sample import vocabulary
from bertkit.files.disk import write_arrays
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.parameters import initial
from conftest import Run, assert_one_line_error, command_env

MODEL = ModelConfig(32, 1, 2, 64, vocab_size=len(vocabulary()), max_position_embeddings=128)
# The command, which a kill ends when its second part of candidates is written
KILLED = """
import os, signal, sys
from bertkit.training.augmenting_parts import CandidateParts
write = CandidateParts.write
def kill(self, number, candidates):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, number, candidates)
CandidateParts.write = kill
from bertkit.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture
def model(tmp_path: Path, sample_dir: Path) -> Path:
    folder, head = tmp_path / "model", Head("pretraining", 2)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_mapping(MODEL, head, ())))
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    write_arrays(folder / "model.safetensors", initial(MODEL, head, 1), {"format": "pt"})
    lines = (sample_dir / "sample" / "train.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "in.tsv").write_text("".join(lines[:301]))
    return folder


def test_a_file_is_augmented(bertkit: Run, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("torch")
    words = ("data", "augment", "in.tsv", "-t", "sample", "-m", model, "-o", "out.tsv", "--copies", "2", "--json")
    done = bertkit(*words, "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    lines = (tmp_path / "out.tsv").read_text().splitlines()
    assert len(lines) == 1 + made["examples"] + made["copies"]
    assert (made["file"], made["examples"], made["kept_words"]) == ("out.tsv", 300, 0)
    assert "augmenting sentence: 300 examples, 300 different texts, " in done.stderr
    assert "words to mask; up to 2 copies of each example" in done.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_is_resumed_to_the_same_bytes(bertkit: Run, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("torch")
    words = ("data", "augment", "in.tsv", "-t", "sample", "-m", str(model), "--backend", "cpu", "--copies", "3", "-o")
    assert bertkit(*words, "whole.tsv").returncode == 0
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words, "out.tsv"], cwd=tmp_path, env=command_env(tmp_path), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = tmp_path / "out.tsv.unfinished"
    assert {path.name for path in left.iterdir()} > {"key.json", "part-000000.safetensors"}
    assert_one_line_error(bertkit(*words, "out.tsv", "--masks", "2"), "unfinished work of another file, model")
    done = bertkit(*words, "out.tsv", "-b", "16")
    assert done.returncode == 0, done.stderr
    assert "resuming the work of an earlier run in out.tsv.unfinished" in done.stderr
    assert (tmp_path / "out.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert not left.exists()


@pytest.mark.slow
def test_a_plan_and_faults(bertkit: Run, tmp_path: Path, model: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    words = ("data", "augment", "in.tsv", "-m", model, "--backend", "null")
    done = bertkit(*words, "-o", "out.tsv", "--text", "sentence", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "up to 20 copies of each example" in done.stderr
    assert_one_line_error(bertkit(*words, "-o", "in.tsv", "-t", "sample"), "in.tsv is the file that is augmented")
    assert_one_line_error(bertkit(*words, "-o", "out.tsv", "--vectors", "in.tsv"), "in.tsv:1: is no word with")
    assert_one_line_error(bertkit("data", "augment", "in.tsv", "-o", "out.tsv"), "Missing option '-m' / '--model'")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == before
