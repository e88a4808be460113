"""What the CPU backend decides before it computes: bf16 or not, threads, Intel's extension; and its dropout masks."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest

import bertkit_cpu
from bertkit.conformance.fixtures import HEADS, example_batch, job, part, with_settings
from bertkit.distributed.world import World
from bertkit.engine.interface import Job, Update, label_counts
from bertkit.engine.layouts import Grain
from bertkit.errors import UserError
from bertkit.model.config import HeadKind
from bertkit_cpu import CpuBackend, device, extension
from bertkit_cpu.topology import read_cpu
from conftest import ROOT
from low_precision import NEAR, furthest_gradient

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402


def settled(**changed: Any) -> Job:
    settings = {name: setting.default for name, setting in CpuBackend.settings.items()}
    return dataclasses.replace(job("classification", precision="bf16"), settings=settings | changed)


def test_bf16_is_refused_where_the_cpu_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = dataclasses.replace(read_cpu(), flags=frozenset({"avx2", "avx512f"}))
    monkeypatch.setattr(bertkit_cpu, "read_cpu", lambda: plain)
    assert CpuBackend().probe().precisions == ("fp32",)
    with pytest.raises(UserError, match=r"avx512_bf16.*-d fp32"):
        CpuBackend().engine(settled(), World())
    engine = CpuBackend().engine(settled(bf16="force"), World())
    assert np.isfinite(engine.predict(example_batch("classification"))["logits"]).all()


@pytest.mark.parametrize("fast", [True, False], ids=["oneDNN's products", "plain products"])
def test_gradients_in_bf16_are_near_those_in_fp32(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fast:
        monkeypatch.setattr(device, "fast_products", lambda dtype: False)
    if "bf16" not in CpuBackend().probe().precisions:
        pytest.skip("this CPU has no native bf16")
    apart, where = furthest_gradient(CpuBackend(), 256)
    assert apart < NEAR, where


@pytest.mark.parametrize("grain", [Grain(), Grain(16, 8, least=16, alone=1)], ids=["as it comes", "rounded up"])
@pytest.mark.parametrize("kind", ["classification", "tokens", "span", "encoder"])
def test_a_short_sequence_alone_has_the_answers_that_it_has_beside_another(
    kind: HeadKind, grain: Grain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it goes through torch's kernel, and its tokens are not moved into rows."""
    slots = []
    original = functional.scaled_dot_product_attention

    def attend(query: Any, key: Any, *given: Any) -> Any:
        slots.append(key.shape[2])
        return original(query, key, *given)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attend)
    monkeypatch.setattr(device.CpuDevice, "inference_grain", grain)
    engine = with_settings(CpuBackend(), job(kind))
    pair = example_batch(kind, 2)
    beside = engine.predict(pair)
    assert not slots
    for number in (0, 1):
        slots.clear()
        alone = engine.predict(part(pair, np.array([number])))
        own = slice(*pair["cu_seqlens"][number:][:2])
        for name, values in alone.items():
            rows = slice(number, number + 1) if kind == "classification" else own
            np.testing.assert_allclose(values, beside[name][rows], atol=2e-6)
        tokens = own.stop - own.start
        assert set(slots) == {tokens + grain.tail(tokens)}
        assert tokens % 16, "what is masked must be tried"


@pytest.mark.parametrize(("amx", "alone", "most"), [(True, 1, 8), (True, 29, 36), (False, 1, 32)])
def test_one_sequence_alone_has_few_numbers_of_slots(amx: bool, alone: int, most: int) -> None:
    """Of which oneDNN keeps a program each; 128 otherwise."""
    grain = device.coarse_grain(amx, alone)
    lengths = range(1, 129)
    assert len({length + (grain.tail(length) if length >= alone else 0) for length in lengths}) <= most


def test_training_out_of_memory_is_a_line_with_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the CPU allocator's own words."""
    engine = CpuBackend().engine(dataclasses.replace(settled(), precision="fp32"), World())

    def full(*_: Any) -> int:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.\nmore")

    monkeypatch.setattr(engine.passes, "learn", full)  # type: ignore[attr-defined]
    batch = example_batch("classification", 12)
    update = Update(1, (batch,), label_counts("classification", [batch]))
    with pytest.raises(UserError, match=r"out of memory: a batch of 12 sequences.*set train\.micro_batch_size to 6"):
        engine.train_step(update, 1e-4)


def test_threads_can_be_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        engine = CpuBackend().engine(dataclasses.replace(settled(threads=1), precision="fp32"), World())
        assert torch.get_num_threads() == 1
        assert engine.describe()["threads"].startswith("1: ")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("found", "torch_version", "said", "imported"),
    [
        (None, "2.13.0+cpu", "not installed", False),
        ("2.8.0", "2.13.0+cpu", "2.8.0 is installed but not used: it needs torch 2.8", False),
        ("2.8.0+cpu", "2.8.0", "2.8.0+cpu in use", True),
    ],
)
def test_the_extension_is_used_only_where_it_fits(
    monkeypatch: pytest.MonkeyPatch, found: str | None, torch_version: str, said: str, imported: bool
) -> None:
    """With stand-ins for the package: the real one ended with torch 2.8 and is not installed here."""
    brought: list[str] = []
    versions = {extension.NAME: found, "torch": torch_version}
    monkeypatch.setattr(extension.util, "find_spec", lambda name: found and types.SimpleNamespace(name=name))
    monkeypatch.setattr(extension.metadata, "version", versions.__getitem__)
    monkeypatch.setattr(extension.importlib, "import_module", brought.append)
    assert extension.load_extension() == said
    assert brought == [extension.NAME] * imported


def test_dropout_keeps_the_share_and_the_mean() -> None:
    """10 % of a million places are dropped to within 4 standard deviations; the rest is scaled so the mean stays 1."""
    from bertkit_cpu.device import CpuDevice
    from bertkit_torch.dropout import Dropout, stream_key

    ones = torch.ones(1000, 1000)
    for masks in (CpuDevice().masks, super(CpuDevice, CpuDevice()).masks):
        drop = Dropout(masks(stream_key(1, 2, 0, 0), torch.device("cpu")))
        dropped = drop(ones, 0.1)
        assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=4 * (0.09 / 1e6) ** 0.5)
        assert float(dropped.mean()) == pytest.approx(1.0, abs=2e-3)
        assert not torch.equal(dropped, drop(ones, 0.1))  # each site draws its own mask
        again = Dropout(masks(stream_key(1, 2, 0, 0), torch.device("cpu")))
        assert torch.equal(dropped, again(ones, 0.1))
        assert drop(ones, 0.0) is ones


def test_neighbouring_places_are_dropped_independently() -> None:
    """The four places that one random word serves, and the next: no two agree more often than chance (4 sigma)."""
    from bertkit_cpu.device import CpuDevice
    from bertkit_torch.dropout import stream_key

    kept, scale = CpuDevice().masks(stream_key(1, 2, 0, 0), torch.device("cpu"))((1_000_000,), torch.float32, 0.3)
    assert scale == pytest.approx(1 / 0.7, rel=1e-4)
    for distance in (1, 2, 3, 4, 5, 8):
        both = float((kept[:-distance] * kept[distance:]).mean())
        assert both == pytest.approx(0.49, abs=4 * (0.49 * 0.51 / 1e6) ** 0.5 * 1.5), distance


def test_freed_memory_is_kept() -> None:
    """Under glibc a second tensor as large as the last one touches no new page.

    In a process of its own: other threads of the tests' process would allocate in between, and be counted.
    """
    from bertkit_cpu.memory import keep_freed_memory

    assert keep_freed_memory({"LD_PRELOAD": "/usr/lib/libtcmalloc_minimal.so.4"}) == "tcmalloc is preloaded"
    program = """
import resource, torch
from bertkit_cpu.memory import keep_freed_memory
said = keep_freed_memory()
torch.zeros(64 << 20, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(60 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, said)
"""
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "backends"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    new_pages, _, said = done.stdout.strip().partition(" ")
    if not said.startswith("freed blocks are kept"):
        pytest.skip("not glibc")
    assert int(new_pages) < 1000  # 15,000 otherwise


def test_masks_are_the_same_for_any_number_of_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from bertkit_cpu.words import FEW, Masks
    from bertkit_torch.dropout import stream_key

    with ThreadPoolExecutor(3) as pool:
        alone, together = Masks(stream_key(1, 2, 0, 0)), Masks(stream_key(1, 2, 0, 0), pool)
        for places in (1, 5, FEW - 1, FEW, 3 * FEW + 7):
            one, other = (masks((places,), torch.bfloat16, 0.5)[0] for masks in (alone, together))
            assert torch.equal(one, other)
            assert set(one.unique().tolist()) <= {0.0, 1.0}
    drawn = Masks(stream_key(1, 2, 0, 0))((FEW,), torch.float32, 0.5)[0].view(8, -1)
    assert len({tuple(lane.tolist()) for lane in drawn}) == 8  # each lane draws its own


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_one_sequence_after_another_answers_as_groups_do(kind: HeadKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AMX attention takes the first way, else the second; a batch of 12 sequences, 3 to 40 tokens long, fp32."""
    batch, found = example_batch(kind), []
    for singly in (True, False):
        monkeypatch.setattr(device.CpuDevice, "one_by_one", lambda self, dtype, singly=singly: singly)
        engine = with_settings(CpuBackend(), job(kind))
        found.append(engine.predict(batch))
        assert ("one sequence after another" in engine.describe()["attention"]) == singly
    assert found[0].keys() == found[1].keys()
    for name, values in found[0].items():
        assert values.shape == found[1][name].shape
        assert np.abs(values - found[1][name]).max() < 2e-6, name


@pytest.mark.parametrize(("flags", "singly"), [("avx512_bf16 amx_bf16", True), ("avx512_bf16", False), ("", False)])
def test_only_with_amx_is_attention_one_sequence_after_another(
    flags: str, singly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dataclasses.replace(read_cpu(), flags=frozenset(flags.split()))
    monkeypatch.setattr("bertkit_cpu.device.read_cpu", lambda: made)
    cpu = device.CpuDevice()
    cpu.open(settled(), World())
    assert cpu.one_by_one(torch.bfloat16) == singly
    assert not cpu.one_by_one(torch.float32)
