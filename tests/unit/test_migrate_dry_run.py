"""Every documented old command gives one that `--dry-run` accepts, with small files in place of the user's own.

The backends are the installed ones; that their hardware is not here does not matter to a dry run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bertkit.cli.main import main
from bertkit.cli.migration.command import Command
from bertkit.cli.migration.translate import migrate
from bertkit.files.disk import write_arrays
from bertkit.files.downloads import find_sources
from bertkit.model.config import ARCHITECTURES, Head, to_mapping
from bertkit.model.parameters import initial
from bertkit.model.vocabulary import SPECIAL
from conftest import ROOT
from pretraining_files import known_sequences, padded
from squad_files import reviews, write_squad

GOLDEN = ROOT / "tests" / "golden"
CASES: list[dict[str, Any]] = [
    case
    for path in sorted((GOLDEN / "migrate").glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))
    if "asked" not in case
]
HF = "--model_name_or_path bert-base-uncased --per_device_train_batch_size 8 --learning_rate 2e-5 --output_dir out"
# other lines of the same programs, and of those whose documents are not in the golden files
FURTHER = (
    f"python run_glue.py --task_name mrpc --do_train --do_eval --max_seq_length 128 --num_train_epochs 3 {HF}",
    "accelerate launch --multi_gpu --num_processes 4 --mixed_precision fp16 run_glue_no_trainer.py --task_name sst2"
    f" {HF}",
    f"torchrun --nproc_per_node 8 run_qa.py --dataset_name squad --do_train --do_eval --doc_stride 128 --fp16 {HF}",
    f"python -m torch.distributed.run --nproc_per_node=2 run_qa.py --dataset_name squad_v2 --do_train --bf16 {HF}",
    f"deepspeed --num_gpus 4 run_glue.py --task_name mrpc --do_train --deepspeed ds.json --gradient_checkpointing {HF}",
    "python gaudi_spawn.py --world_size 8 --use_mpi run_glue.py --task_name mrpc --do_train --use_habana"
    " --use_lazy_mode --use_hpu_graphs_for_training --gaudi_config_name Habana/bert-base-uncased"
    f" --throughput_warmup_steps 3 {HF}",
    f"python gaudi_spawn.py --world_size 8 --use_deepspeed run_qa.py --dataset_name squad --do_train --use_habana {HF}",
    f"python run_classification.py --dataset_name glue --dataset_config_name mrpc --do_train {HF}",
    "python run_qa.py --model_name_or_path out/squad --dataset_name squad --do_eval --per_device_eval_batch_size 8",
    "./demo_bert finetuning --data_type bf16 --model_variant base --test_set mrpc --batch_size 32 --max_seq_length 128"
    " --epochs 2 --output_dir out --use_horovod 4 --learning_rate 3e-5 --save_ckpt_steps 50",
    "python3 demo_bert.py --command=finetuning --model_variant=large --data_type=bf16 --test_set=squad"
    " --dataset_path=/data/squad --checkpoint_folder=/ck/large --horovod_hierarchical_allreduce=True",
    "python3 demo_bert.py -c pretraining -d bf16 -m base -v 8 -b 64,8 -i 100,50 -w 10,5 -s 128,512 --global_batch_size"
    " 4096,2048 --dataset_path /data/wiki --bert-config-dir /cfg --enable_packed_data_mode True --profile 20,22",
    "./demo_bert pretraining -d fp32 -m tiny -t overfit -i 20 -w 2",
    "cd /workspace/bert && bash scripts/run_squad.sh ck/bert.pt 2.0 4 3e-5 0.1 fp16 8 42 squad vocab/vocab results"
    " train bert_config.json",
    "docker run --gpus all --rm -it --shm-size=1g -v $PWD:/workspace/bert -v /data/squad:/squad -w /workspace/bert"
    " nvcr.io/bert:1 bash -c 'python run_squad.py --bert_model=bert-large-uncased --init_checkpoint=ck/bert.pt"
    " --config_file=bert_config.json --train_file=/squad/train-v1.1.json --fp16 --do_train --train_batch_size=4'",
    "python evaluate-v1.1.py dev-v1.1.json predictions.json",
    "python run_squad.py --bert_model=bert-large-uncased --init_checkpoint=out/pytorch_model.bin --config_file=c.json"
    " --do_predict --predict_file=squad/dev-v1.1.json --predict_batch_size=8",
    "python -m torch.distributed.launch --nproc_per_node=8 task_distill.py --teacher_model ck/sst-2 --student_model"
    " ck/p1 --data_dir glue/SST-2 --task_name SST-2 --output_dir ck/sst_2 --train_batch_size 32 --num_train_epochs 10"
    " --do_lower_case --aug_train --amp --distill_config distillation_config_backbone.json --seed=1",
    "python task_distill.py --teacher_model ck/base-qa --student_model ck/squad --data_dir squad/v1.1 --task_name"
    " SQuADv1.1 --output_dir ck/pred --do_lower_case --distill_config distillation_config_heads.json --eval_step 2000",
)
OLD = [*(case["old"] for case in CASES), *FURTHER]
WORDS = "the plot music cast ending hero pace is was and good dull bold flat rich so really ? .".split()
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
SQUAD_DEV = "data/squad/dev-v1.1.json"
OWN_FILES = ("model.vocab=", "data.train_file=", "data.dev_file=")


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """A backend's card sets variables for the framework, which the next test must not see."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a head for answers, and a few rows of each task's data."""
    folder = tmp_path_factory.mktemp("home")
    pieces = [*SPECIAL, *WORDS]
    config = dataclasses.replace(ARCHITECTURES["tiny"], vocab_size=len(pieces))
    (folder / "model").mkdir()
    (folder / "model" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (folder / "model" / "config.json").write_text(json.dumps(to_mapping(config, Head("span", 2), ())))
    write_arrays(folder / "model" / "model.safetensors", initial(config, Head("span", 2), 1), {})
    for split in ("train", "dev"):
        for version in ("v1.1", "v2.0"):
            write_squad(folder / "data" / "squad" / f"{split}-{version}.json", reviews(6))
        _write_table(folder / "data" / "MRPC" / f"{split}.tsv", MRPC, "1\t1\t2\t")
        _write_table(folder / "data" / "SST-2" / f"{split}.tsv", "sentence\tlabel", "")
    arrays = {name: np.minimum(array, len(pieces) - 1) for name, array in padded(known_sequences(200)).items()}
    (folder / "shards").mkdir()
    with h5py.File(folder / "shards" / "part_0_of_1.hdf5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return folder


def _write_table(path: Path, header: str, before: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = f"{before}the plot is good .\tthe cast was good ." if before else "the plot is good .\t1"
    path.write_text("\n".join([header, *[row] * 8]) + "\n")


def at_home(words: Sequence[str], home: Path, tmp_path: Path) -> list[str]:
    """The command with the folder's files in place of the user's."""
    found: list[str] = []
    rest = list(words)
    folders = {"-m": home / "model", "--data-dir": home / "data", "-o": tmp_path / "out"}
    if "pretrain" in words:
        folders |= {"--data-dir": home / "shards", "--eval-dir": home / "shards"}
    if rest[0] in ("evaluate", "ask", "distill"):
        found, rest = [rest[0], str(home / "model")], rest[2:]
    while rest:
        word = rest.pop(0)
        if word == "--set" and rest[0].startswith(OWN_FILES):
            rest.pop(0)
        elif (word in folders and found[:1] != ["bench"]) or (word in ("--data-dir", "-m") and "infer" in found):
            rest.pop(0)
            found += [word, str(folders[word])]
        else:
            found.append(word)
    if found[0] == "train":
        found += [] if "-m" in found else ["-m", str(folders["-m"])]
    if found[0] in ("train", "evaluate"):
        found += [] if "--data-dir" in found else ["--data-dir", str(folders["--data-dir"])]
    return found


def run(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command itself, in this process; what it said."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert ended.value.code == 0, f"{' '.join(words)}\n{said.err}"
    return said.out + said.err


def check(command: Command, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Dry-run one command, and for a launch also what it starts."""
    words = list(command.words)
    if words[0] == "export":
        assert words[1].startswith("MULTI_HLS_IPS=")  # read by launch as it is
        return "exported"
    if words[0] in ("cp", "ln"):  # of the user's own files, of which the test has none
        assert len(words) == 4
        return "put beside"
    assert words.pop(0) == "bertkit"
    if words[0] == "launch":
        start = words.index("--")
        launch, inner = words[1:start], words[start + 1 :]
        launch = [re.sub(r"\$\w+", "/data", word) for word in launch]  # as a shell would fill in
        if "--container" in launch and "--slurm" not in launch:  # planned in the container; -o is the test's
            within = ["--mount", f"{tmp_path}:{tmp_path}"]
        else:
            within = ["--topology", str(GOLDEN / "topologies" / "8sockets.xml")]
        run(["launch", *launch, *within, "--dry-run", "--", *at_home(inner, home, tmp_path)], capsys)
        words = inner
    words = at_home(words, home, tmp_path)
    if words[:2] == ["data", "get"]:
        find_sources(words[2:])
        return run([*words, "--data-dir", str(tmp_path), "--dry-run"], capsys)
    if words[:2] == ["data", "prepare"]:
        (tmp_path / "text.txt").write_text("the plot is good .\n\nthe cast was flat .\n")
        vocab = words.index("--vocab")
        words[2], words[vocab + 1] = str(tmp_path / "text.txt"), str(home / "model" / "vocab.txt")
    if words[:2] == ["data", "inspect"]:
        return run(["data", "inspect", str(home / "shards"), "--vocab", str(home / "model" / "vocab.txt")], capsys)
    if words[0] == "score":
        predictions = tmp_path / "predictions.json"
        asked = json.loads((home / SQUAD_DEV).read_text())["data"][0]["paragraphs"][0]["qas"]
        predictions.write_text(json.dumps({one["id"]: "flat" for one in asked}))
        return run(["score", str(predictions), "-t", "squad", "--file", str(home / SQUAD_DEV)], capsys)
    if words[0] in ("backends",) or "-h" in words:
        return run(words, capsys)
    return run([*words, "--dry-run"], capsys)


@pytest.mark.parametrize("old", OLD, ids=[old[:60] for old in OLD])
def test_a_dry_run_accepts_it(
    old: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BERTKIT_CACHE", str(home / "cache"))  # encoded once for all
    made = migrate(old)
    assert made.commands
    for command in made.commands:
        said = check(command, home, tmp_path, capsys)
        assert said
        assert not (tmp_path / "out").exists(), "a dry run writes nothing"


KEPT = [case["old"] for case in CASES if "tensorflow" in str(migrate(case["old"], "", True).commands)]


@pytest.mark.parametrize("old", KEPT, ids=[old[:60] for old in KEPT])
def test_a_dry_run_accepts_it_in_its_own_framework(
    old: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BERTKIT_CACHE", str(home / "cache"))
    for command in migrate(old, same_framework=True).commands:
        assert check(command, home, tmp_path, capsys)


def test_predict_has_one_too(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTKIT_CACHE", str(home / "cache"))
    file = home / "data" / "squad" / "dev-v1.1.json"
    words = ["predict", str(home / "model"), "-t", "squad", "--file", str(file), "-o", str(tmp_path / "out")]
    said = " ".join(run([*words, "--backend", "null", "-d", "fp32", "--dry-run"], capsys).split())
    assert f"file: {file}, 12 examples" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match="2"):
        main([*words[:5], str(tmp_path / "absent.json"), "--backend", "null", "--dry-run"])


def test_a_dry_run_still_refuses_a_wrong_setting(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = migrate("./demo_bert finetuning -d bf16 -m base -t mrpc -b 32 -s 600").commands
    with pytest.raises(AssertionError, match="sequence length 600 is over"):
        check(command, home, tmp_path, capsys)
