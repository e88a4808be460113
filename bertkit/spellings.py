"""Other systems' spellings of our options, Hugging Face's above all: a `run_glue` command line pasted here works.

Pure functions from one argument list to another; what was changed is said to the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bertkit.errors import UserError

# theirs -> ours: an option, or a setting (with a dot or "=") that goes through --set
WITH_VALUE: Mapping[str, str] = {
    "model_name_or_path": "--model",
    "task_name": "--task",
    "max_seq_length": "--seq-length",
    "num_train_epochs": "--epochs",
    "learning_rate": "--learning-rate",
    "output_dir": "--output",
    "max_steps": "train.steps",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "weight_decay": "optimizer.weight_decay",
    "adam_beta1": "optimizer.beta1",
    "adam_beta2": "optimizer.beta2",
    "adam_epsilon": "optimizer.epsilon",
    "max_grad_norm": "optimizer.clip_norm",
    "warmup_ratio": "schedule.warmup",
    "warmup_steps": "schedule.warmup_steps",
    "lr_scheduler_type": "schedule.name",
    "max_train_samples": "data.train_rows",
    "max_eval_samples": "data.eval_rows",
    "train_file": "data.train_file",
    "validation_file": "data.dev_file",
    "doc_stride": "data.doc_stride",
    "max_query_length": "data.query_length",
    "n_best_size": "answers.n_best",
    "max_answer_length": "answers.longest",
    "null_score_diff_threshold": "answers.null_threshold",
    "logging_steps": "log.every",
    "eval_steps": "evaluation.every",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "cache_dir": "data.cache",
    "dist_backend": "device.dist_backend",  # a setting of the backends that have it; others say that they do not
}
SWITCHES: Mapping[str, tuple[str, ...]] = {
    "bf16": ("--dtype", "bf16"),
    "fp16": ("--dtype", "fp16"),
    "tf32": ("--dtype", "tf32"),
    "overwrite_output_dir": ("--overwrite",),
    "load_best_model_at_end": ("--set", "checkpoint.result=best"),
    "do_train": (),  # `bertkit train` trains and evaluates
    "do_eval": (),
}
TRUE, FALSE = ("", "true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")  # as Hugging Face reads them
MICRO, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"


def translate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the arguments in our spelling, a note for each that was changed)."""
    ours: list[str] = []
    notes: list[str] = []
    batch: dict[str, int] = {}
    rest = list(arguments)
    behind: list[str] = []
    while rest:
        argument = rest.pop(0)
        if argument == "--":  # what follows is another command's
            behind = [argument, *rest]
            break
        name, equals, value = argument.partition("=")
        theirs = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        if theirs in SWITCHES:
            if rest and rest[0].lower() in ("true", "false") and not equals:
                value = rest.pop(0)
            if value.lower() not in (*TRUE, *FALSE):
                raise UserError(f"{name}={value} is neither true nor false", "correct it")
            new = list(SWITCHES[theirs]) if value.lower() in TRUE else []
            none = "(always so)" if not SWITCHES[theirs] else "(off)"
        elif theirs in WITH_VALUE or theirs in (MICRO, ACCUMULATION):
            if name == WITH_VALUE.get(theirs):  # the same word in both worlds
                ours.append(argument)
                continue
            value = value if equals else _take(rest, name)
            if theirs not in WITH_VALUE:
                batch[theirs] = _number(name, value)
                continue
            new, none = _spelled(WITH_VALUE[theirs], value), ""
        else:
            ours.append(argument)
            continue
        ours += new
        notes.append(f"{name} -> {' '.join(new) or none}")
    if batch:
        new = _batch(batch)
        ours += new
        notes.append(f"--{' --'.join(batch)} -> {' '.join(new)}")
    return ours + behind, notes


def _spelled(target: str, value: str) -> list[str]:
    return [target, value] if target.startswith("--") else ["--set", f"{target}={value}"]


def _batch(theirs: Mapping[str, int]) -> list[str]:
    """Their batch size is before accumulation; ours is what one update sees on a process."""
    accumulation = theirs.get(ACCUMULATION, 1)
    if MICRO not in theirs:
        raise UserError(
            f"--{ACCUMULATION} alone does not say the batch size",
            f"give --{MICRO} too, or -b and train.micro_batch_size",
        )
    total = ["--batch-size", str(theirs[MICRO] * accumulation)]
    return total if accumulation == 1 else [*total, "--set", f"train.micro_batch_size={theirs[MICRO]}"]


def _take(rest: list[str], name: str) -> str:
    if not rest:
        raise UserError(f"{name} lacks its value", "write the value behind it")
    return rest.pop(0)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19) or int(text) < 1:
        raise UserError(f"{name} {text!r} is not a whole number above 0", "correct it")
    return int(text)
