"""Tables of labels and probabilities that several tests share."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

NAN = float("nan")
# Eighths make ties and include both ends.
PROBS = st.one_of(
    st.sampled_from([1e-30, *(n / 8 for n in range(9))]), st.floats(0, 1, width=32)
).map(np.float32)


@st.composite
def tables(draw, values=(0.0, 1.0, NAN), min_classes=1, max_classes=4):
    """(labels, probs), with unknown labels unless `values` leaves out NaN."""
    shape = (draw(st.integers(1, 12)), draw(st.integers(min_classes, max_classes)))
    return (
        draw(arrays(np.float32, shape, elements=st.sampled_from(values))),
        draw(arrays(np.float32, shape, elements=PROBS)),
    )


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def constant(labels, prob=0.3):
    labels = np.asarray(labels, np.float32)
    return labels, np.full_like(labels, prob)


def random_table(seed: int, rows: int, missing: float = 0.0, decimals: int = 2):
    """(labels, probs, decided): 6 labels from frequent to rare, tied scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, 6)) < [0.6, 0.4, 0.2, 0.1, 0.05, 0.02]).astype(np.float32)
    probs = np.clip(0.3 * labels + rng.normal(0.3, 0.2, labels.shape), 0, 1).round(decimals)
    labels[rng.random(labels.shape) < missing] = NAN
    return labels, probs.astype(np.float32), probs >= 0.4


# (labels, probs) with too little data to fit anything.
DEGENERATE = {
    "no positives": constant(np.zeros((20, 2))),
    "only positives": constant(np.ones((20, 2))),
    "nothing known": constant(np.full((20, 2), NAN)),
    "one row": constant(np.ones((1, 2)), 0.0),
    "no rows": constant(np.zeros((0, 2))),
    "constant": constant(np.eye(20)[:, :2]),
}
