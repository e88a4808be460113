"""BERT over rows of fixed sizes, and its heads, in TensorFlow's operators.

Legend: N slots (R rows of S), B sequences, M masked positions, W slots that the head looks at, H hidden, A heads, D
head size, V vocabulary, C outputs of the head.
Source: Devlin et al. 2018, arXiv:1810.04805. Parameters have Hugging Face's names (`bertkit.model.parameters`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from bertkit.plugin import PER_TOKEN, Head, ModelConfig

Tensors = Mapping[str, tf.Tensor]
Outputs = dict[str, tf.Tensor]
PLACES = 1 << 16  # of the random numbers that dropout is drawn by
FAR = -1e30  # what a score is where nothing may be seen: exp of it is 0 in every precision that softmax is taken in


@dataclass
class Weights:
    """The float32 masters, and each in the compute dtype, cast once a pass."""

    masters: Tensors
    dtype: tf.DType
    _cast: dict[str, tf.Tensor] = field(default_factory=dict)

    def __call__(self, name: str) -> tf.Tensor:
        if name not in self._cast:
            self._cast[name] = tf.cast(self.masters[name], self.dtype)
        return self._cast[name]

    def dense(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """(…, inputs) -> (…, outputs)"""
        bias = tf.convert_to_tensor(self.masters[f"{name}.bias"])
        return plus_bias(tf.matmul(x, self(f"{name}.weight"), transpose_b=True), bias)

    def dense_fp32(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """A small layer in float32 whatever the compute dtype: a head's last word on the logits."""
        weight, bias = self.masters[f"{name}.weight"], self.masters[f"{name}.bias"]
        return tf.matmul(tf.cast(x, tf.float32), weight, transpose_b=True) + bias

    def layer_norm(self, x: tf.Tensor, name: str, epsilon: float) -> tf.Tensor:
        """In float32; the result in the compute dtype."""
        x = tf.cast(x, tf.float32)
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + epsilon)
        return tf.cast(centred * scale * self.masters[f"{name}.weight"] + self.masters[f"{name}.bias"], self.dtype)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def plus_bias(values: tf.Tensor, bias: tf.Tensor) -> Any:
    """(…, H) and a master (H,). TensorFlow's own gradient of the bias adds thousands of rows in bf16, 10 to 20 % off;
    this one in float32."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.reshape(tf.cast(upstream, tf.float32), [-1, bias.shape[0]])
        return upstream, tf.cast(tf.reduce_sum(rows, 0), bias.dtype)

    return tf.nn.bias_add(values, tf.cast(bias, values.dtype)), gradient


@dataclass
class Dropout:
    """One forward pass's dropout, whose masks follow from its key alone; without a key there is none.

    Counter-based random numbers (Salmon et al. 2011): nothing to save, and a resume is exact.
    """

    key: tf.Tensor | None = None  # (2,) int32
    drawn: int = 0  # masks so far

    def __call__(self, values: tf.Tensor, rate: float) -> tf.Tensor:
        """Values, some zero and the rest scaled up in float32: bf16 would round 1 / 0.9 by 0.16 %, and every mean."""
        dropped = round(rate * PLACES)
        if self.key is None or dropped == 0:
            return values
        self.drawn += 1
        count = values.shape.num_elements()
        seed = self.key + tf.constant([0, self.drawn], tf.int32)
        bits = tf.random.stateless_uniform([-(-count // 2)], seed, None, None, tf.uint32, alg="philox")
        places = tf.reshape(tf.reshape(tf.bitcast(bits, tf.uint16), [-1])[:count], values.shape)
        kept = tf.where(places >= tf.constant(dropped, tf.uint16), PLACES / (PLACES - dropped), 0.0)
        return tf.cast(tf.cast(values, tf.float32) * kept, values.dtype)


@dataclass(frozen=True)
class Seen:
    """What the encoder and the head read of a batch."""

    whole: Tensors  # as `bertkit.engine.static_shapes.static` has them
    rows: int | tf.Tensor

    def mask(self) -> tf.Tensor:
        """(R, 1, S, S) float32 to be added to scores: slots see those of their own segment."""
        held = tf.reshape(self.whole["segments"], [self.rows, 1, -1])
        return tf.where(held[:, :, :, None] == held[:, :, None, :], 0.0, FAR)


def outputs(w: Weights, config: ModelConfig, head: Head, seen: Seen, drop: Dropout) -> Outputs:
    """The head's logits (`bertkit.engine.interface.Engine.predict` says which), for spare places too."""
    hidden, mask = embed(w, config, seen, drop), seen.mask()
    found, last = [hidden], config.num_hidden_layers - 1
    wanted = max(head.layers) if head.kind == "encoder" else last + 1
    asking = looked_at(head, seen)
    for number in range(wanted):
        found.append(layer(w, config, number, found[-1], mask, asking if number == last else None, drop))
    if head.kind == "encoder":
        return {"hidden": tf.cast(tf.concat([found[number] for number in head.layers], 1), tf.float32)}
    return HEADS[head.kind](w, config, found[-1], seen, drop)


def looked_at(head: Head, seen: Seen) -> tf.Tensor | None:
    """(W,) the slots behind the last layer's attention: each sequence's first, then the masked; None: all."""
    if head.kind in PER_TOKEN:
        return None
    first = seen.whole["first"]
    return tf.concat([first, seen.whole["masked"]], 0) if head.kind == "pretraining" else first


def embed(w: Weights, config: ModelConfig, seen: Seen, drop: Dropout) -> tf.Tensor:
    """-> (N, H)"""
    name = "bert.embeddings."
    summed = tf.gather(w.masters[f"{name}word_embeddings.weight"], seen.whole["input_ids"])
    summed += tf.gather(w.masters[f"{name}position_embeddings.weight"], seen.whole["position_ids"])
    # a product: the gradient of a gather would add up all slots of a row one after another
    table = w.masters[f"{name}token_type_embeddings.weight"]
    summed += tf.matmul(tf.one_hot(seen.whole["token_type_ids"], table.shape[0]), table)
    return drop(w.layer_norm(summed, f"{name}LayerNorm", config.layer_norm_eps), config.hidden_dropout_prob)


def layer(
    w: Weights, config: ModelConfig, number: int, x: tf.Tensor, mask: tf.Tensor, asking: tf.Tensor | None, drop: Dropout
) -> tf.Tensor:
    """(N, H) -> (N, H), or (W, H) where only the slots `asking` are wanted behind attention."""
    name = f"bert.encoder.layer.{number}."
    found = attention(w, config, f"{name}attention.self.", x, mask, drop)
    if asking is not None:
        x, found = tf.gather(x, asking), tf.gather(found, asking)
    found = plus(x, w.dense(found, f"{name}attention.output.dense"), config.hidden_dropout_prob, drop)
    x = w.layer_norm(found, f"{name}attention.output.LayerNorm", config.layer_norm_eps)
    inner = activate(w.dense(x, f"{name}intermediate.dense"), config.hidden_act)
    inner = plus(x, w.dense(inner, f"{name}output.dense"), config.hidden_dropout_prob, drop)
    return w.layer_norm(inner, f"{name}output.LayerNorm", config.layer_norm_eps)


def plus(x: tf.Tensor, values: tf.Tensor, rate: float, drop: Dropout) -> tf.Tensor:
    """x and what is kept of `values`, (N, H) float32: the LayerNorm that follows reads nothing else."""
    return tf.cast(x, tf.float32) + drop(tf.cast(values, tf.float32), rate)


def attention(w: Weights, config: ModelConfig, name: str, x: tf.Tensor, mask: tf.Tensor, drop: Dropout) -> tf.Tensor:
    """(N, H) -> (N, H): two products and a softmax in float32 between them, each row by itself."""
    rows, heads = mask.shape[0] or tf.shape(mask)[0], config.num_attention_heads  # None: known only when computed
    shape = [rows, -1, heads, config.hidden_size // heads]
    query, key, value = (
        tf.transpose(tf.reshape(w.dense(x, f"{name}{part}"), shape), [0, 2, 1, 3]) for part in ("query", "key", "value")
    )  # (R, A, S, D)
    scores = tf.cast(tf.matmul(query * tf.cast(shape[-1] ** -0.5, query.dtype), key, transpose_b=True), tf.float32)
    chances = tf.cast(drop(tf.nn.softmax(scores + mask), config.attention_probs_dropout_prob), w.dtype)
    return tf.reshape(tf.transpose(tf.matmul(chances, value), [0, 2, 1, 3]), [-1, config.hidden_size])


def activate(x: tf.Tensor, name: str) -> tf.Tensor:
    """`gelu` is the exact form by erf; `gelu_new` and `gelu_pytorch_tanh` the tanh form (arXiv:1606.08415)."""
    if name == "relu":
        return tf.nn.relu(x)
    return tf.cast(tf.nn.gelu(tf.cast(x, tf.float32), approximate=name != "gelu"), x.dtype)


# ---- heads ----


def pool(w: Weights, first: tf.Tensor) -> tf.Tensor:
    """(B, H) -> (B, H): a dense layer and tanh over each sequence's first token."""
    return tf.tanh(w.dense(first, "bert.pooler.dense"))


def sequence_head(w: Weights, config: ModelConfig, hidden: tf.Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Classification, of one label or several, regression and choices: logits (B, C)."""
    own = config.classifier_dropout
    pooled = drop(pool(w, hidden), config.hidden_dropout_prob if own is None else own)
    return {"logits": w.dense_fp32(pooled, "classifier")}


def token_head(w: Weights, config: ModelConfig, hidden: tf.Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Classes of the tokens: logits (N, C)."""
    own = config.classifier_dropout
    dropped = drop(hidden, config.hidden_dropout_prob if own is None else own)
    return {"logits": tf.cast(w.dense(dropped, "classifier"), tf.float32)}


def span_head(w: Weights, config: ModelConfig, hidden: tf.Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Start and end logits, (N,) each."""
    logits = tf.cast(w.dense(hidden, "qa_outputs"), tf.float32)
    return {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}


def pretraining_head(w: Weights, config: ModelConfig, hidden: tf.Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Masked-word logits (M, V), by the embeddings' own table, and next-sentence logits (B, 2)."""
    sequences = seen.whole["first"].shape[0]
    name = "cls.predictions.transform"
    masked = activate(w.dense(hidden[sequences:], f"{name}.dense"), config.hidden_act)
    masked = w.layer_norm(masked, f"{name}.LayerNorm", config.layer_norm_eps)
    logits = tf.matmul(masked, w("bert.embeddings.word_embeddings.weight"), transpose_b=True)
    logits = tf.cast(tf.nn.bias_add(logits, w("cls.predictions.bias")), tf.float32)
    pooled = pool(w, hidden[:sequences])
    return {"masked_logits": logits, "logits": w.dense_fp32(pooled, "cls.seq_relationship")}


HEADS = {
    "classification": sequence_head,
    "multilabel": sequence_head,
    "regression": sequence_head,
    "choice": sequence_head,
    "tokens": token_head,
    "span": span_head,
    "pretraining": pretraining_head,
}
