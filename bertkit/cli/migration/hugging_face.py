"""Hugging Face's example programs, and optimum-habana's of the same names, by the spellings that `train` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bertkit.cli.hf_flags import ACCUMULATION, MICRO, spelled_batch
from bertkit.cli.migration.command import Draft, NotUnderstood
from bertkit.cli.migration.python_flags import carry_over, is_on, lost_reason, read_flags
from bertkit.cli.migration.python_scripts import GAUDI, data_of, gaudi_settings
from bertkit.cli.migration.shell_scripts import GLUE_NAMES
from bertkit.cli.migration.starters import whole
from bertkit.cli.migration.words import Old

# the values of their programs by themselves, where ours differ
TRAINER: Mapping[str, str] = {
    "num_train_epochs": "3", "learning_rate": "5e-5", "weight_decay": "0", "warmup_proportion": "0", "seed": "42",
}  # fmt: skip
LENGTHS = {"squad": "384", "squad2": "384"}
ANSWERS = {"squad": "squad", "rajpurkar/squad": "squad", "squad_v2": "squad2", "rajpurkar/squad_v2": "squad2"}
ON_GAUDI = frozenset("use_habana use_hpu gaudi_config_name use_lazy_mode use_hpu_graphs_for_inference".split())
SCHEDULES = {"constant_with_warmup": "constant", "linear": "linear", "polynomial": "polynomial", "constant": "constant"}


def is_theirs(flags: Mapping[str, str]) -> bool:
    return "model_name_or_path" in flags


def run_glue(old: Old, draft: Draft) -> list[Draft]:
    """run_glue.py, run_glue_no_trainer.py, run_classification.py."""
    flags = read_flags(old.arguments)
    named = (flags.get("task_name") or flags.get("dataset_config_name") or "").lower()
    if flags.get("dataset_name", "glue") not in ("glue", "nyu-mll/glue"):
        named = flags["dataset_name"].rpartition("/")[2].lower()
    if not named:
        raise NotUnderstood(
            "the old command trains on files of its own and names no task",
            "bertkit knows GLUE's tasks and SQuAD: name one with --task_name, and the file as its --train_file",
        )
    return [_fine_tune(GLUE_NAMES.get(named, named), old, flags, draft)]


def run_qa(old: Old, draft: Draft) -> list[Draft]:
    """run_qa.py, run_qa_no_trainer.py and the older run_squad.py."""
    flags = read_flags(old.arguments)
    name = flags.get("dataset_name", "squad")
    if name not in ANSWERS:
        raise NotUnderstood(f"{name} is no data set that bertkit knows", "it has squad and squad2, and --train_file")
    task = "squad2" if is_on(flags, "version_2_with_negative") else ANSWERS[name]
    return [_fine_tune(task, old, flags, draft)]


def run_mlm(old: Old, draft: Draft) -> list[Draft]:
    """run_mlm.py and its kin."""
    raise NotUnderstood(
        f"{old.program} reads its own text and learns masked words",
        "bertkit pre-trains on shards, which `bertkit data prepare --no-nsp` makes: `bertkit train -t pretrain`",
    )


def _fine_tune(task: str, old: Old, flags: dict[str, str], draft: Draft) -> Draft:
    _backend(old, flags, draft)
    model = flags.get("model_name_or_path")
    if not model:
        raise NotUnderstood("the old command names no model", "add its --model_name_or_path")
    if _only_answers(flags):
        return _answers(task, model, flags, draft)
    draft.options |= {"-t": task, "-m": model}
    if precision := next((name for name in ("bf16", "fp16", "tf32") if is_on(flags, name)), ""):
        draft.options["-d"] = precision
    else:
        draft.options["-d"] = "bf16" if is_on(flags, "use_habana_mixed_precision") else "fp32"
    length = flags.get("max_seq_length") or flags.get("max_length") or LENGTHS.get(task, "128")
    _batch(flags, draft)
    own = dict(TRAINER) if not old.elided else {}
    if flags.keys() & {"warmup_steps", "num_warmup_steps", "warmup_ratio"}:
        own.pop("warmup_proportion", None)
    draft.options["-s"] = length
    data_of(flags | {"predict_file": flags.get("validation_file") or flags.get("predict_file", "")}, draft)
    carry_over(draft, {**own, **flags}, READ | GAUDI if draft.options.get("--backend") == "gaudi" else READ)
    _other_names(model, flags, draft)
    _schedule(flags, draft)
    _rows(flags, draft)
    if steps := flags.get("max_steps", "").removeprefix("-1").removeprefix("0"):
        draft.sets["train.steps"] = steps
    if is_on(flags, "do_predict"):
        file = f" --file {flags['test_file']}" if flags.get("test_file") else ""
        draft.do(f"then answer the test set: bertkit predict FOLDER -t {task}{file}, where FOLDER is the run's (-o)")
    return draft


# what is read here, whatever the value
READ = frozenset(
    "model_name_or_path model_type task_name dataset_name dataset_config_name max_seq_length max_length max_steps fp16"
    " bf16 tf32 per_device_train_batch_size per_gpu_train_batch_size gradient_accumulation_steps lr_scheduler_type"
    " optim eval_strategy evaluation_strategy save_strategy logging_strategy data_dir train_file validation_file"
    " predict_file do_predict version_2_with_negative no_cuda use_cpu use_habana_mixed_precision tokenizer_name"
    " config_name resume_from_checkpoint do_lower_case test_file".split()
)


def _other_names(model: str, flags: Mapping[str, str], draft: Draft) -> None:
    """A tokenizer or a configuration of another model; casing; a run to go on from."""
    for name in ("tokenizer_name", "config_name"):
        if flags.get(name) and flags[name] != model:
            draft.lost(f"--{name} {flags[name]}", lost_reason(name))
    if is_on(flags, "do_lower_case"):
        draft.sets["model.casing"] = "uncased"
    if is_on(flags, "resume_from_checkpoint"):
        draft.options["--resume"] = ""
    if flags.get("test_file") and not is_on(flags, "do_predict"):
        draft.lost("--test_file", "it is not read without --do_predict there, either")


def _backend(old: Old, flags: Mapping[str, str], draft: Draft) -> None:
    if flags.keys() & ON_GAUDI or "gaudi_spawn.py" in old.starters:
        draft.options["--backend"] = "gaudi"
        gaudi_settings(flags, draft)
    elif (
        is_on(flags, "no_cuda")
        or is_on(flags, "use_cpu")
        or old.starters[-1:] == ("numactl",)
        or set(old.starters) & {"intel_extension_for_pytorch.cpu.launch", "ipexrun"}
    ):
        draft.options["--backend"] = "cpu"
    elif old.starters or is_on(flags, "fp16"):
        draft.options["--backend"] = "cuda"


def _only_answers(flags: Mapping[str, str]) -> bool:
    return not is_on(flags, "do_train") and (is_on(flags, "do_eval") or is_on(flags, "do_predict"))


def _answers(task: str, model: str, flags: dict[str, str], draft: Draft) -> Draft:
    """--do_eval alone scores, --do_predict alone answers."""
    draft.command = ("evaluate" if is_on(flags, "do_eval") else "predict", model)
    draft.options |= {"-t": task, "-s": flags.get("max_seq_length") or LENGTHS.get(task, "128")}
    if batch := flags.get("per_device_eval_batch_size") or flags.get("per_gpu_eval_batch_size"):
        draft.options["-b"] = batch
    if precision := next((name for name in ("bf16", "fp16") if is_on(flags, f"{name}_full_eval")), ""):
        draft.options["-d"] = precision
    output = flags.get("output_dir", "")
    if draft.command[0] == "predict" and output:
        draft.options["-o"] = output
    elif output:
        draft.lost("--output_dir", "evaluate prints the scores; `bertkit predict … -o` writes the answers")
    only: dict[str, str] = {
        name: flags[name] for name in ("doc_stride", "max_answer_length", "n_best_size") if name in flags
    }
    if draft.command[0] == "evaluate":
        carry_over(draft, only | {name: flags[name] for name in ("validation_file",) if name in flags})
    elif file := flags.get("test_file"):
        carry_over(draft, only)
        draft.options["--file"] = file
    for name in flags:
        if name in TRAINED_ONLY:
            draft.lost(f"--{name}", "nothing is trained")
        elif name not in ANSWERED:
            draft.lost(f"--{name}", lost_reason(name))
    return draft


TRAINED_ONLY = (MICRO, ACCUMULATION, "learning_rate", "num_train_epochs", "overwrite_output_dir", "seed", "save_steps")
ANSWERED = frozenset(
    "model_name_or_path tokenizer_name config_name task_name dataset_name dataset_config_name do_eval do_predict"
    " do_train max_seq_length per_device_eval_batch_size per_gpu_eval_batch_size output_dir doc_stride"
    " max_answer_length n_best_size validation_file test_file version_2_with_negative bf16_full_eval"
    " fp16_full_eval use_habana use_lazy_mode gaudi_config_name use_hpu_graphs use_hpu_graphs_for_training model_type"
    " overwrite_cache no_cuda use_cpu".split()
)


def _batch(flags: Mapping[str, str], draft: Draft) -> None:
    """Theirs is before accumulation, and 8 by itself."""
    micro = flags.get(MICRO) or flags.get("per_gpu_train_batch_size") or "8"
    theirs = {MICRO: whole(micro, MICRO)}
    if flags.get(ACCUMULATION):
        theirs[ACCUMULATION] = whole(flags[ACCUMULATION], ACCUMULATION)
    words = spelled_batch(theirs)
    draft.say(words[:2])
    draft.say(words[2:])


def _schedule(flags: Mapping[str, str], draft: Draft) -> None:
    """Their linear decay is ours; of what we do not have the nearest is taken."""
    name = flags.get("lr_scheduler_type") or "linear"
    if name == "constant":  # theirs does not warm up
        draft.sets |= {"schedule.name": "constant", "schedule.warmup": "0"}
    elif name in SCHEDULES:
        draft.sets |= {"schedule.name": SCHEDULES[name]} if name != "linear" else {}
    else:
        draft.lost(f"--lr_scheduler_type {name}", "there are linear, polynomial and constant; linear is taken")
    optimizer = flags.get("optim", "adamw")
    if not optimizer.startswith("adamw"):
        draft.lost(f"--optim {optimizer}", "there are adamw and lamb; adamw is taken")


def _rows(flags: Mapping[str, str], draft: Draft) -> None:
    """Where `steps` or `epoch` is said by a strategy, a number that it does not use means nothing."""
    strategy = flags.get("eval_strategy") or flags.get("evaluation_strategy") or ""
    if strategy == "epoch":
        draft.sets.pop("evaluation.every", None)
    if flags.get("save_strategy") == "epoch":
        draft.sets.pop("checkpoint.every", None)
    elif "save_steps" not in flags and flags.get("save_strategy", "steps") == "steps":
        draft.differs("a checkpoint is written after each epoch; theirs writes one every 500 updates")


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "run_glue_no_trainer.py": run_glue,
    "run_classification.py": run_glue,
    "run_text_classification.py": run_glue,
    "run_qa.py": run_qa,
    "run_qa_no_trainer.py": run_qa,
    "run_mlm.py": run_mlm,
    "run_mlm_wwm.py": run_mlm,
    "run_language_modeling.py": run_mlm,
}
