"""Weights of a folder under Hugging Face's names, fitted to a model, with everything odd named."""

from __future__ import annotations

import json
import re
import struct
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.files.disk import write_arrays
from bertkit.model.config import Head, ModelConfig
from bertkit.model.loading import _digest
from bertkit.model.parameters import initial, shapes
from bertkit.model.weights import fit_weights, normalise, read_weights

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
        ("_orig_mod.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("module._orig_mod.model.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("model.module.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("model.model.classifier.bias", "classifier.bias"),
        ("bert._orig_mod.encoder.layer.0.output.dense.bias", "bert.encoder.layer.0.output.dense.bias"),
        ("bert.encoder.layer.0._checkpoint_wrapped_module.output.dense.bias", "bert.encoder.layer.0.output.dense.bias"),
        ("_fsdp_wrapped_module.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("teacher.module.x", "teacher.x"),
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


def test_two_tensors_of_one_name_are_refused() -> None:
    one = np.zeros(2, np.float32)
    with pytest.raises(UserError, match=r"here: module\.pooler\.dense\.bias and another tensor are both bert\.pooler"):
        normalise({"pooler.dense.bias": one, "module.pooler.dense.bias": one}, "here")


def test_a_decoder_of_its_own_matters_to_the_pretraining_head_alone() -> None:
    given = weights(PRETRAINING) | {"cls.predictions.decoder.weight": np.zeros((12, 8), np.float32)}
    assert "cls.predictions.decoder.weight" not in normalise(given)
    with pytest.raises(UserError, match="bertkit's BERT has one matrix for both"):
        normalise(given, pretraining=True)


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


LAYER = "bert.encoder.layer.1."


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (lambda name: name.startswith(LAYER), "lacks layer 1 of the encoder: the model's"),
        (lambda name: name == f"{LAYER}output.dense.bias", f"lacks {LAYER}output.dense.bias: the"),
        (lambda name: "position_embeddings" in name, "lacks bert.embeddings.position_embeddings.weight: the"),
        (lambda name: name == "bert.pooler.dense.bias", "lacks bert.pooler.dense.bias: the"),
        (lambda name: ".attention." in name, "and 16 more: the"),
    ],
)
def test_weights_that_are_not_whole_are_refused_unless_that_is_allowed(lost: Any, said: str) -> None:
    given = {name: array for name, array in weights().items() if not lost(name)}
    with pytest.raises(UserError) as caught:
        fit_weights(given, CONFIG, PAIR, 7, "here")
    assert said in caught.value.cause
    assert "--set model.allow_missing=true" in caught.value.cure
    fit = fit_weights(given, CONFIG, PAIR, 7, "here", allow_missing=True)
    assert set(fit.missing) == set(weights()) - set(given)
    start = initial(CONFIG, PAIR, 7)
    assert all(np.array_equal(fit.weights[name], start[name]) for name in fit.missing)


def test_a_pooler_may_be_new_where_none_of_it_is_there() -> None:
    given = {name: array for name, array in weights().items() if "pooler" not in name}
    assert fit_weights(given, CONFIG, PAIR, 7, "here").missing == ("bert.pooler.dense.weight", "bert.pooler.dense.bias")


@pytest.mark.parametrize("name", ["bert.embeddings.LayerNorm.bias", "classifier.weight", f"{LAYER}output.dense.weight"])
@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_numbers_that_are_not_finite_are_refused_with_the_tensors_name(name: str, value: float, kind: str) -> None:
    given = weights()
    given[name] = given[name].copy()
    given[name].flat[3] = value
    with pytest.raises(UserError, match=rf"here: {re.escape(name)} holds {kind}: 1 of its {given[name].size} numbers"):
        fit_weights(given, CONFIG, PAIR, 1, "here", allow_missing=True)


def test_a_number_that_float32_cannot_hold_is_refused() -> None:
    given = weights() | {"bert.pooler.dense.bias": np.full(8, 1e300)}
    with pytest.raises(UserError, match=r"bert\.pooler\.dense\.bias holds infinity"):
        fit_weights(normalise(given), CONFIG, PAIR, 1, "here")


@pytest.mark.parametrize("dtype", ["i8", "u1", "?", "<c8"])
def test_weights_that_are_no_floating_numbers_are_refused(dtype: str) -> None:
    given = weights() | {"bert.pooler.dense.bias": np.zeros(8, dtype)}
    with pytest.raises(UserError, match=rf"pooler\.dense\.bias is of dtype {np.dtype(dtype)}, not a floating one"):
        fit_weights(normalise(given), CONFIG, PAIR, 1, "here")


ROWS = "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize("rows", [13, 19, 24, 32, 64, 128, 136])
def test_rows_that_round_the_vocabulary_up_are_left_out_with_a_note(rows: int) -> None:
    given = weights(PRETRAINING)
    for name in (ROWS, "cls.predictions.bias"):
        given[name] = np.pad(given[name], [(0, rows - 12), *[(0, 0)] * (given[name].ndim - 1)])
    fit = fit_weights(given, CONFIG, PRETRAINING, 1, "here")
    assert np.array_equal(fit.weights[ROWS], weights(PRETRAINING)[ROWS])
    assert fit.notes[0] == f"left out: {rows - 12} rows of padding of {ROWS}, all zero"
    assert len(fit.notes) == 2
    given[ROWS][-1] = 1
    assert fit_weights(given, CONFIG, PRETRAINING, 1, "here").notes[0].endswith(ROWS)


@pytest.mark.parametrize("rows", [11, 21, 140, 1012])
def test_rows_of_another_vocabulary_are_refused(rows: int) -> None:
    given = weights() | {ROWS: np.zeros((rows, 8), np.float32)}
    with pytest.raises(UserError, match=rf"{re.escape(ROWS)} is \({rows}, 8\), but config.json asks for \(12, 8\)"):
        fit_weights(given, CONFIG, PAIR, 1, "here")


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


def two_shards(folder: Path) -> tuple[dict[str, str], list[dict[str, np.ndarray]]]:
    """An index and what belongs into its two files, both written."""
    given = weights()
    parts: list[dict[str, np.ndarray]] = [{}, {}]
    for number, (name, array) in enumerate(given.items()):
        parts[number % 2][name] = array
    for number, part in enumerate(parts):
        write_arrays(folder / f"{number}.safetensors", part, {})
    files = {name: f"{number}.safetensors" for number, part in enumerate(parts) for name in part}
    sharded(folder, files)
    return files, parts


def test_a_tensor_that_is_not_where_the_index_says_is_named(tmp_path: Path) -> None:
    files, parts = two_shards(tmp_path)
    name = next(iter(parts[0]))
    sharded(tmp_path, files | {name: "1.safetensors"})
    with pytest.raises(
        UserError, match=rf"0\.safetensors: {re.escape(name)} is there, but .* has it in 1\.safetensors"
    ):
        read_weights(tmp_path)
    sharded(tmp_path, files | {"extra": "1.safetensors"})
    with pytest.raises(
        UserError, match=r"1\.safetensors: lacks extra, which model\.safetensors\.index\.json has there"
    ):
        read_weights(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    _, parts = two_shards(tmp_path)
    name = next(iter(parts[0]))
    write_arrays(tmp_path / "1.safetensors", parts[1] | {name: parts[0][name]}, {})
    with pytest.raises(UserError, match=rf"1\.safetensors: {re.escape(name)} is there, but"):
        read_weights(tmp_path)


def test_a_tensor_that_the_index_does_not_name_is_read_as_transformers_does(tmp_path: Path) -> None:
    files, parts = two_shards(tmp_path)
    name = next(iter(parts[0]))
    sharded(tmp_path, {key: file for key, file in files.items() if key != name})
    assert name in read_weights(tmp_path).arrays


def test_an_index_that_speaks_of_more_is_warned_about(tmp_path: Path) -> None:
    files, parts = two_shards(tmp_path)
    there = sum(array.nbytes for part in parts for array in part.values())
    for size, warned in ((there, False), (there + 1, True), ("much", False)):
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": files}))
        assert bool(read_weights(tmp_path).warnings) == warned


def test_the_digest_is_of_the_shards_too(tmp_path: Path) -> None:
    _, parts = two_shards(tmp_path)
    first = _digest(read_weights(tmp_path))
    name = next(iter(parts[1]))
    write_arrays(tmp_path / "1.safetensors", parts[1] | {name: parts[1][name] + 1}, {})
    assert _digest(read_weights(tmp_path)) != first


def test_of_several_forms_that_of_transformers_order_is_read_and_that_is_said(tmp_path: Path) -> None:
    two_shards(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even looked at")
    stored = read_weights(tmp_path)
    assert stored.path.name == "model.safetensors.index.json"
    (warning,) = stored.warnings
    assert warning.endswith(
        "model.safetensors.index.json is read, as transformers does, and not pytorch_model.bin beside it"
    )
    write_arrays(tmp_path / "model.safetensors", weights(), {})
    assert read_weights(tmp_path).path.name == "model.safetensors"


TABLE = struct.pack("<Q", 0xDB4775248B80FB57)
OTHERS = [
    (b"x" * 60 + TABLE, "is a TensorFlow 1 checkpoint in the old format V1"),
    (b"\x89HDF\r\n\x1a\n" + b"0" * 60, "is an HDF5 file"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS.*git lfs pull"),
    (b"<!DOCTYPE html>", "is a web page"),
    (b"\x1f\x8b" + b"0" * 60, "is compressed with gzip"),
    (b"", "is empty"),
]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "x.pt", "model.ckpt", "model.ckpt-20"])
@pytest.mark.parametrize(("content", "said"), OTHERS, ids=range(len(OTHERS)))
def test_a_file_of_another_kind_is_called_by_its_name(content: bytes, said: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_weights(tmp_path / name)


def test_the_old_format_of_tensorflow_is_known_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt-20").write_bytes(b"x" * 60 + TABLE)
    with pytest.raises(
        UserError, match=r"model\.ckpt-20: is a TensorFlow 1 checkpoint in the old format V1.*SaverDef\.V2"
    ):
        read_weights(tmp_path)


def test_a_runs_checkpoint_is_no_model(tmp_path: Path) -> None:
    write_arrays(tmp_path / "step-00000001.safetensors", {"model.bert.x": np.zeros(1)}, {})
    with pytest.raises(UserError, match=r"is a checkpoint of a run; give the run's folder, or convert it first"):
        read_weights(tmp_path / "step-00000001.safetensors")


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
    monkeypatch.setattr("bertkit.model.formats.torch_files.entry_points", lambda group, name: points)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path)
    assert words in str(caught.value)


def test_the_safetensors_file_is_taken_before_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even looked at")
    write_arrays(tmp_path / "model.safetensors", {"a": np.zeros(1)}, {})
    assert read_weights(tmp_path).path.name == "model.safetensors"
