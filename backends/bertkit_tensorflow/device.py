"""What TensorFlow computes on: threads, the GPU of this process, its facts and its rate."""

from __future__ import annotations

import os
import time

import tensorflow as tf

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
DTYPES = {"fp32": tf.float32, "bf16": tf.bfloat16, "fp16": tf.float16}


class Device:
    """One for each process: its GPU where there is one, else the CPU."""

    def __init__(self, job: Job, world: World) -> None:
        if job.precision not in DTYPES:
            raise UserError(f"TensorFlow's engine does not compute in {job.precision}", "use " + ", ".join(DTYPES))
        self.dtype = DTYPES[job.precision]
        self.threads = compute_threads(int(job.settings.get("threads", 0)), world.local_size)
        set_threads(self.threads)
        gpus = tf.config.list_physical_devices("GPU")
        place = world.launcher, world.local_rank, world.local_size
        self.gpu = gpus[own_device(*place, len(gpus), os.environ)] if gpus else None
        if self.gpu is not None:
            tf.config.set_visible_devices(self.gpu, "GPU")
        self.name = "/GPU:0" if self.gpu is not None else "/CPU:0"

    def facts(self) -> DeviceFacts:
        if self.gpu is None:
            return DeviceFacts("cpu", cpu_model())
        return DeviceFacts("accelerator", tf.config.experimental.get_device_details(self.gpu).get("device_name"))

    def peak_memory(self) -> int | None:
        """Of the GPU; on a CPU, of the process."""
        if self.gpu is not None:
            return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
        return process_peak_memory()

    def peak(self, precision: Precision) -> Peak:
        """The best of repeated products of square matrices of random numbers, measured now."""
        with tf.device(self.name):
            a, b = (tf.random.stateless_normal([PEAK_SIZE, PEAK_SIZE], [number, 0]) for number in (0, 1))
            a, b = tf.cast(a, self.dtype), tf.cast(b, self.dtype)
            product = tf.function(tf.matmul)
            product(a, b)
            best, until = float("inf"), time.perf_counter() + PEAK_SECONDS
            while time.perf_counter() < until:
                start = time.perf_counter()
                product(a, b)[0, 0].numpy()  # waits for it
                best = min(best, time.perf_counter() - start)
        how = f"measured: best {self.dtype.name} product of {PEAK_SIZE} x {PEAK_SIZE} matrices in {PEAK_SECONDS} s"
        return Peak(2 * PEAK_SIZE**3 / best, how)


def set_threads(count: int) -> None:
    """Raises UserError where TensorFlow has computed with another number: it sets them once a process."""
    config = tf.config.threading
    if config.get_intra_op_parallelism_threads() == count:
        return
    try:
        config.set_intra_op_parallelism_threads(count)
        config.set_inter_op_parallelism_threads(1)  # operators follow one another, each on all threads
    except RuntimeError:
        raise UserError(
            f"TensorFlow computes in this process with other than {count} threads already",
            "set device.threads to one number for all runs of a process",
        ) from None
