"""`bertkit export`"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put, put_json


class ExportPrecision(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or any fine-tuned BERT model.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output folder.", show_default=False)],
    form: Annotated[str, typer.Option("--format", help="Format: savedmodel.", show_default=False)],
    dtype: Annotated[
        ExportPrecision, typer.Option("-d", "--dtype", help="Precision that the export computes in.")
    ] = ExportPrecision.fp32,
    task: o.TaskName = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Backend to compare the export with.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing export.")] = False,
    sets: o.Sets = None,
    force: o.Force = False,
    offline: o.Offline = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Export a trained model to another program's format.

    The export is compared with the engine on the shortest, the longest and mixed sequences before it is put in place.
    Exit code 1 if they differ beyond the tolerance; nothing is then written. savedmodel needs TensorFlow.

    Examples:

      bertkit export runs/mrpc -o exported/mrpc --format savedmodel

      bertkit export runs/squad -o exported/squad --format savedmodel -d bf16 --json
    """
    from bertkit.console import Display
    from bertkit.files.disk import to_json
    from bertkit.recipes.resolve import resolve
    from bertkit.training.exporting import export as export_run
    from bertkit.training.run_task import run_settings

    chosen = o.recipe_options(backend, "fp32", run, task, None, None, None, None, None, None, None)
    chosen |= {"offline": True if offline else None}
    recipe = resolve(chosen, sets or (), run=run_settings(run)).recipe
    made = export_run(recipe, form, dtype.value, output, overwrite, Display(quiet=quiet), force)
    if json:
        put_json(to_json(asdict(made)))
        return
    put(f"{made.folder} ({made.format}, {made.task}, {made.precision}): {', '.join(made.files)}")
    put(
        f"verified on {', '.join(made.verified_on)}: largest difference {made.difference:.2g} of the largest logit, "
        f"within {made.tolerance:g}"
    )
