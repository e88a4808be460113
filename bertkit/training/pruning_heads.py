"""Which attention heads a model can do without: by the gradient of a mask over them, or by the size of their weights.

Michel et al. 2019, arXiv:1905.10650: the importance of a head is the mean of |dL/dm|, m being what its output is
multiplied by, at m = 1. With W the part of the output's dense layer that reads the head, dL/dm is the sum of W * dL/dW,
so that an engine's gradients of W tell it.

Legend: L layers, A heads of a layer, H hidden size, D width of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bertkit.console import Display
from bertkit.data.sampler import by_length
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Engine, Update, label_counts
from bertkit.errors import UserError
from bertkit.model.config import ModelConfig
from bertkit.model.pruning import without_heads
from bertkit.recipes.recipe import Recipe
from bertkit.training.inference import own_task
from bertkit.training.pruning import Cut, SmallerModel, WholeModel
from bertkit.training.setup import FineTuningSetup, prepare

READS = "bert.encoder.layer.{}.attention.output.dense.weight"  # (H, H): its columns read the heads' outputs
GIVES = "bert.encoder.layer.{}.attention.self.value.weight"  # (H, H): its rows make the values
MOMENT = "adam.first."  # with beta1 = 0 the gradient itself


def heads_cut(recipe: Recipe, number: int, by: str, rows: int) -> Cut:
    """Set the `number` heads that matter least to 0, over all layers, one at least staying in each.

    `by`: gradient, over the first `rows` rows of the task's training set, or norm.
    """

    def cut(model: WholeModel, display: Display) -> SmallerModel:
        config = model.source.config
        found = of_gradients(recipe, rows, display) if by == "gradient" else of_norms(config, model.weights)
        heads = least(found, number)
        weights, zeros = without_heads(config, model.weights, heads)
        listed = {str(layer): [int(n) for n in numbers] for layer, numbers in heads.items()}
        said = [f"heads set to 0: {number} of {found.size}, {zeros:,} parameters; the shapes stay"]
        said += [f"layer {layer}: heads {', '.join(map(str, numbers))}" for layer, numbers in listed.items()]
        told = {"heads": listed, "of": list(found.shape), "by": by, "zeros": zeros}
        told |= {"importance": [[float(f"{value:.4g}") for value in row] for row in found]}
        return SmallerModel(config, model.source.vocabulary, weights, told, tuple(said))

    return cut


def least(importance: np.ndarray, number: int) -> dict[int, tuple[int, ...]]:
    """Layer -> heads: the least important of (L, A), one at least staying in each layer; of equal ones the first.

    Raises UserError where so many cannot go.
    """
    layers, heads = importance.shape
    most = layers * (heads - 1)
    if not 1 <= number <= most:
        raise UserError(
            f"{number} of {layers * heads} heads cannot go", f"take 1 to {most}: a layer keeps one at least"
        )
    gone: dict[int, list[int]] = {}
    left = number
    for place in np.argsort(importance, axis=None, kind="stable"):
        layer, head = divmod(int(place), heads)
        if left and len(gone.get(layer, ())) < heads - 1:
            gone.setdefault(layer, []).append(head)
            left -= 1
    return {layer: tuple(sorted(gone[layer])) for layer in sorted(gone)}


def of_norms(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """(L, A): the norm of what makes a head's values times that of what reads its output."""
    rows = []
    for layer in range(config.num_hidden_layers):
        gives = _by_head(weights[GIVES.format(layer)].T, config)
        reads = _by_head(weights[READS.format(layer)], config)
        rows.append(np.linalg.norm(gives, axis=(0, 2)) * np.linalg.norm(reads, axis=(0, 2)))
    return np.array(rows)


def of_gradients(recipe: Recipe, rows: int, display: Display) -> np.ndarray:
    """(L, A): mean over batches of |dL/dm| of the task's loss, each layer's divided by its norm.

    Raises UserError where the task or its data is not known.
    """
    data = dataclasses.replace(recipe.data, train_rows=rows)
    wanted = dataclasses.replace(recipe, data=data)
    setup = prepare(wanted, display.say, display.follow(), own=own_task(wanted))
    engine = _engine(setup)
    try:
        total = np.zeros((setup.job.model.num_hidden_layers, setup.job.model.num_attention_heads))
        features, kind = setup.train.features, setup.job.head.kind
        with display.progress("gradients", len(features)) as bar:
            for step, examples in enumerate(by_length(features.sizes, recipe.train.batch_size), 1):
                batch = features.batch(examples)
                engine.train_step(engine.stage(Update(step, (batch,), label_counts(kind, [batch]))), 0.0)
                total += np.abs(slopes(setup.job.model, setup.job.weights, engine.state_dict()))
                bar.add(len(examples))
    finally:
        engine.close()
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30))


def _engine(setup: FineTuningSetup) -> Engine:
    """That leaves the weights as they are, and the gradients where they are found."""
    spec = dataclasses.replace(setup.job.optimizer, beta1=0.0, clip_norm=0.0, algorithm="adamw")
    job = dataclasses.replace(setup.job, model=setup.job.model.without_dropout(), optimizer=spec)
    return setup.target.backend.engine(job, World())


def slopes(config: ModelConfig, weights: Mapping[str, np.ndarray], state: Arrays) -> np.ndarray:
    """(L, A) dL/dm, of an engine's state after an update with `beta1` 0 and no clipping."""
    found = []
    for layer in range(config.num_hidden_layers):
        name = READS.format(layer)
        product = weights[name].astype(np.float64) * state[f"{MOMENT}{name}"]
        found.append(_by_head(product, config).sum((0, 2)))
    return np.array(found)


def _by_head(array: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(H, H) -> (H, A, D): the columns cut into heads."""
    return array.astype(np.float64).reshape(len(array), config.num_attention_heads, -1)
