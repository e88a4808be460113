"""JaxEngine: the neutral seam's Engine by programs of XLA, one for each size of a batch and one for the update.

Several local devices each compute a share of every micro-batch; masters and gradients are the same on all of them.

Legend: B sequences, D devices, P trained parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np

from bertkit.plugin import (
    Arrays,
    DeviceFacts,
    Job,
    Peak,
    Sizes,
    Static,
    StaticEngine,
    World,
    check_scaling,
    loss_scaling,
    restored_scaling,
)
from bertkit_jax import optimizers
from bertkit_jax.device import AXIS, Device
from bertkit_jax.losses import loss
from bertkit_jax.model import Dropout, Outputs, Seen, Weights, mixed, outputs
from bertkit_jax.profiling import recorded
from bertkit_jax.shares import SharedPlan

Tree = dict[str, jax.Array]
ONE, SHARED = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)


class JaxEngine(StaticEngine):
    """Computes on one rank's devices."""

    def __init__(self, job: Job, world: World) -> None:
        self.device = Device(job, world)
        given = {name: np.asarray(array, np.float32) for name, array in job.weights.items()}
        trained = {name: array for name, array in given.items() if name not in job.frozen}
        self.names = tuple(trained)  # in the model's order: JAX gives dicts back in the alphabet's
        self.trained: Tree = self._put(trained)
        self.frozen: Tree = self._put({name: array for name, array in given.items() if name in job.frozen})
        self.optimizer: dict[str, Any] = self._put(optimizers.begun(trained))
        self.scaling: Tree = self._put(self._begun_scaling(job))
        self.summed: tuple[Tree, jax.Array] = self._put(self._nothing(trained))
        super().__init__(
            job, world, SharedPlan(job, len(self.device.devices)), [array.size for array in trained.values()]
        )
        self.traces = 0
        self._learn: dict[Sizes, Callable[..., Any]] = {}
        self._answer: dict[Sizes, Callable[..., Any]] = {}
        self._apply = jax.jit(self._apply_graph, donate_argnums=(0, 1, 2, 3))

    @staticmethod
    def _begun_scaling(job: Job) -> dict[str, np.ndarray]:
        if job.precision != "fp16":
            return {}
        return {name: np.asarray(value, np.float32) for name, value in loss_scaling(job.loss_scaling).items()}

    @staticmethod
    def _nothing(trained: Mapping[str, Any]) -> tuple[Arrays, np.ndarray]:
        """Gradients and loss before the first micro-batch."""
        return {name: np.zeros(array.shape, np.float32) for name, array in trained.items()}, np.zeros((), np.float32)

    def _put(self, tree: Any) -> Any:
        """On every device of this rank."""
        return jax.device_put(tree, self.device.everywhere)

    def _share(self, tree: Mapping[str, np.ndarray]) -> Tree:
        """(D, …) arrays, each device its part."""
        shared: Tree = jax.device_put(dict(tree), self.device.shared)
        return shared

    # ---- graphs ----

    def _forward(
        self, sizes: Sizes, trained: Tree, frozen: Tree, whole: Tree, key: jax.Array | None
    ) -> tuple[Outputs, Tree]:
        """The head's outputs on one device, and its share of the batch without the devices' axis."""
        mine = {name: array[0] for name, array in whole.items()}
        weights = Weights({**trained, **frozen}, self.device.dtype, self.device.kernel)
        with jax.default_matmul_precision(self.device.exact):
            return outputs(weights, self.job.model, self.job.head, Seen(mine, sizes.rows), Dropout(key)), mine

    def _learn_graph(
        self, sizes: Sizes, summed: tuple[Tree, jax.Array], trained: Tree, frozen: Tree, factor: jax.Array,
        key: jax.Array, whole: Tree, real: Tree,
    ) -> tuple[Tree, jax.Array]:  # fmt: skip
        """One micro-batch, forward and backward; returns loss and gradients added to what is there."""
        self.traces += 1

        def on_one(trained: Tree, frozen: Tree, factor: jax.Array, key: jax.Array, whole: Tree, real: Tree) -> Any:
            own = mixed(key + jax.lax.axis_index(AXIS).astype(jnp.uint32))

            def scaled(trained: Tree) -> tuple[jax.Array, jax.Array]:
                found, mine = self._forward(sizes, trained, frozen, whole, own)
                wanted = {name: array[0] for name, array in real.items()}
                value = loss(self.job.head, found, mine, wanted, sizes.longest, self.job.loss)
                return value * factor, value

            varying = jax.lax.pcast(trained, (AXIS,), to="varying")  # so that each device has its own gradients
            (_, value), gradients = jax.value_and_grad(scaled, has_aux=True)(varying)
            return jax.lax.psum((gradients, value), AXIS)

        given = (ONE, ONE, ONE, ONE, SHARED, SHARED)
        each = jax.shard_map(on_one, mesh=self.device.mesh, in_specs=given, out_specs=(ONE, ONE))
        made: tuple[Tree, jax.Array] = jax.tree.map(jnp.add, summed, each(trained, frozen, factor, key, whole, real))
        return made

    def _apply_graph(
        self, summed: tuple[Tree, jax.Array], trained: Tree, optimizer: dict[str, Any], scaling: Tree, rate: jax.Array
    ) -> Any:
        """The update. Returns the new state, gradients of zeros in the place of the old, the loss and the norm."""
        self.traces += 1
        gradients, total = summed
        factor = 1 / scaling["factor"] if scaling else jnp.float32(1)
        norms = jnp.stack([optimizers.norm(gradients[name]) for name in self.names])
        norm = optimizers.norm(norms) * factor
        if most := self.job.optimizer.clip_norm:
            factor *= jnp.minimum(1.0, most / (norm + 1e-6))
        own = {name: gradient * factor for name, gradient in gradients.items()}
        made = optimizers.stepped(self.job.optimizer, trained, optimizer, own, rate)
        if scaling:
            overflow = ~jnp.isfinite(norm)
            made = jax.tree.map(lambda new, old: jnp.where(overflow, old, new), made, (trained, optimizer))
            scaling = optimizers.remembered(self.job.loss_scaling, scaling, norms, overflow)
        return (jax.tree.map(jnp.zeros_like, summed), *made, scaling), total, norm

    def _answer_graph(self, sizes: Sizes, trained: Tree, frozen: Tree, whole: Tree) -> Outputs:
        self.traces += 1

        def on_one(trained: Tree, frozen: Tree, whole: Tree) -> Outputs:
            found, _ = self._forward(sizes, trained, frozen, whole, None)
            return {name: array[None] for name, array in found.items()}

        each = jax.shard_map(on_one, mesh=self.device.mesh, in_specs=(ONE, ONE, SHARED), out_specs=SHARED)
        made: Outputs = each(trained, frozen, whole)
        return made

    # ---- what the base asks ----

    def learn(self, made: Static, key: np.ndarray) -> None:
        if made.sizes not in self._learn:
            graph = functools.partial(self._learn_graph, made.sizes)
            self._learn[made.sizes] = jax.jit(graph, donate_argnums=(0,))
        factor = self.scaling["factor"] if self.scaling else self._put(np.float32(1))
        given = self.trained, self.frozen, factor, self._put(key)
        self.summed = self._learn[made.sizes](self.summed, *given, self._share(made.whole), self._share(made.real))

    def apply(self, rate: float) -> tuple[SupportsFloat, SupportsFloat]:
        state = self.summed, self.trained, self.optimizer, self.scaling
        state, total, norm = self._apply(*state, self._put(np.float32(rate)))
        self.summed, self.trained, self.optimizer, self.scaling = state
        return total, norm

    def answer(self, made: Static) -> Arrays:
        if made.sizes not in self._answer:
            self._answer[made.sizes] = jax.jit(functools.partial(self._answer_graph, made.sizes))
        found = self._answer[made.sizes](self.trained, self.frozen, self._share(made.whole))
        return {name: np.asarray(array) for name, array in found.items()}

    def summands(self) -> tuple[float, list[np.ndarray]]:
        gradients, total = self.summed
        return float(total), [np.asarray(gradients[name]).reshape(-1) for name in self.names]

    def take_sums(self, loss: float, gradients: list[np.ndarray]) -> None:
        given = zip(self.names, gradients, strict=True)
        shaped = {name: array.reshape(self.trained[name].shape) for name, array in given}
        self.summed = self._put((shaped, np.float32(loss)))

    def clear(self) -> None:
        state = self.summed, self.trained, self.optimizer, self.scaling
        jax.block_until_ready(self._apply.lower(*state, self._put(np.float32(0))).compile())
        self.summed = self._put(self._nothing(self.trained))

    def loss_scale(self) -> SupportsFloat | None:
        return self.scaling["factor"] + 0 if self.scaling else None  # another array: this one is donated

    def weights(self) -> Arrays:
        both = {**self.trained, **self.frozen}
        return {name: np.array(both[name]) for name in self.job.weights}  # copies: the next update takes their place

    def optimizer_state(self) -> Arrays:
        scaling = {f"loss_scaling.{name}": np.array(float(value)) for name, value in self.scaling.items()}
        return optimizers.saved(self.optimizer) | scaling

    def restore(self, weights: Arrays, state: Mapping[str, np.ndarray]) -> None:
        self.optimizer = self._put(optimizers.read(self.trained, state))
        if self.scaling:
            found = restored_scaling(self.job.loss_scaling, state)
            self.scaling = self.scaling | self._put({name: np.float32(value) for name, value in found.items()})
        self.trained = self._put({name: np.asarray(weights[name], np.float32) for name in self.trained})
        self.frozen = self._put({name: np.asarray(weights[name], np.float32) for name in self.frozen})

    # ---- the rest of the seam ----

    def synchronize(self) -> None:
        jax.block_until_ready((self.summed, self.trained))
        if self.scaling:
            overflows, factor, first = (float(self.scaling[key]) for key in ("overflows", "factor", "first"))
            check_scaling(self.job.loss_scaling, int(overflows), factor, self.names[int(first)])

    def describe(self) -> Mapping[str, str]:
        devices = self.device.devices
        kernels = {"cudnn": "cuDNN's where nothing is dropped", "plain": "two products and a softmax in float32"}
        return {
            "device": f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind,
            "jax": jax.__version__,
            "compute dtype": self.device.dtype.name,
            "threads": str(self.device.threads),
            "optimizer": {"adamw": "AdamW", "lamb": "LAMB"}[self.job.optimizer.algorithm],
            "layout": self.plan.describe(),
            "attention": kernels[self.device.kernel],
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

    def profile(self, trace: Path) -> AbstractContextManager[None]:
        return recorded(trace)

    def host_waits(self, run: Callable[[], None]) -> int | None:
        return None  # JAX does not tell
