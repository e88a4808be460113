"""NVIDIA's and TinyBERT's commands for distillation in bertkit's words: stages, amounts, and what is not repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from bertkit.cli.main import app
from bertkit.cli.migration.command import NotUnderstood
from bertkit.cli.migration.distillation import DEAD, OF_NVIDIA, READ, TASKS
from bertkit.cli.migration.distillation_files import SHIPPED, STAGES
from bertkit.cli.migration.python_flags import read_flags
from bertkit.cli.migration.translate import migrate
from bertkit.data.tasks import TASKS as BUILT_IN
from bertkit.errors import UserError
from bertkit.recipes.recipe import KEYS
from bertkit.recipes.resolve import resolve
from bertkit.training.stages import STAGES as OURS

LAUNCH = "python -m torch.distributed.launch --nproc_per_node=8 task_distill.py"
BACKBONE = (
    f"{LAUNCH} --teacher_model ck/base-sst-2 --student_model ck/p1 --data_dir $D/SST-2 --task_name SST-2 --output_dir"
    " ck/sst_2 --max_seq_length 128 --train_batch_size 32 --num_train_epochs 10 --do_lower_case --aug_train --amp"
    " --distill_config distillation_config_backbone.json --seed=1"
)
HEAD = (
    f"{LAUNCH} --teacher_model ck/base-qa --student_model ck/squad --data_dir $D/squad/v1.1 --task_name SQuADv1.1"
    " --output_dir ck/pred --max_seq_length 384 --train_batch_size 32 --num_train_epochs 10 --do_lower_case"
    " --distill_config distillation_config_heads.json --aug_train --learning_rate 3e-5 --eval_step 2000 --amp --seed=1"
)
TINYBERT = "python task_distill.py --teacher_model ft --student_model general --data_dir glue/{0} --task_name {0}"
CONFIG = "task_distill.py --teacher_model t --student_model s --data_dir d --task_name MRPC --output_dir o"
GENERAL = (
    "python -m torch.distributed.launch --nproc_per_node=8 general_distill.py --input_dir $D/parquet/ --teacher_model"
    " ck/base --student_model BERT_4L_312D --do_lower_case --train_batch_size 32 --learning_rate 1e-4 --output_dir"
    " ck/p1 --distill_config distillation_config_backbone.json --seed=1 --amp --vocab_file vocab/vocab --num_workers 4"
)
OF_GENERAL = " --set optimizer.bias_correction=false --set checkpoint.every=1000 --set model.casing=uncased"
SAID = {
    GENERAL: (
        "bertkit launch -n 8 -- distill ck/base --backend cuda -m 4l-312d -t pretrain --stages last_layer --data-dir"
        f" $D/parquet/ -d fp16 -b 32 -s 128 --lr 1e-4 --seed 1 -o ck/p1 --set train.steps=68616{OF_GENERAL}",
    ),
    f"{GENERAL.replace('BERT_4L_312D', 'p1')} --max_steps 6861 --steps_per_epoch 2287 --continue_train": (
        "bertkit launch -n 8 -- distill ck/base --backend cuda -m p1 -t pretrain --stages last_layer --data-dir"
        f" $D/parquet/ -d fp16 -b 32 -s 128 --lr 1e-4 --seed 1 -o ck/p1 --set train.steps=6861{OF_GENERAL}",
    ),
    "general_distill.py --pregenerated_data d --teacher_model t --student_model s --output_dir o --wd 1 --no_cuda": (
        "bertkit distill t --backend cpu -m s -t pretrain --stages tinybert --data-dir d -d fp32 -b 32 -e 3 -s 128 --lr"
        " 5e-5 --seed 42 -o o --set model.start=random --set optimizer.bias_correction=false --set"
        " optimizer.epsilon=1e-6 --set checkpoint.every=1000",
    ),
    BACKBONE: (
        "bertkit launch -n 8 -- distill ck/base-sst-2 --backend cuda -m ck/p1 -t sst2 --stages last_layer -d fp16"
        " --data-dir $D/SST-2 -b 32 -e 10 -s 128 --lr 5e-5 --seed 1 -o ck/sst_2 --set"
        " data.train_file=$D/SST-2/train_aug.tsv --set optimizer.bias_correction=false --set schedule.name=constant"
        " --set schedule.warmup=0 --set model.casing=uncased",
    ),
    HEAD: (
        "bertkit launch -n 8 -- distill ck/base-qa --backend cuda -m ck/squad -t squad --stages logits --temperature 1"
        " -d fp16 --data-dir $D/squad/v1.1 -b 32 -e 10 -s 384 --lr 3e-5 --seed 1 -o ck/pred --set"
        " data.train_file=$D/squad/v1.1/train-v1.1_aug.json --set optimizer.bias_correction=false --set"
        " evaluation.every=2000 --set checkpoint.result=best --set model.casing=uncased",
    ),
    TINYBERT.format("MRPC") + " --output_dir tmp --max_seq_length 128 --num_train_epochs 10 --aug_train": (
        "bertkit distill ft -m general -t mrpc --stages tinybert -d fp32 --data-dir glue/MRPC -b 32 -e 10 -s 128 --lr"
        " 5e-5 --seed 42 -o tmp --set data.train_file=glue/MRPC/train_aug.tsv --set optimizer.bias_correction=false"
        " --set optimizer.epsilon=1e-6 --set schedule.name=constant --set schedule.warmup=0",
    ),
    TINYBERT.format("CoLA") + " --pred_distill --learning_rate 3e-5 --gradient_accumulation_steps 4 --no_cuda": (
        "bertkit distill ft --backend cpu -m general -t cola --stages logits --temperature 1 -d fp32 --data-dir"
        " glue/CoLA -b 32 -e 3 -s 128 --lr 3e-5 --seed 42 --set train.micro_batch_size=8 --set"
        " optimizer.bias_correction=false --set optimizer.epsilon=1e-6 --set evaluation.every=50 --set"
        " checkpoint.result=best",
    ),
    "task_distill.py --do_eval --student_model out --data_dir d --task_name RTE --output_dir o --do_lower_case": (
        "bertkit evaluate out -t rte --data-dir d -d fp32 -b 32 -s 128 --set model.casing=uncased",
    ),
    "data_augmentation.py --pretrained_bert_model ck/base --glove_embs g.txt --glue_dir glue --task_name SST-2": (
        "bertkit data augment glue/SST-2/train.tsv -o glue/SST-2/train_aug.tsv -m ck/base -t sst2 --vectors g.txt",
    ),
    "python data_augmentation.py --pretrained_bert_model m --glue_dir s --task_name SQuADv1.1 --seed=1 --M 8 --p .2": (
        "bertkit data augment s/train-v1.1.json -o s/train-v1.1_aug.json -m m -t squad --candidates 8 --share .2"
        " --seed 1",
    ),
}


def notes(old: str) -> str:
    return "\n".join(map(str, migrate(old).notes))


@pytest.mark.parametrize("old", SAID, ids=[old[:70] for old in SAID])
def test_an_old_line_has_its_words(old: str) -> None:
    made = migrate(old)
    assert tuple(map(str, made.commands)) == SAID[old]
    words = made.commands[0].words
    sets = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    assert {one.partition("=")[0] for one in sets} <= KEYS.keys()
    if "distill" in words:
        resolve({}, sets, env={})


@pytest.mark.parametrize("old", SAID, ids=[old[:70] for old in SAID])
def test_the_command_takes_its_options(old: str) -> None:
    words = list(migrate(old).commands[0].words)[1:]
    words = words[words.index("--") + 1 :] if "--" in words else words
    command: Any = typer.main.get_command(app)
    context = command.make_context("bertkit", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("bertkit", words, parent=context)


def test_the_programs_faults_are_named() -> None:
    backbone, head = notes(BACKBONE), notes(HEAD)
    for said in (backbone, head):
        assert "teacher runs with dropout" in said
        assert "skips each batch that is not full" in said
        assert "the same in all" in said
    assert "count padding" in backbone
    assert "is not here: it is taken to ask for attention, context and hidden states" in backbone
    assert "mean over positions" in head
    assert "temperature squared" in head
    assert "does not use the teacher" in notes(f"{CONFIG.replace('MRPC', 'STS-B')} --pred_distill")
    assert "chooses the best by accuracy; here f1 chooses" in notes(f"{CONFIG} --pred_distill")
    assert "100 times too many" in notes(f"{CONFIG} --do_eval --amp")


def test_flags_that_nothing_reads_are_named_as_such() -> None:
    dead = ("--weight_decay 1e-3", "--use_kld", "--average_loss", "--max_steps 1", "--eval_step 50", "--temperature 2")
    said = notes(f"{BACKBONE} {' '.join(dead)} --warmup_proportion 0.2")
    for flag in (*dead, "--warmup_proportion 0.2"):
        assert f"no equivalent, dropped: {flag.split()[0]}" in said
    assert "dropped: --pred_distill" in notes(f"{HEAD} --pred_distill")
    assert "dropped: --N 99" in notes(
        "data_augmentation.py --pretrained_bert_model m --glue_dir g --task_name QQP --N 99"
    )
    assert not READ & DEAD.keys()


def test_a_batch_of_nvidias_is_what_is_computed_at_once() -> None:
    old = f"{BACKBONE} --gradient_accumulation_steps 4"
    assert "-b 128 " in str(migrate(old).commands[0])
    assert "train.micro_batch_size=32" in migrate(old).commands[0].words
    assert "fails at the second micro-batch" in notes(old)


def test_epochs_are_whole_as_theirs() -> None:
    for theirs, ours in (("9.0", "9"), ("2.5", "2"), (".5", "0")):
        old = f"{CONFIG} --num_train_epochs {theirs} --pred_distill"
        assert f"-e {ours} " in str(migrate(old).commands[0])
        assert (f"{theirs} is {ours}" in notes(old)) == (theirs != "9.0")


def test_copies_count_where_the_old_program_reads_them() -> None:
    old = "data_augmentation.py --pretrained_bert_model m --glue_dir g --task_name {} --N 7"
    assert "--copies 7" in str(migrate(old.format("STS-B")).commands[0])
    assert "--copies" not in str(migrate(old.format("MRPC")).commands[0])


def asking(**more: Any) -> dict[str, Any]:
    """A file as NVIDIA's for the backbone, with other keys."""
    states = {f"use_{name}": True for name in ("attention_scores", "hidden_states", "value_states")}
    off = {"use_embedding_states": False, "use_pred_states": False}
    losses = {"attention_loss": "kld", "hidden_state_loss": "cosine", "value_state_loss": "kld"}
    return {"distillation_config": {**states, **off, **losses, "student_teacher_layer_mapping": "last_layer", **more}}


LIKE_TINYBERT = {
    "use_value_states": False, "use_embedding_states": True, "attention_loss": "mse", "hidden_state_loss": "mse",
    "embedding_state_loss": "mse", "student_teacher_layer_mapping": "uniform",
}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "stage"),
    [
        (asking(), "last_layer"),
        (asking(use_pred_states=True), "logits"),
        (asking(**LIKE_TINYBERT), "tinybert"),
        (asking(attention_loss="mse"), ""),
        (asking(student_teacher_layer_mapping="uniform"), ""),
        (asking(use_hidden_states=False), ""),
    ],
)
def test_a_file_that_is_here_says_the_stage(told: dict[str, Any], stage: str, tmp_path: Path) -> None:
    file = tmp_path / "heads_or_backbone.json"
    file.write_text(json.dumps(told))
    old = f"{CONFIG} --distill_config {file}"
    if stage:
        words = migrate(old).commands[0].words
        assert words[words.index("--stages") + 1] == stage
        assert ("does not train on them either" in notes(old)) == (stage == "logits")
    else:
        with pytest.raises(NotUnderstood, match="which no stage here has"):
            migrate(old)


@pytest.mark.parametrize(
    ("old", "words"),
    [
        (f"{CONFIG} --amp", "distillation_config.json is not here, which says whether states or predictions"),
        (f"{CONFIG} --distill_config mine.json", "mine.json is not here"),
        ("task_distill.py --student_model s --task_name MRPC", "leaves out --teacher_model"),
        ("task_distill.py --student_model s --teacher_model t", "the old command names no task"),
        (TINYBERT.format("${TASK}$"), "which only the shell knows"),
        (TINYBERT.format("SST2-B"), "the old program has no task 'SST2-B'"),
        ("data_augmentation.py --glue_dir g --task_name RTE", "leaves out --pretrained_bert_model"),
        ("general_distill.py --teacher_model t --student_model s", "leaves out --input_dir"),
        ("general_distill.py --input_dir d --student_model s", "leaves out --teacher_model"),
        (f"{GENERAL.replace('backbone', 'heads')}", "asks for predictions, of which general_distill.py makes none"),
    ],
)
def test_what_cannot_be_said_is_asked_for(old: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        migrate(old)
    assert words in str(caught.value)


def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path) -> None:
    for text, words in (("{", "not JSON"), ("[]", "not a JSON object"), ("{}", "distillation_config is")):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(UserError, match=words):
            migrate(f"{CONFIG} --distill_config {tmp_path / 'c.json'}")


def test_lines_of_the_end_to_end_script_are_read() -> None:
    script = f"readonly num_gpus=8\n{BACKBONE.replace('=8 ', '=${num_gpus} ')} | tee -a x.log; \\\n\n{HEAD}\n"
    general = f"{GENERAL.replace('--input_dir', chr(10) + '  --input_dir')}\n"  # a line that lacks its backslash
    made = migrate(f"{general}{script}python utils/convert_ckpts.py bert_base.pt\n")
    assert [str(one) for one in made.commands] == [*SAID[BACKBONE], *SAID[HEAD]]
    assert len(made.faults) == 2, "the program without its options, and these"
    assert "leaves out --input_dir and --teacher_model and --student_model" in str(made.faults[0])
    assert "-m reads the checkpoint as it is" in "\n".join(map(str, made.notes))


def test_tasks_and_flags_are_those_there_are() -> None:
    assert set(TASKS.values()) <= BUILT_IN.keys()
    assert {*SHIPPED.values(), *(stage for _, _, stage in STAGES)} <= {*OURS}
    assert OF_NVIDIA & read_flags(BACKBONE.split()).keys() == {"distill_config", "amp"}


def test_a_folder_called_as_a_size_stays_a_folder() -> None:
    words = str(migrate(f"{CONFIG.replace('_model s', '_model tiny')} --pred_distill").commands[0])
    assert words.startswith("bertkit distill t -m ./tiny -t mrpc ")


def test_files_follow_the_folder() -> None:
    (command,) = migrate(f"cd distillation && {CONFIG} --pred_distill --aug_train").commands
    assert str(command).startswith("bertkit distill distillation/t -m distillation/s ")
    assert "data.train_file=distillation/d/train_aug.tsv" in str(command)
