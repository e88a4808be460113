"""AdamW and LAMB over float32 masters, and loss scaling for fp16, as functions from a state to the next.

Sources: Loshchilov & Hutter 2019, arXiv:1711.05101; You et al. 2019, arXiv:1904.00962; without bias correction: Devlin
et al. 2018; loss scaling: Micikevicius et al. 2017, arXiv:1710.03740.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from bertkit.plugin import MOST_SCALING, Arrays, LossScaling, OptimizerSpec, decays, rate_factors, read_array

MOMENTS = ("first", "second")
Tree = dict[str, jax.Array]


def begun(parameters: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray] | np.ndarray]:
    """The state before the first update: moments under the parameters' names, and the count of updates."""
    moments = {kind: {name: np.zeros_like(array) for name, array in parameters.items()} for kind in MOMENTS}
    return {**moments, "count": np.zeros((), np.float32)}


def stepped(
    spec: OptimizerSpec, parameters: Tree, state: dict[str, Tree], gradients: Tree, rate: jax.Array
) -> tuple[Tree, dict[str, Tree]]:
    """Parameters and state after one update."""
    count = state["count"] + 1  # type: ignore[operator]
    one, two = (_correction(spec, beta, count) for beta in (spec.beta1, spec.beta2))
    factors = rate_factors(parameters, spec.layer_decay)
    new: Tree = {}
    made: dict[str, Tree] = {kind: {} for kind in MOMENTS}
    for name, gradient in gradients.items():
        weight, decay = parameters[name], spec.weight_decay if decays(name) else 0.0
        first = spec.beta1 * state["first"][name] + (1 - spec.beta1) * gradient
        second = spec.beta2 * state["second"][name] + (1 - spec.beta2) * jnp.square(gradient)
        change = (first / one) / (jnp.sqrt(second / two) + spec.epsilon) + decay * weight
        own = rate * factors[name]
        if spec.algorithm == "lamb" and (decay or spec.trust_ratio == "all"):
            own *= _trust(weight, change)
        new[name], made["first"][name], made["second"][name] = weight - own * change, first, second
    return new, {**made, "count": count}  # type: ignore[dict-item]


def _correction(spec: OptimizerSpec, beta: float, count: jax.Array) -> jax.Array | float:
    """1 - beta ** count; by subtraction float32 would lose 1e-5 of it at the first updates."""
    return -jnp.expm1(count * math.log(beta)) if spec.bias_correction and beta else 1.0


def _trust(weight: jax.Array, change: jax.Array) -> jax.Array:
    of_weight, of_change = norm(weight), norm(change)
    both = (of_weight > 0) & (of_change > 0)
    return jnp.where(both, of_weight / jnp.where(both, of_change, 1.0), 1.0)


def norm(array: jax.Array) -> jax.Array:
    """The L2 norm of all elements."""
    return jnp.sqrt(jnp.sum(jnp.square(array)))


def saved(state: dict[str, Tree]) -> Arrays:
    """The state as a checkpoint has it."""
    made: Arrays = {"adam.step": np.array(float(state["count"]))}  # type: ignore[arg-type]
    for kind in MOMENTS:
        made |= {f"adam.{kind}.{name}": np.array(array) for name, array in state[kind].items()}
    return made


def read(parameters: Mapping[str, jax.Array], arrays: Mapping[str, np.ndarray]) -> dict[str, Arrays | np.ndarray]:
    """What `saved` gave. Raises UserError where names or shapes do not fit."""
    moments = {
        kind: {n: read_array(arrays, f"adam.{kind}.{n}", tuple(p.shape)) for n, p in parameters.items()}
        for kind in MOMENTS
    }
    return {**moments, "count": np.asarray(read_array(arrays, "adam.step", ()), np.float32)}


def remembered(spec: LossScaling, state: Tree, norms: jax.Array, overflow: jax.Array) -> Tree:
    """The loss scaling's state after an update. `norms`: of each parameter's gradient."""
    # Backward goes from the last parameter to the first, so the last one that is not finite was the first to be so.
    numbers = jnp.arange(norms.shape[0], dtype=jnp.float32)
    last = jnp.max(jnp.where(jnp.isfinite(norms), -1.0, numbers))
    good = jnp.where(overflow, 0.0, state["good"] + 1)
    made = {
        "first": jnp.where(overflow, last, state["first"]),
        "overflows": jnp.where(overflow, state["overflows"] + 1, 0.0),
    }
    factor = state["factor"]
    if not spec.dynamic:
        return made | {"good": good, "factor": factor}
    grown = good >= spec.grow_after
    doubled = jnp.maximum(factor, jnp.minimum(factor * 2, MOST_SCALING))  # a larger one that was asked for stays
    halved = jnp.maximum(factor / 2, spec.floor)
    factor = jnp.where(overflow, halved, jnp.where(grown, doubled, factor))
    return made | {"good": jnp.where(grown, 0.0, good), "factor": factor}
