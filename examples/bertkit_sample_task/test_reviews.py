import numpy as np
import pytest

from bertkit.plugin import find_task
from bertkit_sample_task import balanced_accuracy, reviews


def test_the_installed_task_is_this_one() -> None:
    assert find_task("reviews").labels == reviews().labels


def test_each_class_counts_alike() -> None:
    logits = np.array([[2.0, 1.0], [3.0, 1.0], [2.0, 0.0], [1.0, 0.0]])  # always the first
    found = balanced_accuracy(logits, np.array([0, 0, 0, 1]))
    assert found == pytest.approx({"balanced_accuracy": 0.5, "accuracy": 0.75})
