"""Start the last layer at a logistic regression on the pooled vectors of the untrained network.

The head then fits the pretrained vectors, and the first updates distort the encoder less (Kumar et
al. 2022, arXiv 2202.10054).
"""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32
from scipy.optimize import minimize
from scipy.special import expit, logit

from jaxclf.decisions.metrics import log_loss
from jaxclf.decisions.predictions import with_unknown
from jaxclf.errors import ConfigError
from jaxclf.model.classifier import make_embed
from jaxclf.model.inference import gather, prediction_shape, score
from jaxclf.text.splits import subsample
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.training.data import make_targets
from jaxclf.training.setup import RunSetup
from jaxclf.types import Tokens

log = logging.getLogger(__name__)

Vectors = Float32[np.ndarray, "rows features"]
Targets = Float32[np.ndarray, "rows classes"]

# Inverse strengths of the L2 penalty, on vectors of about unit length; tried in this order.
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
MAX_ROWS = 20_000  # training rows; more barely move the start


def regress_head(setup: RunSetup, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with kernel and bias of the head from the regression.

    The penalty is that of lowest log loss on validation. Raises ConfigError for a head with other
    layers before the last one.
    """
    if set(params["head"]) != {"classifier"}:
        raise ConfigError("optim.init_head_from_regression=true needs head=linear")
    data, val = setup.experiment.data, setup.splits["val"]
    train = subsample(setup.splits["train"], MAX_ROWS)
    targets, mask = make_targets(data, train)
    log.info("head: logistic regression on the vectors of %d training rows", len(train.ids))
    x = _embed(setup, params, tokenize(setup.tokenizer, train.texts, data.windows))
    x_val = _embed(setup, params, setup.tokens["val"])
    val_labels = with_unknown(val.labels, val.label_mask)
    losses, kernel, bias = [], None, None
    for strength in STRENGTHS:
        solution = fit_regression(x, targets, mask, strength)
        losses.append(log_loss(val_labels, expit(x_val @ solution[0] + solution[1])))
        if losses[-1] > min(losses):
            break
        kernel, bias = solution
    log.info("head: log loss %.4f on validation", min(losses))
    classifier = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return {**params, "head": {"classifier": classifier}}


def fit_regression(
    x: Vectors, targets: Targets, mask: Targets, strength: float
) -> tuple[Float32[np.ndarray, "features classes"], Float32[np.ndarray, " classes"]]:
    """(kernel, bias) of a logistic regression for each label.

    targets: in [0, 1]. mask: 1 where a label is known, else 0.
    strength: inverse weight of half the squared norm of the kernel, on centered vectors whose mean
        squared length is 1.
    """
    center = x.mean(axis=0)
    length = np.sqrt(np.mean(np.sum((x - center) ** 2, axis=1))) or 1.0
    scaled, classes = (x - center) / length, targets.shape[1]
    shape = (x.shape[1] + 1, classes)
    # With one positive and one negative more, the log odds are finite.
    positives, known = (targets * mask).sum(axis=0), mask.sum(axis=0)
    start = np.zeros(shape)
    start[-1] = logit((positives + 1) / (known + 2))

    def loss(flat: Float[np.ndarray, " weights"]) -> tuple[float, Float[np.ndarray, " weights"]]:
        weights = flat.reshape(shape)
        z = scaled @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32)
        error = mask * (expit(z) - targets)
        gradient = np.concatenate([scaled.T @ error, error.sum(axis=0)[None]]).astype(np.float64)
        gradient[:-1] += weights[:-1] / strength
        value = np.sum(mask * (np.logaddexp(0, z) - targets * z), dtype=np.float64)
        return float(value + np.sum(weights[:-1] ** 2) / (2 * strength)), gradient.ravel()

    # A label without positives keeps the bias it starts with.
    solved = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    weights = solved.x.reshape(shape)
    kernel = np.where(positives > 0, weights[:-1], 0) / length
    bias = np.where(positives > 0, weights[-1], start[-1]) - center @ kernel
    return kernel.astype(np.float32), bias.astype(np.float32)


def _embed(setup: RunSetup, params: dict[str, Any], tokens: Tokens) -> Vectors:
    experiment = setup.experiment
    embed = jax.jit(make_embed(experiment, setup.hf_config, len(setup.names)))
    features = params["head"]["classifier"]["kernel"].shape[0]
    shape, count = prediction_shape(experiment.data.windows), int(tokens.example_index[-1]) + 1
    return gather(score(embed, params, tokens, shape, len(setup.names)), count, features)
