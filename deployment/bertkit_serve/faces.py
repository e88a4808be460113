"""What a trained model looks like over the protocol: its tensors, and what becomes of a request's.

A run is served under two names: NAME takes token ids and gives logits, NAME-text takes texts and gives answers.

Legend: N examples, S tokens that the longest has, K choices, C outputs of the head.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bertkit import Answer, Prediction, Predictor, Prepared
from bertkit.plugin import PER_TOKEN, Arrays, InferRequest, UserError
from bertkit.plugin import TEXTS as BYTES
from bertkit.plugin import InferTensor as Tensor
from bertkit.plugin import infer_tensor as tensor

AT_PADDING = -10_000.0  # a logit that no span begins or ends with, as Google's BERT masks scores
WHOLE = ("INT64", "INT32")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output."""

    name: str
    datatypes: tuple[str, ...]  # that are taken; the first is the one that is told
    shape: tuple[int, ...]  # -1: any size
    optional: bool = False


class Face(Protocol):
    """One of a run's two models."""

    @property
    def predictor(self) -> Predictor: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def prepare(self, inputs: Mapping[str, Tensor]) -> Prepared[list[Tensor]]:
        """Raises UserError for tensors that do not fit."""


def check_inputs(face: Face, request: InferRequest) -> Mapping[str, Tensor]:
    """The request's inputs by name. Raises UserError for one that is unknown, missing, or of another datatype."""
    known = {spec.name: spec for spec in face.inputs}
    found = {each.name: each for each in request.inputs}
    for name, each in found.items():
        if name not in known:
            raise UserError(f"the model has no input {name!r}", f"it has {', '.join(known)}")
        if each.datatype not in known[name].datatypes:
            raise UserError(f"{name!r} is {each.datatype}", f"send {' or '.join(known[name].datatypes)}")
    for name, spec in known.items():
        if name not in found and not spec.optional:
            raise UserError(f"the input {name!r} is missing", f"send {', '.join(known)}")
    outputs = {spec.name for spec in face.outputs}
    for asked in request.outputs:
        if asked.name not in outputs:
            raise UserError(f"the model has no output {asked.name!r}", f"it has {', '.join(sorted(outputs))}")
        if "classification" in asked.parameters:
            raise UserError(f"{asked.name!r}: there is no extension 'classification'", "ask the model of texts")
    return found


# ---- token ids ----


class IdsFace:
    """input_ids, attention_mask and token_type_ids, (N, S) each, or (N, K, S) of choices, to logits."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        head = predictor.task.head
        self.each, self.kind = head.sequences_each, head.kind
        axes: tuple[int, ...] = (-1, self.each, -1) if self.kind == "choice" else (-1, -1)
        self.inputs = (
            TensorSpec("input_ids", WHOLE, axes),
            TensorSpec("attention_mask", WHOLE, axes, optional=True),
            TensorSpec("token_type_ids", WHOLE, axes, optional=True),
        )
        shape: tuple[int, ...] = {"span": axes, "tokens": (-1, -1, head.outputs), "choice": (-1, self.each)}.get(
            self.kind, (-1, head.outputs)
        )
        names = ("start_logits", "end_logits") if self.kind == "span" else ("logits",)
        self.outputs = tuple(TensorSpec(name, ("FP32",), shape) for name in names)

    def prepare(self, inputs: Mapping[str, Tensor]) -> Prepared[list[Tensor]]:
        ids = inputs["input_ids"].values
        axes = 3 if self.kind == "choice" else 2
        if ids.ndim != axes or (axes == 3 and ids.shape[1] != self.each):
            raise UserError(
                f"'input_ids' has the shape {list(ids.shape)}", f"send {list(self.inputs[0].shape)}, -1 being any size"
            )
        for name, each in inputs.items():
            if each.shape != ids.shape:
                raise UserError(f"{name!r} has the shape {list(each.shape)}, 'input_ids' {list(ids.shape)}", "send one")
        if not ids.size:
            raise UserError("'input_ids' holds no token", "send one at least")
        rows = ids.reshape(-1, ids.shape[-1])
        lengths = _lengths(inputs.get("attention_mask"), rows)
        types = (
            inputs["token_type_ids"].values.reshape(rows.shape) if "token_type_ids" in inputs else np.zeros_like(rows)
        )
        features = self.predictor.sequences(_cut(rows, lengths), _cut(types, lengths))
        return Prepared(features, lambda outputs: [self._output(spec, outputs, lengths, rows) for spec in self.outputs])

    def _output(self, spec: TensorSpec, outputs: Arrays, lengths: np.ndarray, rows: np.ndarray) -> Tensor:
        values = outputs[spec.name]
        if self.kind in PER_TOKEN:
            real = np.arange(rows.shape[1])[None] < lengths[:, None]  # (N, S)
            padded = np.full((*rows.shape, *values.shape[1:]), AT_PADDING if self.kind == "span" else 0.0, np.float32)
            padded[real] = values
            return tensor(spec.name, padded)
        return tensor(spec.name, values.reshape(-1, self.each) if self.kind == "choice" else values)


def _lengths(mask: Tensor | None, rows: np.ndarray) -> np.ndarray:
    """(N,) real tokens of each row. Raises UserError for a mask that is not ones, then zeros."""
    if mask is None:
        return np.full(len(rows), rows.shape[1], np.int64)
    values = mask.values.reshape(rows.shape)
    lengths: np.ndarray = (values != 0).sum(1)
    if not np.array_equal(values, (np.arange(rows.shape[1])[None] < lengths[:, None]).astype(values.dtype)):
        raise UserError("'attention_mask' is not ones followed by zeros in each row", "put padding behind the tokens")
    return lengths


def _cut(rows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


# ---- texts ----


class TextFace:
    """The texts of an example, BYTES (N,) or (N, 1) each, to answers of the same shape."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.inputs = tuple(
            TensorSpec(name, (BYTES,), (-1, predictor.task.head.sequences_each) if name == "choices" else (-1,))
            for name in predictor.fields
        )
        self.columns = _columns(predictor)
        self.outputs = tuple(column.spec for column in self.columns)

    def prepare(self, inputs: Mapping[str, Tensor]) -> Prepared[list[Tensor]]:
        shape = inputs[self.inputs[0].name].shape
        if not shape or shape not in ((shape[0],), (shape[0], 1)) or not shape[0]:
            raise UserError(f"{self.inputs[0].name!r} has the shape {list(shape)}", "send [n] or [n, 1], n at least 1")
        columns = []
        for spec in self.inputs:
            given, wants = inputs[spec.name], (shape[0], spec.shape[1]) if len(spec.shape) == 2 else shape
            if given.shape != wants:
                raise UserError(f"{spec.name!r} has the shape {list(given.shape)}", f"send {list(wants)}")
            texts = given.texts()
            each = len(texts) // shape[0]
            columns.append([texts[row * each : (row + 1) * each] for row in range(shape[0])])
        examples = [tuple(text for part in row for text in part) for row in zip(*columns, strict=True)]
        asked = prepare_examples(self.predictor, examples)

        def finish(outputs: Arrays) -> list[Tensor]:
            found = asked.finish(outputs)
            return [column.tensor(found, shape) for column in self.columns]

        return Prepared(asked.features, finish)


@dataclass(frozen=True)
class Column:
    """One output of the answers to texts."""

    spec: TensorSpec
    value: Callable[[Any], Any]  # of a Prediction or an Answer

    def tensor(self, found: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
        values = [self.value(one) for one in found]
        if self.spec.datatypes[0] == BYTES:
            array = np.array(values, object)
        else:
            array = np.array(values, np.int64 if self.spec.datatypes[0] == "INT64" else np.float32)
        return tensor(self.spec.name, array if array.ndim > 1 else array.reshape(shape))


def _columns(predictor: Predictor) -> tuple[Column, ...]:
    kind, labels = predictor.task.head.kind, predictor.labels
    label = Column(TensorSpec("label", (BYTES,), (-1,)), lambda one: one.label)
    score = Column(TensorSpec("score", ("FP32",), (-1,)), lambda one: one.scores[one.label])
    scores = Column(TensorSpec("scores", ("FP32",), (-1, len(labels))), lambda one: [*one.scores.values()])
    if kind == "span":
        return (
            Column(TensorSpec("answer", (BYTES,), (-1,)), lambda one: one.text),
            Column(TensorSpec("score", ("FP32",), (-1,)), lambda one: one.probability),
            Column(TensorSpec("start", ("INT64",), (-1,)), lambda one: one.start),
            Column(TensorSpec("end", ("INT64",), (-1,)), lambda one: one.end),
        )
    if kind == "regression":
        count = max(1, len(labels))
        several = Column(TensorSpec("values", ("FP32",), (-1, count)), lambda one: [*one.values.values()])
        value = Column(TensorSpec("value", ("FP32",), (-1,)), lambda one: one.value)
        return (value, several) if labels else (value,)
    if kind == "tokens":
        return (Column(TensorSpec("entities", (BYTES,), (-1,)), lambda one: json.dumps(entities(one))),)
    if kind == "choice":
        return label, score, Column(TensorSpec("choice", ("INT64",), (-1,)), lambda one: one.choice)
    if kind == "multilabel":
        applying = Column(TensorSpec("labels", (BYTES,), (-1,)), lambda one: json.dumps(one.labels))
        return label, score, scores, applying
    return label, score, scores


def entities(one: Prediction) -> list[dict[str, Any]]:
    """As JSON has them."""
    return [
        {"text": each.text, "label": each.label, "start": each.start, "end": each.end, "probability": each.probability}
        for each in one.spans
    ]


def prepare_examples(predictor: Predictor, examples: Sequence[tuple[str, ...]]) -> Prepared[Any]:
    """Examples as `Predictor.fields` names their texts, to a list of Predictions, or of Answers to questions."""
    head = predictor.task.head
    if head.kind == "choice":
        for number, (_, *choices) in enumerate(examples):
            if len(choices) != head.outputs:
                raise UserError(
                    f"example {number} has {len(choices)} choices, but the model chooses of {head.outputs}",
                    "send as many",
                )
    if head.kind != "span":
        return predictor.prepare(examples)
    for question, context in examples:
        if not question.strip() or not context.strip():
            raise UserError("a question or a context is empty", "send both")
    asked: Prepared[list[Answer]] = predictor.prepare_questions([(question, text) for question, text in examples])
    return asked
