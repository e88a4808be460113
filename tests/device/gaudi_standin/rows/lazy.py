"""Rows of lazy mode, in which ops accumulate until mark_step."""

from __future__ import annotations

import sys

import torch

ALONE = "habana_frameworks.torch" in sys.modules

import both  # noqa: E402
import fused  # noqa: E402
import habana_frameworks.torch.core as htcore  # noqa: E402
import habana_frameworks.torch.hpu.graphs as htgraphs  # noqa: E402
import runtime  # noqa: E402
from both import STATE, fresh, hpu  # noqa: E402
from habana_frameworks.torch.hpex.optimizers import FusedAdamW, FusedLamb  # noqa: E402
from habana_frameworks.torch.hpu.metrics import metric_localcontext  # noqa: E402
from model import Training, train  # noqa: E402
from table import raises, row, run  # noqa: E402
from torch import nn  # noqa: E402

FOLDER = sys.argv[2]
assert both.row is fused.row is runtime.row  # their rows are in the table


@row("1.1 autoload: in lazy mode `import torch` does not bring the device")
def _autoload() -> None:
    assert not ALONE


@row("1.2 mark_step flushes what accumulated, compiles on a miss, replays on a hit, and runs closures")
def _mark_step() -> None:
    called: list[int] = []
    for size in (3, 3, 4):
        x = torch.ones(size).to("hpu")
        htcore.mark_step()
        htcore.add_step_closure(called.append, (size,))
        _ = x * 7 + x
        assert STATE.pending > 0
        htcore.mark_step()
        assert STATE.pending == 0
    assert (called, STATE.mark_steps) == ([3, 3, 4], 6)
    assert [one["inputs"] for one in STATE.compilations] == [["Float[3]"], ["Float[4]"]]


@row("1.2 mark_step(sync=True) makes the host wait; without mark_step the graph grows")
def _sync() -> None:
    x = hpu(2)
    for _ in range(40):
        x = x + 1
    assert STATE.pending >= 40
    htcore.mark_step(sync=True)
    assert [sync["op"] for sync in STATE.syncs] == ["mark_step"]


@row("1.2 a wait of the host ends the graph too")
def _item() -> None:
    (hpu(5) * 3).sum().item()
    assert STATE.pending == 0
    assert STATE.mark_steps == 0


@row("1.2 hpu_backend is eager mode's")
def _no_compile() -> None:
    with raises(Exception, "PT_HPU_LAZY_MODE=0"):
        torch.compile(lambda x: x + 1, backend="hpu_backend")(torch.ones(2, device="hpu"))


@row("1.4 wrap_in_hpu_graph: a hit replays, into the same output tensors every time")
def _wrap() -> None:
    linear = nn.Linear(4, 2).to("hpu").eval()
    first, second = hpu(3, 4), hpu(3, 4)
    with torch.no_grad():
        wanted = nn.functional.linear(second, linear.weight, linear.bias).cpu()
        wrapped = torch.hpu.wrap_in_hpu_graph(linear)
        kept = wrapped(first)
        copy = kept.cpu()
        assert wrapped(second) is kept
        assert torch.equal(kept.cpu(), wanted)
        assert not torch.equal(kept.cpu(), copy)
        wrapped(hpu(5, 4))
        wrapped(second, bypass_hpu_graphs=True)
    assert (STATE.captures, STATE.replays, STATE.calls["wrap_in_hpu_graph"]) == (2, 1, 1)


@row("1.4 a wait of the host within a capture is an error")
def _capture_sync() -> None:
    with (
        raises(RuntimeError, "cpu fallback is not supported during hpu graph capturing"),
        torch.hpu.graph(torch.hpu.HPUGraph()),
    ):
        torch.ones(2, device="hpu").sum().item()


@row("1.4 make_graphed_callables: no hooks, tensors only; gradients are right after a replay")
def _graphed() -> None:
    linear = nn.Linear(4, 2).to("hpu")
    twin = nn.Linear(4, 2)
    twin.load_state_dict({name: value.cpu() for name, value in linear.state_dict().items()})
    graphed = torch.hpu.make_graphed_callables(linear, (hpu(3, 4),))
    for _ in range(2):
        x = hpu(3, 4)
        linear.zero_grad()
        twin.zero_grad()
        graphed(x).square().sum().backward()
        twin(x.cpu()).square().sum().backward()
        assert torch.allclose(linear.weight.grad.cpu(), twin.weight.grad, atol=1e-6)
    hooked = nn.Linear(4, 2).to("hpu")
    hooked.register_forward_hook(lambda *_: None)
    with raises(AssertionError, "hooks"):
        torch.hpu.make_graphed_callables(hooked, (hpu(3, 4),))


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(torch.tanh(self.head(self.words(ids))), labels)


@row("1.4 ModuleCacher: a forward and a backward graph for each shape, and training as without it")
def _cacher() -> None:
    plain, cached = Cached().to("hpu"), Cached().to("hpu")
    cached.load_state_dict(plain.state_dict())
    htgraphs.ModuleCacher(max_graphs=5)(cached)
    for size in (3, 5, 3, 5):
        ids = torch.randint(0, 9, (size,)).to("hpu")
        labels = torch.randint(0, 3, (size,)).to("hpu")
        for model in (plain, cached):
            loss = model(ids=ids, labels=labels)
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for weight in model.parameters():
                    weight.sub_(0.5 * weight.grad)
    assert (STATE.captures, STATE.replays) == (4, 8)
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(plain.parameters(), cached.parameters(), strict=True))


@row("1.4 ModuleCacher comes before data parallelism")
def _cacher_order() -> None:
    with raises(AssertionError, "only after wrapping with ModuleCacher"):
        htgraphs.ModuleCacher()(nn.DataParallel(nn.Linear(2, 2)))


@row("1.5 fused optimizers mark steps themselves")
def _marks() -> None:
    p = nn.Parameter(hpu(2))
    p.grad = hpu(2)
    FusedAdamW([p]).step()
    after_adamw = STATE.mark_steps
    FusedLamb([p]).step()
    assert (after_adamw, STATE.mark_steps, STATE.pending) == (2, 5, 0)


@row("1.7 host tensors in a device op are uploaded without a word, and counted")
def _mixing() -> None:
    before = STATE.implicit_h2d
    assert torch.equal((torch.ones(2, device="hpu") + torch.ones(2)).cpu(), torch.full((2,), 2.0))
    torch.cat([hpu(2), torch.ones(2)])
    assert STATE.implicit_h2d - before == 2
    assert [one["tensor"] for one in STATE.implicit] == ["Float[2]", "Float[2]"]
    assert "lazy.py" in STATE.implicit[0]["where"]


@row("1.7 int64 lives as int32: values are cut, on upload and in results")
def _int64() -> None:
    assert torch.tensor([2**40 + 5]).to("hpu").item() == 5
    assert (torch.tensor([2**31 - 1]).to("hpu") + 1).item() == -(2**31)


@row("1.9 torch.save writes host tensors, torch.load puts them where it is told")
def _save() -> None:
    torch.save({"x": hpu(2)}, f"{FOLDER}/lazy.pt")
    assert torch.load(f"{FOLDER}/lazy.pt")["x"].device.type == "cpu"
    assert torch.load(f"{FOLDER}/lazy.pt", map_location="hpu")["x"].device.type == "hpu"


@row("4.1 training in fp32 is the CPU's to the last bit; two mark_steps a step, nothing pending, no upload unseen")
def _training() -> None:
    losses, weights = train(Training("hpu", after=htcore.mark_step))
    assert (STATE.mark_steps, STATE.pending, STATE.implicit) == (8, 0, [])
    wanted, theirs = train(Training("cpu"))
    assert losses == wanted
    assert all((weights[name] == theirs[name]).all() for name in theirs)
    assert len(STATE.syncs) == len(losses) + len(weights)


@row("4.1 recompilation: none after warm-up at fixed lengths, one or more for every new length")
def _recompilation() -> None:
    train(Training("hpu", after=htcore.mark_step, lengths=(8, 12), steps=4))
    with metric_localcontext("graph_compilation") as fixed:
        train(Training("hpu", after=htcore.mark_step, lengths=(8, 12), steps=8))
    with metric_localcontext("graph_compilation") as growing:
        train(Training("hpu", after=htcore.mark_step, lengths=range(20, 26), steps=6))
    assert dict(fixed.stats())["TotalNumber"] == 0
    assert dict(growing.stats())["TotalNumber"] >= 6


@row("4.1 without mark_step the same training is one ever longer graph")
def _forgotten() -> None:
    train(Training("hpu"))
    assert STATE.mark_steps == 0
    assert max(one["ops"] for one in STATE.compilations) > 1000


if __name__ == "__main__":
    run(fresh)
