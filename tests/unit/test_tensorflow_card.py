"""What the TensorFlow backend says of itself without TensorFlow."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import bertkit_tensorflow
from bertkit.engine.registry import find
from bertkit_tensorflow import TensorFlowBackend


def test_it_is_found_by_both_names_and_never_chosen_by_itself() -> None:
    assert find("tf").name == find("tensorflow").name == "tensorflow"
    assert TensorFlowBackend.preference < 0


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertkit_tensorflow.util, "find_spec", lambda name: None)
    probe = TensorFlowBackend().probe()
    assert not probe.ready
    assert "pip install 'bertkit[tensorflow]'" in probe.detail


def test_whatever_distribution_brings_it_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "tensorflow-cpu":
            raise metadata.PackageNotFoundError(name)
        return "2.21.0"

    monkeypatch.setattr(bertkit_tensorflow.util, "find_spec", lambda name: object())
    monkeypatch.setattr(bertkit_tensorflow.metadata, "version", version)
    monkeypatch.setattr(bertkit_tensorflow, "GPU", Path("/nowhere"))
    for flags, precisions in (("avx2 avx512_bf16", ("fp32", "bf16")), ("avx2", ("fp32",)), ("", ("fp32",))):
        monkeypatch.setattr(bertkit_tensorflow, "cpuinfo", lambda flags=flags: {"flags": [flags]} if flags else {})
        probe = TensorFlowBackend().probe()
        assert probe.ready
        assert "TensorFlow 2.21.0" in probe.detail
        assert probe.precisions == precisions
    monkeypatch.setattr(bertkit_tensorflow, "GPU", Path("/"))
    assert TensorFlowBackend().probe().precisions == ("fp32", "bf16", "fp16")
    assert "an NVIDIA GPU" in TensorFlowBackend().probe().detail
    monkeypatch.setattr(bertkit_tensorflow, "PACKAGES", ())
    assert "TensorFlow of unknown version" in TensorFlowBackend().probe().detail


def test_what_tensorflow_reads_from_the_environment() -> None:
    variables = TensorFlowBackend().variables({})
    assert variables["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert variables["TF_CPP_MIN_LOG_LEVEL"] == "2"
