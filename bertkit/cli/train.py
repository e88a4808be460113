"""`bertkit train`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put_json

if TYPE_CHECKING:
    from bertkit.comparison.parity import Parity
    from bertkit.console import Display
    from bertkit.recipes.recipe import Value
    from bertkit.training.run import Run


def train(
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
    seed: o.Seed = None,
    output: o.Output = None,
    recipe: o.RecipeName = None,
    config: o.Config = None,
    sets: o.Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the latest checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run in the output folder.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate inputs and print the plan without training.")
    ] = False,
    offline: o.Offline = False,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            max=999,
            help="Cross-validate on your own data: one run per fold; print mean and standard deviation.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on an answer that is not found in its paragraph.")
    ] = False,
    sync_gradients: Annotated[
        bool | None,
        typer.Option(
            "--sync-gradients/--no-sync-gradients",
            help="Train one model on all processes, or one model per process and keep the best.",
            show_default=False,
        ),
    ] = None,
    shard_data: Annotated[
        bool | None,
        typer.Option(
            "--shard-data/--no-shard-data",
            help="With --no-sync-gradients: train each process on its own shard, or on all data.",
            show_default=False,
        ),
    ] = None,
    phases: Annotated[
        str | None,
        typer.Option("--phases", help="Pre-training phases to run: 1, 2 or 1,2.", show_default=False),
    ] = None,
    eval_dir: Annotated[
        str | None, typer.Option("--eval-dir", help="Evaluation set for pre-training.", show_default=False)
    ] = None,
    target_mlm_accuracy: Annotated[
        float | None,
        typer.Option("--target-mlm-accuracy", help="Stop pre-training at this masked-LM accuracy.", show_default=False),
    ] = None,
    steps_this_run: Annotated[
        int | None,
        typer.Option(
            "--steps-this-run", help="Maximum updates of this job; continue with --resume.", show_default=False
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="STEPS", help="Profile these updates of the job, as 20-22.", show_default=False
        ),
    ] = None,
    parity_with: Annotated[
        Path | None,
        typer.Option(
            "--parity-with",
            metavar="RECORD",
            help="Compare the losses with another run's afterwards; exit code 1 if they diverge.",
            show_default=False,
        ),
    ] = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Fine-tune or pre-train a BERT model and evaluate it.

    Examples:

      bertkit train -m large -t mrpc

      bertkit train -m models/minilm --train reviews.csv --text review --label stars -o runs/stars

      bertkit train -m models/minilm -t mrpc --data-dir data/glue -d bf16 -o runs/mrpc

      bertkit train -m models/minilm -t squad --data-dir data -o runs/squad

      bertkit train --recipe demo --set optimizer.learning_rate=1e-3

      bertkit train -m base -t cola --resume -o runs/cola

      bertkit train --recipe pretrain-tiny --data-dir prepared -o runs/tiny

      bertkit launch -n 2 -- train -m base -t mrpc --no-sync-gradients -o runs/best

    Hugging Face's option names (--model_name_or_path, --per_device_train_batch_size, …) are accepted too.
    """
    chosen = o.recipe_options(
        backend, dtype, model, task, data_dir, batch_size, seq_length, epochs, learning_rate, seed, output
    )
    chosen |= o.own_data(o.from_stdin(train_file, quiet), dev_file, text, text_pair, label, choices)
    chosen |= {
        "data.strict": True if strict else None,
        "offline": True if offline else None,
        "ranks.synchronise": sync_gradients,
        "ranks.shard_data": shard_data,
        "train.phases": phases,
        "train.steps_this_run": steps_this_run,
        "data.eval_dir": eval_dir,
        "evaluation.target_mlm_accuracy": target_mlm_accuracy,
        "log.profile": profile,
    }
    if folds:
        return run_folds(folds, chosen, sets, config, recipe, resume, overwrite, dry_run, json_, quiet)
    return run_training(chosen, sets, config, recipe, resume, overwrite, dry_run, parity_with, json_, quiet)


def run_folds(
    folds: int,
    options: Mapping[str, Value],
    sets: list[str] | None,
    config: Path | None,
    recipe: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Train a model on all folds but one, for each of them; show what they score together."""
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.files.disk import to_json
    from bertkit.recipes.resolve import resolve
    from bertkit.records.files import load
    from bertkit.training.folds import fold_settings, write_summary
    from bertkit.training.recipe_parts import is_own_data
    from bertkit.training.run_folder import output_folder

    found = resolve(options, sets or (), config, recipe).recipe
    if not is_own_data(found):
        raise UserError("--folds is for data of your own", "name its file with --train FILE")
    output, first = output_folder(found), from_env().is_first
    for number in range(folds):
        mine = dict(options) | fold_settings(number, folds, output)
        code = run_training(mine, sets, config, recipe, resume, overwrite, dry_run, None, False, quiet)
        if code or (dry_run and number == 0):
            return code
    if not first:
        return 0
    made = write_summary(output, [load(output / f"fold-{number}").mapping["metrics"] for number in range(folds)])
    shown = "  ".join(f"{name} {one['mean']:.4f} ± {one['sd']:.4f}" for name, one in made["metrics"].items())
    Display(quiet=quiet).say(f"over {folds} folds, mean and standard deviation: {shown}")
    if as_json:
        put_json(to_json(made))
    return 0


def run_training(
    options: Mapping[str, Value],
    sets: list[str] | None,
    config: Path | None,
    recipe: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    parity_with: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Train, show the result, return the exit code."""
    from bertkit.comparison.load import read_one
    from bertkit.comparison.parity import hold
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.files.disk import to_json
    from bertkit.recipes.resolve import resolve
    from bertkit.training.trainer import Trainer

    other = read_one(parity_with) if parity_with else None
    resolved = resolve(options, sets or (), config, recipe)
    world = from_env()
    display = Display(quiet=quiet or not world.is_first)
    changed = {key: value for key, value in resolved.flat().items() if resolved.sources.get(key) != "default"}
    display.say("settings: " + (", ".join(f"{key}={value}" for key, value in changed.items()) or "all defaults"))
    trainer = Trainer.of(resolved, world, display, resume=resume, overwrite=overwrite)
    outcome = trainer.check() if dry_run else trainer.fit()
    if outcome.record is not None and world.is_first:
        show(outcome, display)
        if as_json:
            put_json(to_json(outcome.record))
        if other is not None:
            return tell_parity(hold(read_one(outcome.folder), other), display)
    return outcome.exit_code


def tell_parity(found: Parity, display: Display) -> int:
    """The verdict; a failure is shown even with --quiet. Returns the exit code."""
    from bertkit.comparison.parity import lines
    from bertkit.console import Display

    loud = Display(stream=display.stream) if not found.verdict.holds else display
    for line in lines(found):
        loud.say(line)
    return 0 if found.verdict.holds else 1


def show(outcome: Run, display: Display) -> None:
    """The result in a few lines, and what to try next."""
    record = outcome.record or {}
    speed = record["throughput"]
    shown = {name: float("nan") if value is None else value for name, value in record["metrics"].items()}
    spread = intervals(outcome.folder)
    metrics = "  ".join(f"{name} {value:.4f}{spread.get(name, '')}" for name, value in shown.items())
    pretraining = record["data"]["task"] == "pretrain"
    of = "evaluation" if pretraining else "dev"
    told = " (in brackets: 95% intervals, bootstrap over its examples)" if spread else ""
    display.say(f"result on the {of} set{told}: {metrics}{_baseline(record)}")
    for what, said in record["method"]["rules"].items():
        if what.startswith("mlm_accuracy"):
            display.say(f"{what}: {said}")
    if speed["tokens_per_second"] is not None:
        mfu = (
            f", {speed['mfu']:.0%} of the peak {speed['peak_flops_per_device'] / 1e9:.0f} GFLOP/s"
            if speed["mfu"]
            else ""
        )
        display.say(
            f"speed: {speed['sequences_per_second']:.1f} sequences/s, {speed['tokens_per_second']:.0f} tokens/s "
            f"without padding (padding efficiency {speed['padding_efficiency']:.3f}){mfu}"
        )
    if pretraining:
        display.say(f"files: {outcome.folder} (record.json, log.jsonl, model.safetensors, checkpoints/)")
        display.say(f"next: bertkit train -m {outcome.folder} -t mrpc, or another task to fine-tune it on")
        return
    display.say(f"files: {outcome.folder} (record.json, log.jsonl, model.safetensors, predictions/)")
    display.say(f"next: bertkit predict {outcome.folder}, bertkit evaluate {outcome.folder}, or bertkit train -h")


def intervals(folder: Path) -> dict[str, str]:
    """Of the first dev set's metrics, where the run's folder holds them: how far they move on other examples."""
    from bertkit.files.inputs import exists, read_object
    from bertkit.training.run_folder import SCORES

    path = folder / SCORES
    found = read_object(path)["parts"][0].get("intervals", {}) if exists(path) else {}
    return {name: f" ({low:.3f} to {high:.3f})" for name, (low, high) in found.items()}


def _baseline(record: Mapping[str, Any]) -> str:
    """What the first metric would be without learning anything."""
    name = next(iter(record["metrics"]))
    found = (record["majority_class"] or {}).get(name)
    what = "the training text's frequencies" if name == "mlm_accuracy" else "always the most frequent class"
    return "" if found is None else f"   ({what}: {name} {found:.4f})"
