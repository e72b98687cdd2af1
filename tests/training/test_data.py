"""An epoch's batches are a pure function of (seed, epoch); a fold held out is nowhere else."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Spec, options_of
from jaxclf.text.sampling import SAMPLERS
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.training.data import HELD_OUT, file_of, make_epochs, read_splits, vary
from jaxclf.types import Windows


@pytest.fixture
def experiment(tiny_experiment, tiny_data):
    files = {split: str(path) for split, path in tiny_data.items()}
    data = replace(tiny_experiment.data, **files)
    return replace(tiny_experiment, data=data, augment=Spec("eda", probability=0.8, drop=0.3))


@pytest.fixture
def cut(tiny_encoder):
    return partial(tokenize, load_tokenizer(tiny_encoder), windows=Windows(16, 2, 2))


def silent(text):
    pass


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_are_a_function_of_seed_and_epoch(experiment, cut):
    examples = read_splits(experiment, silent)["train"]
    one, again = (make_epochs(experiment, examples, cut) for _ in range(2))
    assert one.sizes == again.sizes
    for epoch in (1, 0, 2):
        whole = list(one.batches(epoch, 0))
        assert len(whole) == one.sizes[epoch]
        # From the middle, in another object, as a run that goes on would.
        rest = list(again.batches(epoch, 2))
        assert all(same(a, b) for a, b in zip(whole[2:], rest, strict=True))
    other = make_epochs(replace(experiment, seed=1), examples, cut)
    assert not same(next(one.batches(0, 0)), next(other.batches(0, 0)))


@pytest.mark.parametrize("augment", ["none", "eda"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_is_what_its_sampler_drew_with_the_weights_it_gave(experiment, cut, name, augment):
    options = (
        {"importance_weighting": 1.0}
        if "importance_weighting" in options_of(SAMPLERS[name])
        else {}
    )
    experiment = replace(experiment, sampler=Spec(name, **options), augment=Spec(augment))
    experiment = replace(experiment, optim=replace(experiment.optim, gradient_accumulation_steps=3))
    examples = read_splits(experiment, silent)["train"]
    epochs, again = (make_epochs(experiment, examples, cut) for _ in range(2))
    for epoch in (1, 0):
        rng = np.random.default_rng([experiment.seed, epoch])
        order, weights = SAMPLERS[name](examples.labels, rng, **options)
        # Examples of the same labels weigh the same, so labels tell which weight a slot must have.
        weight_of = dict(zip(map(tuple, examples.labels.tolist()), weights.tolist(), strict=True))
        batches = list(epochs.batches(epoch, 0))
        assert len(batches) == epochs.sizes[epoch]
        assert len(batches) % 3 == 0
        for batch in batches:
            used = batch.examples[batch.segments > 0]
            assert set(np.flatnonzero(batch.weight).tolist()) == set(used.tolist())
            for slot in np.flatnonzero(batch.weight):
                assert batch.weight[slot] == weight_of[tuple(batch.labels[slot].tolist())]
        slots = np.concatenate([batch.weight[batch.weight > 0] for batch in batches])
        assert sorted(slots.tolist()) == sorted(weights[order].tolist())
        assert (len(set(slots.tolist())) > 1) == bool(options)
        rest = list(again.batches(epoch, 4))  # as a run that goes on would
        assert all(same(a, b) for a, b in zip(batches[4:], rest, strict=True))


def test_each_epoch_has_variations_of_its_own(experiment):
    texts = read_splits(experiment, silent)["train"].texts
    first, second = (vary(experiment, texts, epoch) for epoch in (0, 1))
    changed = sum(one != text for one, text in zip(first, texts, strict=True))
    assert 0.4 * len(texts) < changed < len(texts)
    assert sum(one != other for one, other in zip(first, second, strict=True)) > 0.4 * len(texts)
    assert vary(experiment, texts[:3], 0) == first[:3]  # of a row, not of the company
    assert vary(replace(experiment, augment=Spec("none")), texts, 0) == texts


def test_a_variation_of_more_windows_than_any_text_fits(experiment, cut, tmp_path):
    """Typos fall apart into many pieces: a text of one window may become one of two."""
    path = tmp_path / "train.json"
    rows = [{"text": "what can i do about this", "labels": {"x": at % 2}} for at in range(6)]
    path.write_text(json.dumps(rows))
    data = Data(str(path), str(path), str(path), max_length=16, max_windows=2, window_overlap=2)
    wild = replace(experiment, data=data, augment=Spec("eda", probability=1.0, typo=1.0, drop=0.0))
    wild = replace(wild, train=replace(wild.train, batch_size=1, epochs=8))
    examples = read_splits(wild, silent)["train"]
    epochs = make_epochs(wild, examples, cut)
    for epoch, size in enumerate(epochs.sizes):
        batches = list(epochs.batches(epoch, 0))
        assert len(batches) == size
        assert sum(batch.weight.sum() for batch in batches) == len(examples.ids)


def test_a_fold_is_held_out_with_all_that_is_bound_to_it(experiment, tmp_path):
    words = ["the same", "The  same", "other", "third", "fourth", "fifth", "sixth", "seventh"]
    rows = [
        {"text": text, "group": group, "labels": {"x": at % 2, "y": 1}}
        for at, (text, group) in enumerate(
            zip(words, ["", "", "g", "g", "", "", "", ""], strict=True)
        )
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    data = Data(str(path), str(path), str(path), folds=2)
    held = []
    for fold in (0, 1):
        splits = read_splits(replace(experiment, data=replace(data, fold=fold)), silent)
        assert set(splits) == {"train", "val", "test", HELD_OUT}
        train, out = set(splits["train"].ids), set(splits[HELD_OUT].ids)
        assert not train & out
        assert len(train | out) == len(rows)
        assert len({"0", "1"} & out) != 1
        assert len({"2", "3"} & out) != 1
        held.append(out)
    assert not held[0] & held[1]
    assert file_of(replace(experiment, data=data), HELD_OUT) == str(path)


def test_a_split_without_a_label_is_named(experiment, tmp_path):
    path = tmp_path / "none.json"
    names = read_splits(experiment, silent)["train"].names
    path.write_text(json.dumps([{"text": "a", "labels": dict.fromkeys(names, 0)}]))
    bad = replace(experiment, data=replace(experiment.data, val=str(path)))
    with pytest.raises(DataError, match=r"none\.json: no example has a label"):
        read_splits(bad, silent)
