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
        Path, typer.Argument(metavar="SRC", help="A folder, PREFIX of PREFIX.index, or a file.", show_default=False)
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="A folder, a *.ckpt prefix, or a .pt file.", show_default=False)
    ],
    to: Annotated[
        str, typer.Option("--to", help="tf1, hf, or a dialect of .pt; else DST's ending says it.", show_default=False)
    ] = "",
    config: Annotated[
        str, typer.Option("--config", help="The model's configuration, where SRC has none.", show_default=False)
    ] = "",
    vocab: Annotated[
        str, typer.Option("--vocab", help="The model's vocab.txt, where SRC has none.", show_default=False)
    ] = "",
    moments: Annotated[bool, typer.Option("--moments", help="Take the optimizer's moments and step along.")] = False,
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="NAME", help="A tensor to go without; * stands for anything."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over what DST holds.")] = False,
    json: Json = False,
) -> None:
    """Write a checkpoint of one system as another has it, without TensorFlow and without loss.

    Read are TensorFlow 1 checkpoints, Hugging Face's folders (a run's folder is one), the .pt files of the PyTorch
    training scripts, and a run's checkpoints (runs/NAME/checkpoints/step-….safetensors). Every tensor's name and shape
    is held against the configuration, and what was written is read back.

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
