"""Population macro F1 of threshold rules on simulated problems of 115 to 5,000 rows.

    PYTHONPATH=. python tests/decisions/threshold_simulation.py

Probabilities are calibrated out of fold, as those of a run. About ten minutes on one CPU core.
"""

import numpy as np
from scipy.special import expit, logit

from jaxclf.decisions.calibration import apply_calibration, calibrate_out_of_fold, platt
from jaxclf.decisions.threshold_choice import fit_rules
from jaxclf.decisions.thresholds import auto, fixed, per_label, plug_in

POPULATION = 4000  # rows that stand for it
# Kind of problem -> (prevalence of the labels, lowest and highest separation).
KINDS = {
    "few frequent labels": (np.geomspace(0.35, 0.1, 6), (2.0, 3.6)),
    "28 labels, one frequent": (np.append(0.33, np.geomspace(0.09, 0.002, 27)), (1.4, 3.0)),
    "poor scorer": (np.geomspace(0.3, 0.01, 8), (0.3, 1.5)),
    "power law": (0.4 * np.arange(1, 31) ** -1.2, (0.5, 3.2)),
}


def simulate(seed, rows, prevalence, separations):
    """Macro F1 in the population of each rule, over the labels with a positive."""
    rng = np.random.default_rng(seed)
    lowest, highest = separations
    separation = rng.uniform(lowest, highest, len(prevalence))
    sharpness, noise = rng.uniform(0.4, 1.4), rng.uniform(0, 0.8)
    bias = rng.normal(0, 0.4, len(prevalence))

    def draw(count):
        labels = rng.random((count, len(prevalence))) < prevalence
        score = rng.normal(size=labels.shape) + separation * labels
        posterior = logit(prevalence) + separation * score - separation**2 / 2
        logits = sharpness * (posterior + noise * rng.normal(size=labels.shape) + bias)
        return labels.astype(np.float32), expit(logits).astype(np.float32), expit(posterior)

    labels, network, _ = draw(rows)
    _, fresh_network, truth = draw(POPULATION)
    probs = calibrate_out_of_fold(labels, network, platt)
    fresh = apply_calibration(platt(labels, network), fresh_network)
    thresholds = {"auto": auto(labels, probs), **fit_rules(labels, probs)}
    for rule in (fixed, plug_in, per_label):
        thresholds[f"named {rule.__name__}"] = rule(labels, probs)
    has_positive = labels.any(axis=0)

    def score(values):
        decided = fresh >= values
        f1 = 2 * (truth * decided).sum(axis=0) / (decided.sum(axis=0) + truth.sum(axis=0))
        return f1[has_positive].mean()

    return {name: score(values) for name, values in thresholds.items()}


def main():
    for kind, (prevalence, separations) in KINDS.items():
        for rows, count in ((115, 40), (500, 40), (2000, 10), (5000, 10)):
            scores = [simulate(seed, rows, prevalence, separations) for seed in range(count)]
            cells = (f"{name} {np.mean([row[name] for row in scores]):.3f}" for name in scores[0])
            print(f"{kind}, {rows} rows: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
