"""The shell scripts of NVIDIA's examples: what their positional arguments mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bertkit.cli.migration.command import Draft, NotUnderstood, set_model, spell_batch, unless_open
from bertkit.cli.migration.pretraining import PhaseOptions, pretrain, pretrain_phases
from bertkit.cli.migration.python_flags import XLA, lost_reason, table
from bertkit.cli.migration.starters import CARDS, WHOLE, number, whole
from bertkit.cli.migration.words import Old
from bertkit.errors import UserError, nearest

BROUGHT = ("squad", "squad2", "mrpc", "cola", "mnli", "sst2", "bert-base-uncased", "bert-large-uncased")
GLUE_NAMES = {"sst-2": "sst2", "sts-b": "stsb"}
PRECISIONS = ("fp16", "fp32", "tf32")
FILES = ("checkpoint", "data", "vocab", "config", "output")  # arguments that no script can choose for somebody


def run_squad(old: Old, draft: Draft) -> list[Draft]:
    """scripts/run_squad.sh of the PyTorch example."""
    given, recipe = _arguments("squad", "run_squad", old, draft)
    _place(given, draft)
    if given["mode"] in ("eval", "prediction"):
        return [_evaluate("squad", given, draft)]
    draft.options["--recipe"] = recipe or _recipe("squad", given)
    _files(given, draft)
    if not recipe:
        _hyper(given, draft)
        spell_batch(draft, _whole(given, "batch", 4, draft), _whole(given, "batch", 4, draft))
    _mode(given, draft)
    return [draft]


def run_glue(old: Old, draft: Draft) -> list[Draft]:
    """scripts/run_glue.sh of the PyTorch example."""
    given, recipe = _arguments("glue", "run_glue", old, draft)
    _place(given, draft)
    task = GLUE_NAMES.get(given["task"], given["task"])
    if given["mode"] in ("eval", "prediction"):
        return [_evaluate(task, given, draft)]
    draft.options["--recipe"] = recipe or _recipe("glue", given)
    draft.options["-t"] = task
    _files(given, draft)
    if not recipe:
        _hyper(given, draft)
        batch = _whole(given, "batch", 16, draft)
        spell_batch(draft, batch, batch // _whole(given, "accumulation", 1, draft) or 1)
    _mode(given, draft)
    return [draft]


def _files(given: Mapping[str, str], draft: Draft) -> None:
    """The model and the data that the line names; the published ones where it names none."""
    if given["checkpoint"]:
        set_model(draft, given["checkpoint"], given["vocab"], given["config"])
    else:
        draft.options["-m"] = "large"
        draft.differs("the script's own checkpoint is one of NVIDIA's; the published large is taken")
    if data := unless_open(draft, given["data"], "the task's own data are taken"):
        draft.options["--data-dir"] = data


def run_pretraining(old: Old, draft: Draft) -> list[Draft]:
    """scripts/run_pretraining.sh of the PyTorch example: both phases."""
    given, _ = _arguments("pretrain", "run_pretraining", old, draft)
    _place(given, draft)
    many = [_phase(given, draft, 128, ""), _phase(given, draft, 512, "2")]
    return pretrain_phases(draft, many, "nvidia")


def run_sub(old: Old, draft: Draft) -> list[Draft]:
    """run.sub, the Slurm script of the PyTorch example, which is told by variables."""
    env = dict(old.env)
    second = env.pop("PHASE", "1") == "2"
    given = dict(table("scripts.toml")["run_pretraining"]["arguments"])
    key = "2" if second else ""
    for names, argument in (
        (("TRAIN_BATCH_SIZE", "BATCHSIZE"), f"batch{key}"),
        (("LEARNING_RATE", "LR"), f"rate{key}"),
        (("GRADIENT_ACCUMULATION_STEPS", "GRADIENT_STEPS"), f"accumulation{key}"),
        (("PRECISION",), "precision"),
        (("SEED",), "seed"),
    ):
        for name in names:
            if name in env:
                given[argument] = env.pop(name)
    if steps := env.pop("STEPS_THIS_RUN", ""):
        draft.sets["train.steps_this_run"] = steps
    for name, value in env.items():
        draft.lost(f"{name}={value}", RUN_SUB.get(name, "no option here says it"))
    draft.place = replace(old.place, nodes=old.place.nodes or 1)
    return [pretrain(draft, _phase(given, draft, 512 if second else 128, key), "nvidia")]


RUN_SUB = {
    "BIN_SIZE": "the shards say their bins; `bertkit data prepare --bin-size` makes them",
    "NUM_WORKERS": "batches are made ahead in a thread",
    "MASKING": "the shards say how they were masked; data.masking chooses",
    "DASK_TASKS_PER_NODE": "`bertkit data prepare` starts its own processes",
    "RERUN_DASK": "`bertkit data prepare` is a command of its own",
    "USE_JEMALLOC": "`launch --allocator` chooses",
    "IMAGE_VERSION": "`launch --container` names the image",
    "GPUS": "`launch -n` says it",
}


def finetune_train_benchmark(old: Old, draft: Draft) -> list[Draft]:
    """The TensorFlow example's grid of SQuAD training: lengths 128 and 384, batches 1, 2, 4, two precisions."""
    model, xla, cards, task = _four(old, ("large", "true", str(CARDS), "squad"), draft)
    _benchmark(draft, "squad-train", task, xla == "true")
    draft.options["-m"] = model
    count = number(cards, CARDS, "the number of devices", draft)
    if count > 1:
        draft.options["-n"] = str(count)
    draft.differs(
        "the rate leaves the warm-up out by one rule and counts real sequences; theirs leaves out 100 updates"
    )
    return [draft]


def finetune_inference_benchmark(old: Old, draft: Draft) -> list[Draft]:
    """The TensorFlow example's grid of SQuAD answers: two sizes, lengths 128 and 384, batches 1 to 8."""
    (task,) = (*old.arguments, "squad")[:1]
    _benchmark(draft, "squad-infer", task, True)
    draft.differs("percentiles are of all calls after the warm-up; theirs leave out the slowest 1 % of the rate")
    return [draft]


def _benchmark(draft: Draft, suite: str, task: str, xla: bool) -> None:
    if task != "squad":
        raise UserError(f"the old benchmark knows squad only, not {task!r}", "write squad")
    draft.command = ("bench",)
    draft.options |= {"--suite": suite, "-d": "fp16,fp32"}
    draft.differs("their second precision is --noamp: tf32 on an A100, fp32 before it; fp32 is taken")
    draft.framework = "tensorflow"
    if xla:
        draft.wish("use_xla", lost_reason("use_xla"), XLA, "true")


def _four(old: Old, usual: tuple[str, ...], draft: Draft) -> list[str]:
    words = old.arguments[: len(usual)]
    left_open(words, [True] * len(words), draft)
    given = [own if word.startswith("<") else word for word, own in zip(words, usual, strict=False)]
    return [*given, *usual[len(given) :]]


def data_download(old: Old, draft: Draft) -> list[Draft]:
    """The scripts that bring data sets and weights."""
    draft.command = ("data", "get", *BROUGHT)
    draft.lost(
        "Wikipedia and books",
        "`bertkit data get wikipedia --language en` brings the former; docs/corpora.md tells of the latter",
    )
    draft.lost("NVIDIA's own checkpoints", "they lie behind a login")
    return [draft]


def init_sh(old: Old, draft: Draft) -> list[Draft]:
    """Iluvatar's installer of requirements."""
    draft.command = ("backends", "iluvatar")
    draft.lost(
        "init.sh", "there is nothing to install for MLPerf's log; the command reports whether the device is found"
    )
    return [draft]


def _arguments(family: str, script: str, old: Old, draft: Draft) -> tuple[dict[str, str], str]:
    """(argument -> value, the recipe that is the named preset or "")."""
    order: list[list[str]] = table("scripts.toml")[script]["arguments"]
    given = dict(order)
    if old.presets:
        return _preset(family, old.presets[0][1], given)
    words = list(old.arguments)
    names = [name for name, _ in order]
    if script == "run_squad" and len(words) > 4 and (words[4] in PRECISIONS or words[4] == "<precision>"):
        names.remove("warmup")
        draft.differs("the README's order of arguments was read, without warm-up; the script itself has it fifth")
    if script == "run_glue" and len(words) > 12 and (words[12] in PRECISIONS or words[12] == "<precision>"):
        names.remove("steps")
        draft.differs("the README's order of arguments was read; the script itself has max_steps before the precision")
    if script == "run_pretraining" and len(words) > 15 and words[15] in ("true", "false", "<accumulate_into_fp16>"):
        words.pop(15)
        draft.differs("the README's order of arguments was read; the script itself has no accumulate_into_fp16")
    if len(words) > len(names) and script != "run_pretraining":
        raise UserError(f"{script}.sh takes {len(names)} arguments, not {len(words)}", "check their order")
    for name, word in zip(names, words, strict=False):
        if name in FILES and word:
            given[name] = word if word.startswith("<") else _outside(name, word, old, draft)
        elif not word.startswith("<"):
            given[name] = word
    left_open(words, [name not in FILES for name in names], draft)
    return given, ""


def _outside(name: str, word: str, old: Old, draft: Draft) -> str:
    """The file as it is called outside of the container that the script ran in."""
    try:
        return old.where.outside(word)
    except NotUnderstood:
        if name != "output":
            raise
        draft.lost(word, "it lies in the container only; -o names a folder outside")
        return ""


def left_open(words: Sequence[str], has_own: Sequence[bool], draft: Draft) -> None:
    """Note the arguments that a document leaves open and the script has a value for by itself."""
    found = [word for word, own in zip(words, has_own, strict=False) if own and word.startswith("<")]
    if found:
        draft.differs(f"left open in the document, so the script's own values are taken: {', '.join(found)}")


def _preset(family: str, preset: str, given: dict[str, str]) -> tuple[dict[str, str], str]:
    """A function of scripts/configs, as dgxa100-80g_8gpu_fp16."""
    tables = table("scripts.toml")
    task, _, machine = f"_{preset}".rpartition("_dgx")
    name = f"{family} {task[1:]}" if task else family
    parts = f"dgx{machine}".split("_")
    known = tables["presets"].get(name)
    if known is None or len(parts) != 3 or f"{parts[0]} {parts[2]}" not in tables["presets"]["most"]:
        raise UserError(f"no preset {preset!r} of {family} is known", nearest(preset, tables["recipes"]))
    cards, of_machine = parts[1].removesuffix("gpu"), f"{parts[0]} {parts[2]}"
    given |= known["common"] | known.get(of_machine, {}) | {"cards": cards, "precision": parts[2]}
    if "update" in given:
        batch, most = (
            int(given["update"]) // whole(cards, "the number of devices"),
            int(tables["presets"]["most"][of_machine]),
        )
        steps = 1
        while batch // steps > most:
            steps *= 2
        given |= {"batch": str(batch), "accumulation": str(steps)}
    return given, tables["recipes"].get(f"{family} {preset}", "")


def _recipe(family: str, given: Mapping[str, str]) -> str:
    return f"nvidia-{family}" if given["precision"] == "fp16" else f"nvidia-{family}-fp32"


def _place(given: Mapping[str, str], draft: Draft) -> None:
    draft.place = replace(draft.place, processes=_whole(given, "cards", CARDS, draft))


def _whole(given: Mapping[str, str], name: str, otherwise: int, draft: Draft) -> int:
    return number(given[name], otherwise, name, draft)


def _hyper(given: Mapping[str, str], draft: Draft) -> None:
    """Rate, warm-up, epochs, precision and seed, where no preset's recipe says them."""
    draft.options |= {"-d": given["precision"], "-e": given["epochs"], "--lr": given["rate"], "--seed": given["seed"]}
    draft.sets["schedule.warmup"] = given["warmup"]
    if given["precision"] != "fp16":
        draft.differs("in 32 bits theirs clips each tensor before all of them; here only the global norm is clipped")


def _mode(given: Mapping[str, str], draft: Draft) -> None:
    if WHOLE.fullmatch(given["steps"].removesuffix(".0")) and float(given["steps"]) > 0:
        draft.sets["train.steps"] = given["steps"].removesuffix(".0")
    if output := unless_open(draft, given["output"], "the run's folder is named by its task and model"):
        draft.options["-o"] = output
    if given["mode"] == "train":
        draft.differs("bertkit train evaluates in the end, too")


def _evaluate(task: str, given: Mapping[str, str], draft: Draft) -> Draft:
    """What mode=eval does, on one card as there: the checkpoint scored on the dev set."""
    draft.place = replace(draft.place, processes=1)
    if not given["checkpoint"] or given["checkpoint"].startswith("<"):
        raise NotUnderstood("the old command names no trained checkpoint", "give it as the first argument")
    set_model(draft, given["checkpoint"], given["vocab"], given["config"])
    draft.command = ("evaluate", draft.options.pop("-m"))
    draft.options |= {"-t": task} | ({"--data-dir": given["data"]} if given["data"] else {})
    draft.options |= {"-d": given["precision"], "-b": given["batch"]}
    draft.options["-s"] = "384" if task == "squad" else "128"
    if given["output"]:
        draft.lost(given["output"], "evaluate prints the scores; `bertkit predict … -o` writes the answers")
    return draft


def _phase(given: Mapping[str, str], draft: Draft, length: int, key: str) -> PhaseOptions:
    batch = _whole(given, f"batch{key}", 8192, draft)
    accumulation = _whole(given, f"accumulation{key}", 1, draft) if given["accumulate"] == "true" else 1
    return PhaseOptions(
        length, batch, max(1, batch // accumulation), given[f"rate{key}"], given[f"warmup{key}"], given[f"steps{key}"],
        given["precision"], given["seed"],
    )  # fmt: skip


SCRIPTS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "run_squad.sh": run_squad,
    "run_glue.sh": run_glue,
    "run_pretraining.sh": run_pretraining,
    "run.sub": run_sub,
    "finetune_train_benchmark.sh": finetune_train_benchmark,
    "finetune_inference_benchmark.sh": finetune_inference_benchmark,
    "data_download.sh": data_download,
    "create_datasets_from_start.sh": data_download,
    "init.sh": init_sh,
}
