"""Rules of a cascade: phrases that send a text to the final stage or assign it a label."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable
from jaxclf.inference.cascade.cutoffs import RuleMatches

MAX_PHRASES, MAX_PHRASE_LENGTH = 256, 100
MAX_CHARACTERS = 20_000  # of a text that rules search; networks mostly read less
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"


class Rule(NamedTuple):
    """Assigns `label` to a text with one of the phrases; without a label, the text goes to the
    final stage."""

    phrases: tuple[str, ...]
    label: str | None


def read_rules(meta: Mapping[str, Any], file: Path, labels: tuple[str, ...]) -> tuple[Rule, ...]:
    """The rules of `{"rules": [{"phrases": ["want to die", "suicid*"], "label": "harm"}, …]}`.

    A phrase is a list of words; `*` at the end of a word stands for any letters. Regular
    expressions are not accepted, since some take exponential time. Raises DataError.
    """
    values = meta.get("rules")
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError(f'{file}: "rules" is not a list of objects')
    rules = tuple(
        _read_rule(value, f"{file}: rule {number}", labels)
        for number, value in enumerate(values, 1)
    )
    if sum(len(rule.phrases) for rule in rules) > MAX_PHRASES:
        raise DataError(f"{file}: more than {MAX_PHRASES} phrases")
    return rules


def _read_rule(value: Mapping[str, Any], where: str, labels: tuple[str, ...]) -> Rule:
    if unknown := value.keys() - {"phrases", "label"}:
        raise DataError(f"{where}: unknown key {printable(min(unknown))!r}; use phrases and label")
    label, phrases = value.get("label"), value.get("phrases")
    if label is not None and label not in labels:
        raise DataError(
            f"{where}: unknown label {printable(str(label))!r}; choose from: {', '.join(labels)}"
        )
    if not isinstance(phrases, list) or not phrases:
        raise DataError(f"{where}: phrases is not a list of strings")
    for number, phrase in enumerate(phrases, 1):
        if not _is_phrase(phrase):
            raise DataError(
                f"{where}: phrase {number} is not valid; write at most {MAX_PHRASE_LENGTH} "
                "characters of words that start with a letter or digit, with * only at their ends"
            )
    return Rule(tuple(phrases), label)


def _is_phrase(phrase: Any) -> bool:
    if not isinstance(phrase, str) or not phrase.strip() or len(phrase) > MAX_PHRASE_LENGTH:
        return False
    stems = [word.removesuffix("*") for word in phrase.split()]
    return all("*" not in stem and stem[:1].isalnum() for stem in stems)


def apply_rules(
    rules: Sequence[Rule], texts: Sequence[str], labels: tuple[str, ...]
) -> RuleMatches:
    """Search the texts for the rules' phrases, ignoring case and the characters between words."""
    matches = RuleMatches(np.zeros(len(texts), bool), np.zeros((len(texts), len(labels)), bool))
    normalized = [_normalize(text[:MAX_CHARACTERS]) for text in texts] if rules else []
    for rule in rules:
        pattern = re.compile("|".join(map(_pattern, rule.phrases)))
        has_match = [pattern.search(text) is not None for text in normalized]
        if rule.label is None:
            matches.escalate[has_match] = True
        else:
            matches.forced[has_match, labels.index(rule.label)] = True
    return matches


def _pattern(phrase: str) -> str:
    """A pattern that matches any stretch of text in one way only, so a search is linear."""
    words = [
        re.escape(word.removesuffix("*")) + r"\w*" * word.endswith("*")
        for word in _normalize(phrase).split()
    ]
    return r"(?<!\w)" + r"\W+".join(words) + r"(?!\w)"


def _normalize(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace(APOSTROPHE, "'")
