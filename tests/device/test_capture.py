"""Layers of short sequences that run without Python: the same numbers, and Python again where that cannot be had."""

from __future__ import annotations

import logging
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from bertkit.conformance.fixtures import example_batch, job, part, with_settings  # noqa: E402
from bertkit.engine.interface import Precision  # noqa: E402
from bertkit_cpu import CpuBackend, capture  # noqa: E402
from bertkit_cpu.dense import fast_products  # noqa: E402
from bertkit_cpu.int8_static import static_int8_works  # noqa: E402
from bertkit_torch.short import OFTEN  # noqa: E402


@pytest.mark.parametrize("kind", ["classification", "span"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int8 by oneDNN"])
def test_answers_are_the_same_bits_before_and_after(precision: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = cast("Precision", precision.split()[0])
    dtype = torch.float32 if name == "fp32" else torch.bfloat16
    if not (static_int8_works() if name == "int8" else fast_products(dtype)):
        pytest.skip("torch has no such products on this CPU")
    monkeypatch.setattr("bertkit_cpu.device.onednn_from", lambda hidden: 1 if "oneDNN" in precision else 10**6)
    made, original = [], capture.captured

    def spy(layer: Any, *given: Any) -> Any:
        made.append((layer, original(layer, *given)))
        return made[-1][1]

    monkeypatch.setattr("bertkit_cpu.dense.captured", spy)
    engine = with_settings(CpuBackend(), job(kind, precision=name))
    batch = example_batch(kind)
    if name == "int8":
        engine.calibrate([batch])  # type: ignore[attr-defined]
    singles = [part(batch, np.array([number])) for number in range(12)]
    before = [engine.predict(single) for single in singles]
    assert not made
    for _ in range(OFTEN // 12 + 1):
        after = [engine.predict(single) for single in singles]
    assert len(made) == job(kind).model.num_hidden_layers
    assert all(run is not layer for layer, run in made)
    for one, other in zip(before, after, strict=True):
        for output, values in one.items():
            np.testing.assert_array_equal(values, other[output])


class OfItsLength(torch.nn.Module):  # type: ignore[misc]
    """Adds the number of rows, which is recorded as it was."""

    def forward(self, x: Any, asking: Any = None, mask: Any = None) -> Any:
        return x + len(x)


class Unrecordable(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any, asking: Any = None, mask: Any = None) -> Any:
        if torch.jit.is_tracing():
            raise RuntimeError("no such operator\nmore")
        return x


@pytest.mark.parametrize(
    ("layer", "reason"), [(OfItsLength(), "another number of rows"), (Unrecordable(), "no such operator")]
)
def test_a_layer_that_cannot_be_recorded_runs_as_it_is(
    layer: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    capture._say.cache_clear()
    with caplog.at_level(logging.INFO):
        assert capture.captured(layer, torch.ones(3, 4), None, None) is layer
        assert capture.captured(layer, torch.ones(3, 4), None, None) is layer
    (said,) = [record.message for record in caplog.records]
    assert said.endswith(reason)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_what_is_recorded_takes_other_rows_askers_and_masks(asked: bool, masked: bool) -> None:
    class Some(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, asking: Any = None, mask: Any = None) -> Any:
            x = x * 2 if mask is None else x * mask[0, 0].transpose(0, 1)
            return x if asking is None else x.index_select(0, asking)

    def given(rows: int, *asking: int) -> tuple[Any, Any, Any]:
        mask = torch.randn(1, 1, 1, rows) if masked else None
        return torch.randn(rows, 4), torch.tensor(asking) if asked else None, mask

    run = capture.captured(Some(), *given(3, 0))
    assert not isinstance(run, torch.nn.Module)
    others = given(7, 6, 2)
    torch.testing.assert_close(run(*others), Some()(*others))
