"""The names of the columns and keys that `predict` appends to a file.

No reader takes them for labels, so a file with predictions can be read as the file without them.
"""

LABELS, PROBABILITIES = "prediction.labels", "prediction.probabilities"  # keys of JSON
CUT, MODEL = "prediction.cut", "prediction.model"
PREFIXES = ("predicted.", "probability.", "prediction.")


def predicted(label: str) -> str:
    """The column with 1 where a label is predicted, else 0."""
    return f"predicted.{label}"


def probability(label: str) -> str:
    return f"probability.{label}"


def is_prediction(name: str) -> bool:
    """Whether a column or key is one that `predict` appended."""
    return name.startswith(PREFIXES)
