"""Damaged files are read, or refused with a message, in little time and memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import fuzz

ROOT = Path(__file__).parent.parent
CASE = {"kind": "data", "seed": 0, "damage": ".csv cut", "outcome": "refused", "message": "a.csv:1"}


@pytest.mark.slow
def test_damaged_data_files_are_read_or_refused(tmp_path):
    """A third is left from a command that was stopped."""
    words = [sys.executable, "-m", "experiments.benchmarks.fuzz", "--out", str(tmp_path / "cases")]
    for count in (50, 150):
        command = [*words, "--data", str(count)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        summary = result.stdout.splitlines()[-1]
        assert summary.startswith(f"data: {count} damaged, {count} read or refused")
    cases = fuzz.read_cases(tmp_path / "cases")
    assert [case["seed"] for case in cases] == list(range(150))
    assert {case["outcome"] for case in cases} == {"read", "refused"}


@pytest.mark.slow
def test_damaged_model_folders():
    cases = list(fuzz.run_cases("models", range(100)))
    assert [case for case in cases if case["faults"]] == []
    assert sum(case["outcome"] == "refused" for case in cases) > 70


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, []),
        ({"outcome": "uncaught"}, ["uncaught"]),
        ({"outcome": "killed", "seconds": 60.0}, ["killed", "slow"]),
        ({"memory": 301.0}, ["memory"]),
        ({"message": "x" * 5000}, ["long message"]),
        ({"message": "\x1b[31m"}, ["control characters"]),
    ],
)
def test_what_must_not_happen_is_found(change, fault):
    assert fuzz.find_faults({**CASE, "seconds": 0.1, "memory": 10.0, **change}) == fault
