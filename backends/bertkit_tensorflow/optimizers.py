"""AdamW and LAMB over float32 masters, as parts of a graph; loss scaling for fp16 beside them.

Sources: Loshchilov & Hutter 2019, arXiv:1711.05101; You et al. 2019, arXiv:1904.00962; without bias correction: Devlin
et al. 2018; loss scaling: Micikevicius et al. 2017, arXiv:1710.03740.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from bertkit.plugin import (
    MOST_SCALING,
    Arrays,
    LossScaling,
    OptimizerSpec,
    check_scaling,
    decays,
    loss_scaling,
    rate_factors,
    read_array,
    restored_scaling,
)

MOMENTS = ("first", "second")


class Optimizer:
    """The moments of every trained parameter, and one update of all of them."""

    def __init__(self, parameters: Mapping[str, tf.Variable], spec: OptimizerSpec) -> None:
        self.parameters, self.spec = parameters, spec
        self.factors = rate_factors(parameters, spec.layer_decay)
        self.first, self.second = (
            {name: tf.Variable(tf.zeros_like(p), trainable=False) for name, p in parameters.items()} for _ in MOMENTS
        )
        self.count = tf.Variable(0.0, trainable=False)  # updates taken

    def step(self, gradients: Mapping[str, tf.Tensor], rate: tf.Tensor) -> None:
        """Within a graph."""
        self.count.assign_add(1.0)
        one, two = (self._correction(beta) for beta in (self.spec.beta1, self.spec.beta2))
        for name, gradient in gradients.items():
            decay = self.spec.weight_decay if decays(name) else 0.0
            own = rate * self.factors[name]
            if self.spec.algorithm == "lamb":
                self._lamb(name, gradient, own, decay, one, two)
            else:
                self._adamw(name, gradient, own, decay, one, two)

    def _correction(self, beta: float) -> tf.Tensor:
        """1 - beta ** count; by subtraction float32 would lose 1e-5 of it at the first updates."""
        if not (self.spec.bias_correction and beta):
            return tf.constant(1.0)
        return -tf.math.expm1(self.count * math.log(beta))

    def _adamw(
        self, name: str, gradient: tf.Tensor, rate: tf.Tensor, decay: float, one: tf.Tensor, two: tf.Tensor
    ) -> None:
        """By TensorFlow's fused kernel, which takes the corrections as a rate and an epsilon of its own."""
        weight, spec, root = self.parameters[name], self.spec, tf.sqrt(two)
        if decay:
            weight.assign_sub(rate * decay * weight)
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle, m=self.first[name].handle, v=self.second[name].handle,
            beta1_power=0.0, beta2_power=0.0, lr=rate * root / one,
            beta1=spec.beta1, beta2=spec.beta2, epsilon=spec.epsilon * root, grad=gradient,
        )  # fmt: skip

    def _lamb(
        self, name: str, gradient: tf.Tensor, rate: tf.Tensor, decay: float, one: tf.Tensor, two: tf.Tensor
    ) -> None:
        weight, spec = self.parameters[name], self.spec
        first = self.first[name].assign(spec.beta1 * self.first[name] + (1 - spec.beta1) * gradient)
        second = self.second[name].assign(spec.beta2 * self.second[name] + (1 - spec.beta2) * tf.square(gradient))
        change = (first / one) / (tf.sqrt(second / two) + spec.epsilon)
        if decay:
            change += decay * weight
        if decay or spec.trust_ratio == "all":
            of_weight, of_change = tf.norm(weight), tf.norm(change)
            both = tf.logical_and(of_weight > 0, of_change > 0)
            rate *= tf.where(both, of_weight / tf.where(both, of_change, 1.0), 1.0)
        weight.assign_sub(rate * change)

    def state_dict(self) -> Arrays:
        made: Arrays = {"adam.step": np.array(float(self.count.numpy()))}
        for kind, held in zip(MOMENTS, (self.first, self.second), strict=True):
            made |= {f"adam.{kind}.{name}": variable.numpy() for name, variable in held.items()}
        return made

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        for kind, held in zip(MOMENTS, (self.first, self.second), strict=True):
            for name, variable in held.items():
                variable.assign(read_array(arrays, f"adam.{kind}.{name}", tuple(variable.shape)))
        self.count.assign(float(read_array(arrays, "adam.step", ())))


class LossScaler:
    """The factor that the loss is multiplied by, and what it has met."""

    def __init__(self, spec: LossScaling) -> None:
        self.spec = spec
        self.state = {name: tf.Variable(value, trainable=False) for name, value in loss_scaling(spec).items()}

    @property
    def factor(self) -> tf.Variable:
        return self.state["factor"]

    def remember(self, norms: tf.Tensor, overflow: tf.Tensor) -> None:
        """Within a graph. `norms`: of each parameter's gradient."""
        state = self.state
        # Backward goes from the last parameter to the first, so the last one that is not finite was the first to be so.
        numbers = tf.range(norms.shape[0], dtype=tf.float32)
        last = tf.reduce_max(tf.where(tf.math.is_finite(norms), -1.0, numbers))
        state["first"].assign(tf.where(overflow, last, state["first"]))
        state["overflows"].assign(tf.where(overflow, state["overflows"] + 1, 0.0))
        state["good"].assign(tf.where(overflow, 0.0, state["good"] + 1))
        if not self.spec.dynamic:
            return
        factor, grown = state["factor"], state["good"] >= self.spec.grow_after
        doubled = tf.maximum(factor, tf.minimum(factor * 2, MOST_SCALING))  # a larger one that was asked for stays
        halved = tf.maximum(factor / 2, self.spec.floor)
        factor.assign(tf.where(overflow, halved, tf.where(grown, doubled, factor)))
        state["good"].assign(tf.where(grown, 0.0, state["good"]))

    def check(self, names: list[str]) -> None:
        """Raises UserError after too many overflows in a row, naming the first tensor."""
        overflows, factor, first = (float(self.state[key].numpy()) for key in ("overflows", "factor", "first"))
        check_scaling(self.spec, int(overflows), factor, names[int(first)])

    def state_dict(self) -> Arrays:
        return {f"loss_scaling.{name}": np.array(float(v.numpy())) for name, v in self.state.items()}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, value in restored_scaling(self.spec, arrays).items():
            self.state[name].assign(value)
