"""A model into an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bertkit.plugin import ExportedModel
from bertkit_onnx.bert import NAMES, Bert, finished
from bertkit_onnx.fused import FusedBert
from bertkit_onnx.graph import Graph, save


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
    bert = (FusedBert if fused else Bert)(model, graph, names)
    save(finished(bert, kind, outputs), path, graph.bytes)
