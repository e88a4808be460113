"""What a run says must be the same in another: each setting that matters shows in its own field, and no other does."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.console import Display
from bertkit.data.encoding import encode
from bertkit.distributed.world import World
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import VARIANT
from bertkit.recipes.resolve import resolve
from bertkit.records.fields import OF_SERVING, Fairness, plain_names
from bertkit.training.comparability import as_computed, of_run
from bertkit.training.finetuning import FineTuning, fine_tuning
from bertkit.training.results import unit

SMALL = {
    "backend": "null", "task": "sample", "model.name": "tiny", "precision": "fp32", "data.cache": "off",
    "data.train_rows": 50, "data.eval_rows": 20, "data.seq_length": 32,
}  # fmt: skip


def prepared(data: Path, size: int = 1, **settings: Any) -> FineTuning:
    options = SMALL | {"data.dir": str(data)} | {name.replace("__", "."): value for name, value in settings.items()}
    return fine_tuning(resolve(options, env={}).recipe, World(size=size, local_size=size), Display(quiet=True), True)


def fairness(data: Path, size: int = 1, **settings: Any) -> dict[str, Any]:
    ready = prepared(data, size, **settings)
    return dataclasses.asdict(of_run(ready.setup, ready.update_settings))


@pytest.fixture(scope="module")
def plain(sample_dir: Path) -> dict[str, Any]:
    return fairness(sample_dir)


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"seed": 2}, set()),
        ({"precision": "bf16"}, set()),  # the optimizer and the clipping stay what they are
        ({"train__micro_batch_size": 4}, set()),  # a batch size is that of an update, however it is split
        ({"model__layout": "padded"}, set()),
        ({"train__batch_size": 25}, {"global_batch"}),
        ({"train__epochs": 4}, {"updates"}),
        ({"data__seq_length": 16}, {"sequence_length", "training_features_sha256", "evaluation_features_sha256"}),
        ({"data__train_rows": 40}, {"training_features_sha256", "training_sequences"}),
        ({"data__eval_rows": 10}, {"evaluation_features_sha256", "evaluation_examples"}),
        ({"data__shard": "0/2"}, {"shard", "updates"}),
        ({"optimizer__learning_rate": 1e-4}, {"learning_rate"}),
        ({"optimizer__weight_decay": 0.0}, {"weight_decay"}),
        ({"optimizer__epsilon": 1e-6}, {"epsilon"}),
        ({"optimizer__beta2": 0.98}, {"beta2"}),
        ({"optimizer__bias_correction": False}, {"bias_correction"}),
        ({"optimizer__name": "lamb"}, {"optimizer", "trust_ratio"}),
        ({"optimizer__trust_ratio": "all"}, set()),  # AdamW has none
        ({"loss_scaling__initial": 1024.0}, set()),  # of fp16 alone, and divided out again
        ({"optimizer__clip_norm": 0.5}, {"clip_norm"}),
        ({"optimizer__clip_norm": 0.0}, {"clip_norm", "clip_order"}),
        ({"schedule__name": "constant"}, {"schedule", "schedule_end_rate"}),
        ({"schedule__warmup_steps": 3}, {"schedule_warmup_updates"}),
        ({"model__hidden_dropout": 0.0}, {"hidden_dropout"}),
        ({"model__attention_dropout": 0.0}, {"attention_dropout"}),
        ({"model__gelu": "tanh"}, {"model_sha256"}),
        ({"model__name": "mini"}, {"model_sha256", "parameters"}),
        ({"checkpoint__result": "best"}, {"result"}),
    ],
)
def test_a_setting_shows_in_its_fields_alone(
    settings: dict[str, Any], fields: set[str], plain: dict[str, Any], sample_dir: Path
) -> None:
    made = fairness(sample_dir, **settings)
    assert {name for name in plain if made[name] != plain[name]} == fields


def test_whose_steps_lamb_scales(sample_dir: Path) -> None:
    of_decayed, of_all = (
        fairness(sample_dir, optimizer__name="lamb", optimizer__trust_ratio=whose) for whose in ("decayed", "all")
    )
    assert {name for name in of_all if of_all[name] != of_decayed[name]} == {"trust_ratio"}


def test_the_batch_of_several_ranks_and_its_scaled_rate(plain: dict[str, Any], sample_dir: Path) -> None:
    same = fairness(sample_dir, size=4, train__batch_size=8)
    assert {name for name in plain if same[name] != plain[name]} == set()
    scaled = fairness(sample_dir, size=4, train__batch_size=8, ranks__learning_rate_scaling="sqrt")
    assert scaled["learning_rate"] == 2 * plain["learning_rate"]
    rounded = fairness(sample_dir, size=4, train__batch_size=8, ranks__gradients="bf16")
    assert {name for name in plain if rounded[name] != plain[name]} == {"gradients_sent_in"}


def test_other_files_are_another_corpus_and_evaluation_set(plain: dict[str, Any], sample_dir: Path) -> None:
    swapped = fairness(sample_dir, data__train_file=str(sample_dir / "sample" / "dev.tsv"))
    assert swapped["corpus_sha256"] == plain["evaluation_sha256"] != plain["corpus_sha256"]


def test_a_dev_set_that_was_learnt_from_is_warned_of(
    sample_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copy(sample_dir / "sample" / "train.tsv", tmp_path / "other-name.tsv"))
    for settings, warned in (({}, False), ({"data__dev_file": str(copy)}, True)):
        ready = prepared(sample_dir, **settings)
        ready.introduce(Display())
        assert ("is the training file too" in capsys.readouterr().err) == warned


def test_start_weights_and_vocabulary_have_hashes(real_data: Path, plain: dict[str, Any], sample_dir: Path) -> None:
    made = fairness(sample_dir, model__name=str(real_data / "minilm"))
    assert (plain["start"], plain["start_weights_sha256"]) == ("random", None)
    assert made["start"] == "checkpoint"
    assert len(made["start_weights_sha256"]) == 64
    assert made["vocabulary_sha256"] != plain["vocabulary_sha256"]
    assert made["vocabulary_rows"] == 30522
    cased = fairness(sample_dir, model__casing="cased")
    assert {name for name in plain if cased[name] != plain[name]} >= {"lower_case"}


def test_every_field_is_filled_or_has_a_reason_to_be_null(plain: dict[str, Any]) -> None:
    nothing = {name for name, value in plain.items() if value is None}
    assert nothing == {"start_weights_sha256", "document_stride", "schedule_power", "answer_rules"}


def test_an_engine_that_adds_epsilon_elsewhere_says_so(plain: dict[str, Any]) -> None:
    made = as_computed(plain, {"epsilon": "added before the bias is corrected"})
    assert {name: value for name, value in made.items() if value != plain[name]} == {
        "epsilon_place": "added before the bias is corrected"
    }
    assert as_computed(plain, {"device": "cpu"}) == plain


def test_every_field_has_a_plain_name() -> None:
    names = plain_names()
    assert list(names) == [field.name for field in dataclasses.fields(Fairness)] + [fact.name for fact in OF_SERVING]
    assert len(set(names.values())) == len(names)
    assert all(len(text) > 3 for text in names.values())


def test_the_tokenizer_does_what_its_name_says(sample_dir: Path) -> None:
    assert VARIANT == "WordPiece: drops characters of categories Cc, Cf and Co, words over 100 characters become [UNK]"
    vocabulary = read_vocabulary(sample_dir / "sample" / "vocab.txt")
    word = next(piece for piece in vocabulary.pieces if piece.isalpha() and len(piece) > 3)
    unknown = vocabulary.pieces.index("[UNK]")
    odd = ["\x02", "\u200e", "\ue000", "\U000e0fff"]  # of Cc, Cf, Co and Cn, the last of which others drop too
    texts = [word, *(word[:2] + mark + word[2:] for mark in odd), "a" * 100, "a" * 101]
    made = encode(vocabulary, texts, None, {}, 128)
    ids = [made.batch(np.array([number]))["input_ids"].tolist() for number in range(len(texts))]
    assert ids[1:4] == [ids[0]] * 3
    assert ids[4] != ids[0]
    assert ids[5][1:-1] != [unknown]
    assert ids[6][1:-1] == [unknown]


@pytest.mark.parametrize(
    ("metric", "percent", "wanted"),
    [
        ("accuracy", False, "fraction"), ("f1", False, "fraction"), ("accuracy_mm", False, "fraction"),
        ("mcc", False, "correlation"), ("pearson", False, "correlation"), ("f1", True, "percent"),
        ("HasAns_exact", True, "percent"), ("NoAns_total", True, "count"), ("total", True, "count"),
        ("best_f1_thresh", True, "difference of logits"), ("rmse", False, "unit of the target"),
    ],
)  # fmt: skip
def test_each_metric_has_its_unit(metric: str, percent: bool, wanted: str) -> None:
    assert unit(metric, percent) == wanted
