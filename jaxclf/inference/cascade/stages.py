"""The multistage classifier: stages from cheap to strong, of which a text goes through as many as
it takes until no label of it is in doubt."""

import re
import time
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, calibrated, from_json
from jaxclf.inference.cascade.cutoffs import Rows, RuleMatches, StageOutputs, pass_through
from jaxclf.inference.cascade.folder import Chain, Rule, new_networks
from jaxclf.inference.cascade.summary import counted
from jaxclf.inference.classifier import (
    Classifier,
    ModelGroup,
    make_groups,
    score_group,
    validate_texts,
)
from jaxclf.inference.members import load_members
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import lengths, tokenize

CHARACTERS = 20_000  # of a text that rules read; networks mostly read less
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
PARTS = 5  # of the texts on which the two that are timed take turns
WARM = 8  # texts on which each is compiled before


class Cascade(Classifier):
    """A multistage classifier, ready to label texts.

    thresholds, params, apply, tokenizer, experiment: the last stage's; `params` and `apply` of the
        networks that no earlier stage has. groups: of all stages.
    What explains an answer is the last stage, at whichever stage the text left.
    """

    def __init__(
        self, chain: Chain, stages: list[list[ModelGroup]], calibrations: list[Calibration]
    ):
        groups = [group for stage in stages for group in stage]
        super().__init__(
            chain.labels,
            chain.thresholds,
            chain.provenance,
            groups,
            calibrations,
            chain.weights[-1],
        )
        last = stages[-1][0]
        self.experiment, self.tokenizer = last.experiment, last.tokenizer
        self.params, self.apply = last.params, last.apply
        self.chain, self.new = chain, stages

    def answer(self, texts: Iterable[str]) -> StageOutputs:
        """The stage at which each text left, from 0, and its probabilities there.

        No network reads a text twice: what an earlier stage has computed, a later one that shares
        the network takes from there.
        """
        texts, chain = validate_texts(texts), self.chain
        probs = np.zeros((len(self.calibrations), len(texts), len(self.labels)), np.float32)

        def score(stage: int, rows: Rows) -> Float32[np.ndarray, "rows classes"]:
            for group in self.new[stage]:
                scored = score_group(group, [texts[row] for row in rows])
                for member, raw in zip(group.members, scored, strict=True):
                    probs[member, rows] = calibrated(self.calibrations[member], raw)
            used = np.flatnonzero(chain.weights[stage].any(axis=1))
            return blend(probs[np.ix_(used, rows)], chain.weights[stage, used])

        return pass_through(chain.early, score, apply_rules(chain.rules, texts, self.labels))

    def predict_proba(self, texts: Iterable[str]) -> Float32[np.ndarray, "texts classes"]:
        """Probabilities on the last stage's scale, one row a text, in input order."""
        return self.answer(texts).probs

    def stages(self, texts: Iterable[str]) -> list[str]:
        """The name of the stage at which each text leaves."""
        return [self.chain.stages[stage] for stage in self.answer(texts).stage]


def assemble(chain: Chain, folders: Sequence[Path]) -> Cascade:
    """The cascade of a chain and the folders of its networks. Raises DataError if one has other
    labels."""
    members, tokenizers = load_members(folders, chain.labels)
    stages = []
    for indices in new_networks(chain.weights):
        groups = make_groups(
            [members[index] for index in indices], [tokenizers[index] for index in indices]
        )
        stages.append(
            [
                group._replace(members=tuple(indices[member] for member in group.members))
                for group in groups
            ]
        )
    return Cascade(chain, stages, [from_json(member.calibration) for member in members])


def measure(
    cascade: Cascade, strong: Classifier, stage: np.ndarray, texts: Sequence[str] | None
) -> dict[str, Any]:
    """What the cascade costs against its last stage alone: counted in multiplications, and timed on
    these texts, the two by turns.

    stage: at which each test text left. texts: the test texts; without them nothing is timed, and
        each counts the same.
    """
    work = np.array([sum(map(_size, groups)) for groups in cascade.new], np.float64)
    alone = sum(map(_size, strong.groups))
    if texts is None:
        share = counted(stage, np.ones(len(stage), np.int64), work, alone)
        return {"counted": share, "by": "texts", "texts_per_second": None, "speed": None}
    data = cascade.experiment.data
    share = counted(
        stage, lengths(tokenize(cascade.tokenizer, list(texts), data.windows)), work, alone
    )
    both = {"cascade": cascade, "last": strong}
    seconds = dict.fromkeys(both, 0.0)
    for one in both.values():
        Classifier.predict_proba(one, texts[:WARM])  # every network, whoever needs it
        one.predict_proba(texts[:WARM])
    for part in range(PARTS):
        for name, one in both.items():
            began = time.perf_counter()
            one.predict_proba(texts[part::PARTS])
            seconds[name] += time.perf_counter() - began
    speed = {name: len(texts) / each for name, each in seconds.items()}
    fold = speed["cascade"] / speed["last"]
    return {"counted": share, "by": "tokens", "texts_per_second": speed, "speed": fold}


def _size(group: ModelGroup) -> float:
    """Multiplications for a token: parameters, but for the embeddings, which are looked up."""
    return float(
        sum(
            leaf.size
            for path, leaf in flatten_params(group.params).items()
            if "embeddings" not in path
        )
    )


def apply_rules(
    rules: Sequence[Rule], texts: Sequence[str], labels: tuple[str, ...]
) -> RuleMatches:
    """What the rules say of texts: a phrase is found whatever its case and what stands between its
    words, in the first 20,000 characters of a text."""
    ruled = RuleMatches(np.zeros(len(texts), bool), np.zeros((len(texts), len(labels)), bool))
    plain = [_plain(text[:CHARACTERS]) for text in texts] if rules else []
    for rule in rules:
        pattern = re.compile("|".join(map(_pattern, rule.phrases)))
        found = [pattern.search(text) is not None for text in plain]
        if rule.label is None:
            ruled.demanded[found] = True
        else:
            ruled.given[found, labels.index(rule.label)] = True
    return ruled


def _pattern(phrase: str) -> str:
    """Nothing in it matches one stretch of a text in two ways, so a search takes linear time."""
    words = [
        re.escape(word.removesuffix("*")) + r"\w*" * word.endswith("*")
        for word in _plain(phrase).split()
    ]
    return r"(?<!\w)" + r"\W+".join(words) + r"(?!\w)"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace(APOSTROPHE, "'")
