import pytest

from bertkit.conformance import CHECKS, run_checks
from bertkit_sample_chip import SampleChipBackend


@pytest.mark.parametrize("name", CHECKS)
def test_the_backend_keeps_the_contract(name: str) -> None:
    (result,) = run_checks(SampleChipBackend(), (name,))
    assert result.outcome != "failed", result.detail
