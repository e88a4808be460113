"""A BERT-large layer as torch.compile lowers it for a GPU that is not here: its launches, what it keeps, its kernels.

The layer is traced on FakeTensors, partitioned as Inductor does, its graphs are told to be on "cuda", lowered, and each
Triton kernel is compiled to a cubin. Prints one JSON object. Needs triton; a process of its own, since a `torch.cuda`
that answers without a GPU stays for the process's life.

    python lowered_layer_at_work.py [ARCHITECTURE …]      # as 80 90: kernels compiled for these

Uses what torch promises nobody (Inductor's inside), as of torch 2.13.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo.device_interface as interfaces
import triton
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._inductor.fx_passes.post_grad import post_grad_passes
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

from bertkit.model.config import Head, ModelConfig
from bertkit.model.parameters import initial
from bertkit_cuda.kernels import flash
from bertkit_cuda.weights import TrainingWeights
from bertkit_torch.bert import encoder_layer
from bertkit_torch.dropout import DeviceDropout
from bertkit_torch.row_attention import InStretches

MODEL = ModelConfig(1024, 1, 16, 4096, vocab_size=8, max_position_embeddings=8)
TOKENS = 8192  # N
LONGEST = 512
CUDA = torch.device("cuda", 0)
ABOUT = SimpleNamespace(
    name="GPU", major=9, minor=0, multi_processor_count=132, regs_per_multiprocessor=65536, warp_size=32,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, total_memory=80 * 2**30,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    gcnArchName="",
)  # fmt: skip
KERNEL = re.compile(
    r"^(\w+) = async_compile\.triton\('\w+', '''\n(.*?)''', device_str='cuda'\)", re.MULTILINE | re.DOTALL
)


class Driver:
    """Triton's, for a GPU that is not here."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return CUDA


def pretend() -> None:
    """What Inductor asks of a GPU, answered."""
    torch.cuda.get_device_properties = lambda device=None: ABOUT
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    torch.cuda.current_device = lambda: 0
    for name, value in (
        ("get_compute_capability", 90), ("get_device_properties", ABOUT), ("current_device", 0), ("is_available", True),
    ):  # fmt: skip
        setattr(interfaces.CudaInterface, name, staticmethod(lambda device=None, value=value: value))
    interfaces.CudaInterface.Worker.get_device_properties = staticmethod(lambda device=None: ABOUT)
    driver.set_active(Driver())


def moved(graph: torch.fx.GraphModule, mode: FakeTensorMode) -> torch.fx.GraphModule:
    """The graph with all its tensors on the GPU."""

    def tensor(value: Any) -> Any:
        if isinstance(value, FakeTensor):
            with _disable_current_modes():
                bare = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
            return FakeTensor(mode, bare, CUDA)
        return type(value)(map(tensor, value)) if isinstance(value, tuple | list) else value

    made = copy.deepcopy(graph)
    for node in made.graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = tensor(node.meta["val"])
        node.args, node.kwargs = torch.fx.node.map_aggregate(
            (node.args, node.kwargs), lambda given: CUDA if isinstance(given, torch.device) else given
        )
    made.recompile()
    return made


def lowered(graph: torch.fx.GraphModule, mode: FakeTensorMode, backward: bool) -> str:
    """Inductor's code for the graph."""
    made = moved(graph, mode)
    with V.set_fake_mode(mode):
        post_grad_passes(made, is_inference=False)
    inputs = [node.meta["val"] for node in made.graph.nodes if node.op == "placeholder"]
    lowering = GraphLowering(made, example_inputs=inputs, is_backward=backward)
    with (
        patch("torch.cuda.is_available", lambda: True), patch("torch.cuda.device_count", lambda: 1),
        V.set_debug_handler(DebugContext()), V.set_graph_handler(lowering), V.set_fake_mode(mode),
    ):  # fmt: skip
        lowering.run(*inputs)
        code: Any = lowering.codegen()[0]
    return str(code.value if hasattr(code, "value") else code)


def kept(graph: torch.fx.GraphModule) -> int:
    """Bytes that a forward graph gives its backward one, besides what it was given itself."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    own = {node for node in output.args[0][1:] if isinstance(node, torch.fx.Node) and node.op != "placeholder"}
    return sum(v.numel() * v.element_size() for node in own if isinstance(v := node.meta["val"], Tensor))


def trace(mode: FakeTensorMode) -> dict[str, Any]:
    """Code and what is kept, of forward and backward."""
    found: dict[str, Any] = {}

    def compiler(name: str) -> Callable[..., Any]:
        def compile_graph(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            own_mode = next(each.fake_mode for each in inputs if isinstance(each, FakeTensor))  # Dynamo makes its own
            found[name] = lowered(graph, own_mode, name == "backward")
            if name == "forward":
                found["kept"] = kept(graph)

            def run(given: Sequence[Any]) -> Any:
                return graph(*given)

            run._boxed_call = True  # type: ignore[attr-defined]
            return run

        return compile_graph

    def partition(joint: torch.fx.GraphModule, inputs: Any, **options: Any) -> Any:
        with V.set_fake_mode(mode):
            joint = joint_graph_passes(joint)
        return min_cut_rematerialization_partition(joint, inputs, compiler="inductor", **options)

    backend = aot_autograd(
        fw_compiler=compiler("forward"), bw_compiler=compiler("backward"), decompositions=select_decomp_table(),
        partition_fn=partition,
    )  # fmt: skip

    def layer(own: dict[str, Tensor], x: Tensor, bounds: Tensor) -> Tensor:
        heads = MODEL.num_attention_heads
        attention = InStretches(bounds, LONGEST, heads, flash)
        return encoder_layer(TrainingWeights(own, torch.bfloat16), "", MODEL, x, attention, None, DeviceDropout())

    weights = initial(MODEL, Head("encoder", MODEL.hidden_size, (1,)), 1)
    own = {
        name.partition(".layer.0.")[2]: torch.nn.Parameter(torch.zeros(array.shape))
        for name, array in weights.items()
        if ".layer.0." in name
    }
    x = torch.zeros(TOKENS, MODEL.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    bounds = torch.zeros(TOKENS // LONGEST + 1, dtype=torch.int32)
    torch.compile(layer, backend=backend, dynamic=False)(own, x, bounds).sum().backward()
    return found


def counts(code: str) -> dict[str, int]:
    """How often a pass starts what."""
    body = code[code.index("def call(") :]
    return {
        "kernels": len(set(KERNEL.findall(code))),
        "triton": len(re.findall(r"^\s+\w+\.run\(", body, re.MULTILINE)),
        "products": len(re.findall(r"extern_kernels\.(?:add)?mm\(", body)),
        "attention": len(re.findall(r"= torch\.ops\.aten\._flash_attention_(?:forward|backward)\.default\(", body)),
    }


def compiled(name: str, source: str, architecture: int, folder: Path) -> dict[str, int]:
    """Bytes of a kernel's cubin, and whether its registers spill into local memory."""
    path = folder / f"{name}.py"
    path.write_text(source.replace("triton_helpers.set_driver_to_gpu()", ""), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tuner = getattr(module, name)
    config = tuner.configs[0]
    meta = tuner._create_compile_meta(config)
    made = triton.compile(
        ASTSource(tuner.fn, meta["signature"], meta["constants"], meta["configs"][0]),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": config.num_warps, "num_stages": config.num_stages},
    )
    return {"bytes": len(made.asm["cubin"]), "spills": int(".local " in made.asm["ptx"])}


def main(architectures: Sequence[int]) -> None:
    pretend()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        found = trace(mode)
    said: dict[str, Any] = {name: counts(found[name]) for name in ("forward", "backward")}
    said["kept_bytes_per_token"] = found["kept"] / TOKENS
    said["cubins"] = {}
    # Both passes number their kernels, so one of each may have the same name.
    sources = [pair for way in ("forward", "backward") for pair in dict.fromkeys(KERNEL.findall(found[way]))]
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
            made = [compiled(name, source, architecture, Path(folder)) for name, source in sources]
            said["cubins"][str(architecture)] = {
                "kernels": sum(each["bytes"] > 0 for each in made),
                "spilling": sum(each["spills"] for each in made),
            }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
