"""A BERT with its head as an ONNX graph of standard operators, from its weights.

Legend: B sequences, S length that they are padded to, H hidden, A heads, D head size, C outputs of the head. Behind the
last layer's attention Q is S, or 1 where the head reads the first token alone.
Source: Devlin et al. 2018, arXiv:1810.04805. Parameters have Hugging Face's names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from bertkit.plugin import ExportedModel
from bertkit_onnx.graph import TYPES, Graph

FAR = -1e30  # what a score is where nothing may be seen: exp of it is 0 in float32, in which softmax is taken
NAMES = ("input_ids", "attention_mask", "token_type_ids")
INPUT_TYPES = {"int64": TensorProto.INT64, "int32": TensorProto.INT32}


class Bert:
    """The parts of a BERT as nodes of a graph. `dense` is the only product with weights of encoder and pooler: a form
    that stores them as whole numbers replaces it alone."""

    def __init__(self, model: ExportedModel, graph: Graph, names: Sequence[str] = NAMES) -> None:
        """`names`: of the inputs, in the order of `NAMES`."""
        self.model, self.graph, self.config = model, graph, model.config
        self.ids, self.mask, self.types = names
        self.stored = "fp32" if model.precision == "int8" else model.precision  # of matrices; int8: of the others
        # ONNX Runtime multiplies no bf16 on CPUs; what is stored so is cast when the model is loaded.
        self.precision = "fp32" if self.stored == "bf16" else self.stored

    # ---- parameters ----

    def kept(self, name: str, values: np.ndarray) -> str:
        """A parameter as it is stored, given in the compute precision."""
        made = self.graph.constant(name, values, self.stored)
        return made if self.stored == self.precision else self.graph.add("Cast", made, to=TYPES[self.precision])

    def weight(self, *names: str) -> str:
        """(inputs, outputs) of dense layers side by side."""
        return self.kept(joined(names, "weight"), np.concatenate(self.each(names, "weight")).T)

    def bias(self, *names: str) -> str:
        return self.kept(joined(names, "bias"), np.concatenate(self.each(names, "bias")))

    def each(self, names: Sequence[str], leaf: str) -> list[np.ndarray]:
        return [self.model.weights[f"{name}.{leaf}"] for name in names]

    def table(self, name: str) -> str:
        return self.kept(name, self.model.weights[name])

    def in_float32(self, name: str) -> str:
        """A parameter that is read in float32 whatever the precision."""
        return self.graph.constant(name, self.model.weights[name])

    # ---- layers ----

    def dense(self, x: str, *names: str) -> str:
        """(…, inputs) -> (…, outputs of all the named layers side by side)"""
        return self.graph.add("Add", self.graph.add("MatMul", x, self.weight(*names)), self.bias(*names))

    def dense_float32(self, x: str, name: str) -> str:
        """A small layer in float32: a head's last word on the logits."""
        weight = self.graph.constant(f"{name}.weight.T", self.model.weights[f"{name}.weight"].T)
        made = self.graph.add("MatMul", self.widened(x), weight)
        return self.graph.add("Add", made, self.in_float32(f"{name}.bias"))

    def widened(self, x: str) -> str:
        """In float32."""
        return x if self.precision == "fp32" else self.graph.add("Cast", x, to=TYPES["fp32"])

    def narrowed(self, x: str) -> str:
        """In the compute precision."""
        return x if self.precision == "fp32" else self.graph.add("Cast", x, to=TYPES[self.precision])

    def layer_norm(self, x: str, name: str) -> str:
        """Of float32; the result in the compute precision."""
        scale, shift = self.in_float32(f"{name}.weight"), self.in_float32(f"{name}.bias")
        made = self.graph.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=float(self.config.layer_norm_eps))
        return self.narrowed(made)

    def activate(self, x: str) -> str:
        """`gelu` is the exact form by erf; `gelu_new` and `gelu_pytorch_tanh` the tanh form (arXiv:1606.08415)."""
        add, number, precision = self.graph.add, self.graph.number, self.precision
        if self.config.hidden_act == "relu":
            return add("Relu", x)
        if self.config.hidden_act == "gelu":
            grown = add("Erf", add("Div", x, number(math.sqrt(2), precision)))
        else:
            cube = add("Mul", add("Pow", x, number(3.0)), number(0.044715, precision))
            grown = add("Tanh", add("Mul", add("Add", x, cube), number(math.sqrt(2 / math.pi), precision)))
        share = add("Add", grown, number(1.0, precision))
        return add("Mul", add("Mul", x, share), number(0.5, precision))

    # ---- the encoder ----

    def embed(self) -> str:
        """-> (B, S, H)"""
        add, whole, name = self.graph.add, self.graph.whole, "bert.embeddings."
        words = add("Gather", self.table(f"{name}word_embeddings.weight"), self.ids)
        types = add("Gather", self.table(f"{name}token_type_embeddings.weight"), self.types)
        length = add("Shape", self.ids, start=1)
        places = add("Slice", self.table(f"{name}position_embeddings.weight"), whole(0), length, whole(0))
        summed = add("Add", add("Add", self.widened(words), self.widened(types)), self.widened(places))
        return self.layer_norm(summed, f"{name}LayerNorm")

    def seen(self) -> str:
        """(B, 1, 1, S) float32 to be added to scores: `FAR` at padding."""
        add, number = self.graph.add, self.graph.number
        real = add("Cast", self.mask, to=TensorProto.BOOL)
        values = add("Where", real, number(0.0), number(FAR))
        return add("Unsqueeze", values, self.graph.whole(1, 2))

    def first(self, x: str) -> str:
        """(B, S, H) -> (B, 1, H)"""
        return self.graph.add("Slice", x, self.graph.whole(0), self.graph.whole(1), self.graph.whole(1))

    def encode(self) -> str:
        """-> (B, Q, H)"""
        x, seen, last = self.embed(), self.seen(), self.config.num_hidden_layers - 1
        for number in range(last + 1):
            x = self.layer(x, f"bert.encoder.layer.{number}.", seen, number == last and self.model.head.pooled)
        return x

    def layer(self, x: str, name: str, seen: str, first_only: bool) -> str:
        """(B, S, H) -> (B, S, H), or (B, 1, H) where only the first token is wanted: the others are keys and values."""
        found = self.attention(x, f"{name}attention.self.", seen, first_only)
        x = self.first(x) if first_only else x
        x = self.add_and_norm(x, found, f"{name}attention.output")
        inner = self.dense_active(x, f"{name}intermediate.dense")
        return self.add_and_norm(x, inner, f"{name}output")

    def add_and_norm(self, x: str, found: str, name: str) -> str:
        """x and a dense layer over `found`, then LayerNorm."""
        found = self.dense(found, f"{name}.dense")
        summed = self.graph.add("Add", self.widened(x), self.widened(found))
        return self.layer_norm(summed, f"{name}.LayerNorm")

    def dense_active(self, x: str, name: str) -> str:
        return self.activate(self.dense(x, name))

    def attention(self, x: str, name: str, seen: str, first_only: bool) -> str:
        """(B, S, H) -> (B, Q, H)"""
        add, query, key, value = self.graph.add, f"{name}query", f"{name}key", f"{name}value"
        if first_only:
            asking = self.dense(self.first(x), query)
            keys, values = self.graph.several("Split", self.dense(x, key, value), results=2, axis=-1)
        else:
            asking, keys, values = self.graph.several("Split", self.dense(x, query, key, value), results=3, axis=-1)
        each = self.config.hidden_size // self.config.num_attention_heads
        parted = self.graph.whole(0, 0, self.config.num_attention_heads, each)
        asked, held, given = (add("Reshape", part, parted) for part in (asking, keys, values))  # (B, S, A, D)
        asked = add("Transpose", asked, perm=[0, 2, 1, 3])
        asked = add("Mul", asked, self.graph.number(each**-0.5, self.precision))
        held, given = add("Transpose", held, perm=[0, 2, 3, 1]), add("Transpose", given, perm=[0, 2, 1, 3])
        scores = add("Add", self.widened(add("MatMul", asked, held)), seen)  # (B, A, Q, S)
        chances = self.narrowed(add("Softmax", scores, axis=-1))
        mixed = add("Transpose", add("MatMul", chances, given), perm=[0, 2, 1, 3])
        return add("Reshape", mixed, self.graph.whole(0, 0, self.config.hidden_size))

    # ---- heads ----

    def head(self, x: str) -> None:
        """(B, Q, H) -> the outputs, under their names."""
        if self.model.head.kind == "span":
            return self._span(x)
        if self.model.head.kind != "tokens":
            first = self.graph.add("Squeeze", x, self.graph.whole(1))
            x = self.graph.add("Tanh", self.dense(first, "bert.pooler.dense"))
        self.dense_float32(x, "classifier")
        return self.graph.rename_last("logits")

    def _span(self, x: str) -> None:
        """start_logits and end_logits (B, S)."""
        parts = self.graph.several("Split", self.dense_float32(x, "qa_outputs"), results=2, axis=-1)
        for part, name in zip(parts, ("start_logits", "end_logits"), strict=True):
            self.graph.add("Squeeze", part, self.graph.whole(-1))
            self.graph.rename_last(name)


def joined(names: Sequence[str], leaf: str) -> str:
    """A constant's name; of layers side by side: their common beginning with the ends joined."""
    path = names[0].rpartition(".")[0]
    return f"{path}.{'_'.join(name.rpartition('.')[2] for name in names)}.{leaf}{'.T' if leaf == 'weight' else ''}"


def output_axes(model: ExportedModel) -> Mapping[str, list[str | int]]:
    """Output -> its axes; those with names are free."""
    if model.head.kind == "span":
        return {"start_logits": ["batch", "length"], "end_logits": ["batch", "length"]}
    each = ["batch", "length"] if model.head.kind == "tokens" else ["batch"]
    return {"logits": [*each, model.head.logits_each]}


def finished(bert: Bert, kind: str = "int64", outputs: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The graph of everything. `kind`: of the inputs; `outputs`: other names than ours, by ours."""
    renamed = outputs or {}
    bert.head(bert.encode())
    axes = {renamed.get(name, name): each for name, each in output_axes(bert.model).items()}
    for node in bert.graph.nodes:
        for place, name in enumerate(node.output):
            node.output[place] = renamed.get(name, name)
    inputs = dict.fromkeys((bert.ids, bert.mask, bert.types), (INPUT_TYPES[kind], ("batch", "length")))
    return bert.graph.model(inputs, axes)
