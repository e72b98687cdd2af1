"""Damaged files are read, or refused with a message, in little time and memory."""

import pytest

from experiments.benchmarks.fuzz import run_cases


@pytest.mark.slow
def test_damaged_model_folders():
    cases = list(run_cases("models", range(100)))
    assert [case for case in cases if case["faults"]] == []
    assert sum(case["outcome"] == "refused" for case in cases) > 70
