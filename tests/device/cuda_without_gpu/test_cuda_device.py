"""The CUDA device without a GPU: that it can be imported, and what its pure parts do under a made `torch.cuda`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bertkit.conformance.fixtures import job
from bertkit.distributed.world import World
from bertkit.engine.interface import Precision
from bertkit.errors import UserError

torch = pytest.importorskip("torch")
from bertkit_cuda import CudaBackend, device  # noqa: E402
from bertkit_cuda.device import CudaDevice  # noqa: E402
from bertkit_torch import gpu  # noqa: E402
from bertkit_torch.gpu import WARM, lacking_of_triton  # noqa: E402
from bertkit_torch.row_attention import InRows, InStretches  # noqa: E402
from recording_cuda import Recorder  # noqa: E402

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
    monkeypatch.setattr(device, "choose", lambda names, job, dtype, where, capture: ("sdpa", f"for {dtype}"))
    return made


class Met:
    """Ranks that have met: the first one's words, and those of each."""

    def __init__(self, rank: int = 0, words: str = "", each: tuple[str, ...] = ()) -> None:
        self.world = World(rank, 2, rank, 2)
        self.words, self.each = words, each

    def from_first(self, text: str) -> str:
        return self.words or text

    def from_each(self, text: str) -> list[str]:
        return [text.replace("of-this", "of-that"), *self.each, text] if not self.each else list(self.each)


def opened(precision: Precision = "bf16", layout: str = "auto", met: Met | None = None, **settings: Any) -> CudaDevice:
    known = {name: setting.default for name, setting in CudaBackend.settings.items()} | settings
    wanted = dataclasses.replace(job("classification", layout, precision=precision), settings=known)  # type: ignore[arg-type]
    made = CudaDevice()
    made.open(wanted, World(1, 2, 1, 2))
    made.settle(wanted, met or Met())  # type: ignore[arg-type]
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
    """Where each process is shown one GPU, only its UUID tells whether it is its own."""
    cuda.count = 1
    assert opened().where.index == 0
    with pytest.raises(UserError, match="ranks 0 and 1 have one GPU together") as caught:
        opened(met=Met(each=("here GPU-1 0 ", "here GPU-1 0 ")))
    assert "one process for each GPU" in caught.value.cure
    cuda.count = 0
    with pytest.raises(UserError, match="torch finds no device"):
        opened()


def test_a_gpu_that_torch_has_no_code_for_is_one_line(cuda: Recorder) -> None:
    cuda.capability = (12, 0)
    with pytest.raises(UserError, match=r"no code for this GPU's compute capability 12\.0, only for sm_80 sm_90"):
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
    assert made.describe()["graphs"].startswith("none")
    assert ("recompute" in made.describe()["graphs"]) == ("recompute" in settings)


def test_another_thread_may_pin_memory_while_a_graph_is_recorded(cuda: Recorder) -> None:
    """The thread that stages updates works on; in mode "global" its call breaks the capture and the run."""
    made = opened()
    failed: list[BaseException] = []

    def pin() -> None:
        try:
            cuda.unsafe("pin")
        except BaseException as error:
            failed.append(error)

    def run() -> None:
        beside = threading.Thread(target=pin)
        beside.start()
        beside.join()
        cuda.launch("a")

    replay = made.capture(run)
    cuda.did.clear()
    replay()
    assert failed == []
    assert cuda.did == ["a"]
    assert cuda.calls.count("pin") == WARM + 1


def test_the_capturing_thread_itself_may_not(cuda: Recorder) -> None:
    """So the recorder above is no mere yes-man."""
    made = opened()
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        made.capture(lambda: cuda.unsafe("pin"))


# ---- what is chosen ----


def test_the_reference_layout_takes_the_plainest_way(cuda: Recorder) -> None:
    made = opened(layout="padded")
    assert (made.static, made.chosen, made.compiled, made.captured) == (False, "plain", False, False)


@pytest.mark.parametrize("kernel", ["flash", "efficient", "sdpa", "plain"])
def test_the_kernel_that_was_chosen_is_the_one_that_runs(
    cuda: Recorder, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    monkeypatch.setattr(device, "choose", lambda names, job, dtype, where, capture: (kernel, "fastest"))
    made = opened(attention=kernel)
    assert made.flat == (kernel in ("flash", "efficient"))
    assert made.kernel == f"{kernel} (fastest)"
    if made.flat:
        attention: InRows | InStretches = made.in_stretches(torch.tensor([0, 8]), 8, 2)
    else:
        attention = made.in_rows(torch.ones(1, 1, 8, 8, dtype=torch.bool), 2)
    assert attention.kernel.__name__ == kernel


def test_what_was_chosen_is_told(cuda: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver", lambda: "570.86.15")
    monkeypatch.setattr(gpu.util, "find_spec", lambda name: object())
    monkeypatch.setattr(gpu, "lacking_of_triton", lambda env, include: "")
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
    [((8, 0), True, True), ((9, 0), True, True), ((6, 1), True, False), ((9, 0), False, False)],
)
def test_a_compiler_needs_triton_and_a_card_that_it_knows(
    cuda: Recorder, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], triton: bool, has: bool
) -> None:
    cuda.capability, cuda.architectures = capability, ["sm_60", "sm_80", "sm_90"]
    monkeypatch.setattr(gpu, "lacking_of_triton", lambda env, include: "")
    monkeypatch.setattr(gpu.util, "find_spec", lambda name: object() if triton and name == "triton" else None)
    assert CudaDevice().has_compiler(torch.device("cuda", 0)) == has
    layer = len
    made = opened()
    assert made.compiled == has
    assert made.describe()["layers"] == ("compiled by torch.compile" if has else "as they are")
    if not has:
        assert made.compile(layer) is layer  # type: ignore[comparison-overlap]
    assert not opened(compile="off").compiled


def test_without_triton_no_card_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.util, "find_spec", lambda name: None)
    assert not CudaDevice().has_compiler(torch.device("cuda", 0))  # on a machine without one, asking raises


def test_without_a_c_compiler_layers_are_not_compiled_and_one_line_says_so(
    cuda: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Triton builds its launchers in C; Inductor would end with a traceback of its own."""
    monkeypatch.setattr(gpu.util, "find_spec", lambda name: object())
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level("WARNING"):
        made = opened()
    assert not made.compiled
    (record,) = [each for each in caplog.records if each.name.startswith("bertkit")]
    assert "Triton needs a C compiler" in record.getMessage()
    assert "device.compile=off" in record.getMessage()
    caplog.clear()
    assert not opened(compile="off").compiled
    assert caplog.records == []


def test_what_triton_lacks_is_named(tmp_path: Path) -> None:
    def tool(name: str) -> None:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)

    env = {"PATH": str(tmp_path)}
    assert lacking_of_triton(env, tmp_path) == "a C compiler (gcc)"
    assert lacking_of_triton(env | {"CC": "icc -m64"}, tmp_path) == "the C compiler icc -m64 that CC names"
    tool("gcc")
    assert lacking_of_triton(env, tmp_path).startswith(f"Python.h in {tmp_path}")
    (tmp_path / "Python.h").write_text("")
    assert lacking_of_triton(env, tmp_path) == ""
    tool("icc")
    assert lacking_of_triton(env | {"CC": "icc -m64"}, tmp_path) == ""


# ---- one kernel for all ranks, kept ----


def test_every_rank_takes_the_first_ones_kernel_and_measures_nothing(
    cuda: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*given: Any) -> tuple[str, str]:
        raise AssertionError("only the first rank measures")

    monkeypatch.setattr(device, "choose", measure)
    made = opened(met=Met(1, "efficient the fastest of three"))
    assert (made.chosen, made.flat) == ("efficient", True)
    assert made.kernel == "efficient (the fastest of three)"
    with pytest.raises(UserError, match="flash, which the GPU of rank 1 lacks"):
        opened("fp32", met=Met(1, "flash the fastest"))


def test_a_checkpoint_keeps_the_kernel_and_a_resume_takes_it(
    cuda: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = opened(met=Met(1, "flash the fastest"))
    kept = before.state_dict()
    after = opened()  # whose own measurement said sdpa
    assert after.chosen == "sdpa"
    assert after.load_state_dict(kept)
    assert (after.chosen, after.flat, after.kernel) == ("flash", True, "flash (as in the checkpoint)")
    assert not after.load_state_dict(kept)  # nothing changes any more
    assert not after.load_state_dict({})  # a checkpoint of before, or of another backend
    assert caplog.records == []
    for other, why in ((opened(attention="sdpa"), "was asked for"), (opened("fp32"), "has no flash")):
        caplog.clear()
        with caplog.at_level("WARNING"):
            assert not other.load_state_dict(kept)
        assert other.chosen == "sdpa"
        assert why in caplog.text


@pytest.fixture
def order() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_sums_in_a_fixed_order_where_asked(cuda: Recorder, order: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert not CudaBackend.capabilities.bitwise_resume
    assert "not bit for bit" in opened().describe()["sums"]
    assert not torch.are_deterministic_algorithms_enabled()
    assert opened(deterministic=True).describe()["sums"] == "in a fixed order"
    assert torch.are_deterministic_algorithms_enabled()
    card = CudaBackend()
    assert card.variables({"deterministic": False}) == {}
    assert card.variables({"deterministic": True}) == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert card.variables({"deterministic": True}) == {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG"):
        card.variables({"deterministic": True})
