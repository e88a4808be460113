"""Old command lines in bertkit's words: those that stand in the reference systems' documents, and mistakes in them.

tests/golden/migrate holds the documents' command lines with what is expected of each.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.cli.migration.command import Command, Draft, Migrated, NotUnderstood
from bertkit.cli.migration.python_flags import read_flags, table
from bertkit.cli.migration.shell import Line, State, read_script
from bertkit.cli.migration.translate import READERS, migrate
from bertkit.cli.migration.words import take_apart
from bertkit.engine.registry import installed
from bertkit.errors import UserError
from bertkit.recipes.recipe import DEVICE, KEYS
from bertkit.recipes.resolve import packaged, read_recipe
from conftest import ROOT

GOLDEN = sorted((ROOT / "tests" / "golden" / "migrate").glob("*.json"))
CASES: list[dict[str, Any]] = [case for path in GOLDEN for case in json.loads(path.read_text(encoding="utf-8"))]
SAID = [case for case in CASES if "asked" not in case]


def new(old: str, backend: str = "") -> str:
    (command,) = migrate(old, backend).commands
    return str(command)


def notes(old: str) -> str:
    return "\n".join(map(str, migrate(old).notes))


@pytest.mark.parametrize("case", CASES, ids=[case["old"][:60] for case in CASES])
def test_every_documented_command_has_its_words(case: dict[str, Any]) -> None:
    if "asked" in case:  # it leaves out what nobody else can know
        with pytest.raises(NotUnderstood) as caught:
            migrate(case["old"])
        assert [str(caught.value)] == case["asked"]
        assert caught.value.exit_code == 1
        return
    made = migrate(case["old"])
    assert made.commands
    assert not made.faults
    assert [str(command) for command in made.commands] == case["new"]
    assert [str(note) for note in made.notes] == case["notes"]


def test_the_documents_commands_are_all_here(real_data: Path) -> None:
    page = real_data.parent / "reference" / "seed_commands.md"
    if not page.exists():
        pytest.skip("the documents' command lines are not here")
    blocks = page.read_text(encoding="utf-8").split("```")[1::2]
    lines = {line for block in blocks for line in block.strip().splitlines()}
    assert len(lines) > 30
    assert lines - {case["old"] for case in CASES} == set()


def test_a_note_is_one_line_and_says_why() -> None:
    for case in SAID:
        for note in migrate(case["old"]).notes:
            assert "\n" not in note.text
            if note.kind == "lost":
                assert re.search(r".: [\w`-].{8}", note.text), note


STANDS_IN = re.compile(r"<|>|\bRUN\b|\bMODEL\b|\bTEXT\b|\bSHARDS\b|\bVOCABULARY\b|--recipe demo|models/")


def test_no_command_is_a_stand_in() -> None:
    for case in SAID:
        for command in migrate(case["old"]).commands:
            assert not STANDS_IN.search(str(command)), command


@pytest.mark.parametrize("case", SAID, ids=[case["old"][:60] for case in SAID])
def test_settings_and_recipes_that_are_named_exist(case: dict[str, Any]) -> None:
    for command in migrate(case["old"]).commands:
        words = list(command.words)
        for at, word in enumerate(words):
            if word == "--set":
                assert is_setting(words[at + 1].partition("=")[0], words)
            if word == "--recipe":
                assert words[at + 1] in packaged()


def is_setting(key: str, words: list[str]) -> bool:
    """A setting of the recipe, or of the backend that the command names."""
    if not key.startswith(DEVICE):
        return key in KEYS
    return key.removeprefix(DEVICE) in installed()[words[words.index("--backend") + 1]].settings


# What batch, accumulation, rate and processes of the old command mean here.
MEANT = {
    # PyTorch's batch is of an update, before accumulation divides it
    "python run_squad.py --bert_model=large --fp16 --train_batch_size=32 --gradient_accumulation_steps=4 --do_train": (
        "-b 32", "train.micro_batch_size=8",
    ),
    # TensorFlow's is what is computed at once
    "python run_squad.py --init_checkpoint=m --train_batch_size=8 --num_accumulation_steps=4 --do_train=True --amp": (
        "-b 32", "train.micro_batch_size=8", "-d fp16", "learning_rate_scaling=linear",
    ),
    "scripts/run_glue.sh ck data vocab.txt config out sst-2 4 256 2 1e-5 0.1 3 -1.0 tf32": (
        "launch -n 4 --", "-t sst2", "-b 256", "train.micro_batch_size=128", "nvidia-glue-fp32", "-d tf32",
    ),
    "scripts/run_squad.sh ck 2.0 4 3e-5 0.3 fp16 1 7 squad": ("schedule.warmup=0.3", "--seed 7", "--data-dir squad"),
    "scripts/run_squad.sh ck 2.0 4 3e-5 fp16 1 7 squad": ("schedule.warmup=0.1", "--seed 7", "--data-dir squad"),
    "bash scripts/run_glue.sh $(source scripts/configs/glue_config.sh && sst-2_dgx1-32g_1gpu_fp16)": (
        "-b 1024", "train.micro_batch_size=128", "-t sst2",
    ),
    "python launch_benchmark.py --precision=fp32 --mode=training --mpi_num_processes=2 -- train-option=SQuAD "
    "init_checkpoint=m mpi_workers_sync_gradients=True": (
        "--recipe intel-squad ", "-b 24", "-d fp32", "learning_rate_scaling=sqrt", "model.softmax=fp32",
    ),
    "MULTI_HLS_IPS=a,b ./demo_bert finetuning -d fp32 -m tiny -t squad -v 4": (
        "launch --hosts a,b -n 4 --ssh-port 3022 --", "--backend gaudi", "-b 10", "-m tiny ",
    ),
    "mpirun -np 4 -H box1:2,box2:2 python run_squad.py --horovod --noamp --do_train --init_checkpoint=m": (
        "launch --hosts box1,box2 -n 2 --", "-d fp32",
    ),
    "python run_classifier.py --task_name=CoLA --do_eval=true --init_checkpoint=runs/c --data_dir=glue/CoLA": (
        "bertkit evaluate runs/c -t cola --data-dir glue/CoLA",
    ),
    "python run_squad.py --version_2_with_negative --bert_config_file=c --init_checkpoint=m --do_train=True": (
        "-t squad2", "--lr 5e-5", "-e 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("inference --benchmark-only", ("bench", "infer", "--profile", "20-22")),
        ("inference --accuracy-only", ("evaluate", "c", "--profile", "2-4")),
        ("training", ("train", "--profile", "10-12")),
    ],
)
def test_intels_timeline_is_a_profile(mode: str, words: tuple[str, ...]) -> None:
    old = f"python launch_benchmark.py --mode={mode} --data-location d --checkpoint c -- init_checkpoint=c profile="
    made = migrate(f"{old}True")
    assert set(words) <= set(made.commands[-1].words)
    assert "Chrome trace" in "\n".join(map(str, made.notes))
    assert "--profile" not in migrate(f"{old}False").commands[-1].words


@pytest.mark.parametrize("old", MEANT)
def test_what_the_old_words_mean(old: str) -> None:
    words = new(old)
    for expected in MEANT[old]:
        assert expected in words


def test_a_named_preset_is_the_recipe_of_that_name() -> None:
    """The recipe says what the preset's function would have passed as arguments."""
    for preset, recipe in table("scripts.toml")["recipes"].items():
        family, function = preset.split()
        said = read_recipe(recipe)
        long = new(f"bash scripts/run_{family}.sh $(source x.sh && {function})")
        assert f"--recipe {recipe}" in long
        one = function.replace("8gpu", "4gpu")
        words = shlex.split(new(f"bash scripts/run_{family}.sh $(source x.sh && {one})"))
        assert float(words[words.index("--lr") + 1]) == said["optimizer.learning_rate"]
        assert words[words.index("-d") + 1] == said["precision"]
        assert f"schedule.warmup={said['schedule.warmup']:g}" in words
        cards = 8 if family == "squad" else 4  # GLUE's batches are divided among the cards
        assert int(words[words.index("-b") + 1]) * cards == said["train.batch_size"] * 8


def test_another_backend_may_be_asked_for() -> None:
    assert "--backend cpu" in new("./demo_bert finetuning -d bf16 -m base -t mrpc", "cpu")
    assert "--backend" not in new("bash scripts/data_download.sh", "cpu")


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("", "the existing command is empty"),
        ("   ", "the existing command is empty"),
        ("./demo_bert 'finetuning", "cannot be read: a quote (') is not closed; check its quotes"),
        ("./demo_bert fintuning -t mrpc", "demo_bert has no 'fintuning'"),
        ("./demo_bert finetuning -m huge -t mrpc", "demo_bert has no model 'huge'"),
        ("./demo_bert finetuning -m base", "fine-tunes mrpc and squad, not nothing"),
        ("make me a sandwich", "make is none of the programs that are known"),
        (
            "python run_squat.py --do_train",
            "run_squat.py is none of the programs that are known; did you mean run_sq",
        ),
        ("python launch_benchmark.py --mode=cooking", "add --mode=training or --mode=inference"),
        ("python launch_benchmark.py --precision=fp4 --mode=training", "has no precision 'fp4'"),
        ("bash scripts/run_squad.sh $(source s.sh && dgx9_8gpu_fp16)", "no preset 'dgx9_8gpu_fp16' of squad is known"),
        ("bash scripts/run_glue.sh $(source s.sh && mrpc_dgxa100-80g_é8gpu_fp16)", "the number of devices is 'é8'"),
        ("export PATH=/bin", "PATH alone is no command"),
        ("scripts/finetune_train_benchmark.sh large true 8 mrpc", "knows squad only, not 'mrpc'"),
        (f"bash scripts/run_squad.sh {'x ' * 20}", "takes 14 arguments, not 20"),
    ],
)
def test_what_cannot_be_read_is_one_line(old: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        migrate(old)


def test_nothing_of_an_old_command_is_dropped_silently() -> None:
    said = notes("FUSION=1 python run_squad.py --bert_model=m --fp16 --do_train --made_up=1 --use_xla | tee log")
    for word in ("--made_up", "--use_xla", "FUSION=1", "| tee log"):
        assert f"no equivalent, dropped: {word}" in said


def test_a_command_can_be_pasted_into_a_shell() -> None:
    command = Command((("A", "x y"),), ("bertkit", "ask", "<run>", "--question", "Who's there?", "-m", "$DIR/a"))
    assert str(command) == """A='x y' bertkit ask '<run>' --question 'Who'"'"'s there?' -m $DIR/a"""


PIECES = (
    "pretraining finetuning -b -m large tiny -t squad mrpc -d bf16 fp99 -v x 8 0 -1 1e-5 -s -i -w -fpo "
    "overfit -e --mode=training --mode=inference -- --batch-size=q --batch-size=0 train-option=Pretraining "
    "train-option=Classifier max_seq_length=z --mpi_num_processes=2 --mpi_num_processes_per_socket=y "
    "--accuracy-only --train_batch_size=8 --gradient_accumulation_steps=0 --gradient_accumulation_steps=z "
    "--max_steps=x --do_train --do_eval --fp16 --max_seq_length=q --learning_rate --bert_config_file=c "
    "--horovod --use_habana fp16 true false 128 … | ; : [a] <b> $(source_x) -H a:1,b MULTI_HLS_IPS=a "
    "DOCKER_SSHD_PORT=q NUM_WORKERS_PER_HLS=w PHASE=2 --init_checkpoint=m.pt"
).split()
STARTERS = (
    "", "mpirun -np 2", "mpirun -n z", "sbatch -N q", "torchrun --nproc_per_node=y", "accelerate launch", "deepspeed",
    "docker run -v /a:/b -w /b image", "cd x &&", "bash -c", "srun -n 4", "gaudi_spawn.py --world_size 8",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=9), st.lists(st.sampled_from(PIECES), max_size=2), st.data())
def test_any_line_is_read_or_refused(rest: list[str], before: list[str], data: st.DataObject) -> None:
    program = data.draw(st.sampled_from(sorted(READERS)))
    starter = data.draw(st.sampled_from(STARTERS))
    try:
        made = migrate(" ".join([*before, starter, program, *rest]))
    except UserError:
        return
    assert isinstance(made, Migrated)
    for command in made.commands:
        assert shlex.split(str(command))


NAMES = st.from_regex(r"[a-z][a-z_]{1,8}", fullmatch=True)


@given(st.dictionaries(NAMES, st.from_regex(r"[a-z0-9./]{1,8}", fullmatch=True)))
def test_flags_are_read_in_either_spelling(flags: dict[str, str]) -> None:
    glued = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    apart = [word for name, value in flags.items() for word in (f"-{name}", value)]
    assert read_flags(glued) == flags == read_flags(apart)


def test_starters_are_peeled_off_from_the_outside_in() -> None:
    text = "time A=1 srun -N2 numactl -N 0 python3 -u -m torch.distributed.launch x/run_glue.py --a"
    (line,) = read_script(text, State(), Draft())
    assert isinstance(line, Line)
    (old,) = take_apart(line, Draft())
    assert old.starters == ("srun", "numactl", "torch.distributed.launch")
    assert (old.program, old.arguments, old.env) == ("run_glue.py", ("--a",), {"A": "1"})
    assert old.place.nodes == 2
