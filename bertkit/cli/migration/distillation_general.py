"""NVIDIA's and TinyBERT's general_distill.py: a student's training on data for pre-training.

Sources: as `distillation.py`. The two are told apart by where their data is: --input_dir and --pregenerated_data.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

from bertkit.cli.migration.command import Draft, NotUnderstood, spell_batch, unless_open
from bertkit.cli.migration.distillation_files import assumed_stage
from bertkit.cli.migration.python_flags import carry_over, is_on, read_flags
from bertkit.cli.migration.starters import whole
from bertkit.cli.migration.words import Old
from bertkit.model.config import ARCHITECTURES

SIZE = re.compile(r"(\d+)L[_-]?(\d+)D", re.IGNORECASE)
# the programs' own values
OWN: Mapping[str, str] = {
    "train_batch_size": "32", "max_seq_length": "128", "learning_rate": "5e-5", "seed": "42", "eval_step": "1000",
    "num_train_epochs": "3",
}  # fmt: skip
UPDATES = 22_872 * 3 * 256  # of NVIDIA's run, times its batch: the amount is kept whatever the batch
READ = frozenset(
    "input_dir pregenerated_data teacher_model student_model distill_config amp fp16 no_cuda train_batch_size"
    " gradient_accumulation_steps num_train_epochs steps_per_epoch max_steps continue_train do_lower_case vocab_file"
    " eval_step".split()
)
DEAD: Mapping[str, str] = {
    "weight_decay": "theirs does not read it: 0.01 in both, none on biases and LayerNorm",
    "do_eval": "theirs does not read it; here a part of the data is held out and scored",
    "eval_batch_size": "theirs does not read it; evaluation.batch_size is that of the score here",
    "reduce_memory": "shards are decoded as they are needed",
    "num_workers": "a thread reads ahead",
    "disable_progress_bar": "-q shows nothing",
    "data_url": "it is of another company's cluster",
    **dict.fromkeys(
        ("value_state_loss", "hidden_state_loss", "use_last_layer", "use_kld", "use_cosine"),
        "theirs does not read it: the file of --distill_config counts",
    ),
}


def model_folder(model: str) -> str:
    """A model's folder, which is no size of that name."""
    return f"./{model}" if model in ARCHITECTURES else model


def refuse_lacking(flags: Mapping[str, str], names: Sequence[str]) -> None:
    if lacking := [f"--{name}" for name in names if not flags.get(name)]:
        raise NotUnderstood(f"the old command leaves out {' and '.join(lacking)}", "add what it names")


def general_distill(old: Old, draft: Draft) -> list[Draft]:
    """general_distill.py: a student's stage on data for pre-training."""
    flags = read_flags(old.arguments, {"wd": "weight_decay"})
    is_nvidia = "pregenerated_data" not in flags
    place = "input_dir" if is_nvidia else "pregenerated_data"
    refuse_lacking(flags, (place, "teacher_model", "student_model"))
    if backend := "cpu" if is_on(flags, "no_cuda") else "cuda" if is_nvidia else "":
        draft.options["--backend"] = backend
    draft.command = ("distill", model_folder(flags["teacher_model"]))
    _student(flags, draft)
    stage = assumed_stage(flags.get("distill_config", ""), draft) if is_nvidia else "tinybert"
    if stage == "logits":
        raise NotUnderstood(
            f"{flags.get('distill_config')} asks for predictions, of which general_distill.py makes none",
            "name a file that asks for states",
        )
    draft.options |= {"-t": "pretrain", "--stages": stage}
    if folder := unless_open(draft, flags[place], "name the folder of shards with --data-dir"):
        draft.options["--data-dir"] = folder
    draft.options["-d"] = "fp16" if is_on(flags, "amp") or is_on(flags, "fp16") else "fp32"
    _amounts(flags, is_nvidia, draft)
    draft.sets["optimizer.bias_correction"] = "false"
    if not is_nvidia:
        draft.sets["optimizer.epsilon"] = "1e-6"
    draft.sets["checkpoint.every"] = flags.get("eval_step", OWN["eval_step"])
    for name, why in DEAD.items():
        if name in flags:
            draft.lost(f"--{name}", why)
    carry_over(draft, {**({} if old.elided else OWN), **flags}, READ | DEAD.keys())
    if is_on(flags, "do_lower_case"):
        draft.sets["model.casing"] = "uncased"
    _faults(stage, flags, is_nvidia, draft)
    if old.elided:
        draft.differs("the document leaves arguments out; what it leaves out is as bertkit has it")
    return [draft]


def _student(flags: Mapping[str, str], draft: Draft) -> None:
    """From a random start, a folder's configuration is one of ours where its name says so."""
    student = flags["student_model"]
    found = SIZE.search(posixpath.basename(student.rstrip("/")))
    size = f"{found[1]}l-{found[2]}d" if found else ""
    if is_on(flags, "continue_train"):
        draft.options["-m"] = model_folder(student)
        draft.differs(
            "a projection is in a run's checkpoints, not in its result: of a folder of bertkit's it starts anew, of "
            "theirs project.bin is read; train.phases=1,2 learns both lengths in one run"
        )
        return
    if size in ARCHITECTURES:
        draft.options["-m"] = size
        draft.differs(f"the student is bertkit's {size}, with the vocabulary of the teacher, without rows of padding")
        return
    draft.options["-m"] = model_folder(student)
    draft.sets["model.start"] = "random"
    if vocab := flags.get("vocab_file"):
        draft.sets["model.vocab"] = vocab


def _amounts(flags: Mapping[str, str], is_nvidia: bool, draft: Draft) -> None:
    """Batch and updates. NVIDIA's batch is what is computed at once, TinyBERT's is that of an update."""
    batch = whole(flags.get("train_batch_size") or OWN["train_batch_size"], "train_batch_size")
    parts = whole(flags.get("gradient_accumulation_steps") or "1", "gradient_accumulation_steps")
    if not is_nvidia:
        spell_batch(draft, batch, max(1, batch // parts))
        draft.options["-e"] = (flags.get("num_train_epochs") or OWN["num_train_epochs"]).partition(".")[0] or "0"
        return
    spell_batch(draft, batch * parts, batch)
    if parts > 1 and is_on(flags, "amp"):
        draft.differs("theirs fails at the second micro-batch with --amp and accumulation; here both go together")
    if "num_train_epochs" in flags:
        draft.lost("--num_train_epochs", "theirs does not read it: --max_steps and --steps_per_epoch count")
    given = [flags.get(name, "-1") for name in ("max_steps", "steps_per_epoch")]
    if "-1" not in given:
        draft.sets["train.steps"] = str(whole(given[0], "max_steps"))
        return
    processes = draft.place.processes or 1
    draft.sets["train.steps"] = str(max(1, UPDATES // (batch * parts * processes)))
    draft.differs(
        "without both --max_steps and --steps_per_epoch theirs makes 68,616 updates of 256 sequences, or as many "
        f"sequences: train.steps is of {processes} processes with {batch * parts} each"
    )


def _faults(stage: str, flags: Mapping[str, str], is_nvidia: bool, draft: Draft) -> None:
    """What is not theirs."""
    draft.differs("their teacher runs with dropout, since nothing calls eval(); here it runs without")
    draft.differs("losses are of real tokens; theirs count padding as much as text")
    draft.differs("1 % of the data is held out and scored; theirs learns from all of it and scores nothing")
    if is_nvidia:
        return
    draft.do(
        f"make shards of the texts with `bertkit data prepare` in {flags['pregenerated_data']}: the files of "
        "pregenerate_training_data.py are not read"
    )
    draft.differs("theirs clips each tensor's gradient to 1; here the global norm is clipped")
    draft.differs("every sequence is trained on; theirs skips each batch that is not full")
    if is_on(flags, "fp16"):
        draft.differs("theirs fails with --fp16, for which its optimizer has nothing")
