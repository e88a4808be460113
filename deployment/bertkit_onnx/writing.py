"""A model into an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from bertkit.plugin import ExportedModel, UserError
from bertkit_onnx.bert import NAMES, Bert, finished
from bertkit_onnx.fused import FusedBert
from bertkit_onnx.graph import Graph, save
from bertkit_onnx.quantised import QuantisedBert


def write(
    model: ExportedModel,
    path: Path,
    fused: bool = False,
    names: Sequence[str] = NAMES,
    kind: str = "int64",
    outputs: Mapping[str, str] | None = None,
) -> None:
    """`names`, `kind`: of the inputs, in the order of `bert.NAMES`; `outputs`: other names than ours, by ours."""
    graph = Graph()
    save(made(model, graph, fused, names, kind, outputs), path, graph.bytes)


def made(
    model: ExportedModel,
    graph: Graph,
    fused: bool = False,
    names: Sequence[str] = NAMES,
    kind: str = "int64",
    outputs: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """As `write` has them. Raises UserError for a form that there is not."""
    if fused and model.precision == "int8":
        raise UserError("--option fused=true has no int8", "drop it: runtimes fuse the plain form themselves")
    form = QuantisedBert if model.precision == "int8" else FusedBert if fused else Bert
    return finished(form(model, graph, names), kind, outputs)
