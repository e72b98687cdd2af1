"""All findings of a check, the most important first."""

import itertools
from collections.abc import Iterable, Mapping

from jaxclf.text.check.duplicates import find_duplicates, find_near_duplicates
from jaxclf.text.check.findings import KINDS, Finding, Rows, gather
from jaxclf.text.check.labels import find_label_faults
from jaxclf.text.check.texts import find_text_faults
from jaxclf.types import Examples

SAID = (
    "leak",
    "too rare to learn",
    "too rare to judge",
)  # by every training run, each in its own line


def find_faults(rows: Rows, near: bool = True) -> list[Finding]:
    """The findings about the rows of all splits.

    near: look for nearly equal texts too, which takes longest.
    """
    findings = itertools.chain(
        find_duplicates(rows),
        find_near_duplicates(rows) if near else (),
        find_label_faults(rows),
        find_text_faults(rows),
    )
    return sort_findings(findings)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """The most important first."""
    return sorted(findings, key=lambda finding: KINDS.index(finding.kind))


def find_first(splits: Mapping[str, Examples], number: int = 2) -> list[Finding]:
    """The most important findings that a training run does not say anyway, without the nearly
    equal texts."""
    findings = find_faults(gather(splits), near=False)
    return [finding for finding in findings if finding.kind not in SAID][:number]
