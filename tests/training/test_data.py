"""An epoch's batches are a pure function of (seed, epoch); a held-out fold shares no text."""

import json
from dataclasses import replace
from functools import partial

import chex
import numpy as np
import pytest

from jaxclf.decisions.predictions import save_predictions
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Spec, Train
from jaxclf.experiment.overrides import options_of
from jaxclf.text.sampling import SAMPLERS
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.training.data import (
    HELD_OUT,
    augment_texts,
    make_epochs,
    make_targets,
    read_splits,
)
from jaxclf.types import Predictions, Windows

EDA = Spec("eda", probability=0.8, drop=0.3)


@pytest.fixture(scope="module")
def data(tiny_data):
    files = {split: str(path) for split, path in tiny_data.items()}
    return Data(**files, max_length=16, max_windows=2, window_overlap=2)


@pytest.fixture(scope="module")
def examples(data):
    return read_splits(data)["train"]


@pytest.fixture(scope="module")
def tokenize_texts(tiny_encoder):
    return partial(tokenize, load_tokenizer(tiny_encoder), windows=Windows(16, 2, 2))


@pytest.fixture(scope="module")
def make(data, examples, tokenize_texts):
    """Make the epochs of the tiny data."""

    def make(sampler=Spec("shuffle"), augment=EDA, accumulation_steps=1, seed=0):  # noqa: B008
        train = Train()
        return make_epochs(
            examples, tokenize_texts, data, sampler, augment, train, accumulation_steps, seed
        )

    return make


def write_rows(path, rows):
    path.write_text(json.dumps(rows))
    return str(path)


def test_batches_are_a_function_of_seed_and_epoch(make):
    epochs, resumed = make(), make()
    assert epochs.sizes == resumed.sizes
    for epoch in (1, 0, 2):
        batches = list(epochs.batches(epoch, 0))
        assert len(batches) == epochs.sizes[epoch]
        chex.assert_trees_all_equal(batches[2:], list(resumed.batches(epoch, 2)))
    first, reseeded = next(epochs.batches(0, 0)), next(make(seed=1).batches(0, 0))
    assert not np.array_equal(first.ids, reseeded.ids)


@pytest.mark.parametrize("augment", ["none", "eda"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_has_the_examples_and_weights_of_its_sampler(make, examples, name, augment):
    has_weights = "importance_weighting" in options_of(SAMPLERS[name])
    options = {"importance_weighting": 1.0} if has_weights else {}
    epochs = make(Spec(name, **options), Spec(augment), accumulation_steps=3)
    for epoch in (1, 0):
        rng = np.random.default_rng([0, epoch])
        order, weights = SAMPLERS[name](examples.labels, rng, **options)
        # Examples with the same labels have the same weight, so the labels identify it.
        weight_of = dict(zip(map(tuple, examples.labels.tolist()), weights.tolist(), strict=True))
        batches = list(epochs.batches(epoch, 0))
        assert len(batches) == epochs.sizes[epoch]
        assert len(batches) % 3 == 0
        for batch in batches:
            slots = np.flatnonzero(batch.weight)
            assert set(slots.tolist()) == set(batch.examples[batch.segments > 0].tolist())
            for slot in slots:
                assert batch.weight[slot] == weight_of[tuple(batch.labels[slot].tolist())]
        used_weights = np.concatenate([batch.weight[batch.weight > 0] for batch in batches])
        assert sorted(used_weights.tolist()) == sorted(weights[order].tolist())
        assert (len(set(used_weights.tolist())) > 1) == has_weights


def test_each_epoch_augments_anew(examples):
    texts = examples.texts
    first, second = (augment_texts(EDA, texts, 0, epoch) for epoch in (0, 1))
    changed = sum(new != text for new, text in zip(first, texts, strict=True))
    assert 0.4 * len(texts) < changed < len(texts)
    assert sum(a != b for a, b in zip(first, second, strict=True)) > 0.4 * len(texts)
    assert augment_texts(EDA, texts[:3], 0, 0) == first[:3]  # independent of the rows after
    assert augment_texts(Spec("none"), texts, 0, 0) == texts


def test_an_augmented_text_with_more_windows_fits(tokenize_texts, tmp_path):
    """Typos are split into many tokens: a text of one window may become one of two."""
    rows = [{"text": "what can i do about this", "labels": {"x": row % 2}} for row in range(6)]
    path = write_rows(tmp_path / "train.json", rows)
    data = Data(path, path, path, max_length=16, max_windows=2, window_overlap=2)
    augment = Spec("eda", probability=1.0, typo=1.0, drop=0.0)
    train = Train(batch_size=1, epochs=8)
    examples = read_splits(data)["train"]
    epochs = make_epochs(examples, tokenize_texts, data, Spec("shuffle"), augment, train, 1, 0)
    for epoch, size in enumerate(epochs.sizes):
        batches = list(epochs.batches(epoch, 0))
        assert len(batches) == size
        assert sum(batch.weight.sum() for batch in batches) == len(examples.ids)


def test_a_fold_is_held_out_with_its_groups_and_duplicates(tmp_path):
    texts = ["the same", "The  same", "second", "third", "fourth", "fifth", "sixth", "seventh"]
    groups = ["", "", "g", "g", "", "", "", ""]
    rows = [
        {"text": text, "group": group, "labels": {"x": row % 2, "y": 1}}
        for row, (text, group) in enumerate(zip(texts, groups, strict=True))
    ]
    path = write_rows(tmp_path / "rows.json", rows)
    data = Data(path, path, path, folds=2)
    held_out = []
    for fold in (0, 1):
        splits = read_splits(replace(data, fold=fold))
        assert set(splits) == {"train", "val", "test", HELD_OUT}
        train_ids, held_out_ids = set(splits["train"].ids), set(splits[HELD_OUT].ids)
        assert not train_ids & held_out_ids
        assert len(train_ids | held_out_ids) == len(rows)
        for ids in ({"0", "1"}, {"2", "3"}):
            assert len(ids & held_out_ids) != 1
        held_out.append(held_out_ids)
    assert not held_out[0] & held_out[1]
    assert splits[HELD_OUT].file == path


def test_a_split_without_a_label_is_an_error(data, examples, tmp_path):
    row = {"text": "a", "labels": dict.fromkeys(examples.names, 0)}
    path = write_rows(tmp_path / "none.json", [row])
    with pytest.raises(DataError, match=r"none\.json: no example of val has a label"):
        read_splits(replace(data, val=path))


def test_shared_texts_are_a_warning(data, caplog):
    read_splits(replace(data, test=data.val))
    (message,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "48 of 48 test texts also occur in val" in message


def test_soft_labels_are_mixed_with_the_known_labels(data, examples, tmp_path):
    rng = np.random.default_rng(0)
    probs = rng.random(examples.labels.shape).astype(np.float32)
    order = rng.permutation(len(examples.ids))  # rows are matched by id
    path = tmp_path / "soft.npz"
    ids = np.array(examples.ids)[order]
    save_predictions(path, Predictions(ids, probs[order], examples.labels[order], "train"))
    data = replace(data, soft_labels=str(path), soft_label_weight=0.25)
    is_known = rng.random(probs.shape) < 0.5
    partly_known = examples._replace(label_mask=is_known.astype(np.float32))
    labels, label_mask = make_targets(data, partly_known)
    mixed = 0.25 * probs + 0.75 * examples.labels
    np.testing.assert_allclose(labels, np.where(is_known, mixed, probs), rtol=1e-6)
    assert (label_mask == 1).all()
    with pytest.raises(DataError, match=r"soft\.npz: 1 training rows .*'unknown'"):
        make_targets(data, examples._replace(ids=("unknown", *examples.ids[1:])))
    with pytest.raises(DataError, match=rf"soft\.npz: {probs.shape[1]} labels"):
        make_targets(data, examples._replace(names=("x",)))


@pytest.mark.parametrize("value", [5.0, -3.0, 1.000001, np.nan, np.inf])
def test_soft_labels_are_probabilities(data, examples, tmp_path, value):
    probs = np.full(examples.labels.shape, 0.5, np.float32)
    probs[[3, 5], 1] = value
    path = tmp_path / "soft.npz"
    save_predictions(path, Predictions(np.array(examples.ids), probs, examples.labels, "train"))
    with pytest.raises(DataError) as refusal:
        make_targets(replace(data, soft_labels=str(path)), examples)
    message = str(refusal.value)
    assert message.startswith(
        f"{path}: row 4, id '{examples.ids[3]}', label '{examples.names[1]}': "
    )
    assert f"{np.float32(value)} is not in [0, 1] (2 such values)" in message
