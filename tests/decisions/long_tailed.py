"""Random long-tailed problems: labels of power-law prevalence, scorers from useless to good."""

import numpy as np
from scipy.special import expit, logit


def draw_problem(seed):
    """Two samples of one population: of each the labels, a scorer's probabilities and the true
    probabilities.

    10 to 90 labels and 115 to 2,000 rows. A fifth of the labels is not separated at all.
    """
    rng = np.random.default_rng(seed)
    classes, rows = rng.integers(10, 91), int(np.exp(rng.uniform(np.log(115), np.log(2000))))
    prevalence = rng.uniform(0.1, 0.5) * np.arange(1, classes + 1) ** -rng.uniform(0.6, 1.6)
    separation = rng.uniform(0, 3.5, classes) * (rng.random(classes) > 0.2)
    noise, sharpness = rng.uniform(0, 1.2), rng.uniform(0.4, 1.5)
    bias = rng.normal(0, 0.5, classes) + rng.uniform(-0.5, 1.5)

    def draw():
        labels = rng.random((rows, classes)) < prevalence
        score = rng.normal(size=labels.shape) + separation * labels
        posterior = logit(prevalence) + separation * score - separation**2 / 2
        logits = sharpness * (posterior + noise * rng.normal(size=labels.shape) + bias)
        return labels.astype(np.float32), expit(logits).astype(np.float32), expit(posterior)

    return draw(), draw()
