"""An ONNX file as ONNX Runtime computes it on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from bertkit.plugin import Arrays, PaddedModel
from bertkit_onnx.bert import NAMES

TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def load(
    model: Path | bytes, names: Sequence[str] = NAMES, outputs: Mapping[str, str] | None = None, threads: int = 0
) -> PaddedModel:
    """`names`, `outputs`: as `writing.write` was given them; `threads`: 0: ONNX Runtime's own choice."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    kind = TYPES[session.get_inputs()[0].type]
    ours = {theirs: name for name, theirs in (outputs or {}).items()}
    return functools.partial(_computed, session, dict(zip(NAMES, names, strict=True)), kind, ours)


def _computed(
    session: onnxruntime.InferenceSession,
    names: Mapping[str, str],
    kind: type,
    ours: Mapping[str, str],
    inputs: Mapping[str, np.ndarray],
) -> Arrays:
    given: Arrays = {theirs: inputs[name].astype(kind) for name, theirs in names.items()}
    found = session.run(None, given)
    made = (output.name for output in session.get_outputs())
    return {ours.get(name, name): values for name, values in zip(made, found, strict=True)}
