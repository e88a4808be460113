"""What the JAX backend says of itself without JAX."""

from __future__ import annotations

from pathlib import Path

import pytest

import bertkit_jax
from bertkit.distributed.world import World
from bertkit.engine.interface import Job
from bertkit.engine.registry import find
from bertkit.errors import UserError
from bertkit_jax import JaxBackend


def test_it_is_never_chosen_by_itself() -> None:
    assert find("jax").name == "jax"
    assert JaxBackend.preference < 0


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertkit_jax.util, "find_spec", lambda name: None)
    probe = JaxBackend().probe()
    assert not probe.ready
    assert "pip install 'bertkit[jax]'" in probe.detail
    with pytest.raises(UserError, match="JAX is not installed"):
        JaxBackend().engine(Job.__new__(Job), World())


def test_chips_are_found_by_their_drivers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = {"jax", "jaxlib"}
    monkeypatch.setattr(bertkit_jax.util, "find_spec", lambda name: object() if name in installed else None)
    monkeypatch.setattr(bertkit_jax.metadata, "version", lambda name: "0.10.2")
    monkeypatch.setattr(bertkit_jax, "DEVICES", tmp_path)
    cpu = JaxBackend().probe()
    assert cpu.ready
    assert "JAX 0.10.2" in cpu.detail
    assert cpu.precisions == ("fp32",)
    (tmp_path / "nvidiactl").touch()
    gpu = JaxBackend().probe()
    assert "an NVIDIA GPU" in gpu.detail
    assert gpu.precisions == ("fp32", "bf16", "fp16")
    (tmp_path / "accel0").touch()
    assert JaxBackend().probe() == gpu  # a TPU without its driver's library
    installed.add("libtpu")
    tpu = JaxBackend().probe()
    assert "a TPU" in tpu.detail
    assert tpu.precisions == ("fp32", "bf16")


def test_memory_is_not_taken_ahead() -> None:
    assert JaxBackend().variables({})["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
