"""Engines that only answer, each a runtime's session over the graph of a job's model."""

from __future__ import annotations

from collections.abc import Callable

from bertkit.plugin import (
    Engine,
    ExportedModel,
    Job,
    PaddedEngine,
    PaddedModel,
    Precision,
    UserError,
    World,
    compute_threads,
    join_ranks,
)
from bertkit_onnx.graph import LARGEST, Graph
from bertkit_onnx.quantised import BITS
from bertkit_onnx.sums import onnxruntime_is_exact, openvino_is_exact
from bertkit_onnx.writing import made


def onnxruntime_engine(job: Job, world: World) -> Engine:
    """Raises UserError where the model is too large."""
    import onnxruntime

    from bertkit_onnx.running import load

    threads = _threads(job, world)
    about = {"device": "CPU", "runtime": f"ONNX Runtime {onnxruntime.__version__}", "threads": str(threads)}
    bits = _weight_bits(job, onnxruntime_is_exact)
    return _engine(job, world, load(_graph(job, bits), threads=threads), about, bits)


def openvino_engine(job: Job, world: World) -> Engine:
    """Raises UserError where the model is too large."""
    import openvino

    from bertkit_onnx.openvino import compiled

    threads = _threads(job, world)
    bits = _weight_bits(job, openvino_is_exact)
    computing = compiled(_graph(job, bits), "bf16" if job.precision == "bf16" else "f32", threads)
    about = {"device": "CPU", "runtime": f"OpenVINO {openvino.__version__}", "threads": str(threads)}
    return _engine(job, world, computing, about, bits)


def _weight_bits(job: Job, exact: Callable[[], bool]) -> int:
    """Of a weight in int8."""
    return 7 if job.precision == "int8" and not exact() else 8


def _engine(job: Job, world: World, computing: PaddedModel, about: dict[str, str], bits: int) -> Engine:
    dtypes = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8 in the encoder's dense layers, float32 elsewhere"}
    if bits == 7:
        about = about | {"dense layers": "weights in 7 bits: on this CPU the runtime cuts off sums of more"}
    grouped = bool(job.settings.get("length_groups", True))
    layout = "padded, sequences of like length together" if grouped else "padded to the batch's longest sequence"
    about = about | {"compute dtype": dtypes[job.precision], "layout": layout}
    ranks = join_ranks(world, job.exchange.collectives, job.exchange.timeout)
    return PaddedEngine(computing, job.head, about, ranks, grouped=grouped)


def _threads(job: Job, world: World) -> int:
    return compute_threads(int(job.settings.get("threads", 0)), world.local_size)


def _graph(job: Job, bits: int) -> bytes:
    """The job's model as an ONNX file has it. In bf16 the graph is in float32: the runtime computes it in bf16."""
    precision: Precision = "int8" if job.precision == "int8" else "fp32"
    model = ExportedModel(
        config=job.model, head=job.head, weights=job.weights, precision=precision, settings={BITS: bits},
        scales=job.scales,
    )  # fmt: skip
    graph = Graph()
    found = made(model, graph)
    if graph.bytes > LARGEST:
        size = f"{graph.bytes / 1e9:.1f} GB"
        raise UserError(f"the model's {size} are over what one graph can hold", "use another backend")
    content: bytes = found.SerializeToString()
    return content
