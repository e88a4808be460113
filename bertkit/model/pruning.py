"""A smaller model out of a trained one, without training: fewer layers, heads or rows of embeddings.

Which layers: the uniform strategy of Jiao et al. 2020, arXiv:1909.10351 (TinyBERT), for a model that starts from a
larger one's layers as in Sanh et al. 2019, arXiv:1910.01108 (DistilBERT).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from bertkit.errors import UserError
from bertkit.model.config import Arrays, ModelConfig
from bertkit.model.weights import BY_VOCABULARY

_LAYER = re.compile(r"(bert\.encoder\.layer\.)(\d+)(\..+)")


def every_kth(layers: int, wanted: int) -> tuple[int, ...]:
    """Which layers (from 0 on) a model of `wanted` layers takes of one of `layers`: evenly spaced, the last among them.

    Layer i is layer (i + 1) * layers / wanted - 1 of the larger model, rounded down where that is no whole number:
    of 12 layers 6 are 1, 3, 5, 7, 9, 11. Raises UserError where fewer than 1 or more than there are is wanted.
    """
    if not 1 <= wanted <= layers:
        raise UserError(f"{wanted} of {layers} layers cannot be kept", f"keep 1 to {layers}")
    return tuple((index + 1) * layers // wanted - 1 for index in range(wanted))


def keep_layers(
    config: ModelConfig, weights: Mapping[str, np.ndarray], layers: Sequence[int]
) -> tuple[ModelConfig, Arrays]:
    """The model of these layers alone (from 0 on), which are numbered anew; arrays are shared, not copied.

    Names are those of `bertkit.model.parameters`; what belongs to no layer stays. Raises UserError for a layer that is
    not there, and where they are not in ascending order.
    """
    check_layers(layers, config.num_hidden_layers)
    places = {old: new for new, old in enumerate(layers)}
    kept: Arrays = {}
    for name, array in weights.items():
        found = _LAYER.fullmatch(name)
        if not found:
            kept[name] = array
        elif (old := int(found[2])) in places:
            kept[f"{found[1]}{places[old]}{found[3]}"] = array
    return dataclasses.replace(config, num_hidden_layers=len(places)), kept


def keep_rows(
    config: ModelConfig, weights: Mapping[str, np.ndarray], rows: Sequence[int]
) -> tuple[ModelConfig, Arrays]:
    """The model whose vocabulary has these rows of the word embeddings alone, in this order; other arrays are shared.

    The bias of the masked words' head goes by the same rows; its decoder is the embeddings. Raises UserError for a row
    that is not there.
    """
    wrong = [row for row in rows if not 0 <= row < config.vocab_size]
    if wrong or not rows:
        cause = f"there is no row {wrong[0]} of word embeddings" if wrong else "no row of the word embeddings is kept"
        raise UserError(cause, f"the model has rows 0 to {config.vocab_size - 1}")
    taken = np.array(rows, np.int64)
    kept = {name: array[taken] if name in BY_VOCABULARY else array for name, array in weights.items()}
    return dataclasses.replace(config, vocab_size=len(rows)), kept


def chosen_layers(count: int, keep: Sequence[int] | None, number: int = 0) -> tuple[int, ...]:
    """The layers `keep` of a model with `count`; None: `number` of them, evenly spaced. Raises UserError as both do."""
    if keep is None:
        return every_kth(count, number)
    check_layers(keep, count)
    return tuple(keep)


def check_layers(layers: Sequence[int], count: int) -> None:
    """Raises UserError where these are no layers of a model with `count`, or not in ascending order."""
    said = ",".join(str(layer) for layer in layers)
    if not layers:
        raise UserError("no layer is kept", f"keep at least one of the layers 0 to {count - 1}")
    if wrong := [layer for layer in layers if not 0 <= layer < count]:
        raise UserError(f"there is no layer {wrong[0]}", f"the model has {count}: 0 to {count - 1}")
    if list(layers) != sorted(set(layers)):
        raise UserError(f"the layers {said} are not in ascending order", "name each once, in the model's order")


def without_heads(
    config: ModelConfig, weights: Mapping[str, np.ndarray], heads: Mapping[int, Sequence[int]]
) -> tuple[Arrays, int]:
    """(the model with these heads of each layer set to 0, how many parameters that are); shapes stay.

    Queries, keys, values and what reads the head's output are 0, so that the head adds nothing, and no gradient reaches
    it in later training. Raises UserError for a head that is not there.
    """
    check_layers(sorted(heads), config.num_hidden_layers)
    width, count, kept = config.hidden_size // config.num_attention_heads, 0, dict(weights)
    for layer, numbers in heads.items():
        if wrong := [n for n in numbers if not 0 <= n < config.num_attention_heads]:
            raise UserError(f"there is no head {wrong[0]}", f"a layer has {config.num_attention_heads}, from 0 on")
        rows = np.concatenate([np.arange(n * width, (n + 1) * width) for n in numbers])
        prefix = f"bert.encoder.layer.{layer}.attention."
        for part in ("query", "key", "value"):
            for kind in ("weight", "bias"):
                array = kept[f"{prefix}self.{part}.{kind}"].copy()
                array[rows] = 0
                kept[f"{prefix}self.{part}.{kind}"] = array
                count += array[rows].size
        array = kept[f"{prefix}output.dense.weight"].copy()
        array[:, rows] = 0
        kept[f"{prefix}output.dense.weight"] = array
        count += array[:, rows].size
    return kept, count
