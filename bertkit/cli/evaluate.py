"""`bertkit evaluate`"""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put, put_json


def evaluate(
    run: Annotated[str, typer.Argument(help="Run folder, or any fine-tuned BERT model.", show_default=False)],
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
    dev_file: o.DevFile = None,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    batch_size: Annotated[int | None, typer.Option("-b", "--batch-size", help="Batch size per process.")] = None,
    seq_length: o.SeqLength = None,
    sets: o.Sets = None,
    profile: o.Profile = "",
    force: o.Force = False,
    offline: o.Offline = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate a trained model on its task's dev set.

    Task, precision, length and data folder default to those of the run. --profile writes a Chrome trace of some batches
    to evaluation-trace.json in the run folder.

    Examples:

      bertkit evaluate runs/mrpc -t mrpc --data-dir data/glue --json

      bertkit evaluate runs/mrpc --profile 2-3
    """
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.recipes.resolve import resolve
    from bertkit.training.inference import evaluate as evaluate_run
    from bertkit.training.inference import plan, trace_file
    from bertkit.training.run_task import run_settings

    chosen = o.recipe_options(backend, dtype, run, task, data_dir, None, seq_length, None, None, None, None)
    chosen |= {"evaluation.batch_size": batch_size, "offline": True if offline else None, "data.dev_file": dev_file}
    resolved = resolve(chosen, sets or (), run=run_settings(run))
    world = from_env()
    display = Display(quiet=quiet or not world.is_first)
    if dry_run:
        if profile:
            trace_file(resolved.recipe.model.name, profile)
        plan(resolved.recipe, "dev", None, display, force)
        return
    found = evaluate_run(resolved.recipe, world, display, force, profile=profile)
    if not world.is_first:
        return
    if json:
        put_json(json_format.dumps(found))
        return
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in found["metrics"].items())
    put(f"{found['task']} dev, {found['examples']} examples, {found['precision']}: {metrics}")
