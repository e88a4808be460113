"""Scripts, containers, starters and Hugging Face's programs: what a history or a shell script holds, in our words."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.cli.hf_flags import WITH_VALUE, spelled, translate
from bertkit.cli.migration.command import Migrated, NotUnderstood
from bertkit.cli.migration.demo_bert import READ, SHORT
from bertkit.cli.migration.shell import MOST_CHARACTERS
from bertkit.cli.migration.translate import READERS, migrate
from bertkit.engine.registry import installed
from bertkit.errors import UserError


def new(old: str) -> str:
    return "\n".join(map(str, migrate(old).commands))


def notes(old: str) -> str:
    return "\n".join(map(str, migrate(old).notes))


GLUE = "python run_glue.py --model_name_or_path bert-base-cased --task_name mrpc --do_train"
SQUAD = "python run_squad.py --init_checkpoint=ck/b.pt --config_file=cfg/c.json --vocab_file=v.txt --fp16 --do_train"
SAID = {
    # variables that the script sets, continuation lines, comments, a prompt, a continuation with a blank behind it
    'export D=/data\nT=MRPC # the task\n$ python run_glue.py --bert_model=large --task_name $T --do_train \\\n'
    '  --data_dir "$D/${T}" --fp16 \\ \n  --seed 7': ("-t mrpc", "--data-dir /data/MRPC", "--seed 7", "-m large"),
    # cd: relative files follow it, absolute ones and names of published models do not
    f"cd /w && {SQUAD} --train_file=squad/train-v1.1.json --output_dir /o": (
        "-m /w/ck/b.pt", "--data-dir /w/squad", "cp -n /w/cfg/c.json /w/ck/bert_config.json", "-o /o", "vocab=/w/v.txt",
    ),
    f"(cd /w; ls); {SQUAD}": ("-m ck/b.pt",),
    "cd a\ncd ../b\nbash scripts/run_squad.sh ck.pt 2.0 4 3e-5 0.1 fp16 8 1 squad v.txt out train c.json": (
        "-m b/ck.pt", "--data-dir b/squad", "-o b/out", "model.vocab=b/v.txt",
    ),
    "cd /w && python create_pretraining_data.py --input_file a,b --output_file=o.tfrecord --vocab_file v": (
        "data prepare /w/a /w/b -o /w/o --vocab /w/v",
    ),
    f"cd /w && {GLUE} --output_dir out": ("-m bert-base-cased", "-o /w/out"),
    f"cd /w && {GLUE.replace('bert-base-cased', './mine')}": ("-m /w/mine",),
    # containers: files inside are named as they are outside
    f"docker run --gpus all -it --rm -v /h/ck:/m/ck -v /h:/m -w /m img {SQUAD} --data_dir=/m/d": (
        "-m /h/ck/b.pt", "--data-dir /h/d", "model.vocab=/h/v.txt",
    ),
    f"docker run --mount type=bind,source=$PWD,target=/w -e NCCL_DEBUG=INFO img sh -c 'cd /w && {SQUAD}'": (
        "-m $PWD/ck/b.pt", "NCCL_DEBUG=INFO bertkit",
    ),
    f"singularity exec --nv -B /h:/m image.sif {SQUAD.replace('ck/', '/m/ck/')}": ("-m /h/ck/b.pt",),
    # starters
    f"accelerate launch --num_processes 4 --mixed_precision fp16 {GLUE[7:]}": ("launch -n 4 -- train", "-d fp16"),
    f"accelerate launch --config_file=x.yaml {GLUE[7:]}": ("launch -n 8 -- train",),
    f"torchrun --standalone --nproc_per_node=2 {GLUE[7:]}": ("launch -n 2 -- train",),
    f"python -m torch.distributed.run --nproc-per-node 3 {GLUE[7:]}": ("launch -n 3 -- train",),
    f"deepspeed --include localhost:0,3 {GLUE[7:]}": ("launch -n 2 -- train",),
    f"python gaudi_spawn.py --world_size 8 --use_mpi {GLUE[7:]} --use_lazy_mode false --gaudi_config_name c.json": (
        "launch -n 8 -- train --backend gaudi", "device.mode=eager", "device.gaudi_config=c.json",
    ),
    f"mpirun -np 8 -H a:4,b:4 -x CUDA_VISIBLE_DEVICES=0,1,2,3 {GLUE}": (
        "CUDA_VISIBLE_DEVICES=0,1,2,3 bertkit launch --hosts a,b -n 4 --",
    ),
    f"#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\nsrun --mpi=pmix {GLUE}": ("--nodes 2 -n 4 --",),
    f"sbatch -N 3 --ntasks-per-node=2 --wrap='{GLUE}'": ("launch --slurm bertkit.sbatch --nodes 3 -n 2 -- train",),
    f"LD_PRELOAD=/usr/lib/libjemalloc.so torchrun --nproc_per_node 2 {GLUE[7:]}": ("-n 2 --allocator jemalloc -- ",),
    f"nohup time timeout 3600 env A=b bash -x -c '{GLUE}' &": ("bertkit train ", "-m bert-base-cased"),
    "CUDA_VISIBLE_DEVICES=0,1,2 DATA=/d bash train_bert_pretraining_amp_dist.sh": ("launch -n 3 -- ",),
    # Hugging Face's programs; what they have by themselves and ours has otherwise is said
    GLUE: ("-t mrpc", "-b 8", "-e 3", "--lr 5e-5", "--seed 42", "weight_decay=0", "schedule.warmup=0", "-d fp32"),
    f"{GLUE} --warmup_ratio 0.06 --weight_decay 0.1 --gradient_accumulation_steps 4 --fp16": (
        "schedule.warmup=0.06", "weight_decay=0.1", "-b 32", "micro_batch_size=8", "-d fp16",
    ),
    f"{GLUE} --eval_strategy epoch --eval_steps 50 --lr_scheduler_type constant --max_steps 40": (
        "schedule.name=constant", "schedule.warmup=0 ", "train.steps=40",
    ),
    "python run_qa.py --model_name_or_path m/x/y --dataset_name squad_v2 --version_2_with_negative --do_train "
    "--doc_stride 64 --gradient_checkpointing --fp16": (
        "-t squad2", "-s 384", "doc_stride=64", "device.recompute=true", "--backend cuda",
    ),
    "python run_qa.py --model_name_or_path out --dataset_name squad --do_eval --per_device_eval_batch_size 4": (
        "bertkit evaluate out -t squad -s 384 -b 4",
    ),
    "python run_glue.py --model_name_or_path out --task_name rte --do_predict --output_dir p": (
        "bertkit predict out -t rte -s 128 -o p",
    ),
    # the data, the optimizer and the second phase are not passed over
    "python run_squad.py --model_name_or_path bert-base-uncased --do_train --train_file $S/train-v1.1.json "
    "--predict_file $S/dev-v1.1.json --per_gpu_train_batch_size 12": ("--data-dir $S", "-b 12", "-m bert-base-uncased"),
    f"{GLUE} --data_dir /glue/MRPC --resume_from_checkpoint true": ("--data-dir /glue/MRPC", "--resume"),
    f"{GLUE} --train_file d/a.csv --validation_file d/b.csv": ("data.train_file=d/a.csv", "data.dev_file=d/b.csv"),
    "mpirun -np 4 python run_squad.py --horovod --amp --do_train --init_checkpoint=m --optimizer_type=lamb": (
        "optimizer.name=lamb", "trust_ratio=all",
    ),
    "python run_pretraining.py --input_dir=/d --output_dir=/o --do_train --phase2 --resume_from_checkpoint "
    "--phase1_end_step=7038 --fp16": ("-o /o-phase2", "train.moments_from=/o", "-s 512"),
    "$PYTHON -m intel_extension_for_pytorch.cpu.launch --distributed --nproc_per_node 2 run_pretrain_mlperf.py "
    "--input_dir=/d --bf16 --train_batch_size=32": ("launch -n 2 -- train --backend cpu", "-d bf16"),
    "python create_pretraining_data.py --input_file=a.txt,b.txt --output_file=/t/x.tfrecord --vocab_file=v.txt "
    "--do_whole_word_mask=True --dupe_factor=5": (
        "bertkit data prepare a.txt b.txt -o /t/x --vocab v.txt", "--format tfrecord", "--whole-words",
        "--duplicate-factor 5", "--max-predictions 20",
    ),
    "python run_squad.py --do_train --use_habana --autocast --init_checkpoint=/r/pytorch_model.bin "
    "--config_file ./c.json": (
        "cp -n ./c.json /r/bert_config.json", "-m /r ", "-d bf16",
    ),
    # SQuAD's own scores
    "python evaluate-v1.1.py data/dev-v1.1.json p.json": ("bertkit score p.json -t squad --file data/dev-v1.1.json",),
    "python /x/evaluate-v2.0.py d.json p.json -o eval.json -n na.json --na-prob-thresh=0.5": (
        "bertkit score p.json -t squad2 --file d.json --null-odds na.json --threshold 0.5",
    ),
    # demo_bert, its long options
    "python3 demo_bert.py --command=finetuning --model_variant=tiny --data_type=fp32 --test_set=squad --use_horovod=4 "
    "--dataset_path=/d --output_dir=/o --learning_rate=1e-5 --save_ckpt_steps=9 --epochs=1": (
        "launch -n 4 -- train --backend gaudi", "-m tiny", "-d fp32", "--data-dir /d", "-o /o",
        "--lr 1e-5", "checkpoint.every=9", "-e 1 ", "-b 10",
    ),
    "./demo_bert pretraining -d bf16 -m base -b 64,8 -i 10,5 -w 2,1 --global_batch_size 1024,512 --resume_p2": (
        "-b 1024", "train.micro_batch_size=64", "train.steps=10", "warmup_steps=2", "-b 512", "train.steps=5",
        "--lr 9.375e-05", "--resume",
    ),
    "./demo_bert pretraining -d bf16 -m base --no_steps_accumulation 1 -v": ("-b 64 ", "-b 8 "),
    "./demo_bert pretraining -d bf16 -m base -fpo 1": ("-b 1600 ", "-b 200 "),
    "./demo_bert pretraining -d bf16 -m base -fpo 0": ("-b 65536 ", "-b 32768 "),
    # Intel's threads and allocator
    "python launch_benchmark.py --mode=training --num-intra-threads=24 --disable-tcmalloc=False --mpi_num_processes=2 "
    "-- train_option=SQuAD init_checkpoint=m": ("--allocator tcmalloc --", "device.threads=24"),
}  # fmt: skip


@pytest.mark.parametrize("old", SAID)
def test_what_a_script_says(old: str) -> None:
    made = new(old)
    for expected in SAID[old]:
        assert expected in f"{made} ", made


def test_several_commands_give_several_and_each_in_its_order() -> None:
    made = migrate(f"set -e\npip install x\n{SQUAD}\npython evaluate-v1.1.py d.json p.json | tee s\n")
    programs = [command.words[:2] for command in made.commands]
    assert programs == [("cp", "-n"), ("bertkit", "train"), ("bertkit", "score")]
    said = [str(note) for note in made.notes]
    assert any(note.startswith("no equivalent, dropped: pip install x: ") for note in said)
    assert any(note.startswith("no equivalent, dropped: | tee s: ") for note in said)


def test_the_answer_is_a_script_that_a_shell_reads(tmp_path: Path) -> None:
    script = tmp_path / "answer.sh"
    made = [migrate(old) for old in SAID]
    script.write_text("\n".join(str(line) for one in made for line in one.commands), encoding="utf-8")
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_not_understood_of_a_script_does_not_hide_the_rest() -> None:
    made = migrate(f"for s in 1 2; do\n  {GLUE} --seed $s\ndone\npython mine.py\n{GLUE} --seed 5\n")
    assert [command.words[1] for command in made.commands] == ["train"]
    assert "--seed 5" in str(made.commands[0])
    assert [fault.cause for fault in made.faults] == [
        "line 1: a shell's `for` is not followed", "line 4: mine.py is none of the programs that are known",
    ]  # fmt: skip


ASKED = {
    "python run_squad.py --do_predict --predict_file d.json": "names no trained model",
    "python run_squad.py --bert_model=bert-large-uncased --do_predict --predict_file d.json": "names no trained model",
    "python inference.py --bert_model=large --question a --context b": "names no trained model",
    "python run_squad.py --do_train --fp16": "the old command names no model",
    "preprocess_bert_pretrain --wikipedia w": "leaves out sink and vocab_file",
    "balance_dask_output --num-shards 4": "leaves out the folder of the shards",
    "mpirun -np 4 python": "names no program",
    "torchrun --nnodes=2 --nproc_per_node=8 run_qa.py --model_name_or_path b": "is for 2 hosts and does not name them",
    "mpirun -np 4 --hostfile absent.txt python run_glue.py": "the hosts in absent.txt are unknown here",
    f"{GLUE} --output_dir $(mktemp -d)": "leaves open $(mktemp -d)",
    f"{GLUE} --output_dir out/$1": "leaves open $1",
    "python inference.py --init_checkpoint=r --question `x` --context y": "leaves open $(x)",
    "python run_mlm.py --model_name_or_path b --train_file t": "learns masked words",
    "python run_glue.py --model_name_or_path b --train_file t.csv": "names no task",
    "python run_qa.py --model_name_or_path b --dataset_name mine": "mine is no data set that bertkit knows",
    f"docker run -v /a:/b img {SQUAD.replace('ck/', '/c/')}": "/c/b.pt lies in the container",
    "./demo_bert -d bf16 …": "leaves out whether demo_bert",
    "bash cmd_gbs2048.sh": "what cmd_gbs2048.sh passes",
    "ls; echo a": "starts no program that is known",
    "python -c 'import this'": "names no program",
    "make me a sandwich": "make is none of the programs",
    "while true; do python run_glue.py; done": "`while` is not followed",
    f"{GLUE} --output_dir gs://bucket/x": "gs://bucket/x is no folder or file of this machine",
    "python run_squad.py --bert_model m --do_train --train_batch_size=$((4*8))": "is $((4*8)) in the old command",
    "python run_squad.py --bert_model m --do_train --train_batch_size $BS": "is $BS in the old command, which only",
    f"{GLUE} --per_device_train_batch_size $BS": "is $BS in the old command, which only the shell knows",
    "bash train.sh": "train.sh is none of the programs",
    "python run_pretraining.py --input_dir=/d --phase2 --resume_from_checkpoint": "leaves out the folder of phase 1",
}


@pytest.mark.parametrize("old", ASKED)
def test_what_cannot_be_known_is_asked_for(old: str) -> None:
    with pytest.raises(NotUnderstood, match=re.escape(ASKED[old])) as caught:
        migrate(old)
    assert caught.value.exit_code == 1
    assert caught.value.cure


@pytest.mark.parametrize(
    "program", ["run_squad.py --bert_model=m", "run_pretraining.py", "run_qa.py --model_name_or_path m"]
)
@pytest.mark.parametrize(
    "name", ["tokenizer_name", "optimizer_type", "use_lazy_mode", "test_file", "data_dir", "made_up"]
)
def test_a_flag_that_a_program_does_not_have_is_said(program: str, name: str) -> None:
    """A name is passed over in silence only by a reader that reads it."""
    old = f"python {program} --do_train --fp16 --{name}=x"
    made = migrate(old)
    said = " ".join([*map(str, made.commands), *map(str, made.notes)])
    known = {"data_dir": "--data-dir x", "use_lazy_mode": "device.mode"}
    assert f"--{name}" in said or known.get(name, "never") in said


ON_ANOTHER = {
    ("bash scripts/run_squad.sh $(source s.sh && dgxa100-80g_8gpu_fp16)", "cpu"): ("--backend cpu", "-d auto"),
    ("python run_pretraining.py --fp16 --checkpoint_activations --input_dir d --config_file c", "cpu"): ("-d auto",),
    ("python gaudi_spawn.py --world_size 8 run_qa.py --model_name_or_path m --use_lazy_mode", "cuda"): ("-d fp32",),
    ("scripts/finetune_inference_benchmark.sh squad", "cpu"): ("-d fp32",),
    ("./demo_bert pretraining -d bf16 -m base --enable_packed_data_mode True", "null"): ("model.layout=packed",),
    ("DATA=/d bash train_bert_pretraining_amp_dist.sh", "hpu"): ("--backend hpu", "-d fp16"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "backend"), ON_ANOTHER)
def test_a_command_for_another_backend_has_only_what_that_has(old: str, backend: str) -> None:
    cards = installed()
    card = cards.get(backend) or cards["gaudi"]
    made = migrate(old, backend)
    said = "\n".join(map(str, made.commands))
    assert all(word in said for word in ON_ANOTHER[old, backend]), said
    assert set(re.findall(r"device\.(\w+)=", said)) <= set(card.settings)
    before = set(re.findall(r"device\.(\w+)=", new(old)))
    for name in before - set(card.settings):
        assert f"no equivalent, dropped: device.{name}=" in "\n".join(map(str, made.notes))


def test_a_setting_of_some_backends_is_left_to_add_where_none_is_named() -> None:
    old = f"{GLUE} --gradient_checkpointing"
    assert "device." not in new(old)
    found = "to do: add --set device.recompute=true where the backend has it: accelerator, cuda, gaudi, iluvatar, xpu"
    assert found in notes(old)


def test_a_host_file_that_is_here_is_read(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("box1 slots=8  # first\n\nbox2:8\n")
    assert "launch --hosts box1,box2 -n 8 --" in new(f"mpirun -np 16 --hostfile {hosts} {GLUE}")


@pytest.mark.parametrize("name", sorted({*SHORT, *READ} - {"help", "h"}))
def test_no_option_of_demo_bert_is_unknown(name: str) -> None:
    dash = "-" if len(name) < 4 else "--"
    said = notes(f"./demo_bert finetuning -d bf16 -m base -t mrpc {dash}{name} {VALUES.get(name, '1')}")
    assert "there is nothing like it here" not in said


VALUES = {
    "d": "bf16", "data_type": "bf16", "dtype": "bf16", "m": "base", "model": "bert", "model_variant": "base",
    "t": "squad", "test_set": "squad", "c": "finetuning", "command": "finetuning",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", sorted(set(WITH_VALUE) - {"model_name_or_path", "task_name", "train_file", "max_steps"})
)
def test_train_and_migrate_spell_alike(name: str) -> None:
    """One table: what `train` makes of a Hugging Face word is what `migrate` says."""
    value = "constant" if name == "lr_scheduler_type" else "7"
    (ours, _) = translate(["train", f"--{name}", value])
    assert ours[1:] == spelled(name, value) or ours[1:] == [f"--{name}", value]
    made = shlex.split(new(f"{GLUE} --{name} {value}"))
    wanted = ours[-1]
    assert wanted in made or f"to do: add --set {wanted} where" in notes(f"{GLUE} --{name} {value}")


def test_a_dollar_of_single_quotes_stays_one() -> None:
    old = """python inference.py --init_checkpoint=r --question 'Is it $5?' --context "From \\$HOME to $HOME" """
    assert new(old) == """bertkit ask r --question 'Is it $5?' --context "From \\$HOME to $HOME\""""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python 'x", "a quote (') is not closed"),
        ('python "x', 'a quote (") is not closed'),
        ("a\0b", "holds a NUL"),
        ("python run_glue.py \x1b[31m", "holds the character U+001B, which is not seen"),
        ("python run_glue.py \u202e", "holds the character U+202E, which is not seen"),
        ("python run_glue.py \udcff", "is not UTF-8"),
        ("a" * (MOST_CHARACTERS + 1), "characters, at most"),
        (
            "python run_glue.py --task_name mrpc --bert_model m --train_batch_size " + "9" * 5000,
            "no whole number above 0",
        ),
    ],
)
def test_text_that_is_no_command_is_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        migrate(text)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "piece", ["[", " [a", "<", " <a", "$(", "`", "(", "{ ", "for ", "a=b ", " --a|--b", "\\\n", "| x ", "<<E\n"]
)
def test_a_long_text_of_one_kind_takes_no_time(piece: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError):
        migrate((piece * MOST_CHARACTERS)[:MOST_CHARACTERS])
    assert time.monotonic() - start < 5


BITS = st.sampled_from(
    [*sorted(READERS), "python", " ", "\n", ";", "&&", "|", "'", '"', "$", "$(", ")", "(", "`", "\\", "<", ">", "[",
     "]", "#", "--model_name_or_path", "--bert_model=m", "cd", "docker run", "srun", "-c", "bash", "=", "A=b", "…",
     "2>&1", "<<E", "for", "done", "${A:-b}", "$PWD", "--do_train", "mrpc", "\t", "\u00a0", "\ue000", "é"]
)  # fmt: skip


@given(st.lists(BITS, max_size=25).map("".join) | st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        made = migrate(text)
    except UserError:
        return
    assert isinstance(made, Migrated)
    for command in made.commands:
        assert shlex.split(str(command))
