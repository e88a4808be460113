"""Hugging Face's spellings become ours, and everything else is left alone."""

from __future__ import annotations

import re
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.cli.hf_flags import ACCUMULATION, MICRO, SWITCHES, WITH_VALUE, translate
from bertkit.engine.registry import installed
from bertkit.errors import UserError
from bertkit.recipes.recipe import DEVICE, KEYS
from bertkit.recipes.resolve import parse_set, resolve

PASTED = """
    train --model_name_or_path X --task_name mrpc --do_train --do_eval --max_seq_length 128
    --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --learning_rate 2e-5 --num_train_epochs 3
    --output_dir out --overwrite_output_dir --bf16""".split()


def ours(text: str) -> list[str]:
    return translate(text.split())[0]


def test_a_run_glue_command_line_as_pasted() -> None:
    words, notes = translate(PASTED)
    assert (
        words
        == (
            "train --model X --task mrpc --seq-length 128 --learning-rate 2e-5 --epochs 3 --output out --overwrite "
            "--dtype bf16 --batch-size 32 --set train.micro_batch_size=8"
        ).split()
    )
    assert len(notes) == len([word for word in PASTED if word.startswith("--")]) - 1  # the batch's two share one
    assert "--model_name_or_path -> --model X" in notes
    assert "--do_train -> (always so)" in notes


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("--model_name_or_path=a=b", "--model a=b"),
        ("--max-seq-length 64", "--seq-length 64"),
        ("--max-seq-length=64", "--seq-length 64"),
        ("--weight_decay 0.1", "--set optimizer.weight_decay=0.1"),
        ("--weight-decay=0.1", "--set optimizer.weight_decay=0.1"),
        ("--max_steps -1", "--set train.steps=-1"),
        ("--dist-backend nccl", "--set device.dist_backend=nccl"),
        ("--dist_backend=gloo", "--set device.dist_backend=gloo"),
        ("--learning_rate=1e-5", "--learning-rate 1e-5"),
        ("--learning-rate 1e-5", "--learning-rate 1e-5"),
        ("--learning-rate=1e-5", "--learning-rate=1e-5"),
        ("--per_device_train_batch_size 16", "--batch-size 16"),
        ("--per-device-train-batch-size=16", "--batch-size 16"),
        ("--per_device_train_batch_size 16 --gradient_accumulation_steps 1", "--batch-size 16"),
        ("--load_best_model_at_end True", "--set checkpoint.result=best"),
        ("--bf16 true", "--dtype bf16"),
        ("--bf16=True", "--dtype bf16"),
        ("--fp16 -t cola", "--dtype fp16 -t cola"),
        ("--tf32 True", "--dtype tf32"),
        ("--tf32", "--dtype tf32"),
        ("--bf16 False -t cola", "-t cola"),
        ("--bf16=false", ""),
        ("--overwrite_output_dir False", ""),
        ("--overwrite-output-dir", "--overwrite"),
        ("--do_train False --do_eval", ""),
    ],
)
def test_one_spelling(theirs: str, expected: str) -> None:
    assert ours(theirs) == expected.split()


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ("--optim adamw_torch --report_to none --eval_strategy epoch --save-strategy=steps", ""),
        ("--optim lamb", "--set optimizer.name=lamb"),
        ("--report_to tensorboard", "--set log.tensorboard=true"),
        ("--metric_for_best_model eval_accuracy", "--set evaluation.metric=accuracy"),
        ("--metric_for_best_model f1", "--set evaluation.metric=macro_f1"),
        ("--version_2_with_negative --seed 1", "--task squad2 --seed 1"),
        ("--resume_from_checkpoint true", "--resume"),
        ("--label_smoothing_factor 0.1", "--set loss.label_smoothing=0.1"),
        ("--dataset_name rajpurkar/squad_v2", "--task squad2"),
        ("--dataset_name a/b", "--train hf://datasets/a/b --dev hf://datasets/a/b"),
        ("--text_column_names review", "--text review"),
        ("--pad_to_max_length False --push_to_hub=false", ""),
    ],
)
def test_values_that_decide(theirs: str, expected: str) -> None:
    assert ours(f"train {theirs}") == ["train", *expected.split()]


@pytest.mark.parametrize(
    ("theirs", "cure"),
    [
        ("--do_predict", "bertkit predict RUN FILE"),
        ("--test_file a.csv", "bertkit predict RUN FILE"),
        ("--dataset_name imdb", "hf://datasets/OWNER/NAME"),
        ("--dataset_config_name plain", "hf://datasets/OWNER/NAME/CONFIG"),
        ("--push_to_hub", "bertkit push"),
        ("--optim sgd", "adamw and lamb"),
        ("--report_to wandb", "callbacks"),
        ("--resume_from_checkpoint out/checkpoint-500", "--resume"),
        ("--eval_strategy no", "evaluation.every"),
    ],
)
def test_what_is_said_in_another_way_is_told(theirs: str, cure: str) -> None:
    with pytest.raises(UserError) as caught:
        ours(f"train {theirs}")
    assert "has no counterpart" in caught.value.cause
    assert cure in caught.value.cure


def test_only_training_reads_them() -> None:
    assert ours("predict run --test_file a.csv") == "predict run --test_file a.csv".split()


def test_a_switch_that_is_off_is_not_called_always_so() -> None:
    words, notes = translate(["--bf16", "False"])
    assert words == []
    assert "always so" not in " ".join(notes)


@pytest.mark.parametrize("value", ["0", "no", "f"])
def test_a_switch_off_in_other_words_is_not_switched_on(value: str) -> None:
    """Hugging Face's own parser takes these for false: taking them for true would change the precision."""
    assert ours(f"--bf16={value}") == []


@pytest.mark.parametrize("name", ["--model_name_or_path", "--max-seq-length", f"--{MICRO}", f"--{ACCUMULATION}"])
def test_a_missing_value_is_said(name: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(name)} lacks its value"):
        translate(["train", name])


@pytest.mark.parametrize("value", ["eight", "0", "-4", "2.5", "", "²"])
@pytest.mark.parametrize("name", [MICRO, ACCUMULATION])
def test_a_batch_size_that_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(UserError, match="not a whole number above 0") as caught:
        translate([f"--{MICRO}", "8", f"--{name}={value}"])
    assert f"--{name}" in caught.value.cause


def test_accumulation_alone_does_not_say_the_batch() -> None:
    with pytest.raises(UserError, match=f"{ACCUMULATION} alone") as caught:
        translate([f"--{ACCUMULATION}", "4"])
    assert MICRO in caught.value.cure


def test_an_old_command_for_migrate_is_left_alone() -> None:
    line = "migrate --json python run_glue.py --model_name_or_path m --fp16 --gradient_accumulation_steps 2".split()
    assert translate(line) == (line, [])


@pytest.mark.parametrize("theirs", ["--checkpoint_activations", "--gradient_checkpointing True"])
def test_what_was_called_lost_has_a_setting(theirs: str) -> None:
    assert ours(theirs) == ["--set", "device.recompute=true"]
    assert ours("--distributed_lamb") == ["--set", "optimizer.shard=true"]


def test_nothing_behind_two_dashes_is_touched() -> None:
    words, notes = translate(["launch", "--bf16", "--", "--bf16", "--task_name", "x", "--", "--do_train"])
    assert words == ["launch", "--dtype", "bf16", "--", "--bf16", "--task_name", "x", "--", "--do_train"]
    assert len(notes) == 1


def test_the_batch_stands_before_two_dashes() -> None:
    words = ours(f"launch --{MICRO} 8 -- train")
    assert words.index("--batch-size") < words.index("--")


def test_our_own_options_pass_untouched() -> None:
    line = (
        "train --backend cpu -m tiny -t sample --data-dir data -d bf16 -b 32 -s 48 -e 2 --lr 5e-4 --learning-rate 1e-3 "
        "--seed 3 -o out --recipe demo --config my.toml --set a.b=c --resume --overwrite --dry-run --json -q"
    ).split()
    assert translate(line) == (line, [])


@pytest.mark.parametrize("target", sorted(set(WITH_VALUE.values())))
def test_every_target_is_there(target: str) -> None:
    from bertkit.cli import options
    from bertkit.cli.train import train

    if target.startswith("--"):
        hints = [*vars(options).values(), *get_type_hints(train, include_extras=True).values()]
        parts = [part for option in hints for part in getattr(option, "__metadata__", ())]
        declared = {word for part in parts for word in (part.default, *(part.param_decls or ()))}
        assert target in declared
    else:
        assert is_setting(target)


def is_setting(key: str) -> bool:
    """Of the recipe, or of at least one backend."""
    return key in KEYS or any(key == f"{DEVICE}{name}" for card in installed().values() for name in card.settings)


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_every_switch_gives_settings_that_resolve(name: str) -> None:
    words = ours(f"--{name}")
    assert words == list(SWITCHES[name])
    if words[:1] == ["--set"]:
        assert is_setting(parse_set(words[1])[0])
    if words[:1] == ["--dtype"]:
        assert resolve({"precision": words[1]}, env={}).recipe.precision == words[1]


THEIRS = {*WITH_VALUE, *SWITCHES, MICRO, ACCUMULATION}


def foreign(word: str) -> bool:
    return not word.startswith("--") or word[2:].partition("=")[0].replace("-", "_") not in THEIRS


WORDS = st.text(max_size=12) | st.sampled_from(
    ["--", "-b", "--set", "true", "false", "--task", "model_name_or_path", "x=y"]
)


@given(st.lists(WORDS.filter(foreign)))
def test_without_their_spellings_nothing_changes(words: list[str]) -> None:
    assert translate(words) == (words, [])


@given(st.lists(WORDS.filter(foreign).filter(lambda word: word != "--")), st.sampled_from(sorted(WITH_VALUE)))
def test_a_spelling_changes_nothing_around_it(words: list[str], name: str) -> None:
    found, notes = translate([*words, f"--{name}=7", *words])
    middle = found[len(words) : len(found) - len(words)]
    assert found == [*words, *middle, *words]
    if WITH_VALUE[name] == f"--{name}":  # the same word in both worlds
        assert (middle, notes) == ([f"--{name}=7"], [])
        return
    assert middle in ([WITH_VALUE[name], "7"], ["--set", f"{WITH_VALUE[name]}=7"])
    assert len(notes) == 1
