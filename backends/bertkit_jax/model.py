"""BERT over rows of fixed sizes, and its heads, as functions of arrays.

Legend: N slots (R rows of S), B sequences, M masked positions, W slots that the head looks at, H hidden, A heads, D
head size, V vocabulary, C outputs of the head.
Source: Devlin et al. 2018, arXiv:1810.04805. Parameters have Hugging Face's names (`bertkit.model.parameters`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertkit.plugin import PER_TOKEN, Head, ModelConfig

Tensors = Mapping[str, jax.Array]
Outputs = dict[str, jax.Array]
FAR = -1e30  # what a score is where nothing may be seen: exp of it is 0 in every precision that softmax is taken in


@dataclass
class Weights:
    """The float32 masters, and each in the compute dtype, cast once a pass."""

    masters: Tensors
    dtype: Any
    kernel: str = "plain"  # of attention
    _cast: dict[str, jax.Array] = field(default_factory=dict)

    def __call__(self, name: str) -> jax.Array:
        if name not in self._cast:
            self._cast[name] = self.masters[name].astype(self.dtype)
        return self._cast[name]

    def dense(self, x: jax.Array, name: str) -> jax.Array:
        """(…, inputs) -> (…, outputs)"""
        found = (x @ self(f"{name}.weight").T).astype(jnp.float32) + self.masters[f"{name}.bias"]
        return found.astype(self.dtype)  # added in float32, so that the bias's gradient is summed so over the rows

    def dense_fp32(self, x: jax.Array, name: str) -> jax.Array:
        """A small layer in float32 whatever the compute dtype: a head's last word on the logits."""
        return x.astype(jnp.float32) @ self.masters[f"{name}.weight"].T + self.masters[f"{name}.bias"]

    def layer_norm(self, x: jax.Array, name: str, epsilon: float) -> jax.Array:
        """In float32; the result in the compute dtype."""
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
        return (centred * scale * self.masters[f"{name}.weight"] + self.masters[f"{name}.bias"]).astype(self.dtype)


@dataclass
class Dropout:
    """One forward pass's dropout, whose masks follow from its key alone; without a key there is none."""

    key: jax.Array | None = None  # (2,) uint32
    drawn: int = 0  # masks so far

    def __call__(self, values: jax.Array, rate: float) -> jax.Array:
        """Values, some zero and the rest scaled up."""
        if self.key is None or rate == 0.0:
            return values
        self.drawn += 1
        return drop(values, mixed(self.key + jnp.uint32(self.drawn)), rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def drop(values: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """The mask is worked out anew in the backward pass: XLA computes it beside what is read and written anyway."""
    places = jnp.arange(values.size, dtype=jnp.uint32).reshape(values.shape)
    bits = mixed(mixed(places + key[0]) ^ key[1])
    scaled = values.astype(jnp.float32) * np.float32(1 / (1 - rate))
    return jnp.where(bits >= np.uint32(rate * 2**32), scaled, 0).astype(values.dtype)


def _drop_forward(values: jax.Array, key: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    return drop(values, key, rate), key


def _drop_backward(rate: float, key: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    return drop(gradient, key, rate), None


drop.defvjp(_drop_forward, _drop_backward)


def mixed(bits: jax.Array) -> jax.Array:
    """uint32 -> uint32 whose every bit depends on all: two multiplications and three shifts, as counter-based random
    numbers (Salmon et al. 2011) want them. The constants: C. Wellons' lowbias32, of a search for the least bias."""
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


@dataclass(frozen=True)
class Seen:
    """What the encoder and the head read of a batch."""

    whole: Tensors  # as `bertkit.engine.static_shapes.static` has them
    rows: int

    def mask(self) -> jax.Array:
        """(R, 1, S, S) bool: slots see those of their own segment."""
        held = self.whole["segments"].reshape(self.rows, 1, -1)
        return held[:, :, :, None] == held[:, :, None, :]


def outputs(w: Weights, config: ModelConfig, head: Head, seen: Seen, drop: Dropout) -> Outputs:
    """The head's logits (`bertkit.engine.interface.Engine.predict` says which), for spare places too."""
    hidden, mask = embed(w, config, seen, drop), seen.mask()
    found, last = [hidden], config.num_hidden_layers - 1
    wanted = max(head.layers) if head.kind == "encoder" else last + 1
    asking = looked_at(head, seen)
    for number in range(wanted):
        found.append(layer(w, config, number, found[-1], mask, asking if number == last else None, drop))
    if head.kind == "encoder":
        return {"hidden": jnp.concatenate([found[number] for number in head.layers], 1).astype(jnp.float32)}
    return HEADS[head.kind](w, config, found[-1], seen, drop)


def looked_at(head: Head, seen: Seen) -> jax.Array | None:
    """(W,) the slots behind the last layer's attention: each sequence's first, then the masked; None: all."""
    if head.kind in PER_TOKEN:
        return None
    first = seen.whole["first"]
    return jnp.concatenate([first, seen.whole["masked"]]) if head.kind == "pretraining" else first


def embed(w: Weights, config: ModelConfig, seen: Seen, drop: Dropout) -> jax.Array:
    """-> (N, H)"""
    name = "bert.embeddings."
    summed = w.masters[f"{name}word_embeddings.weight"][seen.whole["input_ids"]]
    summed += w.masters[f"{name}position_embeddings.weight"][seen.whole["position_ids"]]
    # a product: the gradient of a gather would add up all slots of a row one after another
    table = w.masters[f"{name}token_type_embeddings.weight"]
    summed += jax.nn.one_hot(seen.whole["token_type_ids"], table.shape[0]) @ table
    return drop(w.layer_norm(summed, f"{name}LayerNorm", config.layer_norm_eps), config.hidden_dropout_prob)


def layer(
    w: Weights,
    config: ModelConfig,
    number: int,
    x: jax.Array,
    mask: jax.Array,
    asking: jax.Array | None,
    drop: Dropout,
) -> jax.Array:
    """(N, H) -> (N, H), or (W, H) where only the slots `asking` are wanted behind attention."""
    name = f"bert.encoder.layer.{number}."
    found = attention(w, config, f"{name}attention.self.", x, mask, drop)
    if asking is not None:
        x, found = x[asking], found[asking]
    found = plus(x, w.dense(found, f"{name}attention.output.dense"), config.hidden_dropout_prob, drop)
    x = w.layer_norm(found, f"{name}attention.output.LayerNorm", config.layer_norm_eps)
    inner = activate(w.dense(x, f"{name}intermediate.dense"), config.hidden_act)
    inner = plus(x, w.dense(inner, f"{name}output.dense"), config.hidden_dropout_prob, drop)
    return w.layer_norm(inner, f"{name}output.LayerNorm", config.layer_norm_eps)


def plus(x: jax.Array, values: jax.Array, rate: float, drop: Dropout) -> jax.Array:
    """x and what is kept of `values`, (N, H) float32: the LayerNorm that follows reads nothing else."""
    return x.astype(jnp.float32) + drop(values.astype(jnp.float32), rate)


def attention(w: Weights, config: ModelConfig, name: str, x: jax.Array, mask: jax.Array, drop: Dropout) -> jax.Array:
    """(N, H) -> (N, H), each row by itself: by cuDNN where it may be, else two products and a softmax in float32."""
    heads, rate = config.num_attention_heads, config.attention_probs_dropout_prob
    shape = (mask.shape[0], -1, heads, config.hidden_size // heads)
    query, key, value = (
        w.dense(x, f"{name}{part}").reshape(shape) for part in ("query", "key", "value")
    )  # (R, S, A, D)
    if w.kernel == "cudnn" and (drop.key is None or rate == 0.0):
        found = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")
    else:
        scores = jnp.einsum("rqad,rkad->raqk", query * np.asarray(shape[-1] ** -0.5, query.dtype), key)
        chances = drop(jax.nn.softmax(jnp.where(mask, scores.astype(jnp.float32), FAR)), rate)
        found = jnp.einsum("raqk,rkad->rqad", chances.astype(w.dtype), value)
    return found.reshape(-1, config.hidden_size)


def activate(x: jax.Array, name: str) -> jax.Array:
    """`gelu` is the exact form by erf; `gelu_new` and `gelu_pytorch_tanh` the tanh form (arXiv:1606.08415)."""
    if name == "relu":
        return jax.nn.relu(x)
    return jax.nn.gelu(x.astype(jnp.float32), approximate=name != "gelu").astype(x.dtype)


# ---- heads ----


def pool(w: Weights, first: jax.Array) -> jax.Array:
    """(B, H) -> (B, H): a dense layer and tanh over each sequence's first token."""
    return jnp.tanh(w.dense(first, "bert.pooler.dense"))


def sequence_head(w: Weights, config: ModelConfig, hidden: jax.Array, seen: Seen, drop: Dropout) -> Outputs:
    """Classification, of one label or several, regression and choices: logits (B, C)."""
    own = config.classifier_dropout
    pooled = drop(pool(w, hidden), config.hidden_dropout_prob if own is None else own)
    return {"logits": w.dense_fp32(pooled, "classifier")}


def token_head(w: Weights, config: ModelConfig, hidden: jax.Array, seen: Seen, drop: Dropout) -> Outputs:
    """Classes of the tokens: logits (N, C)."""
    own = config.classifier_dropout
    dropped = drop(hidden, config.hidden_dropout_prob if own is None else own)
    return {"logits": w.dense(dropped, "classifier").astype(jnp.float32)}


def span_head(w: Weights, config: ModelConfig, hidden: jax.Array, seen: Seen, drop: Dropout) -> Outputs:
    """Start and end logits, (N,) each."""
    logits = w.dense(hidden, "qa_outputs").astype(jnp.float32)
    return {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}


def pretraining_head(w: Weights, config: ModelConfig, hidden: jax.Array, seen: Seen, drop: Dropout) -> Outputs:
    """Masked-word logits (M, V), by the embeddings' own table, and next-sentence logits (B, 2)."""
    sequences = seen.whole["first"].shape[0]
    name = "cls.predictions.transform"
    masked = activate(w.dense(hidden[sequences:], f"{name}.dense"), config.hidden_act)
    masked = w.layer_norm(masked, f"{name}.LayerNorm", config.layer_norm_eps)
    logits = masked @ w("bert.embeddings.word_embeddings.weight").T + w("cls.predictions.bias")
    pooled = pool(w, hidden[:sequences])
    return {"masked_logits": logits.astype(jnp.float32), "logits": w.dense_fp32(pooled, "cls.seq_relationship")}


HEADS = {
    "classification": sequence_head,
    "multilabel": sequence_head,
    "regression": sequence_head,
    "choice": sequence_head,
    "tokens": token_head,
    "span": span_head,
    "pretraining": pretraining_head,
}
