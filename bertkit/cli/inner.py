"""The command within `bertkit launch`, checked without being started: its options, its recipe, its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.bench.plan import check_sets, split_list, whole_numbers
from bertkit.bench.suite import Kind
from bertkit.cli import options as o
from bertkit.cli.hf_flags import translate
from bertkit.data.tasks import find_task
from bertkit.data.tasks.own.labels import KINDS
from bertkit.recipes.resolve import resolve
from bertkit.training.run_task import run_settings

# settings of `bertkit train` that are options of its own -> the options' names
OF_TRAINING = {
    "ranks.synchronise": "sync_gradients", "ranks.shard_data": "shard_data", "train.phases": "phases",
    "train.steps_this_run": "steps_this_run", "data.eval_dir": "eval_dir",
    "evaluation.target_mlm_accuracy": "target_mlm_accuracy", "log.profile": "profile",
}  # fmt: skip


def check(root: Any, words: Sequence[str]) -> None:
    """`root`: the whole command line. Raises what the command itself would raise, for what can be known here.

    Files of data and of models are not looked for: they may be on the machines that the command will run on.
    """
    rest, _ = translate(words)
    command, context = root, root.context_class(root, info_name=root.name)
    while hasattr(command, "get_command") and rest and (found := command.get_command(context, rest[0])) is not None:
        command = found
        context = command.context_class(command, parent=context, info_name=rest.pop(0))
    given = command.make_context(context.info_name, rest, parent=context.parent).params
    if words[0] == "train":
        _train(given)
    elif words[0] == "bench":
        _bench(given, "infer" if "infer" in words[:2] else "train")
    elif "run" in given:  # evaluate, predict; of `data prepare` the options are all
        _answer(given)


def _train(given: Mapping[str, Any]) -> None:
    chosen = o.recipe_options(*(given[name] for name in _NAMES))
    chosen |= {key: given[name] for key, name in OF_TRAINING.items()}
    if given["train_file"] == "-":
        raise o.not_shared()
    chosen |= o.own_data(*(given[name] for name in ("train_file", "dev_file", "text", "text_pair", "label", "choices")))
    _resolved(chosen, given, given["config"], given["recipe"])


_NAMES = (
    "backend", "dtype", "model", "task", "data_dir", "batch_size", "seq_length", "epochs", "learning_rate", "seed",
    "output",
)  # fmt: skip


def _bench(given: Mapping[str, Any], kind: Kind) -> None:
    if "suite" in given:
        _resolved({"backend": given["backend"], "seed": given["seed"]}, given)
        return
    check_sets(kind, given["sets"] or ())
    whole_numbers(given["batch_size"], "-b")
    for name, option in (("model", "-m"), ("dtype", "-d")):
        split_list(given[name], option)
    _resolved({"backend": given["backend"], "task": given["task"], "data.seq_length": given["seq_length"]}, given)


def _answer(given: Mapping[str, Any]) -> None:
    chosen = {
        "backend": given["backend"],
        "precision": given["dtype"],
        "model.name": given["run"],
        "task": given["task"],
    }
    chosen |= {"data.dir": given["data_dir"], "data.seq_length": given["seq_length"]}
    _resolved(chosen | {"evaluation.batch_size": given.get("batch_size")}, given, run=run_settings(given["run"]))


def _resolved(
    chosen: Mapping[str, Any],
    given: Mapping[str, Any],
    config: Path | None = None,
    recipe: str | None = None,
    run: Mapping[str, Any] | None = None,
) -> None:
    made = resolve(chosen, given["sets"] or (), config, recipe, run=run).recipe
    if made.task and made.task not in KINDS:  # else it is of a table of the user
        find_task(made.task)
