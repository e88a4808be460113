"""The scales of int8 in a run's folder: used where they are of these weights, this length and this way to find them."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from bertkit.console import Display
from bertkit.files.disk import write_sealed_arrays
from bertkit.training.calibration import ScalesKey, keep_scales, kept_scales
from bertkit.training.run_folder import SCALES

KEY = ScalesKey("ab12", 128)
ARRAYS = {"encoder.layer.0.attention.self": np.array([0.5, 3.0], np.float32)}


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    said = io.StringIO()
    keep_scales(tmp_path, KEY, ARRAYS, "scales by hand")
    found = kept_scales(tmp_path, KEY, Display(stream=said))
    assert {name: array.tolist() for name, array in found.items()} == {name: a.tolist() for name, a in ARRAYS.items()}
    assert said.getvalue() == f"int8: scales by hand, from {tmp_path / SCALES}\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "cd34"}, "other weights"),
        ({"longest": 64}, "another maximum length"),
        ({"weights": "cd34", "version": 1}, "other weights and another version of bertkit"),
    ],
)
def test_what_is_of_another_key_is_not_used_and_said(tmp_path: Path, change: dict[str, object], words: str) -> None:
    said = io.StringIO()
    keep_scales(tmp_path, dataclasses.replace(KEY, **change), ARRAYS, "scales")  # type: ignore[arg-type]
    assert kept_scales(tmp_path, KEY, Display(stream=said)) == {}
    assert said.getvalue() == f"int8: the scales in {tmp_path / SCALES} are of {words}; they are not used\n"


def test_a_file_from_before_versions_is_not_used(tmp_path: Path) -> None:
    said = io.StringIO()
    write_sealed_arrays(tmp_path / SCALES, ARRAYS, {"weights": "ab12", "longest": "128", "what": "scales"})
    assert kept_scales(tmp_path, KEY, Display(stream=said)) == {}
    assert "are of another version of bertkit; they are not used" in said.getvalue()
