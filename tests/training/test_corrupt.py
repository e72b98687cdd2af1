"""Damage to what runs, models and jobs leave on the disk is named; nothing good is lost."""

import pytest

from experiments.benchmarks.corrupt import FINE, try_damages


@pytest.mark.slow
def test_every_damage_is_named_and_changes_no_number():
    failed = [result for result in try_damages(30, seed=100) if result[2] not in FINE]
    assert failed == []
