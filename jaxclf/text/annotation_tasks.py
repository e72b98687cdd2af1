"""Predictions in the form of annotation tools."""

from collections.abc import Sequence
from typing import Any


def choices(labels: Sequence[str], from_name: str, to_name: str) -> list[dict[str, Any]]:
    """The `result` of a prediction in Label Studio; empty without a label."""
    value = {"choices": list(labels)}
    result = {"from_name": from_name, "to_name": to_name, "type": "choices", "value": value}
    return [result] if labels else []
