"""A cascade of classifiers: cheap stages first, stronger ones for texts that stay uncertain."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, apply_calibration, calibration_from_json
from jaxclf.inference.cascade.cutoffs import Rows, StageOutputs, run_stages_lazily
from jaxclf.inference.cascade.folder import CascadePlan, new_networks
from jaxclf.inference.cascade.rules import apply_rules
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.members import load_members
from jaxclf.inference.model_groups import ModelGroup, make_groups, score_group
from jaxclf.inference.texts import validate_texts
from jaxclf.model.fork import raise_after_fork


class Cascade(Classifier):
    """A classifier of several stages.

    thresholds, tokenizer, experiment: the final stage's. params, apply: of the final stage's
        networks that no earlier stage uses. groups: of all stages.
    new_groups: for each stage the groups that no earlier stage uses.
    Explanations come from the final stage, whatever stage a text exits at.
    """

    def __init__(
        self, plan: CascadePlan, new_groups: list[list[ModelGroup]], calibrations: list[Calibration]
    ):
        groups, weights = [group for part in new_groups for group in part], plan.weights[-1]
        super().__init__(
            plan.labels,
            plan.thresholds,
            plan.provenance,
            groups,
            calibrations,
            weights,
            plan.digest,
        )
        final = new_groups[-1][0]
        self.experiment, self.tokenizer = final.experiment, final.tokenizer
        self.params, self.apply = final.params, final.apply
        self.plan, self.new_groups = plan, new_groups

    def run(self, texts: Iterable[str]) -> StageOutputs:
        """The stage at which each text exits, from 0, and its probabilities at that stage.

        No network reads a text twice: stages share the outputs of their networks.
        """
        raise_after_fork()
        texts, plan = validate_texts(texts), self.plan
        probs = np.zeros((len(self.calibrations), len(texts), len(self.labels)), np.float32)

        def score_stage(stage: int, rows: Rows) -> Float32[np.ndarray, "rows classes"]:
            for group in self.new_groups[stage]:
                scores = score_group(group, [texts[row] for row in rows])
                for member, raw_probs in zip(group.members, scores, strict=True):
                    probs[member, rows] = apply_calibration(self.calibrations[member], raw_probs)
            used = np.flatnonzero(plan.weights[stage].any(axis=1))
            return blend(probs[np.ix_(used, rows)], plan.weights[stage, used])

        matches = apply_rules(plan.rules, texts, self.labels)
        return run_stages_lazily(plan.exits, score_stage, matches)

    def score_texts(self, texts: list[str]) -> Float32[np.ndarray, "texts classes"]:
        """Probabilities on the final stage's scale, one row a text, in input order."""
        return self.run(texts).probs

    def stages(self, texts: Iterable[str]) -> list[str]:
        """The name of the stage at which each text exits."""
        return [self.plan.stages[stage] for stage in self.run(texts).stage]


def make_cascade(plan: CascadePlan, folders: Sequence[Path], verify: bool = True) -> Cascade:
    """The cascade of a plan and the folders of its networks. Raises DataError if one has other
    labels."""
    members, tokenizers = load_members(folders, plan.labels, verify)
    groups = [make_groups(members, tokenizers, part) for part in new_networks(plan.weights)]
    calibrations = [calibration_from_json(member.calibration) for member in members]
    return Cascade(plan, groups, calibrations)
