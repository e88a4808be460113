"""Weights of a folder under Hugging Face's names, fitted to a model, with everything odd named."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from bertkit.disk import write_arrays
from bertkit.errors import UserError
from bertkit.model_config import Head, ModelConfig
from bertkit.parameters import initial, shapes
from bertkit.weight_files import fit_weights, normalise, read_weights

CONFIG = ModelConfig(8, 2, 2, 16, vocab_size=12, max_position_embeddings=6)
PAIR, THREE, SPAN, PRETRAINING = (
    Head("classification", 2), Head("classification", 3), Head("span", 2), Head("pretraining", 2),
)  # fmt: skip


def weights(head: Head = PAIR, seed: int = 5) -> dict[str, np.ndarray]:
    return {name: array + np.float32(seed) for name, array in initial(CONFIG, head, seed).items()}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight"),
        ("encoder.layer.0.output.dense.bias", "bert.encoder.layer.0.output.dense.bias"),
        ("pooler.dense.weight", "bert.pooler.dense.weight"),
        ("module.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("module.classifier.bias", "classifier.bias"),
        ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("embeddings.LayerNorm.beta", "bert.embeddings.LayerNorm.bias"),
        ("cls.predictions.transform.LayerNorm.beta", "cls.predictions.transform.LayerNorm.bias"),
        ("cls.predictions.bias", "cls.predictions.bias"),
        ("qa_outputs.weight", "qa_outputs.weight"),
        ("something.else", "something.else"),
        ("bert.embeddings.position_ids", None),
        ("embeddings.position_ids", None),
        ("module.cls.predictions.decoder.weight", None),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ],
)
def test_names_become_hugging_faces(theirs: str, ours: str | None) -> None:
    assert list(normalise({theirs: np.zeros(2, np.float32)})) == ([ours] if ours else [])


@pytest.mark.parametrize("dtype", ["<f2", "<f8", "<f4"])
def test_values_become_float32(dtype: str) -> None:
    made = normalise({"pooler.dense.bias": np.array([0.5, -2], dtype)})["bert.pooler.dense.bias"]
    assert made.dtype == np.float32
    assert made.tolist() == [0.5, -2]


def test_all_weights_of_the_same_model_are_taken() -> None:
    given = weights()
    fit = fit_weights(given, CONFIG, PAIR, 1, "here")
    assert (fit.missing, fit.unexpected, fit.reshaped) == ((), (), ())
    assert list(fit.weights) == list(shapes(CONFIG, PAIR))
    assert all(np.array_equal(fit.weights[name], given[name]) for name in given)


def test_a_head_that_is_missing_starts_anew_and_is_named() -> None:
    given = weights(SPAN)
    fit = fit_weights(given, CONFIG, PAIR, 7, "here")
    assert fit.missing == ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    assert fit.unexpected == ("qa_outputs.bias", "qa_outputs.weight")
    start = initial(CONFIG, PAIR, 7)
    assert all(np.array_equal(fit.weights[name], start[name]) for name in fit.missing)
    name = "bert.encoder.layer.1.output.dense.weight"
    assert np.array_equal(fit.weights[name], given[name])


def test_a_head_of_another_shape_starts_anew_and_is_named() -> None:
    fit = fit_weights(weights(THREE), CONFIG, PAIR, 7, "here")
    assert fit.reshaped == ("classifier.weight", "classifier.bias")
    assert (fit.missing, fit.unexpected) == ((), ())
    assert np.array_equal(fit.weights["classifier.weight"], initial(CONFIG, PAIR, 7)["classifier.weight"])


def test_the_pretraining_head_is_unexpected_in_fine_tuning() -> None:
    fit = fit_weights(weights(PRETRAINING), CONFIG, PAIR, 7, "here")
    assert fit.missing == ("classifier.weight", "classifier.bias")
    assert {name.split(".")[0] for name in fit.unexpected} == {"cls"}
    assert len(fit.unexpected) == 7


@pytest.mark.parametrize(
    "name", ["bert.encoder.layer.1.intermediate.dense.weight", "bert.embeddings.position_embeddings.weight"]
)
def test_an_encoder_of_another_shape_is_refused_by_the_tensors_name(name: str) -> None:
    given = weights() | {name: np.zeros((9, 9), np.float32)}
    with pytest.raises(UserError) as caught:
        fit_weights(given, CONFIG, PAIR, 1, "some/model.safetensors")
    for word in ("some/model.safetensors", name, "(9, 9)", str(shapes(CONFIG, PAIR)[name])):
        assert word in caught.value.cause


@pytest.mark.parametrize("given", [{}, {"gpt.h.0.weight": np.zeros(2)}, {"classifier.weight": np.zeros((2, 8))}])
def test_weights_without_an_encoder_are_refused(given: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match="holds no BERT encoder"):
        fit_weights(given, CONFIG, PAIR, 1, "here")


def test_one_file_is_read(tmp_path: Path) -> None:
    write_arrays(tmp_path / "model.safetensors", {"pooler.dense.bias": np.ones(3, np.float32)}, {})
    stored = read_weights(tmp_path)
    path, found = stored.path, stored.arrays
    assert path == tmp_path / "model.safetensors"
    assert {name: array.tolist() for name, array in found.items()} == {"bert.pooler.dense.bias": [1, 1, 1]}


def sharded(folder: Path, weight_map: object) -> Path:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_a_sharded_model_is_read_through_its_index(tmp_path: Path) -> None:
    given = weights()
    names = list(given)
    files = {name: f"model-0000{number % 2 + 1}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        write_arrays(tmp_path / file, {name: given[name] for name in names if files[name] == file}, {})
    index = sharded(tmp_path, files)
    stored = read_weights(tmp_path)
    path, found = stored.path, stored.arrays
    assert path == index
    assert set(found) == set(given)
    assert all(np.array_equal(found[name], given[name]) for name in given)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ""])
def test_an_index_may_not_leave_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_arrays(tmp_path / "secret.safetensors", {"a": np.zeros(1)}, {})
    sharded(folder, {"a": name})
    with pytest.raises(UserError):
        read_weights(folder)


def test_an_index_that_leaves_its_folder_is_called_so(tmp_path: Path) -> None:
    sharded(tmp_path, {"a": "../secret.safetensors"})
    with pytest.raises(UserError, match=r"'\.\./secret\.safetensors' outside the folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "{}", "[]", "null", '{"weight_map": []}', '{"weight_map": {"a": 5}}', '{"weight_map": {"a": []}}'],
)
def test_a_damaged_index_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match="index"):
        read_weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    sharded(tmp_path, {"a": "model-1.safetensors"})
    with pytest.raises(UserError, match=r"model-1\.safetensors: cannot be read"):
        read_weights(tmp_path)


def test_a_folder_without_weights_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.safetensors, no pytorch_model\.bin and no TensorFlow 1 checkpoint"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "no installed plug-in reads .bin"),
        ([EntryPoint("pt", "no_such_framework.reader:read", "bertkit.tree_readers")], "needs no_such_framework"),
    ],
)
def test_a_pickle_needs_its_plug_in(
    points: list[EntryPoint], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertkit.state_files.entry_points", lambda group, name: points)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path)
    assert words in str(caught.value)


def test_the_safetensors_file_is_taken_before_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even looked at")
    write_arrays(tmp_path / "model.safetensors", {"a": np.zeros(1)}, {})
    assert read_weights(tmp_path).path.name == "model.safetensors"
