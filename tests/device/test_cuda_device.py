"""The CUDA device without a GPU: that it can be imported, and what its pure parts do under a made `torch.cuda`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import util
from types import SimpleNamespace
from typing import Any

import pytest

from bertkit.conformance.fixtures import job
from bertkit.distributed.world import World
from bertkit.engine.interface import Precision
from bertkit.errors import UserError

torch = pytest.importorskip("torch")
from bertkit_cuda import CudaBackend, device  # noqa: E402
from bertkit_cuda.device import CudaDevice  # noqa: E402
from bertkit_torch.gpu import WARM  # noqa: E402
from bertkit_torch.row_attention import InRows, InStretches  # noqa: E402


class Recorder:
    """A `torch.cuda` whose graphs are lists of what was done within them, done again at each replay."""

    def __init__(self, count: int = 2, capability: tuple[int, int] = (9, 0)) -> None:
        self.count, self.capability = count, capability
        self.recording: list[Callable[[], None]] | None = None
        self.did: list[str] = []
        self.calls: list[str] = []
        self.pools: list[Any] = []
        self.streams = 0

    def launch(self, what: str) -> None:
        """A kernel: done at once, or only noted while a graph is recorded, as on a card."""
        if self.recording is None:
            self.did.append(what)
        else:
            self.recording.append(lambda: self.did.append(what))

    def module(self) -> Any:
        class CUDAGraph:
            def __init__(self) -> None:
                self.done: list[Callable[[], None]] = []

            def replay(self) -> None:
                for one in self.done:
                    one()

        @contextmanager
        def graph(made: CUDAGraph, pool: Any = None) -> Iterator[None]:
            self.pools.append(pool)
            self.recording = made.done
            yield
            self.recording = None

        @contextmanager
        def stream(aside: Any) -> Iterator[None]:
            self.streams += 1
            yield

        def current() -> Any:
            return SimpleNamespace(wait_stream=lambda other: self.calls.append("wait"))

        return SimpleNamespace(
            CUDAGraph=CUDAGraph, graph=graph, stream=stream, current_stream=current, Stream=current,
            graph_pool_handle=lambda: "pool", is_available=lambda: self.count > 0, device_count=lambda: self.count,
            set_device=lambda where: self.calls.append(f"set {where}"),
            get_device_capability=lambda where=None: self.capability,
            get_device_properties=lambda where: SimpleNamespace(name="Card", total_memory=80 * 2**30, major=9, minor=0),
            current_device=lambda: 0, synchronize=lambda: None, max_memory_allocated=lambda: 123,
            manual_seed=lambda number: self.calls.append(f"seed {number}"),
        )  # fmt: skip


FLAGS = [
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
]


@pytest.fixture
def flags() -> Iterator[Callable[[], list[bool]]]:
    """How torch's precision flags stand; put back afterwards."""
    before = [getattr(owner, name) for owner, name in FLAGS]
    yield lambda: [getattr(owner, name) for owner, name in FLAGS]
    for (owner, name), value in zip(FLAGS, before, strict=True):
        setattr(owner, name, value)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, flags: Any) -> Recorder:
    import torch._dynamo.utils  # what counts programs; imported while it sees the real thing

    made = Recorder()
    for name, value in vars(made.module()).items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(device, "choose", lambda job, dtype, where: ("sdpa", f"for {dtype}"))
    return made


def opened(precision: Precision = "bf16", layout: str = "auto", **settings: Any) -> CudaDevice:
    known = {name: setting.default for name, setting in CudaBackend.settings.items()} | settings
    made = CudaDevice()
    made.open(
        dataclasses.replace(job("classification", layout, precision=precision), settings=known), World(1, 2, 1, 2)
    )  # type: ignore[arg-type]
    return made


def test_without_a_gpu_it_imports_and_says_what_to_check() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="torch finds no device; check nvidia-smi"):
        opened()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("before", [False, True])
def test_fp32_is_fp32_and_tf32_only_where_it_is_asked_for(
    precision: Precision, before: bool, flags: Callable[[], list[bool]]
) -> None:
    for owner, name in FLAGS:
        setattr(owner, name, before)
    CudaDevice()._set_precision(precision)
    tf32 = precision == "tf32"
    assert flags() == [tf32, tf32, False]


def test_a_rank_takes_the_card_of_its_local_number(cuda: Recorder) -> None:
    opened()
    assert "set cuda:1" in cuda.calls


def test_more_ranks_than_cards_are_refused(cuda: Recorder) -> None:
    cuda.count = 1
    with pytest.raises(UserError, match="local rank 1 has no device: this process sees 1"):
        opened()


# ---- graphs ----


def test_a_capture_warms_up_records_once_and_replays_in_order(cuda: Recorder) -> None:
    made = opened()

    def run() -> None:
        for what in "abc":
            cuda.launch(what)

    replay = made.capture(run)
    assert cuda.did == list("abc") * WARM  # nothing is done while it is recorded
    assert cuda.streams == 1
    assert cuda.calls.count("wait") == 2  # the side stream for what was before, the main one for the warm-up
    cuda.did.clear()
    for _ in range(3):
        replay()
    assert cuda.did == list("abc") * 3


def test_graphs_share_a_pool_and_count_as_programs(cuda: Recorder) -> None:
    made, other = opened(), opened()
    before = made.programs()
    assert before is not None
    replays = [made.capture(lambda what=what: cuda.launch(what)) for what in "xyz"]  # type: ignore[misc]
    assert cuda.pools == ["pool"] * 3
    assert made.programs() == before + 3
    assert other.programs() == before  # of this engine's device alone
    cuda.did.clear()
    for replay in (replays[2], replays[0], replays[1], replays[0]):
        replay()
    assert cuda.did == list("zxyx")


@pytest.mark.parametrize(
    ("layout", "settings"), [("auto", {"graphs": "off"}), ("auto", {"recompute": True}), ("padded", {})]
)
def test_where_nothing_is_captured_the_pass_itself_is_run(
    cuda: Recorder, layout: str, settings: dict[str, Any]
) -> None:
    made = opened(layout=layout, **settings)
    run = lambda: cuda.launch("a")  # noqa: E731
    assert made.capture(run) is run
    assert cuda.did == []
    assert made.describe()["graphs"] == "none"


# ---- what is chosen ----


def test_the_reference_layout_takes_the_plainest_way(cuda: Recorder) -> None:
    made = opened(layout="padded")
    assert (made.static, made.chosen, made.compiled, made.captured) == (False, "plain", False, False)


@pytest.mark.parametrize("kernel", ["flash", "efficient", "sdpa", "plain"])
def test_the_kernel_that_was_chosen_is_the_one_that_runs(
    cuda: Recorder, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    monkeypatch.setattr(device, "choose", lambda job, dtype, where: (kernel, "fastest"))
    made = opened()
    assert made.flat == (kernel in ("flash", "efficient"))
    assert made.kernel == f"{kernel} (fastest)"
    if made.flat:
        attention: InRows | InStretches = made.in_stretches(torch.tensor([0, 8]), 8, 2)
    else:
        attention = made.in_rows(torch.ones(1, 1, 8, 8, dtype=torch.bool), 2)
    assert attention.kernel.__name__ == kernel


def test_what_was_chosen_is_told(cuda: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver", lambda: "570.86.15")
    monkeypatch.setattr(util, "find_spec", lambda name: object())
    made = opened()
    said = made.describe()
    assert said["gpu"] == "Card, 80 GiB, capability 9.0"
    assert said["driver"] == "570.86.15"
    assert said["layers"] == "compiled by torch.compile"
    assert said["graphs"] == "one CUDA graph for each batch size"
    assert made.kernel == "sdpa (for torch.bfloat16)"
    facts = made.facts()
    assert (facts.model, facts.memory_bytes, facts.driver) == ("Card", 80 * 2**30, "570.86.15")
    assert made.peak_memory() == 123


@pytest.mark.parametrize(
    ("capability", "triton", "has"),
    [((7, 0), True, True), ((9, 0), True, True), ((6, 1), True, False), ((9, 0), False, False)],
)
def test_a_compiler_needs_triton_and_a_card_that_it_knows(
    cuda: Recorder, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], triton: bool, has: bool
) -> None:
    cuda.capability = capability
    monkeypatch.setattr(util, "find_spec", lambda name: object() if triton and name == "triton" else None)
    assert CudaDevice().has_compiler(torch.device("cuda", 0)) == has
    layer = len
    made = opened()
    assert made.compiled == has
    assert made.describe()["layers"] == ("compiled by torch.compile" if has else "as they are")
    if not has:
        assert made.compile(layer) is layer  # type: ignore[comparison-overlap]
    assert not opened(compile="off").compiled


def test_without_triton_no_card_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert not CudaDevice().has_compiler(torch.device("cuda", 0))  # on a machine without one, asking raises
