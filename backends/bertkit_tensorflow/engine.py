"""TensorFlowEngine: the neutral seam's Engine by graphs, one for each size of a batch and one for the update.

Legend: B sequences, T tokens, P parameters.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import tensorflow as tf

from bertkit.plugin import Arrays, DeviceFacts, Job, Peak, Sizes, Static, StaticEngine, StaticPlan, World
from bertkit_tensorflow.device import Device
from bertkit_tensorflow.losses import loss
from bertkit_tensorflow.model import Dropout, Seen, Weights, outputs
from bertkit_tensorflow.optimizers import LossScaler, Optimizer
from bertkit_tensorflow.quiet import without_notes


class TensorFlowEngine(StaticEngine):
    """Computes on one rank's device."""

    def __init__(self, job: Job, world: World) -> None:
        self.device = Device(job, world)
        with tf.device(self.device.name):
            self.masters = {n: tf.Variable(a, trainable=False, dtype=tf.float32) for n, a in job.weights.items()}
            self.trained = {name: v for name, v in self.masters.items() if name not in job.frozen}
            self.gradients = {name: tf.Variable(tf.zeros_like(v), trainable=False) for name, v in self.trained.items()}
            self.total = tf.Variable(0.0, trainable=False)  # the loss of an update's micro-batches so far
            self.optimizer = Optimizer(self.trained, job.optimizer)
            self.scaler = LossScaler(job.loss_scaling) if job.precision == "fp16" else None
        plan = StaticPlan(job, alone=job.layout == "padded")
        super().__init__(job, world, plan, [int(np.prod(v.shape)) for v in self.trained.values()])
        self.traces = 0
        self._notes = bool(job.settings.get("xla"))
        self._learn: dict[Sizes, Callable[..., None]] = {}
        self._answer: dict[Sizes, Callable[..., Any]] = {}
        self._apply = self._program(self._apply_graph)

    def _program(self, graph: Callable[..., Any]) -> Any:
        """A function of tensors of one shape, traced at its first call."""
        return tf.function(graph, autograph=False, jit_compile=True if self.job.settings.get("xla") else None)

    # ---- graphs ----

    def _learn_graph(self, sizes: Sizes, whole: Any, real: Any, key: Any) -> None:
        """One micro-batch, forward and backward; loss and gradients are added to what is there."""
        self.traces += 1
        head, variables = self.job.head, list(self.trained.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for variable in variables:
                tape.watch(variable)
            weights = Weights(self.masters, self.device.dtype)
            found = outputs(weights, self.job.model, head, Seen(whole, sizes.rows), Dropout(key))
            value = loss(head, found, whole, real, sizes.longest, self.job.loss)
            scaled = value if self.scaler is None else value * self.scaler.factor
        for name, gradient in zip(self.trained, tape.gradient(scaled, variables), strict=True):
            if isinstance(gradient, tf.IndexedSlices):
                self.gradients[name].scatter_add(gradient)
            elif gradient is not None:
                self.gradients[name].assign_add(gradient)
        self.total.assign_add(value)

    def _apply_graph(self, rate: Any) -> tuple[Any, Any]:
        """The update from the summed gradients; they are zeros afterwards. Returns the loss and the norm."""
        self.traces += 1
        norms = tf.stack([tf.norm(gradient) for gradient in self.gradients.values()])  # (P,)
        factor = tf.constant(1.0) if self.scaler is None else 1 / self.scaler.factor.read_value()
        norm = tf.norm(norms) * factor
        if most := self.job.optimizer.clip_norm:
            factor *= tf.minimum(1.0, most / (norm + 1e-6))
        total = self.total.read_value()

        def take() -> tf.Tensor:
            self.optimizer.step({name: gradient * factor for name, gradient in self.gradients.items()}, rate)
            return tf.constant(True)

        if self.scaler is None:
            take()
        else:
            overflow = tf.logical_not(tf.math.is_finite(norm))
            tf.cond(overflow, lambda: tf.constant(False), take)
            self.scaler.remember(norms, overflow)
        self._clear()
        return total, norm

    def _answer_graph(self, sizes: Sizes, whole: Any) -> Any:
        self.traces += 1
        weights = Weights(self.masters, self.device.dtype)
        return outputs(weights, self.job.model, self.job.head, Seen(whole, sizes.rows), Dropout())

    def _clear(self) -> None:
        for gradient in self.gradients.values():
            gradient.assign(tf.zeros_like(gradient))
        self.total.assign(0.0)

    # ---- what the base asks ----

    def learn(self, made: Static, key: np.ndarray) -> None:
        with self._placed():
            whole, real = ({n: tf.constant(a) for n, a in part.items()} for part in (made.whole, made.real))
            if made.sizes not in self._learn:
                self._learn[made.sizes] = self._program(functools.partial(self._learn_graph, made.sizes))
            self._learn[made.sizes](whole, real, tf.constant(key.view(np.int32)))

    def apply(self, rate: float) -> tuple[SupportsFloat, SupportsFloat]:
        total, norm = self._apply(tf.constant(rate, tf.float32))
        return total, norm

    def answer(self, made: Static) -> Arrays:
        with self._placed():
            whole = {name: tf.constant(array) for name, array in made.whole.items()}
            if made.sizes not in self._answer:
                self._answer[made.sizes] = self._program(functools.partial(self._answer_graph, made.sizes))
            return {name: tensor.numpy() for name, tensor in self._answer[made.sizes](whole).items()}

    @contextlib.contextmanager
    def _placed(self) -> Iterator[None]:
        """On this rank's device; XLA has its notes at its first program."""
        notes = without_notes() if self._notes else contextlib.nullcontext()
        self._notes = False
        with notes, tf.device(self.device.name):
            yield

    def summands(self) -> tuple[float, list[np.ndarray]]:
        return float(self.total.numpy()), [variable.numpy().reshape(-1) for variable in self.gradients.values()]

    def take_sums(self, loss: float, gradients: list[np.ndarray]) -> None:
        for variable, array in zip(self.gradients.values(), gradients, strict=True):
            variable.assign(array.reshape(variable.shape))
        self.total.assign(loss)

    def clear(self) -> None:
        self._apply.get_concrete_function(tf.TensorSpec([], tf.float32))
        self._clear()

    def loss_scale(self) -> SupportsFloat | None:
        return self.scaler.factor.read_value() if self.scaler else None

    def weights(self) -> Arrays:
        return {name: variable.numpy() for name, variable in self.masters.items()}

    def optimizer_state(self) -> Arrays:
        return self.optimizer.state_dict() | (self.scaler.state_dict() if self.scaler else {})

    def restore(self, weights: Arrays, state: Mapping[str, np.ndarray]) -> None:
        self.optimizer.load_state_dict(state)
        if self.scaler:
            self.scaler.load_state_dict(state)
        for name, variable in self.masters.items():
            variable.assign(weights[name])

    # ---- the rest of the seam ----

    def synchronize(self) -> None:
        tf.test.experimental.sync_devices()
        if self.scaler:
            self.scaler.check(list(self.trained))

    def describe(self) -> Mapping[str, str]:
        return {
            "device": self.device.name,
            "tensorflow": tf.__version__,
            "compute dtype": self.device.dtype.name,
            "threads": str(self.device.threads),
            "programs": "compiled by XLA" if self.job.settings.get("xla") else "TensorFlow's graphs",
            "optimizer": {"adamw": "fused AdamW", "lamb": "LAMB"}[self.job.optimizer.algorithm],
            "layout": self.plan.describe(),
            "attention": "two products and a softmax in float32",
            **self.sums.describe(),
        }

    def peak(self) -> Peak:
        return self.device.peak(self.job.precision)

    def peak_memory(self) -> int | None:
        return self.device.peak_memory()

    def facts(self) -> DeviceFacts:
        return self.device.facts()

    def programs(self) -> int | None:
        return self.traces

    def host_waits(self, run: Callable[[], None]) -> int | None:
        return None  # TensorFlow does not tell

    def profile(self, trace: Path) -> AbstractContextManager[None]:
        from bertkit_tensorflow.profiling import recorded  # with the form in which TensorFlow writes it

        return recorded(trace)
