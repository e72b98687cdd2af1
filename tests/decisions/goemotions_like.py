"""Simulated predictions with a known truth: the label frequencies of GoEmotions, latent scores.

Each label's score is normal, with a higher mean for positives. The probability is the exact
posterior with its logit times a factor. So the F1 of any threshold has a formula.
"""

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

ROWS = 5427
# Positives of the 28 labels in GoEmotions' test split.
POSITIVES = np.array(
    """504 264 198 320 351 135 153 284 83 151 267 123 37 103 78 352 6 161 238 23 186 16 145 11 56
    156 141 1787""".split(),
    np.int64,
)
SHARE = POSITIVES / ROWS
RARE = POSITIVES < 60
DISTANCE = np.random.default_rng(42).uniform(1.4, 3.0, len(SHARE))


def draw_posterior(rng, rows):
    """(labels, their exact logits)."""
    labels = rng.random((rows, len(SHARE))) < SHARE
    score = rng.normal(size=labels.shape) + DISTANCE * labels
    return labels.astype(np.float32), logit(SHARE) + DISTANCE * score - DISTANCE**2 / 2


def draw(seed, distortion=1.0):
    """(labels, probs) of one split."""
    labels, posterior = draw_posterior(np.random.default_rng(seed), ROWS)
    return labels, expit(posterior * distortion).astype(np.float32)


def true_f1(thresholds, distortion=1.0):
    """The F1 of every label in the population."""
    posterior = logit(np.clip(thresholds, 1e-9, 1 - 1e-9)) / distortion
    score = (posterior - logit(SHARE) + DISTANCE**2 / 2) / DISTANCE
    recall, false_alarms = norm.sf(score - DISTANCE), norm.sf(score)
    return 2 * SHARE * recall / (SHARE * recall + (1 - SHARE) * false_alarms + SHARE)


def draw_members(seed, sharpness, noise, common=0.5, rows=ROWS):
    """(labels, probs [members, rows, classes]) of several models on the same split.

    A member's logit is the exact logit plus a normal error, times a factor.

    sharpness: the factor of each member.
    noise: the standard deviation of the error, for each member or each member and label.
    common: the correlation of the errors of two members.
    """
    rng = np.random.default_rng(seed)
    labels, posterior = draw_posterior(rng, rows)
    sharpness, noise = np.asarray(sharpness), np.asarray(noise)
    common_error = rng.normal(size=labels.shape)
    member_errors = rng.normal(size=(len(noise), *labels.shape))
    error = np.sqrt(common) * common_error + np.sqrt(1 - common) * member_errors
    error *= noise.reshape(len(noise), 1, -1)
    logits = sharpness[:, None, None] * (posterior + error)
    return labels, expit(logits).astype(np.float32)
