"""`bertkit export` with a stand-in for a format: what is refused, what is compared, what stays where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import bertkit_tensorflow
from bertkit.cli.main import main
from bertkit.conformance.fixtures import with_settings
from bertkit.engine.exports import ExportedModel, PaddedModel
from bertkit.engine.interface import Arrays, HeadKind, Precision
from bertkit.engine.registry import find
from bertkit.model.config import Head
from bertkit.training import exporting
from exported import CONFIG, model_folder, small


class Raw:
    """The weights as NumPy has them, computed by bertkit's own CPU engine, `off` the mark."""

    name, title = "raw", "arrays"
    precisions: tuple[Precision, ...] = ("fp32",)
    heads: tuple[HeadKind, ...] = ("classification",)

    def __init__(self, off: float = 0.0) -> None:
        self.off, self.seen = off, []  # type: ignore[var-annotated]

    def check(self) -> None:
        """Nothing is needed."""

    def write(self, model: ExportedModel, folder: Path) -> None:
        np.savez(folder / "weights.npz", **model.weights)  # type: ignore[arg-type]

    def load(self, folder: Path) -> PaddedModel:
        assert (folder / "weights.npz").exists()
        engine = with_settings(find("cpu"), small(Head("classification", 2)))

        def computed(inputs: Mapping[str, np.ndarray]) -> Arrays:
            real = inputs["attention_mask"] > 0
            lengths = real.sum(1)
            self.seen.append([int(length) for length in lengths])
            batch = {name: inputs[name][real] for name in ("input_ids", "token_type_ids")}
            batch |= {"cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)}
            return {
                "logits": engine.predict(batch | {"example_ids": np.arange(len(lengths))})["logits"]
                + np.float32(self.off)
            }

        return computed


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "run", Head("classification", 2))


def told(capsys: pytest.CaptureFixture[str], code: int, *words: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["export", *map(str, words)])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said.out if code == 0 else said.err.splitlines()[-1]


def offer(monkeypatch: pytest.MonkeyPatch, form: Raw) -> Raw:
    monkeypatch.setattr("bertkit.engine.exports.export_formats", lambda: {form.name: form})
    return form


def test_it_is_compared_on_the_edges_and_put_in_place(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    form = offer(monkeypatch, Raw(off=1e-6))
    words = (run, "-o", tmp_path / "out", "--format", "raw", "-t", "sample", "--backend", "cpu")
    made = json.loads(told(capsys, 0, *words, "--json"))
    assert form.seen == [[1], [40], [1, 40, 20, 2, 7]]
    assert 0 < made["difference"] < 1e-5
    description = json.loads((tmp_path / "out" / "bertkit.json").read_text())
    assert len(description["labels"]) == 2
    assert {"weights.npz", "vocab.txt", "tokenizer.json"} <= description["sha256"].keys()
    assert description["differences"].keys() == {"1 token", "40 tokens", "mixed lengths"}
    assert told(capsys, 2, *words).endswith("use --overwrite, or choose another folder with -o")
    (tmp_path / "out" / "old").touch()
    assert "verified on 1 token, 40 tokens, mixed lengths: largest difference" in told(capsys, 0, *words, "--overwrite")
    assert not (tmp_path / "out" / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.parametrize("off", [1e-2, float("nan")])
def test_beyond_the_tolerance_is_exit_code_1_and_nothing_is_written(
    off: float, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch, Raw(off))
    said = told(capsys, 1, run, "-o", tmp_path / "out", "--format", "raw", "-t", "sample", "--backend", "cpu")
    assert "the export differs from the engine by" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch, Raw())
    words = ("--format", "raw", "-t", "sample")
    assert "no bf16; it has fp32" in told(capsys, 2, run, "-o", tmp_path / "out", *words, "-d", "bf16")
    assert "is there already and is no export" in told(capsys, 2, run, "-o", run, *words)
    assert "is a file" in told(capsys, 2, run, "-o", run / "vocab.txt", *words)
    span = model_folder(tmp_path / "span", Head("span", 2))
    assert "has no span head" in told(capsys, 2, span, "-o", tmp_path / "out", "--format", "raw", "-t", "squad")
    said = told(capsys, 2, run, "-o", tmp_path / "out", "--format", "rwa", "-t", "sample")
    assert "--format 'rwa' is not known: there are raw; did you mean raw?" in said
    assert not (tmp_path / "out").exists()


def test_without_tensorflow_it_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bertkit_tensorflow, "version", lambda: "")
    said = told(capsys, 2, run, "-o", tmp_path / "out", "--format", "savedmodel", "-t", "sample")
    assert said == "bertkit: --format savedmodel needs TensorFlow; pip install 'bertkit[tensorflow]'"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lengths", [(1,), (3, 1, 4)])
def test_padding_is_behind_each_sequence(lengths: tuple[int, ...]) -> None:
    ragged = exporting.made_batch(CONFIG, np.array(lengths), 1)
    made = exporting.padded(ragged)
    assert made["input_ids"].shape == (len(lengths), max(lengths))
    assert list(made["attention_mask"].sum(1)) == list(lengths)
    assert list(made["input_ids"][made["attention_mask"] > 0]) == list(ragged["input_ids"])
