"""Other systems' spellings of our options, Hugging Face's above all: a `run_glue` command line pasted here works.

The one table of them: `bertkit train` reads its own command line by it, `bertkit migrate` those of other systems. Here
stand the words that mean one thing everywhere; a batch size that one system counts before accumulation and another
after it is read by whoever knows the system.
Pure functions from one argument list to another; what was changed is said to the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bertkit.cli import hf_values
from bertkit.errors import UserError
from bertkit.launch.script import is_script

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
    "text_column_name": "table.text",
    "label_column_name": "table.label",
    "doc_stride": "data.doc_stride",
    "max_query_length": "data.query_length",
    "n_best_size": "answers.n_best",
    "max_answer_length": "answers.longest",
    "label_smoothing_factor": "loss.label_smoothing",
    "early_stopping_patience": "evaluation.patience",
    "null_score_diff_threshold": "answers.null_threshold",
    "logging_steps": "log.every",
    "eval_steps": "evaluation.every",
    "save_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "cache_dir": "data.cache",
    "eval_dir": "--eval-dir",
    "target_mlm_accuracy": "--target-mlm-accuracy",
    "steps_this_run": "--steps-this-run",
    "seed": "--seed",
    "warmup_proportion": "schedule.warmup",
    "num_warmup_steps": "schedule.warmup_steps",
    "predict_batch_size": "evaluation.batch_size",
    "eval_batch_size": "evaluation.batch_size",
    "per_gpu_eval_batch_size": "evaluation.batch_size",
    "log_freq": "log.every",
    "num_steps_per_checkpoint": "checkpoint.every",
    "save_checkpoints_steps": "checkpoint.every",
    "keep_n_most_recent_checkpoints": "checkpoint.keep",
    "eval_iter_samples": "evaluation.every_samples",
    "eval_iter_start_samples": "evaluation.start_samples",
    "init_loss_scale": "loss_scaling.initial",
    "start_warmup_step": "schedule.warmup_start",
    "weight_decay_rate": "optimizer.weight_decay",
    "opt_lamb_beta_1": "optimizer.beta1",
    "opt_lamb_beta_2": "optimizer.beta2",
    "ddp_timeout": "ranks.timeout",
    "dist_backend": "device.dist_backend",  # a setting of the backends that have it; others say that they do not
}
SWITCHES: Mapping[str, tuple[str, ...]] = {
    "bf16": ("--dtype", "bf16"),
    "fp16": ("--dtype", "fp16"),
    "tf32": ("--dtype", "tf32"),
    "overwrite_output_dir": ("--overwrite",),
    "load_best_model_at_end": ("--set", "checkpoint.result=best"),
    "gradient_checkpointing": ("--set", "device.recompute=true"),  # of the backends that have it
    "checkpoint_activations": ("--set", "device.recompute=true"),
    "distributed_lamb": ("--set", "optimizer.shard=true"),
    "use_zero_optimizer": ("--set", "optimizer.shard=true"),
    "do_train": (),  # `bertkit train` trains and evaluates
    "do_eval": (),
}
TRUE, FALSE = ("", "true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")  # as Hugging Face reads them
MICRO, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"


def translate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the arguments in our spelling, a note for each that was changed)."""
    if list(arguments[:1]) == ["migrate"]:  # what follows is an old command, to be read as it stands
        return list(arguments), []
    ours: list[str] = []
    notes: list[str] = []
    batch: dict[str, int] = {}
    rest = list(arguments)
    behind: list[str] = []
    while rest:
        argument = rest.pop(0)
        if argument == "--" or (ours[:1] == ["launch"] and is_script([argument])):  # what follows is another command's
            behind = [argument, *rest]
            break
        name, equals, value = argument.partition("=")
        theirs = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        if theirs in SWITCHES:
            if rest and rest[0].lower() in ("true", "false") and not equals:
                value = rest.pop(0)
            new = spelled(theirs, value)
            none = "(always so)" if not SWITCHES[theirs] else "(off)"
        elif theirs in hf_values.KNOWN and ours[:1] == ["train"]:
            bare = theirs in hf_values.SWITCHES and (not rest or rest[0].startswith("-"))
            value = value if equals else "" if bare else _take(rest, name)
            new, none = hf_values.spelled(theirs, value), "(always so)"
        elif theirs in WITH_VALUE or theirs in (MICRO, ACCUMULATION):
            if name == WITH_VALUE.get(theirs):  # the same word in both worlds
                ours.append(argument)
                continue
            value = value if equals else _take(rest, name)
            if theirs not in WITH_VALUE:
                batch[theirs] = _number(name, value)
                continue
            new, none = spelled(theirs, value), ""
        else:
            ours.append(argument)
            continue
        ours += new
        notes.append(f"{name} -> {' '.join(new) or none}")
    if batch:
        new = spelled_batch(batch)
        ours += new
        notes.append(f"--{' --'.join(batch)} -> {' '.join(new)}")
    return ours + behind, notes


def spelled(theirs: str, value: str) -> list[str]:
    """Our words for one of theirs, of either table, and its value. Raises UserError for a switch's odd value."""
    if theirs not in SWITCHES:
        target = WITH_VALUE[theirs]
        return [target, value] if target.startswith("--") else ["--set", f"{target}={value}"]
    if value.lower() not in (*TRUE, *FALSE):
        raise UserError(f"--{theirs}={value} is neither true nor false", "correct it")
    return list(SWITCHES[theirs]) if value.lower() in TRUE else []


def spelled_batch(theirs: Mapping[str, int]) -> list[str]:
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
