"""`migrate --same-framework`: TensorFlow's programs for its backend, and XLA where they asked for it."""

from __future__ import annotations

import pytest

from bertkit.cli.migration.translate import migrate

INTEL = "python launch_benchmark.py --precision=bfloat16 --mode=training --framework={} -- init_checkpoint=m"
# an old line -> words of the new one
KEPT = {
    "scripts/finetune_train_benchmark.sh large true 8 squad": ("-n 8", "--set device.xla=true"),
    "scripts/finetune_train_benchmark.sh large false 8 squad": ("-n 8",),
    "scripts/finetune_inference_benchmark.sh squad": ("--suite squad-infer", "--set device.xla=true"),
    "./demo_bert finetuning -d bf16 -m base -t mrpc -b 32 -s 128": ("--recipe habana-mrpc-base",),
    "./demo_bert pretraining -d bf16 -m large -b 64 8": ("-t pretrain",),
    INTEL.format("tensorflow"): ("--recipe intel-squad",),
    "python run_squad.py --horovod --amp --use_xla --do_train=True --init_checkpoint=m": ("--set device.xla=true",),
    "python run_squad.py --amp --use_xla=false --do_train=True --init_checkpoint=m": ("-d fp16",),
    "python run_squad.py --bert_config_file=c --init_checkpoint=m --do_train=True": ("google-squad-base",),
    "python run_squad.py --bert_config_file=c --init_checkpoint=m --do_predict=True": ("bertkit evaluate m",),
    "python run_pretraining.py --bert_config_file=c --amp --horovod --use_xla": (
        "--set device.xla=true",
        "-t pretrain",
    ),
}


@pytest.mark.parametrize("old", KEPT)
def test_tensorflows_programs_get_its_backend(old: str) -> None:
    made = migrate(old, same_framework=True)
    notes = " ".join(map(str, made.notes))
    for command in made.commands:
        assert "--backend tensorflow " in str(command)
        assert ("device.xla" in str(command)) == ("--set device.xla=true" in KEPT[old])
    assert all(words in str(made.commands[0]) for words in KEPT[old])
    assert "use_xla" not in notes
    assert ("on a Gaudi" in notes) == ("demo_bert" in old)


@pytest.mark.parametrize("old", KEPT)
def test_never_by_itself(old: str) -> None:
    made = migrate(old)
    assert "tensorflow" not in " ".join(map(str, made.commands))
    assert "xla" not in " ".join(map(str, made.commands))
    assert ("use_xla: what compiles" in " ".join(map(str, made.notes))) == ("--set device.xla=true" in KEPT[old])


@pytest.mark.parametrize(
    ("old", "whose"),
    [
        ("bash scripts/run_glue.sh ck", "the engine of the backend cuda"),
        (
            "python run_squad.py --bert_model=large --fp16 --train_batch_size=8 --do_train",
            "the engine of the backend cuda",
        ),
        (f"{INTEL.format('pytorch')}", "the engine of the backend cpu"),
        (
            "python run_qa.py --model_name_or_path bert-base-uncased --dataset_name squad --do_train",
            "each engine that is chosen by itself",
        ),
    ],
)
def test_programs_of_pytorch_stay_as_they_are_and_that_is_said(old: str, whose: str) -> None:
    made = migrate(old, same_framework=True)
    assert made.commands == migrate(old).commands
    said = f"differs: --same-framework changes nothing: the old program is PyTorch's, and so is {whose}"
    assert [str(note) for note in made.notes if "--same-framework" in note.text] == [said]


def test_what_computes_nothing_has_no_framework() -> None:
    made = migrate("python evaluate-v1.1.py dev.json answers.json", same_framework=True)
    assert made == migrate("python evaluate-v1.1.py dev.json answers.json")


def test_a_backend_that_is_named_has_xla_too_where_it_can() -> None:
    line = "scripts/finetune_train_benchmark.sh large true 1 squad"
    assert "device.xla=true" in str(migrate(line, "tf").commands[0])
    assert "device.xla" not in str(migrate(line, "cpu").commands[0])
    assert "use_xla" in str(migrate(line, "cpu").notes)


def test_a_precision_for_inference_goes_where_a_backend_has_it() -> None:
    line = (
        "python launch_benchmark.py --mode=inference --precision=int8 --accuracy-only --data-location d --checkpoint c"
    )
    assert "-d int8" in str(migrate(line).commands[-1])
    kept = migrate(line, same_framework=True)
    assert "-d auto" in str(kept.commands[-1])
    assert "the backend tensorflow has no int8" in " ".join(map(str, kept.notes))
