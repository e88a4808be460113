"""Iluvatar's job in one command, from a dataset folder laid out as MLPerf's: ids without words, and a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.formats.torch_files import write_state
from bertkit.model.parameters import initial
from command import record, run, settings
from conftest import assert_one_line_error
from pretraining_files import known_sequences, write_hdf5, write_vocabulary

CONFIG = ModelConfig(16, 1, 2, 32, vocab_size=117)  # written with 120 rows, as theirs has 30,528 for 30,522
HEAD = Head("pretraining", 2)
JOB = ("train", "--recipe", "pretrain-mlperf", "--data-dir", "dataset", "-o", "run")
FEW = settings(train__steps=3, train__global_batch=8, train__micro_batch_size=4, evaluation__start_samples=1)
CPU = ("--backend", "cpu", "-d", "fp32", *settings(device__threads=1), *FEW)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path / "dataset"
    for name in ("2048_shards_uncompressed", "eval_set_uncompressed"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        shard = folder / "2048_shards_uncompressed" / f"part_{number:05}_of_02048.hdf5"
        write_hdf5(shard, known_sequences(12, seed=number))
    write_hdf5(folder / "eval_set_uncompressed" / "part_eval_10k.hdf5", known_sequences(7, seed=9))
    (folder / "bert_config.json").write_text(json.dumps(to_mapping(CONFIG, HEAD, ())))
    write_state(folder / "model.ckpt-28252.apex.pt", initial(CONFIG, HEAD, 1), "mlperf")
    return folder


@pytest.mark.slow
def test_the_folder_as_it_is(dataset: Path, tmp_path: Path) -> None:
    done = run(tmp_path, *JOB, *CPU)
    assert done.returncode == 0, done.stderr
    assert "has no vocab.txt" in done.stderr
    made = record(tmp_path / "run")
    assert made["fairness"]["start"] == "checkpoint"
    assert made["fairness"]["vocabulary_sha256"] is None
    assert made["data"]["train"]["sequences"] == 36
    assert made["data"]["evaluation"][0]["sequences"] == 7
    assert set(made["metrics"]) == {"mlm_accuracy", "mlm_loss", "nsp_accuracy"}
    assert np.isfinite(made["losses"]).all()
    assert not (tmp_path / "run" / "vocab.txt").exists()
    assert (tmp_path / "run" / "mllog.txt").exists()
    (tmp_path / "MRPC").mkdir()
    tuning = run(tmp_path, "train", "-m", "run", "-t", "mrpc", "--data-dir", ".", "--backend", "cpu", "-o", "tuned")
    assert_one_line_error(tuning, "no vocabulary")


def test_the_same_on_their_backend_is_planned(dataset: Path, tmp_path: Path) -> None:
    done = run(tmp_path, *JOB, "--backend", "iluvatar", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()


def test_what_the_folder_lacks_is_one_line(dataset: Path, tmp_path: Path) -> None:
    write_vocabulary(tmp_path)  # 87 pieces
    with (tmp_path / "vocab.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"more{number}\n" for number in range(200))
    done = run(tmp_path, *JOB, *CPU, *settings(model__vocab="vocab.txt"))
    assert_one_line_error(done, "vocab.txt has 287 word pieces")
    done = run(tmp_path, *JOB, *CPU, *settings(data__masking="dynamic"))
    assert_one_line_error(done, "needs the vocabulary", "model.vocab")
    (dataset / "model.ckpt-28252.apex.pt").unlink()
    assert_one_line_error(run(tmp_path, *JOB, *CPU), "dataset: holds no checkpoint", "-m names a model")
    assert not (tmp_path / "run").exists()
