"""`bertkit export`"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import completion
from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.recipes.recipe import Value


class ExportPrecision(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or any fine-tuned BERT model.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output folder.", show_default=False)],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="Format: onnx, openvino, triton, huggingface, torchscript, savedmodel or a plug-in's.",
            autocompletion=completion.formats,
            show_default=False,
        ),
    ],
    dtype: Annotated[
        ExportPrecision, typer.Option("-d", "--dtype", help="Precision that the export computes in.")
    ] = ExportPrecision.fp32,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="Option of the format; docs/export.md lists them.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(
            "--verify-examples",
            metavar="N|all",
            help="Examples of the dev set to compare on; default: 64, where the set is found.",
            show_default=False,
        ),
    ] = None,
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
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

    The export is compared with the engine on the shortest, the longest and mixed sequences, and on examples of the
    run's dev set, before it is put in place. Exit code 1 if they differ beyond the tolerance; nothing is then written.

    Examples:

      bertkit export runs/mrpc -o exported/mrpc --format onnx

      bertkit export runs/mrpc -o models --format triton --option text=true

      bertkit export runs/squad -o exported/squad --format savedmodel -d bf16 --json
    """
    from bertkit.console import Display
    from bertkit.files.disk import to_json
    from bertkit.recipes.resolve import resolve
    from bertkit.training.export_checks import measure
    from bertkit.training.exporting import ExportRequest
    from bertkit.training.exporting import export as export_run
    from bertkit.training.run_task import run_settings

    request = ExportRequest(
        form, dtype.value, output, _named(options or ()), _count(examples), overwrite=overwrite, force=force
    )
    chosen = o.recipe_options(backend, "fp32", run, task, data_dir, None, None, None, None, None, None)
    chosen |= {"offline": True if offline else None}
    recipe = resolve(chosen, sets or (), run=run_settings(run)).recipe
    made = export_run(recipe, request, Display(quiet=quiet))
    if json:
        put_json(to_json(asdict(made)))
        return
    put(f"{made.folder} ({made.format}, {made.task}, {made.precision}): {', '.join(made.files)}")
    if not made.verified_on:
        put("the weights were read back and are the model's")
        return
    kind = "root mean square" if made.precision == "int8" else "largest"
    put(
        f"verified on {', '.join(made.verified_on)}: {kind} difference {made.difference:.2g} of "
        f"{measure(made.precision)}, within {made.tolerance:g}"
    )
    if made.scores:
        metric, fp32, int8 = made.scores.metric, made.scores.fp32, made.scores.int8
        put(
            f"{metric} of {made.scores.examples:,} dev examples: {fp32[metric]:.4f} in fp32, {int8[metric]:.4f} in int8"
        )


def _named(options: list[str] | tuple[str, ...]) -> dict[str, Value]:
    """Name -> value of each ``--option name=value``."""
    from bertkit.recipes.resolve import parse_value

    found = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--option {text!r} is not name=value", "write it as --option text=true")
        found[name.strip()] = parse_value(value.strip(), f"--option {name.strip()}")
    return found


def _count(text: str | None) -> int | None:
    """Of examples, as `--verify-examples` has it."""
    from bertkit.training.export_checks import ALL

    if text is None or text == "all":
        return ALL if text else None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UserError(f"--verify-examples {text!r} is no number of examples", "write a whole number, or all")
    return int(text)
