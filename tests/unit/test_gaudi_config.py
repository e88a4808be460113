"""`gaudi_config.json` files, of the kinds that people have lying about, and of kinds that they should not have."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit_gaudi.environment import BF16_LIST, FP32_LIST
from bertkit_gaudi.gaudi_config import ENDED, KNOWN, GaudiConfig, read_config, with_operators, write_lists

# As the Hub's Habana/bert-large-uncased-whole-word-masking has it.
PUBLISHED = {
    "use_fused_adam": True,
    "use_fused_clip_norm": True,
    "use_torch_autocast": True,
    "autocast_bf16_ops": None,
    "autocast_fp32_ops": None,
    "optimum_version": "1.11.0",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gaudi_config.json"


def read(path: Path, held: Any) -> GaudiConfig:
    path.write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
    return read_config(path)


def test_a_published_file(path: Path) -> None:
    assert read(path, PUBLISHED) == GaudiConfig()


def test_every_part_that_is_understood(path: Path) -> None:
    held = {
        "use_fused_adam": False, "use_fused_clip_norm": False, "use_dynamic_shapes": True,
        "autocast_bf16_ops": ["add", "linear"], "autocast_fp32_ops": ["softmax"],
    }  # fmt: skip
    assert read(path, held) == GaudiConfig(False, False, True, ("add", "linear"), ("softmax",))


def test_what_is_absent_is_what_the_vendor_recommends(path: Path) -> None:
    assert read(path, {}) == GaudiConfig(True, True, False, (), ())


@pytest.mark.parametrize("key", ENDED)
def test_the_mixed_precision_that_ended_is_named_with_what_took_its_place(path: Path, key: str) -> None:
    with pytest.raises(UserError) as caught:
        read(path, {"use_fused_adam": True, key: True})
    assert f"{key} is of the mixed precision that ended" in caught.value.cause
    assert "autocast_bf16_ops" in caught.value.cure


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deep"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ({"use_fused_adamw": True}, "no key 'use_fused_adamw'"),
        ({"use_fused_adam": "yes"}, "use_fused_adam is 'yes'"),
        ({"use_fused_adam": 1}, "use_fused_adam is 1"),
        ({"use_fused_clip_norm": None}, "use_fused_clip_norm is None"),
        ({"use_dynamic_shapes": []}, "use_dynamic_shapes is []"),
        ({"autocast_bf16_ops": "add"}, "no list of operators"),
        ({"autocast_bf16_ops": False}, "no list of operators"),
        ({"autocast_bf16_ops": 0}, "no list of operators"),
        ({"autocast_fp32_ops": {}}, "no list of operators"),
        ({"autocast_fp32_ops": ["add", 3]}, "no list of operators"),
        ({"autocast_fp32_ops": ["add\nlinear"]}, "no list of operators"),
        ({"autocast_fp32_ops": ["../add"]}, "no list of operators"),
    ],
)
def test_what_is_no_such_file_is_one_line(path: Path, held: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(path, held)
    assert said in caught.value.cause
    assert str(path) in caught.value.cause
    assert caught.value.cure
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_config(path)
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_config(tmp_path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="not UTF-8 at byte 1"):
        read_config(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*KNOWN, *ENDED, "other"])
GARBAGE = st.dictionaries(KEYS, JSON, max_size=6).map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=40)
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)


@FILES
@given(GARBAGE)
def test_garbage_gives_a_config_or_one_line(path: Path, held: str) -> None:
    path.write_bytes(held.encode("utf-8", "surrogatepass"))
    try:
        config = read_config(path)
    except UserError:
        return
    assert {type(config.fused_adam), type(config.fused_clip_norm), type(config.dynamic_shapes)} == {bool}
    assert all(name.isidentifier() for name in (*config.bf16_ops, *config.fp32_ops))


@FILES
@given(st.binary(max_size=40))
def test_bytes_give_a_config_or_one_line(path: Path, held: bytes) -> None:
    path.write_bytes(held)
    with contextlib.suppress(UserError):
        assert isinstance(read_config(path), GaudiConfig)


def test_lists_are_named_by_what_is_in_them(tmp_path: Path) -> None:
    """So that two jobs of one user never overwrite each other's."""
    both = write_lists(GaudiConfig(bf16_ops=("add", "mul"), fp32_ops=("exp",)), tmp_path / "deep" / "er")
    assert set(both) == {BF16_LIST, FP32_LIST}
    assert both[BF16_LIST].read_text() == "add\nmul\n"
    assert both[FP32_LIST].read_text() == "exp\n"
    other = write_lists(GaudiConfig(bf16_ops=("add",)), tmp_path / "deep" / "er")
    assert set(other) == {BF16_LIST}
    assert other[BF16_LIST] != both[BF16_LIST]
    assert both[BF16_LIST].read_text() == "add\nmul\n"
    again = write_lists(GaudiConfig(fp32_ops=("add", "mul")), tmp_path / "deep" / "er")
    assert again[FP32_LIST] == both[BF16_LIST]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_lists(GaudiConfig(bf16_ops=("add",)), tmp_path / "file" / "gaudi")


def test_the_lists_of_the_vendors_mlperf_run_take_the_place_of_the_bridges_alone(path: Path) -> None:
    assert with_operators(GaudiConfig(), "bridge") == GaudiConfig()
    found = with_operators(GaudiConfig(fused_adam=False), "mlperf")
    assert "cross_entropy_loss" in found.bf16_ops
    assert "nll_loss" in found.fp32_ops
    assert not set(found.bf16_ops) & set(found.fp32_ops)
    assert not found.fused_adam
    with pytest.raises(UserError, match="names operators too"):
        with_operators(read(path, {"autocast_bf16_ops": ["add"]}), "mlperf")
