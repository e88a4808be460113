"""Smaller models out of trained ones: which layers and rows stay, what is written of them, what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.console import Display
from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, write_arrays, write_json
from bertkit.model.config import Head, ModelConfig
from bertkit.model.parameters import initial, shapes
from bertkit.model.pruning import every_kth, keep_layers, keep_rows
from bertkit.model.vocabulary import SPECIAL
from bertkit.recipes.resolve import resolve
from bertkit.training.pruning import Cut, PruneReport, PruneRequest, layers_cut, prune, vocabulary_cut
from bertkit.training.run_task import read_task
from exported import CONFIG as FOLDERS_CONFIG
from exported import model_folder, run_folder

CONFIG = ModelConfig(16, 4, 2, 32, vocab_size=20, max_position_embeddings=12)
HEAD = Head("classification", 3)


@pytest.mark.parametrize(
    ("layers", "wanted", "kept"),
    [
        (12, 6, (1, 3, 5, 7, 9, 11)), (12, 4, (2, 5, 8, 11)), (6, 3, (1, 3, 5)), (6, 4, (0, 2, 3, 5)),
        (3, 3, (0, 1, 2)), (24, 1, (23,)),
    ],
)  # fmt: skip
def test_layers_are_taken_evenly_and_the_last_among_them(layers: int, wanted: int, kept: tuple[int, ...]) -> None:
    assert every_kth(layers, wanted) == kept


@given(st.integers(1, 60).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(1, layers))))
def test_any_number_of_layers_is_spread_evenly(sizes: tuple[int, int]) -> None:
    layers, wanted = sizes
    kept = every_kth(layers, wanted)
    steps = np.diff([-1, *kept])
    assert (len(kept), kept[-1]) == (wanted, layers - 1)
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("wanted", [0, -1, 7])
def test_a_number_of_layers_that_cannot_be_is_refused(wanted: int) -> None:
    with pytest.raises(UserError, match=f"{wanted} of 6 layers cannot be kept; keep 1 to 6"):
        every_kth(6, wanted)


def test_layers_are_kept_whole_and_numbered_anew() -> None:
    weights = initial(CONFIG, HEAD, 1)
    config, kept = keep_layers(CONFIG, weights, (1, 3))
    assert config == dataclasses.replace(CONFIG, num_hidden_layers=2)
    assert {name: array.shape for name, array in kept.items()} == shapes(config, HEAD)
    for name, array in kept.items():
        old = name.replace(".layer.1.", ".layer.3.").replace(".layer.0.", ".layer.1.")
        assert np.shares_memory(array, weights[old]), name


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((), "no layer is kept"), ((1, 4), "there is no layer 4; the model has 4: 0 to 3"), ((-1, 2), "no layer -1"),
        ((2, 1), "layers 2,1 are not in ascending order"), ((1, 1), "not in ascending order"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_kept_are_refused(layers: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        keep_layers(CONFIG, initial(CONFIG, HEAD, 1), layers)


def test_rows_go_from_the_embeddings_and_the_masked_words_bias_alone() -> None:
    head = Head("pretraining", 2)
    weights = initial(CONFIG, head, 1) | {"cls.predictions.bias": np.arange(20, dtype=np.float32)}
    config, kept = keep_rows(CONFIG, weights, (0, 3, 19))
    assert config == dataclasses.replace(CONFIG, vocab_size=3)
    assert {name: array.shape for name, array in kept.items()} == shapes(config, head)
    assert kept["cls.predictions.bias"].tolist() == [0, 3, 19]
    words = "bert.embeddings.word_embeddings.weight"
    assert np.array_equal(kept[words], weights[words][[0, 3, 19]])
    for rows in ((), (0, 20), (-1,)):
        with pytest.raises(UserError, match="row"):
            keep_rows(CONFIG, weights, rows)


# ---- folders ----

CHARACTERS = ("w", *(f"##{digit}" for digit in range(10)))
WORDS = (*SPECIAL, *CHARACTERS, *(f"w{number}" for number in range(84)))  # 100, as the folders' models have rows


def with_words(model: Path, pieces: Sequence[str] = WORDS) -> Path:
    """The folder with a vocabulary that has its characters."""
    (model / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return model


def pruned(model: Path, output: Path, cut: Cut, measure: bool | None = False, overwrite: bool = False) -> PruneReport:
    recipe = resolve({"model.name": str(model), "backend": "null"}).recipe
    return prune(recipe, PruneRequest(output, measure, overwrite), cut, Display(quiet=True))


def corpus(folder: Path, text: str = "w3 w7\nw3 w70\n") -> Path:
    (folder / "corpus.txt").write_text(text)
    return folder / "corpus.txt"


def test_a_runs_folder_stays_one(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "sst2", seq_length=32)
    report = pruned(run, tmp_path / "out", layers_cut((1,), None))
    assert read_task(tmp_path / "out") == read_task(run)
    before, after = (read_arrays(folder / "model.safetensors")[0] for folder in (run, tmp_path / "out"))
    old = {name: name.replace(".layer.0.", ".layer.1.") for name in after}
    assert all(np.array_equal(array, before[old[name]]) for name, array in after.items())
    assert len(after) == len(before) - 16
    wanted = json.loads((run / "config.json").read_text()) | {"num_hidden_layers": 1}
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == wanted
    told = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert told["pruned"] == {"layers": [1], "of": 2}
    assert told["before"]["parameters"] == sum(array.size for array in before.values()) == report.before.parameters
    assert told["after"]["bytes"] == sum(array.nbytes for array in after.values()) == report.after.bytes
    assert len(told["source_sha256"]["model.safetensors"]) == 64
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "model.safetensors", "pruning.json", "task.json", "tokenizer.json", "tokenizer_config.json",
        "vocab.txt",
    ]  # fmt: skip


def test_a_vocabulary_loses_pieces_and_rows_together(tmp_path: Path) -> None:
    run = with_words(run_folder(tmp_path / "run", "sst2"))
    pruned(run, tmp_path / "out", vocabulary_cut([corpus(tmp_path)], 1))
    kept = [*SPECIAL, *CHARACTERS, "w3", "w7", "w70"]
    assert (tmp_path / "out" / "vocab.txt").read_text().split() == kept
    name = "bert.embeddings.word_embeddings.weight"
    before, after = (read_arrays(folder / "model.safetensors")[0][name] for folder in (run, tmp_path / "out"))
    assert np.array_equal(after, before[[WORDS.index(piece) for piece in kept]])
    told = json.loads((tmp_path / "out" / "pruning.json").read_text())["pruned"]
    assert (told["rows"], told["of"], told["special"], told["characters"]) == (19, 100, 5, 11)
    assert (told["texts"], told["tokens"], told["unknown"], told["rare_tokens"]) == (2, 4, 0, 0)
    report = pruned(run, tmp_path / "fewer", vocabulary_cut([corpus(tmp_path)], 2))
    assert (report.pruned["rows"], report.pruned["rare_tokens"]) == (17, 2)


def test_a_model_that_is_pruned_twice_tells_of_both(tmp_path: Path) -> None:
    model = with_words(model_folder(tmp_path / "model", Head("span", 2)))
    pruned(model, tmp_path / "one", layers_cut(None, 1))
    pruned(tmp_path / "one", tmp_path / "two", vocabulary_cut([corpus(tmp_path)], 1))
    told = json.loads((tmp_path / "two" / "pruning.json").read_text())
    assert told["earlier"]["pruned"] == {"layers": [1], "of": 2}
    assert (told["after"]["layers"], told["after"]["vocabulary"]) == (1, 19)


def test_the_special_pieces_ids_and_the_dtype_are_told_anew(tmp_path: Path) -> None:
    """Of a half-precision model that other programs wrote, with a padded vocabulary and a decoder beside it."""
    model = model_folder(tmp_path / "model", head := Head("pretraining", 2))
    with_words(model, ["w0", *(piece for piece in WORDS if piece != "w0")])  # [PAD] is not 0
    weights = {name: np.float16(array) for name, array in initial(FOLDERS_CONFIG, head, 1).items()}
    words = "bert.embeddings.word_embeddings.weight"
    weights["cls.predictions.bias"] = np.arange(100, dtype=np.float16)
    weights["cls.predictions.decoder.weight"] = weights[words]
    write_arrays(model / "model.safetensors", weights, {})
    keys = json.loads((model / "config.json").read_text()) | {"torch_dtype": "bfloat16", "dtype": "float16"}
    more = {
        "pad_token_id": 1,
        "mask_token_id": 5,
        "eos_token_id": 99,
        "bos_token_id": [1, 2],
        "architectures": ["BertForMaskedLM"],
    }
    write_json(model / "config.json", keys | more)
    pruned(model, tmp_path / "out", vocabulary_cut([corpus(tmp_path, "w7")], 1))
    made = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (made["pad_token_id"], made["mask_token_id"]) == (0, 4)
    assert not {"eos_token_id", "bos_token_id", "id2label"} & made.keys()
    assert (made["torch_dtype"], made["dtype"], made["architectures"]) == ("float16", "float16", ["BertForMaskedLM"])
    arrays = read_arrays(tmp_path / "out" / "model.safetensors")[0]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    assert arrays["cls.predictions.bias"].tolist() == [*range(1, 17), 23]
    assert "cls.predictions.decoder.weight" not in arrays


def test_a_configuration_that_names_no_architecture_gets_the_heads(tmp_path: Path) -> None:
    for kind, outputs, name in (
        ("classification", 3, "BertForSequenceClassification"), ("span", 2, "BertForQuestionAnswering"),
        ("pretraining", 2, "BertForPreTraining"), ("encoder", 128, "BertModel"),
    ):  # fmt: skip
        model = model_folder(tmp_path / kind, Head(kind, outputs, (2,) if kind == "encoder" else ()))
        keys = json.loads((model / "config.json").read_text())
        (model / "config.json").unlink()
        sizes = {key: keys[key] for key in dataclasses.asdict(FOLDERS_CONFIG) if key in keys}
        write_json(model / "bert_config.json", sizes)
        pruned(model, tmp_path / f"{kind}-out", layers_cut(None, 1))
        made = json.loads((tmp_path / f"{kind}-out" / "config.json").read_text())
        assert (made["architectures"], made["model_type"], made["num_hidden_layers"]) == ([name], "bert", 1)


def test_nothing_is_left_of_what_is_refused(tmp_path: Path) -> None:
    model, one = with_words(run_folder(tmp_path / "run", "sst2")), layers_cut(None, 1)
    pruned(model, tmp_path / "out", one)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n")
    everything = corpus(tmp_path, " ".join(WORDS))
    for output, cut, said in (
        ("run", one, "holds the model itself"), ("other", one, "is no pruned model"), ("out", one, "use --overwrite"),
        ("corpus.txt", one, "is a file"), ("new", layers_cut(None, 2), "all 2 layers would stay"),
        ("new", layers_cut(None, 3), "3 of 2 layers"), ("new", layers_cut((2,), None), "no layer 2"),
        ("new", vocabulary_cut([empty], 1), "no text in it"),
        ("new", vocabulary_cut([everything], 1), "nothing can be taken out"),
        ("new", vocabulary_cut([tmp_path / "absent"], 1), "absent"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            pruned(model, tmp_path / output, cut)
    with pytest.raises(UserError, match="out holds the model itself"):
        pruned(tmp_path / "out" / "model.safetensors", tmp_path / "out", one, overwrite=True)
    for keep, number, said in ((None, None, "neither --keep nor --number"), ((1,), 1, "are both given")):
        with pytest.raises(UserError, match=said):
            layers_cut(keep, number)
    pruned(model, tmp_path / "out", one, overwrite=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run", "out", "other", "empty.txt", "corpus.txt"}


def test_a_missing_score_has_a_reason(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", Head("classification", 2))
    assert "does not state a task" in pruned(model, tmp_path / "a", layers_cut(None, 1), None).unmeasured
    run = run_folder(tmp_path / "run", "sst2", seq_length=32)
    nowhere = {"model.name": str(run), "backend": "null", "task": "sst2", "data.dir": str(tmp_path / "nowhere")}
    recipe = resolve(nowhere, ["data.seq_length=32"]).recipe
    quiet = Display(quiet=True)
    report = prune(recipe, PruneRequest(tmp_path / "b"), layers_cut(None, 1), quiet)
    assert report.scores is None
    assert "nowhere" in report.unmeasured
    with pytest.raises(UserError, match="nowhere"):
        prune(recipe, PruneRequest(tmp_path / "c", measure=True), layers_cut(None, 1), quiet)
    assert not (tmp_path / "c").exists()


def test_scores_stand_beside_one_another(tmp_path: Path, sample_dir: Path) -> None:
    run = run_folder(tmp_path / "run", "sample", seq_length=32)
    settings = {"model.name": str(run), "backend": "null", "task": "sample", "data.dir": str(sample_dir)}
    recipe = resolve(settings, ["data.seq_length=32", "data.eval_rows=20"]).recipe
    report = prune(recipe, PruneRequest(tmp_path / "out", True), layers_cut(None, 1), Display(quiet=True))
    scores = report.scores or {}
    assert (scores["task"], scores["examples"], scores["before"].keys()) == ("sample", 20, scores["after"].keys())
    assert json.loads((tmp_path / "out" / "pruning.json").read_text())["scores"] == scores
    assert not list(tmp_path.glob(".*"))
