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
from bertkit.engine.exports import ExportedModel, PaddedModel, find_format
from bertkit.engine.interface import Arrays, HeadKind, Precision, Setting
from bertkit.engine.registry import find
from bertkit.files.disk import sha256_file
from bertkit.model.config import Head
from bertkit.training import export_checks, exporting
from exported import CONFIG, model_folder, run_folder, small


class Raw:
    """The weights as NumPy has them, computed by bertkit's own CPU engine, `off` the mark."""

    name, title = "raw", "arrays"
    precisions: tuple[Precision, ...] = ("fp32",)
    heads: tuple[HeadKind, ...] = ("classification",)
    settings: Mapping[str, Setting] = {"size": Setting(3, "a number"), "form": Setting("a", "its form", ("a", "b"))}
    computes = True

    def __init__(self, off: float = 0.0) -> None:
        self.off, self.seen = off, []  # type: ignore[var-annotated]

    def check(self) -> None:
        """Nothing is needed."""

    def versions(self) -> Mapping[str, str]:
        return {"numpy": np.__version__}

    def write(self, model: ExportedModel, folder: Path) -> None:
        np.savez(folder / "weights.npz", **model.weights)  # type: ignore[arg-type]
        self.model = model

    def load(self, folder: Path) -> PaddedModel | None:
        assert (folder / "weights.npz").exists()
        if not self.computes:
            return None
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
    def found(name: str) -> object:
        return form if name == form.name else find_format(name)

    monkeypatch.setattr(exporting, "find_format", found)
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
    said = told(capsys, 2, run, "-o", tmp_path / "out", "--format", "onxn", "-t", "sample")
    assert "--format 'onxn' is not known: there are huggingface, onnx, " in said
    assert "did you mean onnx" in said
    assert not (tmp_path / "out").exists()


def test_without_tensorflow_it_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bertkit_tensorflow, "version", lambda: "")
    said = told(capsys, 2, run, "-o", tmp_path / "out", "--format", "savedmodel", "-t", "sample")
    assert said == "bertkit: --format savedmodel needs TensorFlow; pip install 'bertkit[tensorflow]'"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("siez=4", "--format raw has no setting --option siez; did you mean size?"),
        ("size=big", "--option size = 'big' has the wrong type; a number"),
        ("form=c", "--option form = 'c' is not known; choose a or b"),
        ("form", "--option 'form' is not name=value; write it as --option text=true"),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    option: str, wanted: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    offer(monkeypatch, Raw())
    words = ("-o", tmp_path / "out", "--format", "raw", "-t", "sample", "--option", option)
    assert told(capsys, 2, run, *words) == f"bertkit: {wanted}"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_options_reach_the_format_and_the_description(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    form = offer(monkeypatch, Raw())
    words = (run, "-o", tmp_path / "out", "--format", "raw", "-t", "sample", "--option", "form=b", "--backend", "cpu")
    told(capsys, 0, *words)
    assert form.model.settings == {"size": 3, "form": "b"}
    description = json.loads((tmp_path / "out" / "bertkit.json").read_text())
    assert description["options"] == {"size": 3, "form": "b"}
    assert description["versions"] == {"numpy": np.__version__}
    assert description["weights_sha256"] == sha256_file(run / "model.safetensors")
    assert description["texts"]["lower_case"] is True


def test_without_a_runtime_it_is_reported_as_read_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    form = offer(monkeypatch, Raw())
    form.computes = False
    said = told(capsys, 0, run, "-o", tmp_path / "out", "--format", "raw", "-t", "sample", "--backend", "cpu")
    assert said.endswith("the weights were read back and are the model's\n")
    assert json.loads((tmp_path / "out" / "bertkit.json").read_text())["compared_with"] is None


@pytest.mark.parametrize(("asked", "wanted"), [("9", 9), ("all", 800), ("0", 0)])
def test_examples_of_the_dev_set_are_compared_too(
    asked: str, wanted: int, tmp_path: Path, sample_dir: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    form, folder = offer(monkeypatch, Raw()), run_folder(tmp_path / "run", "sample", seq_length=32)
    words = ("--format", "raw", "--data-dir", sample_dir, "--backend", "cpu", "--verify-examples", asked)
    made = json.loads(told(capsys, 0, folder, "-o", tmp_path / "out", *words, "--json"))
    compared = sum(len(lengths) for lengths in form.seen[3:])
    assert compared == wanted
    more = [what for what in made["verified_on"] if "examples" in what]
    assert more == ([f"{wanted} examples of dev.tsv"] if wanted else [])


def test_examples_that_are_not_there_are_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    offer(monkeypatch, Raw())
    folder = run_folder(tmp_path / "run", "sample", seq_length=32)
    words = ("export", folder, "-o", tmp_path / "out", "--format", "raw", "--data-dir", tmp_path / "none")
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--backend", "cpu"])
    assert ended.value.code == 0
    assert "no examples of the dev set are compared: the data folder" in caplog.text
    capsys.readouterr()
    told(capsys, 2, *words[1:3], tmp_path / "other", *words[4:], "--backend", "cpu", "--verify-examples", "5")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("count", ["-1", "many", "", "1" * 12])
def test_a_wrong_number_of_examples_is_refused(
    count: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(capsys, 2, run, "-o", tmp_path / "out", "--format", "onnx", "--verify-examples", count)
    assert "is no number of examples; write a whole number, or all" in said


@pytest.mark.parametrize("lengths", [(1,), (3, 1, 4)])
def test_padding_is_behind_each_sequence(lengths: tuple[int, ...]) -> None:
    ragged = export_checks.made_batch(CONFIG, np.array(lengths), 1)
    made = export_checks.padded(ragged)
    assert made["input_ids"].shape == (len(lengths), max(lengths))
    assert list(made["attention_mask"].sum(1)) == list(lengths)
    assert list(made["input_ids"][made["attention_mask"] > 0]) == list(ragged["input_ids"])
