"""HPU graphs: captured ops that are run again on the same memory. Lazy mode only."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.nn.parallel import DataParallel, DistributedDataParallel

from habana_frameworks import _sim

__all__ = ["HPUGraph", "ModuleCacher", "graph", "make_graphed_callables", "wrap_in_hpu_graph"]


class HPUGraph:
    def __init__(self) -> None:
        self.tape: Any = None

    def capture_begin(self, dry_run: bool = False) -> None:
        _sim.C.capture_begin()

    def capture_end(self) -> None:
        self.tape = _sim.C.capture_end()
        _sim.STATE.captures += 1

    def replay(self, asynchronous: bool = False) -> None:
        _sim.STATE.replays += 1
        self.tape.replay()

    def reset(self) -> None:
        self.tape = None


class graph:
    """Captures what runs inside it."""

    def __init__(self, hpu_graph: HPUGraph, stream: Any = None, dry_run: bool = False) -> None:
        self.hpu_graph = hpu_graph

    def __enter__(self) -> None:
        self.hpu_graph.capture_begin()

    def __exit__(self, *exc: object) -> None:
        self.hpu_graph.capture_end()


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, list | tuple) else []


def _key(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype, value.stride(), torch.is_autocast_enabled("hpu")
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in value.items())
    return tuple(_key(v) for v in value) if isinstance(value, list | tuple) else value


def wrap_in_hpu_graph(
    module: Any,
    asynchronous: bool = False,
    disable_tensor_cache: bool = False,
    dry_run: bool = False,
    max_graphs: int | None = None,
) -> Any:
    """Inference. A hit copies the inputs into the captured ones and gives the same output tensors every time."""
    forward, cache = module.forward, {}
    _sim.STATE.calls["wrap_in_hpu_graph"] += 1

    @wraps(forward)
    def graphed(*args: Any, **kwargs: Any) -> Any:
        warmup = kwargs.pop("warmup_mode", False)
        if kwargs.pop("bypass_hpu_graphs", False):
            return forward(*args, **kwargs)
        key = _key((args, kwargs))
        if key not in cache:
            if max_graphs is not None and len(cache) == max_graphs:
                return forward(*args, **kwargs)
            captured = HPUGraph()
            with graph(captured):
                outputs = forward(*args, **kwargs)
            cache[key] = (captured, _tensors((args, kwargs)), outputs)
            return outputs
        captured, inputs, outputs = cache[key]
        if not warmup:
            for into, given in zip(inputs, _tensors((args, kwargs)), strict=True):
                into.copy_(given, non_blocking=True)
            captured.replay(asynchronous)
        return outputs

    module.forward = graphed
    module.clear_cache = cache.clear
    module.clear_inputs = lambda: None
    return module


def make_graphed_callables(
    callables: Any,
    sample_args: Any,
    warmups: int = 0,
    allow_unused_input: bool = False,
    asynchronous: bool = False,
    disable_tensor_cache: bool = False,
    dry_run: bool = False,
) -> Any:
    """Training: a graph of the forward and one of the backward for each callable."""
    if isinstance(callables, tuple):
        pairs = zip(callables, sample_args, strict=True)
        return tuple(make_graphed_callables(c, a, warmups, allow_unused_input) for c, a in pairs)
    if isinstance(callables, torch.nn.Module):
        hooks = [callables._backward_hooks, callables._forward_hooks, callables._forward_pre_hooks]
        assert not any(hooks), "Modules must not have hooks registered at the time they are passed."
        assert not any(b.requires_grad for b in callables.buffers()), "only parameters may be trainable"
    assert all(isinstance(a, torch.Tensor) for a in sample_args), "sample_args must be a tuple of Tensors"
    forward = callables.forward if isinstance(callables, torch.nn.Module) else callables
    weights = tuple(callables.parameters()) if isinstance(callables, torch.nn.Module) else ()
    graphed = _graphed(forward, tuple(sample_args), weights, allow_unused_input)
    if not isinstance(callables, torch.nn.Module):
        return graphed
    training = callables.training
    callables.forward = lambda *args: graphed(*args) if callables.training == training else forward(*args)
    return callables


def _graphed(
    forward: Callable[..., Any], inputs: tuple[Any, ...], weights: tuple[Any, ...], unused: bool
) -> Callable[..., Any]:
    first, last = HPUGraph(), HPUGraph()
    surface = inputs + weights
    with graph(first):
        outputs = forward(*inputs)
    single = isinstance(outputs, torch.Tensor)
    made = (outputs,) if single else tuple(outputs)
    seeds = tuple(torch.empty_like(o) if o.requires_grad else None for o in made)
    wanted = tuple(s for s in surface if s.requires_grad)
    with graph(last):
        grads = torch.autograd.grad(
            [o for o in made if o.requires_grad], wanted, [s for s in seeds if s is not None], allow_unused=unused
        )
    given = iter(grads)
    held = tuple(next(given) if s.requires_grad else None for s in surface)

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            for into, new in zip(inputs, args[: len(inputs)], strict=True):
                into.detach().copy_(new)
            first.replay()
            return tuple(o.detach() for o in made)

        @staticmethod
        @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
        def backward(ctx: Any, *coming: Any) -> Any:
            for into, new in zip(seeds, coming, strict=True):
                if into is not None:
                    into.copy_(new)
            last.replay()
            return tuple(g.detach() if g is not None else None for g in held)

    def run(*args: Any) -> Any:
        out = Graphed.apply(*args, *weights)
        return out[0] if single else out

    return run


class ModuleCacher:
    """Training with HPU graphs, one for each set of input shapes; to be applied before DistributedDataParallel."""

    def __init__(self, max_graphs: int = 10) -> None:
        self.max_graphs = max_graphs

    def __call__(
        self,
        model: torch.nn.Module,
        use_lfu: bool = False,
        inplace: bool = True,
        allow_unused_input: bool = False,
        asynchronous: bool = False,
        have_grad_accumulation: bool = False,
        log_frequency: int = 100,
        verbose: bool = False,
        disable_tensor_cache: bool = False,
        dry_run: bool = False,
    ) -> torch.nn.Module:
        assert not isinstance(model, DataParallel | DistributedDataParallel), (
            "Use DataParallel/DistributedDataParallel only after wrapping with ModuleCacher"
        )
        _sim.STATE.calls["ModuleCacher"] += 1
        forward, cache = model.forward, {}
        weights = tuple(model.parameters())

        @wraps(forward)
        def cached(*args: Any, **kwargs: Any) -> Any:
            if not (model.training and torch.is_grad_enabled()):
                return forward(*args, **kwargs)
            names = [n for n, v in kwargs.items() if isinstance(v, torch.Tensor)]
            key = _key((args, kwargs))
            if key not in cache and len(cache) >= self.max_graphs:
                return forward(*args, **kwargs)
            if key not in cache:
                fixed = {n: v for n, v in kwargs.items() if n not in names}
                samples = tuple(t.detach().clone() for t in (*args, *(kwargs[n] for n in names)))
                count = len(args)

                def call(*tensors: Any) -> Any:
                    return forward(*tensors[:count], **dict(zip(names, tensors[count:], strict=True)), **fixed)

                cache[key] = _graphed(call, samples, weights, True)
            return cache[key](*args, *(kwargs[n] for n in names))

        model.forward = cached
        model.set_iteration_count = lambda count: _sim.STATE.calls.update({"set_iteration_count": 1})
        return model
