"""Model folders that are damaged, foreign, dangerous or do not fit together."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import pytest

from bertkit.files.disk import read_arrays, write_arrays
from command import NULL, made_model, run, settings
from conftest import assert_one_line_error


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """A model's folder: what a run leaves, without its record."""
    return made_model(tmp_path_factory.mktemp("made"), sample_dir)


@pytest.fixture
def spoilt(model: Path, tmp_path: Path) -> Path:
    """A copy of the model to be spoilt."""
    return Path(shutil.copytree(model, tmp_path / "spoilt"))


def refused(folder: Path, data: Path, *words: str) -> None:
    """`train` answers with one line and writes nothing."""
    done = run(folder, *NULL, "--data-dir", data, "-m", "spoilt", "-o", "run")
    assert_one_line_error(done, *words)
    assert not (folder / "run").exists()


def test_the_model_is_good_before_it_is_spoilt(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "evaluate", "spoilt", "-t", "sample", "--data-dir", sample_dir, "--backend", "null")
    assert done.returncode == 0, done.stderr


def test_another_kind_of_model(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    path = spoilt / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "roberta"}))
    refused(tmp_path, sample_dir, "config.json: model_type is 'roberta', not 'bert'", "BERT only")


def test_a_config_that_is_not_json(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    (spoilt / "config.json").write_text("{")
    refused(tmp_path, sample_dir, "config.json:1:2: not JSON", "the file seems to be cut off")


def test_a_folder_without_config(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    (spoilt / "config.json").unlink()
    refused(tmp_path, sample_dir, "spoilt: holds no config.json")


def test_cut_off_weights(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    path = spoilt / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    refused(tmp_path, sample_dir, "model.safetensors: is cut off", "100000 bytes")


def test_no_weights(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    (spoilt / "model.safetensors").unlink()
    refused(tmp_path, sample_dir, "holds no model.safetensors, no pytorch_model.bin and no TensorFlow 1 checkpoint")


def test_a_vocabulary_of_another_model(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    path = spoilt / "vocab.txt"
    path.write_text(path.read_text() + "\n".join(f"more{number}" for number in range(20)) + "\n")
    refused(tmp_path, sample_dir, "word pieces but the model", "embeddings", "model.vocab")


def one_segment(spoilt: Path) -> None:
    """As RoBERTa-like models have it: a single row of token types."""
    path, weights = spoilt / "config.json", spoilt / "model.safetensors"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"type_vocab_size": 1}))
    arrays, metadata = read_arrays(weights)
    name = "bert.embeddings.token_type_embeddings.weight"
    write_arrays(weights, {**arrays, name: arrays[name][:1]}, metadata)


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_pairs_need_a_second_segment(more: tuple[str, ...], spoilt: Path, tmp_path: Path) -> None:
    one_segment(spoilt)
    (tmp_path / "MRPC").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        rows = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "1\t1\t2\tgood film\ta good film\n" * 4
        (tmp_path / "MRPC" / name).write_text(rows)
    words = ("train.tsv has pairs of texts, but the type_vocab_size of spoilt is 1", "type_vocab_size is 2")
    backend = ("--backend", "null", "-m", "spoilt", "-s", "32")
    done = run(tmp_path, "train", "-t", "mrpc", *backend, "--data-dir", tmp_path, "-o", "run", *more)
    assert_one_line_error(done, *words)
    assert not (tmp_path / "run").exists()
    files = settings(data__train_file="train.json", data__dev_file="dev.json")
    done = run(tmp_path, "train", "-t", "squad", *backend, "--data-dir", tmp_path, "-o", "run", *files, *more)
    assert_one_line_error(done, "squad has pairs of texts")


def test_a_model_of_one_segment_learns_and_answers_single_texts(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    one_segment(spoilt)
    rows = settings(data__train_rows=32, data__eval_rows=8, train__steps=1)
    done = run(tmp_path, *NULL, *rows, "--data-dir", sample_dir, "-m", "spoilt", "-o", "run")
    assert done.returncode == 0, done.stderr


def test_weights_of_another_size(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    path = spoilt / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 256}))
    refused(tmp_path, sample_dir, "model.safetensors: bert.encoder.layer.0", "different models")


def change(folder: Path, **arrays: object) -> None:
    """Change tensors of the model; None takes one away, and all whose names begin so."""
    from bertkit.files.disk import read_arrays, write_arrays

    given, metadata = read_arrays(folder / "model.safetensors")
    gone = tuple(name for name, array in arrays.items() if array is None)
    kept = {name: array for name, array in given.items() if not name.startswith(gone or "\0")}
    made = {name: array for name, array in arrays.items() if array is not None}
    write_arrays(folder / "model.safetensors", kept | made, metadata)  # type: ignore[operator]


@pytest.mark.slow
def test_a_model_without_a_layer_is_trained_only_where_that_is_allowed(
    spoilt: Path, sample_dir: Path, tmp_path: Path
) -> None:
    change(spoilt, **{"bert.encoder.layer.0.": None})
    words = ("model.safetensors: lacks layer 0 of the encoder", "--set model.allow_missing=true")
    refused(tmp_path, sample_dir, *words)
    done = run(tmp_path, "evaluate", "spoilt", "-t", "sample", "--data-dir", sample_dir, "--backend", "null")
    assert_one_line_error(done, *words)
    few = settings(data__train_rows=32, data__eval_rows=8, train__steps=1, model__allow_missing="true")
    done = run(tmp_path, *NULL, *few, "--data-dir", sample_dir, "-m", "spoilt", "-o", "run")
    assert done.returncode == 0, done.stderr
    assert "new: bert.encoder.layer.0.attention.self.query.weight" in done.stderr + done.stdout


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "ask", "convert"])
def test_weights_that_are_not_finite(command: str, spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    name = "bert.encoder.layer.0.output.dense.bias"
    from bertkit.files.disk import read_arrays

    array = read_arrays(spoilt / "model.safetensors")[0][name].copy()
    array[5] = float("nan")
    change(spoilt, **{name: array})
    words = (f"model.safetensors: {name} holds NaN: 1 of its {len(array)} numbers are not finite", "earlier checkpoint")
    at = ("-t", "sample", "--backend", "null", *(() if command == "ask" else ("--data-dir", sample_dir)))
    if command == "train":
        refused(tmp_path, sample_dir, *words)
    elif command == "convert":
        assert_one_line_error(run(tmp_path, "convert", "spoilt", "out.ckpt"), *words)
        assert not list(tmp_path.glob("out*"))
    else:
        more = ("-o", "out") if command == "predict" else ()
        assert_one_line_error(run(tmp_path, command, "spoilt", *more, *at), *words)
        assert not (tmp_path / "out").exists()


def test_a_tensorflow_checkpoint_of_the_old_format(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    (spoilt / "model.safetensors").unlink()
    (spoilt / "model.ckpt-20").write_bytes(bytes(60) + struct.pack("<Q", 0xDB4775248B80FB57))
    refused(tmp_path, sample_dir, "model.ckpt-20: is a TensorFlow 1 checkpoint in the old format V1", "SaverDef.V2")
    done = run(tmp_path, "convert", "spoilt/model.ckpt-20", "out")
    assert_one_line_error(done, "is a TensorFlow 1 checkpoint in the old format V1")


@pytest.mark.slow
def test_shards_in_torchs_format_under_a_wrappers_names(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from bertkit.files.disk import read_arrays

    arrays = read_arrays(spoilt / "model.safetensors")[0]
    at = ("-t", "sample", "--data-dir", sample_dir, "--backend", "null", "--json")
    wanted = run(tmp_path, "evaluate", "spoilt", *at)
    assert wanted.returncode == 0, wanted.stderr
    (spoilt / "model.safetensors").unlink()
    places = {}
    for number in range(2):
        names = list(arrays)[number::2]
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        torch.save({f"_orig_mod.{name}": torch.from_numpy(arrays[name].copy()) for name in names}, spoilt / file)
        places |= {f"_orig_mod.{name}": file for name in names}
    (spoilt / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    done = run(tmp_path, "evaluate", "spoilt", *at)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == json.loads(wanted.stdout)["metrics"]


def test_of_two_forms_one_is_read_and_that_is_said(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    (spoilt / "pytorch_model.bin").write_bytes(b"not looked at")
    done = run(tmp_path, "evaluate", "spoilt", "-t", "sample", "--data-dir", sample_dir, "--backend", "null")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors is read, as transformers does, and not pytorch_model.bin beside it" in done.stderr


class Evil:
    """Pickles to a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_that_would_run_code_is_refused(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (spoilt / "model.safetensors").unlink()
    touched = tmp_path / "touched"
    content = pickle.dumps({"bert.embeddings.word_embeddings.weight": Evil(f"touch {touched}")})
    (spoilt / "pytorch_model.bin").write_bytes(content)
    refused(tmp_path, sample_dir, "pytorch_model.bin: refused", "could run code", "safetensors")
    assert not touched.exists()
    pickle.loads(content)  # noqa: S301 - so the file was dangerous indeed
    assert touched.exists()


def test_a_model_without_a_head_is_not_evaluated(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    from bertkit.files.disk import read_arrays, write_arrays

    arrays, metadata = read_arrays(spoilt / "model.safetensors")
    body = {name: array for name, array in arrays.items() if not name.startswith("classifier.")}
    write_arrays(spoilt / "model.safetensors", body, metadata)
    words = ("has no trained head for sample", "classifier.weight", "bertkit train -m spoilt -t sample")
    for command in ("evaluate", "predict"):
        done = run(tmp_path, command, "spoilt", "-t", "sample", "--data-dir", sample_dir, "--backend", "null")
        assert_one_line_error(done, *words)
    assert not (spoilt / "predictions").exists()


def test_a_folder_that_does_not_say_its_task(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "evaluate", "spoilt", "--data-dir", sample_dir, "--backend", "null")
    assert_one_line_error(done, "does not state the task", "-t")


def test_a_size_by_name_is_not_evaluated(sample_dir: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "evaluate", "tiny", "-t", "sample", "--data-dir", sample_dir, "--backend", "null")
    assert_one_line_error(done, "tiny", "give the folder of a run")


def test_a_missing_file_to_predict_is_named(spoilt: Path, sample_dir: Path, tmp_path: Path) -> None:
    at = ("-t", "sample", "--data-dir", sample_dir, "--backend", "null", "--file", "nowhere.tsv", "-o", "out")
    assert_one_line_error(run(tmp_path, "predict", "spoilt", *at), "nowhere.tsv is missing")
    assert not (tmp_path / "out").exists()
