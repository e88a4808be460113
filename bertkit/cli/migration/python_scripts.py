"""The Python programs of the reference systems, as launch lines and histories have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.cli.migration.command import Draft, NotUnderstood, set_model, spell_batch, unless_open
from bertkit.cli.migration.python_flags import carry_over, is_on, read_flags
from bertkit.cli.migration.shell_scripts import GLUE_NAMES
from bertkit.cli.migration.starters import whole
from bertkit.cli.migration.triton import export_squad
from bertkit.cli.migration.words import Old

BACKENDS = {"nvidia": "cuda", "habana": "gaudi", "tensorflow": "cuda", "intel": "cpu", "google": ""}
OF_TENSORFLOW = ("tensorflow", "google")  # systems whose programs are TensorFlow's
IPEX = "intel_extension_for_pytorch.cpu.launch"
TORCH = ("torch.distributed.launch", "torch.distributed.run", "torchrun", "bind_pyt", "bind.sh")
IS_PUBLISHED = re.compile(
    r"(?!.*finetuned)(google-bert/)?bert-[\w-]+|tiny|mini|small|medium|base|large"
)  # no trained head
# what the readers here read, whatever the value
GAUDI = frozenset(
    "use_lazy_mode use_torch_compile torch_compile use_hpu_graphs use_hpu_graphs_for_training gaudi_config_name"
    " enable_packed_data_mode".split()
)
READ = GAUDI | frozenset(
    "autocast fp16 amp manual_fp16 bert_model init_checkpoint config_file bert_config_file vocab_file data_dir"
    " task_name train_file predict_file train_batch_size gradient_accumulation_steps num_accumulation_steps max_steps"
    " do_lower_case version_2_with_negative optimizer_type allreduce_post_accumulation_fp16 do_predict".split()
)
TRAINS = frozenset("learning_rate num_train_epochs seed output_dir warmup_proportion".split())  # nothing to answers
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
    if old.program == "run_pretrain_mlperf.py" or set(old.starters) & {"ipexrun", IPEX}:
        return "intel"
    if flags.keys() & {"bert_model", "fp16", "config_file", "json_summary"} or set(old.starters) & set(TORCH):
        return "nvidia"
    return "intel" if "numactl" in old.starters else "google"


def run_squad(old: Old, draft: Draft) -> list[Draft]:
    """run_squad.py."""
    flags = read_flags(old.arguments)
    if is_on(flags, "export_triton"):
        return export_squad(old, draft)
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
    if system in OF_TENSORFLOW:
        draft.framework = "tensorflow"
    if is_on(flags, "allreduce_post_accumulation_fp16"):
        draft.differs("gradients are summed in fp16 there, in fp32 here; ranks.gradients=bf16 sends half as much")
    precision = _precision(system, flags)
    if _only_scores(flags, old.elided):
        return _evaluate(family, task, flags, precision, draft)
    if not old.elided:
        flags = {**OWN[family], **ALL_OWN, **flags}
    draft.options["--recipe"] = _recipe(system, family, flags, precision)
    draft.options["-t"] = task
    if precision:
        draft.options["-d"] = precision
    _model(flags, draft, old.elided)
    data_of(flags, draft)
    _batches(system, flags, draft)
    carry_over(draft, flags, READ if system == "habana" else READ - GAUDI)
    _steps(flags, draft)
    if other_optimizer(flags, draft) == "lamb":
        draft.sets |= {"optimizer.name": "lamb", "optimizer.trust_ratio": "all", "optimizer.epsilon": "1e-6"}
    if family == "glue" and is_on(flags, "do_predict"):
        draft.do(f"then answer the test set: bertkit predict FOLDER -t {task}, where FOLDER is the run's")
    if is_on(flags, "do_lower_case"):
        draft.sets["model.casing"] = "uncased"
    if system == "tensorflow":
        _tensorflow(draft)
    if system == "habana":
        gaudi_settings(flags, draft)
        draft.differs("whether their fused AdamW corrects its bias is not documented; here it does not")
    if old.elided:
        draft.differs("the document leaves arguments out; what it leaves out is as the recipe has it")
    return draft


def other_optimizer(flags: Mapping[str, str], draft: Draft) -> str:
    """What --optimizer_type asks for: lamb, adam, or "" where it is not given or not to be had."""
    asked = flags.get("optimizer_type", "").lower()
    if asked and asked not in ("lamb", "adam", "adamw"):
        draft.lost(f"--optimizer_type {asked}", "there are adamw and lamb")
        return ""
    return asked.removesuffix("w")


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
    model = f"{flags.get('init_checkpoint', '')}{flags.get('bert_config_file', '')}".lower()
    return "google-squad-large" if "large" in model or "l-24" in model else "google-squad-base"


def _model(flags: Mapping[str, str], draft: Draft, elided: bool) -> None:
    """The model to start from; the recipe's where the document leaves its name out."""
    config = flags.get("config_file") or flags.get("bert_config_file") or ""
    checkpoint = flags.get("init_checkpoint") or flags.get("bert_model")
    if checkpoint:
        set_model(draft, checkpoint, flags.get("vocab_file", ""), config)
    elif not elided:
        raise NotUnderstood("the old command names no model", "add its --init_checkpoint or --bert_model")


def _trained(flags: Mapping[str, str], draft: Draft) -> str:
    """The model that answers: one that has been trained before."""
    checkpoint = flags.get("init_checkpoint") or flags.get("bert_model") or ""
    if not checkpoint or (IS_PUBLISHED.fullmatch(checkpoint) and not flags.get("init_checkpoint")):
        raise NotUnderstood("the old command names no trained model", "add its --init_checkpoint")
    if "<" not in checkpoint:
        config = flags.get("config_file") or flags.get("bert_config_file") or ""
        set_model(
            draft, checkpoint, unless_open(draft, flags.get("vocab_file", ""), "the model's own is taken"), config
        )
    return draft.options.pop("-m", checkpoint)


def gaudi_settings(flags: Mapping[str, str], draft: Draft) -> None:
    """How the vendor's scripts say what the backend's settings say."""
    if "use_lazy_mode" in flags:
        draft.sets["device.mode"] = "lazy" if is_on(flags, "use_lazy_mode") else "eager"
    if is_on(flags, "use_torch_compile") or is_on(flags, "torch_compile"):
        draft.sets["device.mode"] = "eager"
    if any(is_on(flags, name) for name in ("use_hpu_graphs", "use_hpu_graphs_for_training")):
        draft.sets["device.graphs"] = "true"
    if is_on(flags, "enable_packed_data_mode"):
        draft.sets["model.layout"] = "packed"
    config = flags.get("gaudi_config_name", "")
    if config.endswith(".json") or config.startswith((".", "/", "~", "$")):
        draft.sets["device.gaudi_config"] = config if config.endswith(".json") else f"{config}/gaudi_config.json"
    elif config:
        draft.differs(f"{config}: the backend's own choice of operators is taken; device.gaudi_config names a file")


def data_of(flags: Mapping[str, str], draft: Draft) -> None:
    asked = {name: flags[name] for name in ("train_file", "predict_file", "data_dir") if flags.get(name)}
    flags = {name: file for name, file in asked.items() if unless_open(draft, file, "the task's own data are taken")}
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
    draft.command = ("evaluate", _trained(flags, draft))
    draft.place = replace(draft.place, processes=1)
    draft.options["-t"] = task
    data_of(flags, draft)
    for name in ("predict_batch_size", "eval_batch_size"):
        if name in flags:
            draft.options["-b"] = flags.pop(name)
    if precision:
        draft.options["-d"] = precision
    carry_over(draft, flags, READ | TRAINS)
    if "output_dir" in flags:
        draft.lost("--output_dir", "evaluate prints the scores; `bertkit predict … -o` writes the answers")
    return draft


def inference(old: Old, draft: Draft) -> list[Draft]:
    """inference.py of NVIDIA: one question about one text."""
    flags = read_flags(old.arguments)
    draft.command = ("ask", _trained(flags, draft))
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
    carry_over(draft, flags, READ | {"null_score_diff_threshold", "question", "context"})
    draft.differs("a long context is read in windows; theirs cuts it to one")
    return [draft]


def score(old: Old, draft: Draft) -> list[Draft]:
    """SQuAD's evaluate-v1.1.py and evaluate-v2.0.py: the file with the answers, then the predictions."""
    flags = read_flags(old.arguments)
    files = [old.where.outside(word) for word in _positional(old.arguments, SCORE_SWITCHES)]
    if len(files) != 2:
        raise NotUnderstood(f"{old.program} takes two files, not {len(files)}", "give the data and the predictions")
    task = "squad" if "1.1" in old.program else "squad2"
    draft.command = ("score", files[1])
    draft.place = replace(draft.place, processes=1, sockets=False, nodes=0, hosts="")
    draft.options |= {"-t": task, "--file": files[0]}
    for names, option in ((("na_prob_file", "n"), "--null-odds"), (("na_prob_thresh", "t"), "--threshold")):
        if value := next((flags[name] for name in names if flags.get(name)), ""):
            draft.options[option] = value.split()[0]
    for name, why in SCORE_LOST.items():
        if name in flags:
            draft.lost(f"--{name.replace('_', '-')}", why)
    return [draft]


SCORE_SWITCHES = ("verbose", "v")
SCORE_LOST = {
    "out_file": "the scores are printed; --json prints them for programs",
    "o": "the scores are printed; --json prints them for programs",
    "out_image_dir": "no curves are drawn",
    "p": "no curves are drawn",
    "verbose": "the scores are printed",
    "v": "the scores are printed",
}


def _positional(words: tuple[str, ...], switches: tuple[str, ...]) -> list[str]:
    """The words that are neither flags nor the values of those that take one."""
    found: list[str] = []
    takes = False
    for word in words:
        if word.startswith("-"):
            takes = "=" not in word and word.lstrip("-") not in switches
        elif takes:
            takes = False
        else:
            found.append(word)
    return found


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "run_squad.py": run_squad,
    "run_glue.py": run_glue,
    "run_classifier.py": run_glue,
    "inference.py": inference,
    "evaluate-v1.1.py": score,
    "evaluate_v1.1.py": score,
    "evaluate-v2.0.py": score,
    "evaluate_v2.0.py": score,
}
