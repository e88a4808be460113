"""The Python programs of the reference systems, as launch lines and histories have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.migrate.ours import Draft, set_model, spell_batch
from bertkit.migrate.python_flags import carry_over, is_on, read_flags
from bertkit.migrate.shell_scripts import GLUE_NAMES
from bertkit.migrate.words import Old, whole

BACKENDS = {"nvidia": "cuda", "habana": "gaudi", "tensorflow": "cuda", "intel": "cpu", "google": ""}
TORCH = ("torch.distributed.launch", "torch.distributed.run", "torchrun", "bind_pyt", "bind.sh")
# the programs' own values
OWN: Mapping[str, Mapping[str, str]] = {
    "squad": {"max_seq_length": "384", "num_train_epochs": "3", "seed": "42"},
    "glue": {"max_seq_length": "128", "num_train_epochs": "3", "seed": "1"},
}
ALL_OWN = {"train_batch_size": "32", "learning_rate": "5e-5", "warmup_proportion": "0.1"}


def whose(old: Old, flags: Mapping[str, str]) -> str:
    """Whose program of this name it is, by its flags and by what starts it."""
    if "use_habana" in flags or "use_hpu" in flags:
        return "habana"
    if flags.keys() & {"horovod", "amp", "noamp", "use_xla", "nouse_xla", "manual_fp16", "dllog_path"}:
        return "tensorflow"
    if "bert_config_file" in flags:
        return "google"
    if flags.keys() & {"bert_model", "fp16", "config_file", "json_summary"} or set(old.starters) & set(TORCH):
        return "nvidia"
    return "intel" if "numactl" in old.starters else "google"


def run_squad(old: Old, draft: Draft) -> list[Draft]:
    """run_squad.py."""
    flags = read_flags(old.arguments)
    task = "squad2" if is_on(flags, "version_2_with_negative") else "squad"
    return [_fine_tune("squad", task, old, flags, draft)]


def run_glue(old: Old, draft: Draft) -> list[Draft]:
    """run_glue.py (PyTorch) and run_classifier.py (TensorFlow)."""
    flags = read_flags(old.arguments)
    named = flags.get("task_name", "mrpc").lower()
    return [_fine_tune("glue", GLUE_NAMES.get(named, named), old, flags, draft)]


def _fine_tune(family: str, task: str, old: Old, flags: dict[str, str], draft: Draft) -> Draft:
    system = whose(old, flags)
    if backend := BACKENDS[system]:
        draft.options["--backend"] = backend
    precision = _precision(system, flags)
    if _only_scores(flags, old.elided):
        return _evaluate(family, task, flags, precision, draft)
    if not old.elided:
        flags = {**OWN[family], **ALL_OWN, **flags}
    draft.options["--recipe"] = _recipe(system, family, flags, precision)
    draft.options["-t"] = task
    if precision:
        draft.options["-d"] = precision
    _model(flags, draft)
    _data(flags, draft)
    _batches(system, flags, draft)
    carry_over(draft, flags)
    _steps(flags, draft)
    if is_on(flags, "do_lower_case"):
        draft.sets["model.casing"] = "uncased"
    if system == "tensorflow":
        _tensorflow(draft)
    if system == "habana":
        draft.differs("whether their fused AdamW corrects its bias is not documented; here it does not")
    if old.elided:
        draft.differs("the document leaves arguments out; what it leaves out is as the recipe has it")
    return draft


def _tensorflow(draft: Draft) -> None:
    draft.sets["ranks.learning_rate_scaling"] = "linear"
    draft.differs("the rate is multiplied by the processes, as theirs is inside")
    draft.differs("theirs clips each micro-batch before accumulation, here the whole update is clipped once")


def _only_scores(flags: Mapping[str, str], elided: bool) -> bool:
    trains = is_on(flags, "do_train") or "train_batch_size" in flags
    return not trains and not elided and (is_on(flags, "do_predict") or is_on(flags, "do_eval"))


def _precision(system: str, flags: Mapping[str, str]) -> str:
    if system == "habana":
        return "bf16" if is_on(flags, "autocast") else "fp32"
    if is_on(flags, "fp16") or is_on(flags, "amp") or is_on(flags, "manual_fp16"):
        return "fp16"
    return "fp32" if "noamp" in flags or (system == "nvidia" and flags) else ""


def _recipe(system: str, family: str, flags: Mapping[str, str], precision: str) -> str:
    if system in ("nvidia", "habana"):
        return f"nvidia-{family}" if precision == "fp16" else f"nvidia-{family}-fp32"
    if family == "glue":
        return "google-glue"
    if system == "intel":
        return "intel-squad"
    model = f"{flags.get('init_checkpoint', '')}{flags.get('bert_config_file', '')}"
    return "google-squad-large" if "large" in model or "L-24" in model else "google-squad-base"


def _model(flags: Mapping[str, str], draft: Draft) -> None:
    config = flags.get("config_file") or flags.get("bert_config_file") or ""
    checkpoint = flags.get("init_checkpoint") or flags.get("bert_model")
    if checkpoint:
        set_model(draft, checkpoint, flags.get("vocab_file", ""), config)
    else:
        draft.do("name the model with -m: the old command leaves it out")


def _data(flags: Mapping[str, str], draft: Draft) -> None:
    files = [flags[name] for name in ("train_file", "predict_file") if flags.get(name)]
    folders = {file.rpartition("/")[0] or "." for file in files}
    if len(folders) == 1:
        draft.options["--data-dir"] = folders.pop()
    elif flags.get("data_dir"):
        draft.options["--data-dir"] = flags["data_dir"]
    for name, key, standard in (
        ("train_file", "data.train_file", "train-v"), ("predict_file", "data.dev_file", "dev-v"),
    ):  # fmt: skip
        if flags.get(name) and not flags[name].rpartition("/")[2].startswith(standard):
            draft.sets[key] = flags[name]


def _batches(system: str, flags: Mapping[str, str], draft: Draft) -> None:
    """Theirs is before accumulation divides it (PyTorch), or what is computed at once (TensorFlow)."""
    if not flags.get("train_batch_size"):
        return
    batch = whole(flags["train_batch_size"], "train_batch_size")
    steps = flags.get("gradient_accumulation_steps") or flags.get("num_accumulation_steps") or "1"
    parts = whole(steps, "accumulation")
    if system in ("tensorflow", "google", "intel"):
        spell_batch(draft, batch * parts, batch)
    else:
        spell_batch(draft, batch, max(1, batch // parts))


def _steps(flags: Mapping[str, str], draft: Draft) -> None:
    steps = flags.get("max_steps", "-1").removesuffix(".0")
    if steps.isdigit() and int(steps):
        draft.sets["train.steps"] = steps


def _evaluate(family: str, task: str, flags: dict[str, str], precision: str, draft: Draft) -> Draft:
    _model(flags, draft)
    draft.command = ("evaluate", draft.options.pop("-m", "runs/RUN"))
    draft.place = replace(draft.place, processes=1)
    draft.options["-t"] = task
    _data(flags, draft)
    for name in ("predict_batch_size", "eval_batch_size"):
        if name in flags:
            draft.options["-b"] = flags.pop(name)
    if precision:
        draft.options["-d"] = precision
    carry_over(draft, flags, ("learning_rate", "num_train_epochs", "seed", "output_dir", "warmup_proportion"))
    if "output_dir" in flags:
        draft.lost("--output_dir", "evaluate prints the scores; `bertkit predict … -o` writes the answers")
    return draft


def inference(old: Old, draft: Draft) -> list[Draft]:
    """inference.py of NVIDIA: one question about one text."""
    flags = read_flags(old.arguments)
    _model(flags, draft)
    draft.command = ("ask", draft.options.pop("-m", "runs/RUN"))
    for name in ("question", "context"):
        if name in flags:
            draft.options[f"--{name}"] = flags[name]
    if "fp16" in flags:
        draft.options["-d"] = "fp16"
    if is_on(flags, "version_2_with_negative"):
        draft.options["-t"] = "squad2"
        draft.sets["answers.null_threshold"] = flags.get("null_score_diff_threshold", "-11.0")
    if "n_best_size" in flags:
        draft.options["-n"] = flags.pop("n_best_size")
    carry_over(draft, flags, ("null_score_diff_threshold",))
    draft.differs("a long context is read in windows; theirs cuts it to one")
    return [draft]


def no_program(old: Old, draft: Draft) -> list[Draft]:
    """A launch line of the documents whose program is left out."""
    draft.command = ("train", "--recipe", "demo")
    draft.do("the old line names no program: `train --recipe demo` stands in its place, put yours")
    return [draft]


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "run_squad.py": run_squad,
    "run_glue.py": run_glue,
    "run_classifier.py": run_glue,
    "inference.py": inference,
    "": no_program,
}
