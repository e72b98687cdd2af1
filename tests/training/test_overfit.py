"""Every encoder learns: a tiny model of each family fits sixteen texts without an error."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score
from tiny_encoders import hf_config

from jaxclf.experiment.config import Data, Encoder, Experiment, Optim, Regularization, Spec
from jaxclf.model.classifier import FAMILIES, build
from jaxclf.text.packing import fill, plan
from jaxclf.text.tokenizer.tokenize import load_tokenizer, tokenize
from jaxclf.training.loop import init_state
from jaxclf.training.losses import LOSSES
from jaxclf.training.optimizer import make_optimizer
from jaxclf.training.step import dropout_key, make_train_step
from jaxclf.types import LabelStats, Shape, Windows

TEXTS, LENGTH, UPDATES = 16, 48, 60
VARIANTS = {
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "xlm-roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "deberta": "deberta",
    "deberta-v2": "deberta-v2-xlarge",
    "modernbert": "modernbert",
}


def test_every_family_is_tested():
    assert VARIANTS.keys() == FAMILIES.keys()


@pytest.fixture(scope="module")
def examples(demo_rows, tiny_encoder):
    """The labels and tokens of sixteen texts, with at least two of every label."""
    rows, names = [], list(demo_rows["train"][0]["labels"])
    for name in names:
        rows += [row for row in demo_rows["train"] if row["labels"][name] and row not in rows][:2]
    rows += [row for row in demo_rows["train"] if row not in rows][: TEXTS - len(rows)]
    labels = np.array([[row["labels"][name] for name in names] for row in rows], np.float32)
    texts = [row["text"] for row in rows]
    return labels, tokenize(load_tokenizer(tiny_encoder), texts, Windows(LENGTH, 1, 0))


@pytest.mark.slow
@pytest.mark.parametrize("family", VARIANTS)
def test_a_tiny_model_overfits(family, examples):
    labels, tokens = examples
    experiment = Experiment(
        Data("", "", "", max_length=LENGTH),
        encoder=Encoder(dropout=0.0, attention_dropout=0.0),
        pool=Spec("attention", hidden_dim=8),
        head=Spec("linear", dropout=0.0),
    )
    config = hf_config(VARIANTS[family], vocab_size=400, max_position_embeddings=LENGTH + 2)
    init, apply = build(experiment, config, labels.shape[1])
    shape = Shape(TEXTS, LENGTH, TEXTS)
    (placement,) = plan(tokens, range(TEXTS), shape)
    batch = fill(tokens, labels, np.ones_like(labels), placement, shape)
    params = jax.jit(init)(jax.random.key(0), batch)
    optim = Optim(lr=5e-3, warmup_ratio=0.1, schedule=Spec("linear"))
    tx = make_optimizer(optim, UPDATES)
    stats = LabelStats(labels.sum(axis=0), np.full(labels.shape[1], TEXTS, np.float32))
    loss = functools.partial(LOSSES["focal"], gamma=2.0)
    step = make_train_step(apply, loss, tx, stats, TEXTS, Regularization())
    state, _ = init_state(params, tx.init(params), dropout_key(0))
    for _ in range(UPDATES):
        state, _ = step(state, batch)
    logits = jax.jit(apply)(state.params, jax.tree.map(jnp.asarray, batch))
    predicted = np.asarray(logits)[: len(placement.examples)] > 0
    assert f1_score(labels[placement.examples], predicted, average="macro") == 1
