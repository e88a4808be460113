"""What TensorFlow itself writes and reads beside the engine: profiles. Skipped without it."""

from __future__ import annotations

from pathlib import Path

import pytest

import bertkit_tensorflow
from conftest import Run
from profiles import profiled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not bertkit_tensorflow.version(), reason="no TensorFlow: pip install 'bertkit[tensorflow]'"),
]


def test_profiles_are_chrome_traces_of_what_was_asked_for(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    found = profiled(bertkit, tmp_path, sample_dir, "tensorflow")
    for name, spans in found.items():
        assert spans.count("FunctionRun") == (4 if name == "run/trace.json" else 2), name  # an update has two graphs
        assert any("MatMul" in span for span in spans), name
