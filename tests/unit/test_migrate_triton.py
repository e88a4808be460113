"""NVIDIA's Triton scripts of both BERTs in bertkit's words: export, server, client and load generator."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Any

import pytest
import typer

from bertkit.cli.main import app
from bertkit.cli.migration.command import NotUnderstood
from bertkit.cli.migration.translate import migrate
from bertkit.cli.migration.triton import PROGRAMS

EXPORT = (
    "python run_squad.py --vocab_file=m/vocab.txt --bert_config_file=m/bert_config.json"
    " --init_checkpoint=m/model.ckpt-9 --max_seq_length=384 --doc_stride=128 --predict_batch_size=8"
    " --output_dir=out --export_triton=True"
    " --triton_model_name bert --triton_model_version 1 --triton_max_batch_size 8 --triton_dyn_batching_delay 2"
    " --triton_engine_count 1 --triton_model_overwrite {over} --amp --use_xla"
)
PYTORCH = (
    "python3 triton/export_model.py --input-path triton/model.py --input-type pyt --output-path"
    " ${SHARED_DIR}/exported_model.pt --output-type ts-trace --dataloader triton/dataloader.py"
    " --ignore-unknown-parameters --onnx-opset 13 --config-file cfg/bert_config.json --checkpoint cfg/qa.pt"
    " --precision fp16 --vocab-file cfg/vocab.txt --max-seq-length 384 --predict-file d.json --batch-size 16"
)
CLIENT = "python triton/run_squad_triton_client.py --vocab_file=v.txt --triton_model_name=bert"
SAID: dict[str, tuple[str, ...]] = {
    EXPORT.format(over="False"): (
        "bertkit export m/model.ckpt-9 -o out/triton_models --format triton -d fp16 -t squad --option name=bert"
        " --option max_batch=8 --option instances=1 --option max_delay=2000",
    ),
    EXPORT.format(over="True") + " --version_2_with_negative=True": (
        "bertkit export m/model.ckpt-9 -o out/triton_models --format triton -d fp16 --overwrite -t squad2"
        " --option name=bert --option max_batch=8 --option instances=1 --option max_delay=2000",
    ),
    "bash triton/scripts/export_model.sh g/model.ckpt 8 fp32 true 384 128 g 1 bert 0 1 True": (
        "bertkit export g/model.ckpt -o results/triton_models --format triton --overwrite -t squad --option name=bert"
        " --option max_batch=8 --option instances=1 --option max_delay=0",
    ),
    PYTORCH: (
        "bertkit export cfg/qa.pt -o ${SHARED_DIR}/triton_models --format triton -d fp16 -t squad"
        " --option names=nvidia",
    ),
    "bash triton/scripts/run_client.sh 16 256 64 2 qa g --predict_file=s/dev-v1.1.json": (
        "bertkit client squad http://127.0.0.1:8000 --model qa --model-version 2 --vocab g/vocab.txt"
        " --file s/dev-v1.1.json -t squad -s 256 -b 16 -o results --set data.doc_stride=64",
    ),
    f"{CLIENT} --question 'Who?' --context 'It was he.' --n_best_size 3 --do_lower_case=False": (
        "bertkit client ask http://127.0.0.1:8000 --model bert --vocab v.txt --question 'Who?' --context 'It was he.'"
        " -t squad -s 384 --set answers.n_best=3 --set model.casing=cased",
    ),
    f"{CLIENT} --predict_file d.json --version_2_with_negative=True --triton_server_url far:8001 --output_dir o": (
        "bertkit client squad http://far:8000 --model bert --vocab v.txt --file d.json -t squad2 -s 384 -o o",
    ),
    "python triton/run_inference_on_triton.py --server-url http://h:9000 --model-name m --model-version 1"
    " --dataloader triton/dataloader.py --dump-labels --vocab-file v.txt --predict-file d.json --batch-size 4": (
        "bertkit client squad http://h:9000 --model m --model-version 1 --vocab v.txt --file d.json -t squad -s 384"
        " -b 4",
    ),
    "bash triton/scripts/run_triton_tf.sh m/model.ckpt 8 fp16 false 384 128 base 2.0": (
        "cp -n data/download/nvidia_pretrained/bert_tf_squad11_base_128/bert_config.json m/bert_config.json",
        "bertkit export m/model.ckpt -o results/triton_models --format triton -d fp16 -t squad --option name=bert"
        " --option max_batch=8 --option instances=1 --option max_delay=0 --set"
        " model.vocab=data/download/nvidia_pretrained/bert_tf_squad11_base_128/vocab.txt",
        "bertkit serve m/model.ckpt &",
        "bertkit client squad http://127.0.0.1:8000 --vocab"
        " data/download/nvidia_pretrained/bert_tf_squad11_base_128/vocab.txt --file"
        " data/download/squad/v2.0/dev-v2.0.json -t squad2 -s 384 -b 8 -o results --wait 600",
        'kill "$!"',
    ),
    "bash triton/scripts/run_perf_client.sh bert 1 12 100 10 9 far": (
        "bertkit bench serve http://far:8000 --model bert -b 12 --lengths 384 --model-version 1"
        " --concurrency 1,2,4,8,9",
    ),
    "bash triton/scripts/run_perf_client.sh bert 1 fp16 2 500 10 4": (
        "bertkit bench serve http://localhost:8000 --model bert -b 2 --lengths 384 --model-version 1"
        " --concurrency 1,2,4",
    ),
    "perf_client -m bert -u h:8000 -b 8 -c 16 -p 3000 -l 100": (
        "bertkit bench serve http://h:8000 --model bert -b 8 --lengths 384 --concurrency 16",
    ),
    "perf_analyzer -m bert -i grpc --concurrency-range 1:9:4": (
        "bertkit bench serve http://127.0.0.1:8000 --model bert -b 1 --lengths 384 --concurrency 1,5,9",
    ),
    "perf_analyzer -m bert --request-rate-range 10:30:10": (
        "bertkit bench serve http://127.0.0.1:8000 --model bert -b 1 --lengths 384 --rate 10,20,30",
    ),
    "python triton/run_performance_on_triton.py --model-repository r --model-name bert --batch-sizes 1 8 16"
    " --batching-mode static --evaluation-mode offline": (
        "bertkit bench serve http://127.0.0.1:8000 --model bert -b 1,8,16 --lengths 384 --concurrency 1",
    ),
    "./triton/large/runner/prepare_datasets.sh": ("bertkit data get squad bert-large-uncased",),
    "bash triton/scripts/triton_data_download.sh": ("bertkit data get squad bert-large-uncased",),
}  # fmt: skip
NOTED = {
    EXPORT.format(over="False"): (
        "--triton_model_version 1: an export is version 1", "--use_xla: ",
        "differs: inputs are input_ids, attention_mask, token_type_ids",
    ),
    PYTORCH: (
        "differs: the repository holds ONNX, whatever ts-trace is", "--onnx-opset 13: ", "--dataloader",
        "differs: weights that are missing are an error", "--max-seq-length 384: ", "--batch-size 16: ",
    ),
    PYTORCH.replace("ts-trace", "trt") + " --fixed-batch-dim --made-up 3": (
        "--output-type trt: no TensorRT engine is built", "--fixed-batch-dim: ",
        "--made-up 3: there is nothing like it",
    ),
    "bash triton/scripts/run_client.sh 8 384 128 1 bert g --question a --context b --trt_engine": (
        "--trt_engine: tensors' names and types are read from the server",
    ),
    "bash triton/scripts/run_perf_client.sh bert 1 12": (
        "theirs speaks gRPC on port 8001", "--latency-threshold 100: ", "--max-threads 10: ",
        "every sequence has 384 tokens, as theirs are padded",
    ),
    "perf_analyzer -m bert --shared-memory system --measurement-mode x": (
        "--shared-memory system: tensors travel in the request", "--measurement-mode x: there is nothing like it here",
    ),
    "python run_performance_on_triton.py --model-name b --evaluation-mode offline --result-path r.csv": (
        "theirs hands tensors over in shared memory", "--result-path r.csv: `bertkit compare RECORD --csv FILE`",
    ),
    "bash triton/scripts/run_triton_tf.sh <init_checkpoint> <batch_size>": (
        "left open in the document, so the script's own values are taken: <init_checkpoint>, <batch_size>",
        "the model is served by `bertkit serve` from its weights",
    ),
}  # fmt: skip
ASKED = {
    "bash triton/scripts/export_model.sh": "names no trained model",
    "bash triton/scripts/export_model.sh <init_checkpoint> <batch_size>": "names no trained model",
    "python run_squad.py --export_triton=True --output_dir=/r": "names no trained model",
    "python3 triton/export_model.py --output-type onnx": "names no trained model",
    "bash triton/scripts/run_client.sh 8 384": "neither a file nor a question",
    f"{CLIENT} --question a": "neither a file nor a question",
    "perf_client -b 8": "names no model",
    "python run_performance_on_triton.py --batch-sizes 1": "names no model",
    "bash triton/scripts/run_triton_trt.sh 8 384": "serves a TensorRT engine, which has no counterpart",
    "bash triton/scripts/launch_server.sh fp16": "names no trained model",
    "./triton/large/scripts/docker/triton_inference_server.sh": "names no trained model",
    'python3 -m "triton.large.runner.__main__" --config-path "c.yaml" --device 0': "deploys NVIDIA's own checkpoint",
    "./triton/dist4l/runner/start_NVIDIA-DGX-1-\\(1x-V100-32GB\\).sh": "deploys NVIDIA's own checkpoint",
}


def new(old: str) -> tuple[str, ...]:
    return tuple(map(str, migrate(old).commands))


@pytest.mark.parametrize("old", SAID)
def test_a_script_of_tritons_has_its_words(old: str) -> None:
    assert new(old) == SAID[old]


@pytest.mark.parametrize("old", NOTED)
def test_what_has_no_counterpart_is_named(old: str) -> None:
    said = "\n".join(map(str, migrate(old).notes))
    for words in NOTED[old]:
        assert words in said, said


@pytest.mark.parametrize("old", ASKED)
def test_what_nobody_else_can_know_is_asked_for(old: str) -> None:
    with pytest.raises(NotUnderstood, match=re.escape(ASKED[old])) as caught:
        migrate(old)
    assert caught.value.exit_code == 1
    assert caught.value.cure


def test_a_step_without_a_command_is_a_note() -> None:
    script = "model-navigator convert --model-name b\npython triton/prepare_input_data.py -b 1\nperf_client -m b -c 2\n"
    made = migrate(script)
    assert [one.words[:3] for one in made.commands] == [("bertkit", "bench", "serve")]
    assert not made.faults
    said = "\n".join(map(str, made.notes))
    assert "dropped: model-navigator: `bertkit export --format triton` writes the repository at once" in said
    assert "dropped: prepare_input_data.py: `bertkit bench serve` draws its requests itself" in said
    alone = migrate("model-navigator triton-config-model --model-name b")
    assert (alone.commands, len(alone.notes)) == ((), 1)


@pytest.mark.parametrize("backend", ["cpu", "gaudi"])
def test_another_backend_leaves_a_servers_commands_as_they_are(backend: str) -> None:
    for old in SAID:
        assert tuple(map(str, migrate(old, backend).commands)) == SAID[old]


def test_the_answers_are_scripts_that_a_shell_reads() -> None:
    text = "\n".join(line for old in SAID for line in new(old))
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_is_started_beside_and_ended_after_its_client() -> None:
    made = migrate("bash triton/scripts/run_triton_tf.sh m/model.ckpt").commands
    assert [one.background for one in made].count(True) == 1
    assert [one.words[1] for one in made if one.words[0] == "bertkit"] == ["export", "serve", "client"]
    assert made[-1].words == ("kill", "$!")


def test_every_program_of_the_table_is_tried_here() -> None:
    tried = " ".join([*SAID, *NOTED, *ASKED, "wait_for_triton_server.sh calculate_metrics.py"]) + " model-navigator "
    plain = tried.replace("\\", "") + " prepare_input_data.py"
    sizes = ("dist4l", "dist6l", "A30", "T4", "A100")  # one of each family of names is enough
    assert [name for name in PROGRAMS if name not in plain and not any(size in name for size in sizes)] == []


def test_words_survive_the_shell() -> None:
    (made,) = new(f'{CLIENT} --question "What\'s it?" --context \'a "b" $5\'')
    words = shlex.split(made)
    assert words[words.index("--question") + 1] == "What's it?"
    assert words[words.index("--context") + 1] == 'a "b" $5'


def spelled() -> list[tuple[str, ...]]:
    """The words of every command of ours here, behind `bertkit`."""
    return [command.words[1:] for old in SAID for command in migrate(old).commands if command.words[0] == "bertkit"]


@pytest.mark.parametrize("words", spelled(), ids=lambda words: " ".join(words)[:60])
def test_every_option_is_one_of_its_command(words: tuple[str, ...]) -> None:
    """The command line itself reads it; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("bertkit", [], resilient_parsing=True)
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    if "--option" in rest and not any("--option" in one.opts for one in command.params):
        pytest.skip("this export takes no options of formats yet")
    command.make_context(words[0], rest, parent=context)
