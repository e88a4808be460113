"""TensorFlowEngine: the neutral seam's Engine by graphs, one for each size of a batch and one for the update.

Legend: B sequences, T tokens, P parameters.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import tensorflow as tf

from bertkit.plugin import (
    Arrays,
    Batch,
    DeviceFacts,
    DoesNotFit,
    Filled,
    HostSums,
    Job,
    Peak,
    Scalars,
    Sizes,
    Static,
    StaticPlan,
    Update,
    UserError,
    World,
    read_array,
)
from bertkit_tensorflow.device import Device
from bertkit_tensorflow.losses import loss
from bertkit_tensorflow.model import Dropout, Seen, Weights, outputs
from bertkit_tensorflow.optimizers import LossScaler, Optimizer
from bertkit_tensorflow.quiet import without_notes

PATIENCE = 2.0  # seconds after which work is reported
logger = logging.getLogger("bertkit.engine")


class TensorFlowEngine:
    """Computes on one rank's device."""

    def __init__(self, job: Job, world: World) -> None:
        self.job, self.world = job, world
        self.device = Device(job, world)
        self.plan = StaticPlan(job, alone=job.layout == "padded")
        with tf.device(self.device.name):
            self.masters = {n: tf.Variable(a, trainable=False, dtype=tf.float32) for n, a in job.weights.items()}
            self.trained = {name: v for name, v in self.masters.items() if name not in job.frozen}
            self.gradients = {name: tf.Variable(tf.zeros_like(v), trainable=False) for name, v in self.trained.items()}
            self.total = tf.Variable(0.0, trainable=False)  # the loss of an update's micro-batches so far
            self.optimizer = Optimizer(self.trained, job.optimizer)
            self.scaler = LossScaler(job.loss_scaling) if job.precision == "fp16" else None
        self.sums = HostSums(world, job.exchange, [int(np.prod(v.shape)) for v in self.trained.values()])
        self.traces = 0
        self._warm: set[bool] = set()  # whether training, whether answers
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

    # ---- updates ----

    def stage(self, update: Update) -> Update:
        return self.plan.stage(update)

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        if not self.job.head.trained:
            raise UserError("hidden states have no loss to train with", "train another head")
        self.sums.at(f"at update {update.step}")
        self._warm_up(training=True)
        slots = 0
        for number, batch in enumerate(update.micro_batches):
            if len(batch["cu_seqlens"]) == 1:  # this rank has no sequence in this micro-batch
                continue
            made = self.plan.fill(batch, update.label_counts).made
            self.plan.meet(made.sizes, training=True)
            self._guarded(made.sizes, True, functools.partial(self._run, made, update.step, number))
            slots += made.sizes.slots
        if self.world.size > 1:
            self._exchange()
        total, norm = self._apply(tf.constant(learning_rate, tf.float32))
        scalars: dict[str, SupportsFloat] = {"loss": total, "grad_norm": norm, "slots": slots}
        return scalars if self.scaler is None else scalars | {"loss_scale": float(self.scaler.factor.numpy())}

    def _run(self, made: Static, step: int, number: int) -> None:
        key = np.random.SeedSequence([self.job.seed, step, self.world.rank, number]).generate_state(2, np.uint32)
        with tf.device(self.device.name):
            whole, real = ({n: tf.constant(a) for n, a in part.items()} for part in (made.whole, made.real))
            if made.sizes not in self._learn:
                self._learn[made.sizes] = self._program(functools.partial(self._learn_graph, made.sizes))
            self._learn[made.sizes](whole, real, tf.constant(key.view(np.int32)))

    def _exchange(self) -> None:
        """Gradients and loss become their sums over the ranks, through host memory."""
        arrays = [variable.numpy().reshape(-1) for variable in self.gradients.values()]
        total, summed = self.sums.sum_(float(self.total.numpy()), arrays)
        for variable, array in zip(self.gradients.values(), summed, strict=True):
            variable.assign(array.reshape(variable.shape))
        self.total.assign(total)

    def _warm_up(self, training: bool) -> None:
        """Compute every planned size once on an empty batch, so that no graph is made after it."""
        if training in self._warm:
            return
        self._warm.add(training)
        start = said = time.perf_counter()
        planned = list(self.plan.planned(training))
        what = f"warm-up: {len(planned)} sizes for {'training' if training else 'answers'}"
        for number, sizes in enumerate(planned):
            if time.perf_counter() - said > PATIENCE:
                said = time.perf_counter()
                logger.info("%s, %d done after %.0f s", what, number, said - start)
            made = self.plan.empty(sizes, training)
            compute = functools.partial(self._run, made, 0, 0) if training else functools.partial(self._found, made)
            self._guarded(sizes, training, compute)
            self.plan.met.add((training, sizes))
        if training:
            self._apply.get_concrete_function(tf.TensorSpec([], tf.float32))
            self._clear()
        if planned and time.perf_counter() - start > PATIENCE:
            logger.info("%s in %.1f s", what, time.perf_counter() - start)

    def _guarded(self, sizes: Sizes, training: bool, compute: Callable[[], Any]) -> Any:
        """`compute()`; what does not fit into memory is one line. XLA has its notes at its first program."""
        notes = without_notes() if self._notes else contextlib.nullcontext()
        self._notes = False
        try:
            with notes:
                return compute()
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            reason = str(error).splitlines()[0][:120]
        setting = "train.micro_batch_size" if training else "evaluation.batch_size"
        raise DoesNotFit(
            f"out of memory: a batch of {sizes} does not fit ({reason})",
            f"set {setting} to {max(1, sizes.sequences // 2)} or less",
        )

    # ---- answers ----

    def predict(self, batch: Batch) -> Arrays:
        self._warm_up(training=False)
        filled: Filled = self.plan.fill(batch, None)
        self.plan.meet(filled.made.sizes, training=False)
        found = self._guarded(filled.made.sizes, False, functools.partial(self._found, filled.made))
        return self.plan.real(filled.made, found, batch)

    def _found(self, made: Static) -> Arrays:
        with tf.device(self.device.name):
            whole = {name: tf.constant(array) for name, array in made.whole.items()}
            if made.sizes not in self._answer:
                self._answer[made.sizes] = self._program(functools.partial(self._answer_graph, made.sizes))
            return {name: tensor.numpy() for name, tensor in self._answer[made.sizes](whole).items()}

    def slots(self, lengths: np.ndarray) -> int:
        return self.plan.slots(lengths)

    # ---- state ----

    def weights(self) -> Arrays:
        return {name: variable.numpy() for name, variable in self.masters.items()}

    def state_dict(self) -> Arrays:
        model = {f"model.{name}": array for name, array in self.weights().items()}
        return model | self.optimizer.state_dict() | (self.scaler.state_dict() if self.scaler else {})

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        values = {name: read_array(arrays, f"model.{name}", tuple(v.shape)) for name, v in self.masters.items()}
        self.optimizer.load_state_dict(arrays)
        if self.scaler:
            self.scaler.load_state_dict(arrays)
        for name, variable in self.masters.items():
            variable.assign(values[name])

    # ---- the rest of the seam ----

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.sums.gather(rows)

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

    def energy(self) -> float | None:
        return None

    def communication(self) -> float | None:
        return self.sums.seconds

    def programs(self) -> int | None:
        return self.traces

    def host_waits(self, run: Callable[[], None]) -> int | None:
        return None  # TensorFlow does not tell

    def profile(self, trace: Path) -> AbstractContextManager[None]:
        from bertkit_tensorflow.profiling import recorded  # with the form in which TensorFlow writes it

        return recorded(trace)

    def close(self) -> None:
        self.sums.close()
