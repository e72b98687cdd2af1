"""Neighbours differ from the experiment in one choice, and from each other in nothing else."""

from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import iter_fields, override
from jaxclf.training.ablation import BASELINE, CHOICES, FULL, ablations


def differences(one, other):
    ours, theirs = dict(iter_fields(one)), dict(iter_fields(other))
    return {key for key in ours if ours[key] != theirs[key]}


def test_each_neighbour_has_one_choice_of_the_baseline():
    full = override(catalog.load("focal_attention"), {"train.epochs": 2, "seed": 3})
    baseline = catalog.load("baseline")
    found = ablations(full, baseline)
    assert list(found) == [
        FULL,
        "pool=cls",
        "head=native",
        "loss=bce",
        "sampler=shuffle",
        "optim.schedule=linear",
        BASELINE,
    ]
    assert found[FULL] is full
    for label, experiment in found.items():
        if label not in (FULL, BASELINE):
            key, _, name = label.partition("=")
            assert differences(full, experiment) == {key}
            assert dict(iter_fields(experiment))[key] == dict(iter_fields(baseline))[key]
            assert dict(iter_fields(experiment))[key].name == name
    # The budget stays that of the experiment.
    assert differences(full, found[BASELINE]) == set(CHOICES)
    assert found[BASELINE].train.epochs == 2


def test_what_is_the_baselines_already_makes_no_neighbour():
    baseline = catalog.load("baseline")
    assert list(ablations(baseline, baseline)) == [FULL, BASELINE]
