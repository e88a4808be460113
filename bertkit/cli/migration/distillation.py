"""NVIDIA's and TinyBERT's programs for distillation: a student's stages on a task, and the augmented data for them.

Sources: NVIDIA's DeepLearningExamples, BERT for PyTorch, `distillation/`; huawei-noah/Pretrained-Language-Model,
`TinyBERT/`, from which it was made. Programs of one name are told apart by their flags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.cli.migration.command import Draft, NotUnderstood, spell_batch, unless_open
from bertkit.cli.migration.distillation_files import assumed_stage
from bertkit.cli.migration.distillation_general import general_distill, model_folder, refuse_lacking
from bertkit.cli.migration.python_flags import carry_over, is_on, read_flags
from bertkit.cli.migration.python_scripts import TORCH
from bertkit.cli.migration.shell_scripts import GLUE_NAMES
from bertkit.cli.migration.starters import whole
from bertkit.cli.migration.words import Old
from bertkit.data.tasks.glue import GLUE
from bertkit.errors import UserError, nearest

# the programs' own values
OWN: Mapping[str, str] = {
    "train_batch_size": "32", "max_seq_length": "128", "num_train_epochs": "3", "learning_rate": "5e-5", "seed": "42",
}  # fmt: skip
EVERY = "50"  # updates between evaluations
# flags of NVIDIA's task_distill.py that TinyBERT's has not
OF_NVIDIA = frozenset(
    "distill_config amp local_rank max_steps max_grad_norm average_loss use_last_layer value_state_loss"
    " hidden_state_loss use_kld use_cosine n_best_size max_answer_length verbose_logging lang_id".split()
)
# flags that nothing in their programs reads, or nothing that matters here
DEAD: Mapping[str, str] = {
    "weight_decay": "theirs does not read it: 0.01 in both, none on biases and LayerNorm",
    "value_state_loss": "theirs does not read it: the file of --distill_config counts",
    "hidden_state_loss": "theirs does not read it: the file of --distill_config counts",
    "use_last_layer": "theirs does not read it: the file of --distill_config counts",
    "use_kld": "theirs does not read it: the file of --distill_config counts",
    "use_cosine": "theirs does not read it: the file of --distill_config counts",
    "cache_dir": "theirs does not read it; data.cache names the folder for encoded features",
    "data_url": "it is of another company's cluster",
    "lang_id": "it is of other models than BERT",
    "average_loss": "a stage's losses are weighted alike",
}
READ = frozenset(
    "teacher_model student_model data_dir task_name distill_config amp aug_train pred_distill temperature do_eval"
    " do_lower_case no_cuda train_batch_size gradient_accumulation_steps num_train_epochs eval_step max_steps".split()
)
TRAINS = frozenset("learning_rate seed output_dir warmup_proportion max_grad_norm".split())  # nothing to an evaluation
TASKS: Mapping[str, str] = {
    **{task.name: task.name for task in GLUE if task.name != "ax"}, **GLUE_NAMES,
    "mnli-mm": "mnli", "squadv1.1": "squad",
}  # fmt: skip
FILES: Mapping[str, tuple[str, str]] = {"squad": ("train-v1.1.json", "train-v1.1_aug.json")}
GLUE_FILES = ("train.tsv", "train_aug.tsv")
CHOSEN_BY = {"mrpc": "accuracy", "qqp": "accuracy", "stsb": "the mean of both correlations"}  # where ours differs
METRICS: Mapping[str, str] = {task.name: task.primary for task in GLUE}
PAIRS = ("mrpc", "mnli", "stsb", "qqp", "qnli", "rte")


def task_distill(old: Old, draft: Draft) -> list[Draft]:
    """task_distill.py: one stage of a student's training on a task, or its evaluation."""
    flags = read_flags(old.arguments, {"wd": "weight_decay"})
    task = _task(flags)
    is_nvidia = bool(flags.keys() & OF_NVIDIA or set(old.starters) & set(TORCH)) or task == "squad"
    if backend := "cpu" if is_on(flags, "no_cuda") else "cuda" if is_nvidia else "":
        draft.options["--backend"] = backend
    if is_on(flags, "do_eval"):
        return [_evaluate(task, flags, is_nvidia, draft)]
    refuse_lacking(flags, ("teacher_model", "student_model"))
    stage = _stage(flags, is_nvidia, draft)
    draft.command = ("distill", model_folder(flags["teacher_model"]))
    draft.options |= {"-m": model_folder(flags["student_model"]), "-t": task, "--stages": stage}
    flags = flags if old.elided else {**OWN, **flags}
    if stage == "logits":
        draft.options["--temperature"] = flags.get("temperature", "1")
    draft.options["-d"] = "fp16" if is_on(flags, "amp") else "fp32"
    _data(task, flags, draft)
    _amounts(flags, is_nvidia, draft)
    _course(task, stage, flags, is_nvidia, draft)
    _drop_dead(flags, draft)
    carry_over(draft, flags, READ | DEAD.keys() | ({"warmup_proportion"} if stage != "logits" else set()))
    if is_on(flags, "do_lower_case"):
        draft.sets["model.casing"] = "uncased"
    _faults(task, stage, is_nvidia, old, draft)
    if old.elided:
        draft.differs("the document leaves arguments out; what it leaves out is as bertkit has it")
    return [draft]


def _task(flags: Mapping[str, str]) -> str:
    named = flags.get("task_name", "")
    if "$" in named:
        raise NotUnderstood(f"the task is {named} in the old command, which only the shell knows", "write its name")
    if not named:
        raise NotUnderstood("the old command names no task", "add its --task_name")
    if named.lower() not in TASKS:
        raise UserError(f"the old program has no task {named!r}", nearest(named.lower(), TASKS))
    return TASKS[named.lower()]


def _stage(flags: Mapping[str, str], is_nvidia: bool, draft: Draft) -> str:
    """Which of `bertkit distill`'s stages it is."""
    if not is_nvidia:
        return "logits" if is_on(flags, "pred_distill") else "tinybert"
    if "pred_distill" in flags:
        draft.lost("--pred_distill", "NVIDIA's program does not read it: the file of --distill_config counts")
    return assumed_stage(flags.get("distill_config", ""), draft)


def _data(task: str, flags: Mapping[str, str], draft: Draft) -> None:
    folder = unless_open(draft, flags.get("data_dir", ""), "the task's own data are taken").rstrip("/")
    if folder:
        draft.options["--data-dir"] = folder
    if not is_on(flags, "aug_train"):
        return
    if not folder:
        raise NotUnderstood("the old command leaves open where its augmented file is", "add its --data_dir")
    source, made = (f"{folder}/{name}" for name in FILES.get(task, GLUE_FILES))
    draft.sets["data.train_file"] = made
    draft.do(f"if {made} is not there, make it of {source}: bertkit data augment")


def _amounts(flags: Mapping[str, str], is_nvidia: bool, draft: Draft) -> None:
    """Batch and epochs. NVIDIA's batch is what is computed at once, TinyBERT's is that of an update."""
    if flags.get("train_batch_size"):
        batch = whole(flags["train_batch_size"], "train_batch_size")
        parts = whole(flags.get("gradient_accumulation_steps") or "1", "gradient_accumulation_steps")
        if is_nvidia:
            spell_batch(draft, batch * parts, batch)
        else:
            spell_batch(draft, batch, max(1, batch // parts))
        if is_nvidia and parts > 1 and is_on(flags, "amp"):
            draft.differs("theirs fails at the second micro-batch with --amp and accumulation; here both go together")
    if epochs := flags.get("num_train_epochs"):
        full, _, rest = epochs.partition(".")
        draft.options["-e"] = full or "0"
        if rest.strip("0"):
            draft.differs(f"their epochs are whole ones: {epochs} is {full or 0}")
    if flags.get("max_steps", "-1") not in ("-1", "0"):
        draft.lost(
            f"--max_steps {flags['max_steps']}",
            "theirs is the length of the schedule alone, and every epoch is trained; train.steps ends a run",
        )


def _course(task: str, stage: str, flags: Mapping[str, str], is_nvidia: bool, draft: Draft) -> None:
    """Optimizer, schedule and choice of the result."""
    draft.sets["optimizer.bias_correction"] = "false"
    if not is_nvidia:
        draft.sets["optimizer.epsilon"] = "1e-6"
        draft.differs("theirs clips each tensor's gradient to 1; here the global norm is clipped")
    if stage != "logits":
        draft.sets |= {"schedule.name": "constant", "schedule.warmup": "0"}
        if "temperature" in flags:
            draft.lost("--temperature", "this stage trains on no predictions, in theirs neither")
        if "warmup_proportion" in flags:
            draft.lost("--warmup_proportion", "the rate of this stage is constant in theirs, and so it is here")
        if "eval_step" in flags:
            draft.lost(
                f"--eval_step {flags['eval_step']}",
                "a checkpoint is written after each epoch; checkpoint.every counts updates",
            )
        return
    draft.sets |= {"evaluation.every": flags.get("eval_step", EVERY), "checkpoint.result": "best"}
    draft.differs("the best on the dev set is the result, as theirs: its score there is optimistic")
    if task in CHOSEN_BY:
        draft.differs(f"theirs chooses the best by {CHOSEN_BY[task]}; here {METRICS[task]} chooses")
    if task == "wnli":
        draft.differs("theirs never writes a model of this stage of WNLI; here it is written")


def _drop_dead(flags: Mapping[str, str], draft: Draft) -> None:
    for name, why in DEAD.items():
        if name in flags:
            draft.lost(f"--{name}", why)


def _faults(task: str, stage: str, is_nvidia: bool, old: Old, draft: Draft) -> None:
    """What of theirs is not repeated."""
    draft.differs(
        "their teacher runs with dropout, since nothing calls eval(); here it runs without, once for each row"
    )
    if stage == "logits" and task == "stsb":
        draft.differs(
            "theirs trains STS-B on the gold scores and does not use the teacher; here its scores are learned"
        )
    elif stage == "logits":
        draft.differs(
            f"theirs takes the mean over {'positions' if task == 'squad' else 'classes'}, so that clipping never acts;"
            " here the loss is their sum, the mean over examples, times the temperature squared"
        )
    else:
        draft.differs("losses are of real tokens; theirs count padding as much as text")
        if not is_nvidia:
            draft.differs(
                "fit_dense of the student is not read: where the hidden sizes differ, a projection starts anew"
            )
    draft.differs("every example is trained on; theirs skips each batch that is not full")
    if set(old.starters) & set(TORCH):
        draft.differs("each epoch has its own order; over several processes theirs has the same in all")
    if not is_nvidia:
        draft.differs("theirs takes every GPU of the machine by itself; here `bertkit launch -n` does, with -b of each")


def _evaluate(task: str, flags: dict[str, str], is_nvidia: bool, draft: Draft) -> Draft:
    refuse_lacking(flags, ("student_model",))
    draft.command = ("evaluate", model_folder(flags["student_model"]))
    draft.place = replace(draft.place, processes=1)
    draft.options["-t"] = task
    _data(task, {name: value for name, value in flags.items() if name != "aug_train"}, draft)
    draft.options |= {"-d": "fp16" if is_on(flags, "amp") else "fp32", "-b": flags.pop("eval_batch_size", "32")}
    draft.options["-s"] = flags.pop("max_seq_length", OWN["max_seq_length"])
    _drop_dead(flags, draft)
    carry_over(draft, flags, READ | TRAINS | DEAD.keys())
    if is_on(flags, "do_lower_case"):
        draft.sets["model.casing"] = "uncased"
    if "output_dir" in flags:
        draft.lost("--output_dir", "evaluate prints the scores; `bertkit predict … -o` writes the answers")
    if is_nvidia:
        draft.differs(
            "the examples per second that theirs prints are 100 times too many; `bertkit bench infer` measures"
        )
    return draft


def data_augmentation(old: Old, draft: Draft) -> list[Draft]:
    """data_augmentation.py: a task's training file with words replaced."""
    flags = read_flags(old.arguments)
    task = _task(flags)
    refuse_lacking(flags, ("pretrained_bert_model", "glue_dir"))
    if task == "wnli":
        raise UserError("the old program has no task 'WNLI'", "take another")
    folder = flags["glue_dir"].rstrip("/")
    folder = folder if task == "squad" else f"{folder}/{flags['task_name']}"
    source, made = (f"{folder}/{name}" for name in FILES.get(task, GLUE_FILES))
    draft.command = ("data", "augment", source)
    draft.place = replace(draft.place, processes=1, sockets=False, nodes=0, hosts="")
    draft.options |= {"-o": made, "-m": model_folder(flags["pretrained_bert_model"]), "-t": task}
    for theirs, ours in (("glove_embs", "--vectors"), ("M", "--candidates"), ("p", "--share"), ("seed", "--seed")):
        if flags.get(theirs):
            draft.options[ours] = flags[theirs]
    if flags.get("N") and task == "stsb":  # their table of copies spells this task STS-b, so that the flag counts
        draft.options["--copies"] = flags["N"]
    elif "N" in flags:
        draft.lost(f"--N {flags['N']}", "theirs does not read it for this task: each has its own number, the same here")
    known = {"pretrained_bert_model", "glue_dir", "task_name", "glove_embs", "M", "p", "seed", "N"}
    carry_over(draft, {name: value for name, value in flags.items() if name not in known})
    if "seed" not in flags:
        draft.differs("seed 1 is taken; NVIDIA's program has 42, TinyBERT's none")
    if task in PAIRS:
        draft.differs("both texts of a pair are varied by themselves; theirs keeps the first at its last variant")
    if task == "squad":
        draft.differs(
            "texts stay as they are but for the words replaced, and each answer keeps its place; theirs lower-cases all"
            " and takes the first place where the answer's words are"
        )
        draft.differs("a text of over 400 words gets its own candidates; theirs replaces wrong words of it")
    return [draft]


def convert_ckpts(old: Old, draft: Draft) -> list[Draft]:
    """utils/convert_ckpts.py, which takes a checkpoint's weights out of its outer key."""
    draft.lost(old.program, "-m reads the checkpoint as it is")
    return []


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "task_distill.py": task_distill,
    "general_distill.py": general_distill,
    "data_augmentation.py": data_augmentation,
    "convert_ckpts.py": convert_ckpts,
}
