"""`bertkit convert`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put, put_json, tell


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="Source: a folder, PREFIX of PREFIX.index, or a file.", show_default=False),
    ],
    destination: Annotated[
        Path,
        typer.Argument(
            metavar="DST", help="Destination: a folder, a *.ckpt prefix, or a .pt file.", show_default=False
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Target format: tf1, hf, or a dialect of .pt; default: by the suffix of DST.",
            show_default=False,
        ),
    ] = "",
    config: Annotated[
        str, typer.Option("--config", help="Model configuration, if SRC has none.", show_default=False)
    ] = "",
    vocab: Annotated[
        str, typer.Option("--vocab", help="Vocabulary (vocab.txt), if SRC has none.", show_default=False)
    ] = "",
    moments: Annotated[bool, typer.Option("--moments", help="Convert the optimizer state too.")] = False,
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="NAME", help="Skip this tensor; * is a wildcard. Repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files at DST.")] = False,
    json: Json = False,
) -> None:
    """Convert a checkpoint between systems, losslessly and without TensorFlow.

    Sources: TensorFlow 1 checkpoints, Hugging Face folders (a run folder is one), .pt files of the PyTorch training
    scripts, and checkpoints of a run (runs/NAME/checkpoints/step-….safetensors). Names and shapes of all tensors are
    compared with the configuration, and the written files are read back.

    Examples:

      bertkit convert uncased_L-12_H-768_A-12 models/base

      bertkit convert runs/mrpc exported/bert_model.ckpt

      bertkit convert model.ckpt-28252.apex.pt models/large --vocab vocab.txt

      bertkit convert models/large large.pt --to mlperf
    """
    from bertkit.files.disk import to_json
    from bertkit.model.formats.convert import convert as carry_out

    say = None if json else lambda text: tell(f"{text} …")
    options = {"say": say} if say else {}
    report = carry_out(source, destination, to, config, vocab, moments, leave_out or [], overwrite, **options)
    if json:
        put_json(to_json(asdict(report)))
        return
    for note in report.notes:
        tell(f"note: {note}")
    beside = f" and {report.moments} tensors of moments" if report.moments else ""
    put(
        f"{report.destination} ({report.form}): {report.tensors} tensors, {report.parameters:,} parameters{beside},"
        f" bit for bit those of {report.source} ({report.kind})"
    )
    put(f"files: {', '.join(report.files)}")
