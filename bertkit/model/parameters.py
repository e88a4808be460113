"""Every parameter of a BERT by Hugging Face's name: its shape and how it starts.

The starting values are made here, in NumPy, so that the same seed starts the same model on every backend.

Legend: V vocabulary, P positions, Y token types, H hidden size, F intermediate size, C outputs of the head.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

import numpy as np

from bertkit.model.config import Arrays, Head, ModelConfig

_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
Shapes = dict[str, tuple[int, ...]]
SELF = ("query", "key", "value")
PROJECTION = "distillation.projection"  # of hidden states to a teacher's width


def shapes(config: ModelConfig, head: Head) -> Shapes:
    """Name -> shape of all parameters of `config` with `head`, in the order of the forward pass."""
    hidden = config.hidden_size
    table: Shapes = {
        "bert.embeddings.word_embeddings.weight": (config.vocab_size, hidden),  # (V, H)
        "bert.embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),  # (P, H)
        "bert.embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),  # (Y, H)
        **_layer_norm("bert.embeddings.LayerNorm", hidden),
    }
    for index in range(config.num_hidden_layers):
        table |= _layer(f"bert.encoder.layer.{index}", hidden, config.intermediate_size)
    if head.pooled:
        table |= _linear("bert.pooler.dense", hidden, hidden)
    return table | _head(config, head)


def count(config: ModelConfig, head: Head | None = None) -> int:
    """Number of parameters; without a head, of the encoder with its pooler."""
    table = shapes(config, head or Head("classification", 1))
    names = [name for name in table if head or name.startswith("bert.")]
    return sum(int(np.prod(table[name])) for name in names)


def initial(config: ModelConfig, head: Head, seed: int) -> Arrays:
    """Starting values, float32: normal(0, initializer_range), biases 0, LayerNorm scales 1 (Devlin et al. 2018).

    Each parameter draws from a stream of its own, keyed by (seed, name): another head leaves the rest as it was.
    """
    return {name: initial_value(name, shape, config, seed) for name, shape in shapes(config, head).items()}


def initial_value(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int) -> np.ndarray:
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))
    return stream.standard_normal(shape, dtype=np.float32) * np.float32(config.initializer_range)


def depth_of(name: str, layers: int) -> int:
    """0 of the embeddings, 1 to `layers` of the encoder's layers, one more of what stands above them."""
    if found := _LAYER.match(name):
        return int(found[1]) + 1
    return 0 if name.startswith("bert.embeddings.") else layers + 1


def rate_factors(names: Iterable[str], decay: float) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by, from 1 above the encoder down to the embeddings.

    Layer-wise decay: Clark et al. 2020, arXiv:2003.10555, counted as in Bao et al. 2021, arXiv:2106.08254.
    """
    known = list(names)
    layers = max((int(found[1]) + 1 for name in known if (found := _LAYER.match(name))), default=0)
    return {name: decay ** (layers + 1 - depth_of(name, layers)) for name in known}


def frozen_names(config: ModelConfig, head: Head, depth: int) -> tuple[str, ...]:
    """The parameters up to that depth, as `depth_of` counts it; below 0: none."""
    layers = config.num_hidden_layers
    return tuple(name for name in shapes(config, head) if depth_of(name, layers) <= depth)


def unread_names(config: ModelConfig, head: Head) -> tuple[str, ...]:
    """The parameters that an encoder's states do not depend on: those above them."""
    states = head.all_states
    top = max(layer for _, layer in states)
    of_top = {part for part, layer in states if layer == top}
    unread = []
    for name in shapes(config, head):
        found = _LAYER.match(name)
        if found is None or int(found[1]) + 1 < top or (int(found[1]) + 1 == top and "hidden" in of_top):
            continue
        part = name[found.end() :].removeprefix("attention.self.").partition(".")[0]
        if int(found[1]) + 1 > top or (part not in of_top and not (part in SELF and "context" in of_top)):
            unread.append(name)
    return tuple(unread)


def decays(name: str) -> bool:
    """Whether weight decay applies: not to biases and LayerNorm scales (Devlin et al. 2018, appendix A.2)."""
    return not (name.endswith("bias") or "LayerNorm" in name)


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _layer(name: str, hidden: int, inner: int) -> Shapes:
    return {
        **_linear(f"{name}.attention.self.query", hidden, hidden),
        **_linear(f"{name}.attention.self.key", hidden, hidden),
        **_linear(f"{name}.attention.self.value", hidden, hidden),
        **_linear(f"{name}.attention.output.dense", hidden, hidden),
        **_layer_norm(f"{name}.attention.output.LayerNorm", hidden),
        **_linear(f"{name}.intermediate.dense", inner, hidden),  # (F, H)
        **_linear(f"{name}.output.dense", hidden, inner),  # (H, F)
        **_layer_norm(f"{name}.output.LayerNorm", hidden),
    }


def _head(config: ModelConfig, head: Head) -> Shapes:
    hidden = config.hidden_size
    if head.kind == "encoder":
        return _linear(PROJECTION, head.projection, hidden) if head.projection else {}
    if head.kind == "span":
        return _linear("qa_outputs", head.outputs, hidden)
    if head.kind == "pretraining":  # the decoder's weight is the word embeddings' (tied)
        return {
            **_linear("cls.predictions.transform.dense", hidden, hidden),
            **_layer_norm("cls.predictions.transform.LayerNorm", hidden),
            "cls.predictions.bias": (config.vocab_size,),
            **_linear("cls.seq_relationship", head.outputs, hidden),
            **(_linear(PROJECTION, head.projection, hidden) if head.projection else {}),
        }
    return _linear("classifier", head.logits_each, hidden)
