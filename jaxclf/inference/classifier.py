"""The Classifier: texts -> probabilities, labels and explanations."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, apply_calibration
from jaxclf.decisions.provenance import Provenance
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, printable
from jaxclf.inference.explanation import Source, explain
from jaxclf.inference.model_groups import ModelGroup, score_group
from jaxclf.inference.report import Report, read_report
from jaxclf.inference.saving import push_copy, save_copy
from jaxclf.inference.texts import is_frame, text_column, validate_texts, with_columns
from jaxclf.model.attribution import slopes_shape
from jaxclf.model.fork import raise_after_fork
from jaxclf.text.prediction_columns import predicted, probability
from jaxclf.text.tokenizer.tokenize import is_cut

TEXT = "text"  # the column of a DataFrame where `data.text_column` names none
MAX_SHOWN = 5  # labels


class Classifier:
    """A trained model or an ensemble. All methods may be called from several threads at once.

    Texts are a list, a tuple, an array, a Series, a generator, or a DataFrame of pandas or polars
    with a column `text` (or `data.text_column`). A string is one text, and its answer is not in a
    list.

    labels: names in the order of the columns. thresholds: float [classes]. rule: their rule.
    params, apply, tokenizer, experiment: for batched inference of your own,
        `apply(params, batch) -> logits`; of an ensemble those of its first group in `groups`.
    digest: SHA-256 of the model's folder, empty for a model that is not saved.
    folder: that it was loaded from.
    """

    folder: Path | None = None

    def __init__(
        self,
        labels: tuple[str, ...],
        thresholds: Mapping[str, Mapping[str, Any]],
        provenance: Provenance,
        groups: list[ModelGroup],
        calibrations: list[Calibration],
        weights: Float64[np.ndarray, "members classes"],
        digest: str = "",
    ):
        raise_after_fork()
        self.labels = labels
        rule = thresholds[labels[0]]
        self.rule = rule.get("chosen", rule.get("rule", ""))
        self.thresholds = np.array([thresholds[name]["value"] for name in labels])
        self.provenance = provenance
        self.groups = groups
        self.calibrations = calibrations
        self.weights = weights
        self.digest = digest
        self.experiment, self.tokenizer = groups[0].experiment, groups[0].tokenizer
        self.params, self.apply = groups[0].params, groups[0].apply

    @property
    def identifier(self) -> str:
        """What made an answer, for people: the digest's first 12 digits and jaxclf's version."""
        return f"{self.digest[:12]} jaxclf {importlib.metadata.version('jaxclf')}"

    def __repr__(self) -> str:
        encoders = dict.fromkeys(group.experiment.encoder.name for group in self.groups)
        labels = ", ".join(map(printable, self.labels[:MAX_SHOWN]))
        return (
            f"<{type(self).__name__} of {', '.join(map(printable, encoders))}; "
            f"{len(self.labels)} labels: {labels}{', …' * (len(self.labels) > MAX_SHOWN)}; "
            f"thresholds by {self.rule}; {self.identifier.strip()}>"
        )

    @property
    def report(self) -> Report:
        """The scores on val and test, with their intervals. Raises DataError where the folder has
        no report.json, as an export has none."""
        return read_report(self._folder())

    def save(self, path: str | Path) -> None:
        """Copy the folder that the classifier was loaded from; `jaxclf.load(path)` opens the copy.

        It replaces an older model. What was changed in memory is not saved. Raises ConfigError if
        `path` holds anything but a model.
        """
        save_copy(self._folder(), Path(path))

    def push_to_hub(self, name: str, private: bool = True, token: str | None = None) -> str:
        """Upload the model with its card to the Hugging Face Hub, as `export --to hf` writes it.

        name: of the repository, such as "me/my-model"; it is made if it is missing.
        private: whether it is then for its owner alone. token: of the Hub; None: that of `hf auth
        login`. Returns the address. Raises ConfigError.
        """
        return push_copy(self._folder(), name, private, token)

    def _folder(self) -> Path:
        if self.folder is None:
            raise ConfigError("the classifier was not loaded from a folder")
        return self.folder

    def _texts(self, texts: Any) -> list[str]:
        name = self.experiment.data.text_column or TEXT
        return validate_texts(text_column(texts, name) if is_frame(texts) else texts)

    def predict_proba(self, texts: Any) -> Float32[np.ndarray, "*texts classes"]:
        """Calibrated probabilities, one row a text, in input order. An ensemble blends its
        members' probabilities. Raises DataError for a text that is empty or not Unicode."""
        if isinstance(texts, str):
            return self.predict_proba([texts])[0]
        return self.score_texts(self._texts(texts))

    def predict(self, texts: Any) -> Any:
        """The labels of each text whose probability reaches the threshold: a list of names, which
        may be empty, for each text.

        Of a DataFrame a copy with a column `predicted.NAME` (bool) and a column `probability.NAME`
        for each label.
        """
        if isinstance(texts, str):
            return self.predict([texts])[0]
        probs = self.predict_proba(texts)
        decisions = decide(probs, self.thresholds)
        if is_frame(texts):
            columns = {predicted: decisions, probability: probs}
            return with_columns(
                texts,
                {
                    to_name(label): values[:, index]
                    for to_name, values in columns.items()
                    for index, label in enumerate(self.labels)
                },
            )
        return [[self.labels[index] for index in np.flatnonzero(row)] for row in decisions]

    def score_texts(self, texts: list[str]) -> Float32[np.ndarray, "texts classes"]:
        """`predict_proba` of a list of valid texts."""
        raise_after_fork()
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        probs = np.empty((len(self.weights), len(texts), len(self.labels)), np.float32)
        for group in self.groups:
            for member, raw_probs in zip(group.members, score_group(group, texts), strict=True):
                probs[member] = apply_calibration(self.calibrations[member], raw_probs)
        return blend(probs, self.weights)

    def is_cut(self, texts: list[str]) -> Bool[np.ndarray, " texts"]:
        """Whether each text is longer than a network reads, so that its end counts for nothing."""
        parts = [
            is_cut(group.tokenizer, texts, group.experiment.data.windows) for group in self.groups
        ]
        return np.any(parts, axis=0)

    def explain(self, texts: Any) -> Any:
        """An Explanation of each text: the label's log odds, attributed to the words of the text by
        integrated gradients.

        Usually costs 17 to 33 forward passes of a text, and as many backward passes for each label.
        A network that computes in bfloat16 is explained in float32.
        """
        if isinstance(texts, str):
            return self.explain([texts])[0]
        raise_after_fork()
        groups = [group for group in self.groups if self.weights[list(group.members)].any()]
        members = [member for group in groups for member in group.members]
        sources = [
            Source(
                group.tokenizer,
                group.experiment.data,
                slopes_shape(group.experiment.data, group.columns),
                group.params,
                group.slopes,
            )
            for group in groups
        ]
        calibrations = [self.calibrations[member] for member in members]
        return explain(self._texts(texts), sources, calibrations, self.weights[members])
