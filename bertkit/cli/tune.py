"""`bertkit tune`"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import launch
from bertkit.cli import options as o
from bertkit.files.streams import put_json, writing

if TYPE_CHECKING:
    from bertkit.comparison.search.report import Findings
    from bertkit.console import Display
    from bertkit.recipes.recipe import Value


def tune(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="RUN.toml", help="Recipe or settings file with a table \\[search].", show_default=False),
    ],
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Number of trials in all, earlier ones included.")
    ] = 20,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Number of processes on this host, each with trials of its own.")
    ] = 1,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Own data: metric to search by; default: the first.", show_default=False),
    ] = None,
    backend: o.BackendName = None,
    model: o.Model = None,
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
    train_file: o.TrainFile = None,
    dev_file: o.DevFile = None,
    text: o.TextColumn = None,
    text_pair: o.PairColumn = None,
    label: o.LabelColumn = None,
    choices: o.ChoiceColumns = None,
    dtype: o.Dtype = None,
    batch_size: o.BatchSize = None,
    seq_length: o.SeqLength = None,
    epochs: o.Epochs = None,
    learning_rate: o.LearningRate = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Random seed of the runs and of the sampler.", show_default=False)
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Output folder of the search.", show_default=False)
    ] = None,
    recipe: o.RecipeName = None,
    sets: o.Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the search in the output folder, or join it.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing search in the output folder.")
    ] = False,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the checkpoints of trials that have ended.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate inputs and print the plan without training.")
    ] = False,
    offline: o.Offline = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Search settings: train trial after trial, and report the best as selected on dev.

    The file's table \\[search] names settings and what is tried of each:

      \\[search]
      "optimizer.learning_rate" = {log = [1e-5, 1e-4]}
      "model.hidden_dropout" = {range = [0.0, 0.3]}
      "train.epochs" = {choices = [2, 3, 4]}

    Examples:

      bertkit tune run.toml -m models/minilm -t mrpc --data-dir data/glue -o runs/search

      bertkit tune run.toml --trials 40 --resume -o runs/search

      bertkit tune run.toml --workers 2 --train reviews.csv --metric macro_f1 -o runs/stars

      bertkit train --recipe runs/search/best.toml --seed 2
    """
    chosen = o.recipe_options(
        backend, dtype, model, task, data_dir, batch_size, seq_length, epochs, learning_rate, seed, output
    )
    chosen |= o.own_data(o.from_stdin(train_file, quiet), dev_file, text, text_pair, label, choices)
    chosen |= {"offline": True if offline else None, "evaluation.metric": metric}
    given = {key: value for key, value in chosen.items() if value is not None}
    wanted = TuneOptions(
        file=file, trials=trials, chosen=given, sets=tuple(sets or ()), recipe=recipe, resume=resume,
        overwrite=overwrite, keep_checkpoints=keep_checkpoints, dry_run=dry_run, as_json=json_, quiet=quiet,
    )  # fmt: skip
    if workers > 1 and not dry_run:
        return launch.launch(context, words(wanted), processes=workers)
    return run_tuning(wanted)


@dataclass(frozen=True)
class TuneOptions:
    """The options of `bertkit tune`, save --workers."""

    file: Path
    trials: int
    chosen: Mapping[str, Value]  # by dotted key
    sets: tuple[str, ...]
    recipe: str | None
    resume: bool
    overwrite: bool
    keep_checkpoints: bool
    dry_run: bool
    as_json: bool
    quiet: bool


def words(wanted: TuneOptions) -> list[str]:
    """The command of one of several processes."""
    # an option wins over --set, so it comes later
    sets = [*wanted.sets, *(f"{key}={json.dumps(value)}" for key, value in wanted.chosen.items())]
    switches = {
        "--resume": wanted.resume, "--overwrite": wanted.overwrite, "--keep-checkpoints": wanted.keep_checkpoints,
        "--json": wanted.as_json, "--quiet": wanted.quiet,
    }  # fmt: skip
    return [
        "tune",
        str(wanted.file),
        f"--trials={wanted.trials}",
        *([f"--recipe={wanted.recipe}"] if wanted.recipe else []),
        *(f"--set={one}" for one in sets),
        *(switch for switch, on in switches.items() if on),
    ]


def run_tuning(wanted: TuneOptions) -> int:
    """Search, show what was found, return the exit code."""
    from bertkit.comparison.search.space import read_file
    from bertkit.comparison.search.tuning import check, plan_search, run_search
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.recipes.resolve import resolve

    file, table = read_file(wanted.file)
    base = resolve(wanted.chosen, wanted.sets, recipe=wanted.recipe, file=(str(wanted.file), file))
    where = f"{wanted.file}: [search]"
    plan = plan_search(base, table, where, wanted.trials, keep_checkpoints=wanted.keep_checkpoints)
    world = from_env()
    display = Display(quiet=wanted.quiet or not world.is_first)
    if wanted.dry_run:
        check(plan, world, display)
        return 0
    found = run_search(plan, world, display, resume=wanted.resume, overwrite=wanted.overwrite)
    if found.exit_code:
        return found.exit_code
    if world.is_first:
        show(found, wanted.as_json, display)
    return 0 if found.best else 1


def show(found: Findings, as_json: bool, display: Display) -> None:
    """The trials, the best one with its bias, and what to do next."""
    from bertkit.comparison.search.report import summary, table, to_mapping
    from bertkit.comparison.text import show_table
    from bertkit.console import Display
    from bertkit.files.disk import to_json

    if as_json:
        put_json(to_json(to_mapping(found)))
    elif not display.quiet:
        with writing():
            show_table(table(found), sys.stdout)
    loud = display if found.best else Display(stream=display.stream)  # a failure is shown even with --quiet
    for line in summary(found):
        loud.say(line)
    display.say(f"files: {found.folder} (tune.json, trials.csv, trials.svg, best.toml, trials/)")
    if found.best:
        display.say(f"next: bertkit train --recipe {found.folder / 'best.toml'} --seed {found.seed + 1}")
