"""`torch.compile(backend="hpu_backend")`: torch traces forward and backward, and each new set of shapes is a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from habana_frameworks import _sim


def _shapes(values: Any) -> list[str]:
    return [f"{str(v.dtype).removeprefix('torch.')}{list(v.shape)}" for v in values if isinstance(v, torch.Tensor)]


def _compiler(kind: str) -> Callable[..., Any]:
    def compile(graph: torch.fx.GraphModule, inputs: list[Any], **more: Any) -> Any:
        from functorch.compile import make_boxed_func

        for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
            node.target = torch.ops.aten.reshape.default  # the CPU's kernels leave other strides than were traced
        graph.recompile()
        ops = sum(node.op == "call_function" for node in graph.graph.nodes)
        _sim.STATE.compile_calls.append({"kind": kind, "ops": ops, "inputs": _shapes(inputs)})
        recipes: set[tuple[str, ...]] = set()

        def run(*arguments: Any) -> Any:
            shapes = _shapes(arguments)
            if tuple(shapes) not in recipes:
                recipes.add(tuple(shapes))
                _sim.heard("compile", kind, shapes, ops)
            return graph.forward(*arguments)

        return make_boxed_func(run)

    return compile


def hpu_backend(graph: torch.fx.GraphModule, inputs: list[Any], **options: Any) -> Any:
    assert not _sim.LAZY, "hpu_backend works with PT_HPU_LAZY_MODE=0 only"
    from functorch.compile import default_partition
    from torch._dynamo.backends.common import aot_autograd

    compiled = aot_autograd(
        fw_compiler=_compiler("forward"),
        bw_compiler=_compiler("backward"),
        inference_compiler=_compiler("inference"),
        partition_fn=default_partition,
    )
    return compiled(graph, inputs)
