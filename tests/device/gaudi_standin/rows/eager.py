"""Rows of eager mode, in which torch.compile is how graphs are made."""

from __future__ import annotations

import sys

import torch

ALONE = "habana_frameworks.torch" in sys.modules  # did `import torch` bring the device?

import both  # noqa: E402
import fused  # noqa: E402
import habana_frameworks.torch.core as htcore  # noqa: E402
import runtime  # noqa: E402
from both import STATE, fresh, hpu  # noqa: E402
from habana_frameworks import _sim  # noqa: E402
from habana_frameworks.torch.dynamo.compile_backend.experimental import enable_compiled_autograd  # noqa: E402
from habana_frameworks.torch.hpex.optimizers import FusedLamb  # noqa: E402
from habana_frameworks.torch.hpu.metrics import metric_localcontext  # noqa: E402
from model import Training, train  # noqa: E402
from table import raises, row, run  # noqa: E402

FOLDER = sys.argv[2]
assert both.row is fused.row is runtime.row  # their rows are in the table


@row("1.1 autoload: in eager mode `import torch` is enough")
def _autoload() -> None:
    assert ALONE


@row("1.2 mark_step is a no-op, and nothing is pending")
def _mark_step() -> None:
    called: list[int] = []
    htcore.add_step_closure(called.append, (1,))
    _ = hpu(3) + hpu(3)
    htcore.mark_step()
    assert (STATE.mark_steps, STATE.pending, STATE.compilations, called) == (0, 0, [], [])


@row("1.2 enable_compiled_autograd sets dynamo's way with DDP")
def _compiled_autograd() -> None:
    import torch._dynamo

    before = torch._dynamo.config.optimize_ddp
    enable_compiled_autograd()
    assert torch._dynamo.config.optimize_ddp == "python_reducer"
    torch._dynamo.config.optimize_ddp = before


@row("1.4 HPU graphs are absent from torch.hpu")
def _no_graphs() -> None:
    assert not any(hasattr(torch.hpu, name) for name in ("wrap_in_hpu_graph", "HPUGraph", "ModuleCacher", "graph"))


@row("1.5 FusedLamb captures the device of the first parameter at construction")
def _lamb_too_early() -> None:
    model = torch.nn.Linear(2, 2)
    early = FusedLamb(model.parameters())
    model.to("hpu")
    model(hpu(1, 2)).sum().backward()
    assert early.device.type == "cpu"
    with raises(RuntimeError, "on the HPU device"):
        early.step()


@row("1.7 host tensors in a device op raise")
def _mixing() -> None:
    x = hpu(2, 2)
    for mix in (lambda: x + torch.ones(2), lambda: x @ torch.ones(2, 2), lambda: x[torch.tensor([0])]):
        with raises(RuntimeError, "Expected all tensors to be on the HPU device, but found at least one input[idx="):
            mix()
    with raises(RuntimeError, "on cpu"):
        torch.cat([x, torch.ones(2, 2)])
    assert STATE.implicit_h2d == 0


@row("1.7 int64 stays 64 bits wide")
def _int64() -> None:
    assert torch.tensor([2**40 + 5]).to("hpu").item() == 2**40 + 5


@row("1.9 torch.save keeps hpu locations")
def _save() -> None:
    torch.save({"x": hpu(2)}, f"{FOLDER}/eager.pt")
    assert torch.load(f"{FOLDER}/eager.pt")["x"].device.type == "hpu"
    assert torch.load(f"{FOLDER}/eager.pt", map_location="cpu")["x"].device.type == "cpu"


@row("4.1 training in fp32 is the CPU's to the last bit, and waits for nothing but its losses and weights")
def _training() -> None:
    losses, weights = train(Training("hpu"))
    wanted, theirs = train(Training("cpu"))
    assert losses == wanted
    assert all((weights[name] == theirs[name]).all() for name in theirs)
    assert len(STATE.syncs) == len(losses) + len(weights)
    assert STATE.compilations == []


@row("4.1 training under autocast is close to fp32 and not equal; dropout repeats with its seed")
def _autocast() -> None:
    wanted, _ = train(Training("cpu"))
    losses, _ = train(Training("hpu", autocast=True))
    assert 0 < max(abs(a - b) for a, b in zip(losses, wanted, strict=True)) < 0.02
    dropped = train(Training("hpu", rate=0.1, autocast=True))[0]
    assert train(Training("hpu", rate=0.1, autocast=True))[0] == dropped != losses


@row("4.1 hpu_backend: one recipe forward and one backward for each shape, the same losses, repeating dropout")
def _compile() -> None:
    torch._dynamo.reset()
    wanted, _ = train(Training("cpu", lengths=(8, 12), steps=6))
    with metric_localcontext("graph_compilation") as metric:
        losses, _ = train(Training("hpu", compiled=True, lengths=(8, 12), steps=6))
    assert max(abs(a - b) for a, b in zip(losses, wanted, strict=True)) < 1e-6
    kinds = [one["why"] for one in STATE.compilations]
    assert sorted(kinds) == ["backward", "backward", "forward", "forward"]
    assert dict(metric.stats())["TotalNumber"] == 4 == len(STATE.compile_calls)
    assert any("int64[4, 12]" in one["inputs"] for one in STATE.compilations)


@row("4.1 hpu_backend with autocast and dropout")
def _compile_autocast() -> None:
    torch._dynamo.reset()
    losses, _ = train(Training("hpu", compiled=True, autocast=True, rate=0.1))
    torch._dynamo.reset()
    assert train(Training("hpu", compiled=True, autocast=True, rate=0.1))[0] == losses
    assert train(Training("hpu", autocast=True))[0] != losses


@row("4.1 hpu_backend: a new recipe for every new length (what buckets are for)")
def _compile_lengths() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: torch.tanh(x) * 2, backend="hpu_backend", dynamic=False)
    for length in (3, 4, 5, 3, 4):
        compiled(torch.ones(length, device="hpu"))
    assert [one["inputs"] for one in STATE.compilations] == [["float32[3]"], ["float32[4]"], ["float32[5]"]]
    assert not _sim.LAZY


if __name__ == "__main__":
    run(fresh)
