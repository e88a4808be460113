"""What JAX computes on: threads, this process's devices, their facts and their rate."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bertkit.plugin import (
    DeviceFacts,
    Job,
    Peak,
    Precision,
    UserError,
    World,
    compute_threads,
    cpu_model,
    own_device,
    process_peak_memory,
)

PEAK_SECONDS = 0.5
PEAK_SIZE = 2048
DTYPES = {"fp32": jnp.float32, "bf16": jnp.bfloat16, "fp16": jnp.float16}
AXIS = "devices"  # the mesh's only axis: a share of each micro-batch on each device


class Device:
    """The devices of one process, and arrays on all of them."""

    def __init__(self, job: Job, world: World) -> None:
        if job.precision not in DTYPES:
            raise UserError(f"JAX's engine does not compute in {job.precision}", "use " + ", ".join(DTYPES))
        self.dtype = jnp.dtype(DTYPES[job.precision])
        self.threads = compute_threads(int(job.settings.get("threads", 0)), world.local_size)
        with threads_of_the_host(self.threads):
            local = jax.local_devices()
        self.devices = chosen(local, int(job.settings.get("devices", 0)), world)
        self.platform = self.devices[0].platform
        self.mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        self.everywhere = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        self.shared = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(AXIS))
        self.kernel = kernel(str(job.settings.get("attention", "auto")), self.platform, self.dtype.itemsize)

    @property
    def exact(self) -> str:
        """How float32 products are computed: GPUs and TPUs would round them to fewer bits."""
        return "highest" if self.dtype == jnp.float32 else "default"

    def facts(self) -> DeviceFacts:
        if self.platform == "cpu":
            return DeviceFacts("cpu", cpu_model())
        stats = self.devices[0].memory_stats() or {}
        driver = str(self.devices[0].client.platform_version)
        return DeviceFacts("accelerator", self.devices[0].device_kind, stats.get("bytes_limit"), driver)

    def peak_memory(self) -> int | None:
        """Of the device that needed most; on a CPU, of the process."""
        if self.platform == "cpu":
            return process_peak_memory()
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in self.devices]
        return max((int(peak) for peak in peaks if peak is not None), default=None)

    def peak(self, precision: Precision) -> Peak:
        """The best of repeated products of square matrices of random numbers on one device, times the devices."""
        keys = jax.random.split(jax.random.key(0))
        a, b = (jax.random.normal(key, (PEAK_SIZE, PEAK_SIZE), jnp.float32).astype(self.dtype) for key in keys)
        a, b = (jax.device_put(each, self.devices[0]) for each in (a, b))
        product = jax.jit(lambda left, right: jnp.matmul(left, right, precision=self.exact))
        product(a, b).block_until_ready()
        best, until = float("inf"), time.perf_counter() + PEAK_SECONDS
        while time.perf_counter() < until:
            start = time.perf_counter()
            product(a, b).block_until_ready()
            best = min(best, time.perf_counter() - start)
        count = len(self.devices)
        how = f"measured: best {self.dtype.name} product of {PEAK_SIZE} x {PEAK_SIZE} matrices in {PEAK_SECONDS} s"
        return Peak(count * 2 * PEAK_SIZE**3 / best, how if count == 1 else f"{how}, times {count} devices")


@contextlib.contextmanager
def threads_of_the_host(count: int) -> Iterator[None]:
    """XLA makes its CPU threads with its first device, as many as NPROC says where that is set."""
    before = os.environ.get("NPROC")
    os.environ["NPROC"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["NPROC"]
        else:
            os.environ["NPROC"] = before


def chosen(local: list[jax.Device], asked: int, world: World) -> list[jax.Device]:
    """The devices of this process: `asked` of them, 0: all, or one where it shares the host with others.

    Raises UserError where there are fewer.
    """
    if asked > len(local) or asked < 0:
        raise UserError(f"device.devices = {asked}, but JAX has {len(local)} here", "leave it at 0, or lower it")
    if world.local_size == 1:
        return local[: asked or len(local)]
    if asked > 1:
        raise UserError(
            f"device.devices = {asked} in {world.local_size} processes on one host",
            "start one process a host, or leave it at 0",
        )
    if local[0].platform == "cpu":
        return local[:1]
    return [local[own_device(world.launcher, world.local_rank, world.local_size, len(local), os.environ)]]


def kernel(asked: str, platform: str, bytes_each: int) -> str:
    """`plain` or `cudnn`. Raises UserError where the one asked for cannot be."""
    able = platform in ("gpu", "cuda") and bytes_each == 2
    if asked == "cudnn" and not able:
        raise UserError("device.attention = cudnn needs an NVIDIA GPU and bf16 or fp16", "leave it at auto")
    return "cudnn" if able and asked != "plain" else "plain"
