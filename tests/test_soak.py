"""Real trainings, killed and stopped in every phase, end in the same bits."""

import pytest

from experiments.benchmarks import soak


@pytest.mark.slow
def test_killed_trainings_end_in_the_same_bits(tmp_path):
    record = soak.summarize(list(soak.interrupt_runs(tmp_path, "kills", 12)))
    assert record["interruptions"] == record["clean"] == 12
    assert record["identical_folders"] == record["folders"]
    assert record["restarts_above_zero"] >= 6


@pytest.mark.slow
def test_stopped_trainings_end_with_one_line_and_in_the_same_bits(tmp_path):
    record = soak.summarize(list(soak.interrupt_runs(tmp_path, "signals", 4)))
    assert record["interruptions"] == record["clean"] == 4
    assert record["identical_folders"] == record["folders"]
