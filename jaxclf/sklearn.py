"""A classifier with the interface of scikit-learn's estimators."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.experiment import catalog
from jaxclf.fitting import fit


class TextClassifier(ClassifierMixin, BaseEstimator):
    """A multi-label classifier of texts: works in `clone`, `cross_val_predict`, `GridSearchCV` and
    pipelines.

    Its parameters are the experiment and, under their dotted keys, changes to it:
    `TextClassifier("fast", **{"train.epochs": 2})`, and `{"optim.lr": [1e-4, 3e-4]}` in a grid.
    `fit` divides the rows at random: 70 % train the network, the others choose the epoch and the
    thresholds, and measure.

    classes_: the labels, in the order of the columns: the names of y's columns or of `data.labels`,
        else their numbers. classifier_: the Classifier, with its report.
    """

    def __init__(self, experiment: str = catalog.DEFAULT, **overrides: Any):
        self.experiment, self.overrides = experiment, overrides

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The experiment and the changes."""
        return {"experiment": self.experiment, **self.overrides}

    def set_params(self, **params: Any) -> "TextClassifier":
        """Change the experiment or values of it."""
        self.experiment = params.pop("experiment", self.experiment)
        self.overrides = {**self.overrides, **params}
        return self

    def fit(self, X: Any, y: Any) -> "TextClassifier":
        """Train on texts.

        X: the texts. y: 0 or 1, a matrix or DataFrame [texts, labels]; of lists of names,
        scikit-learn's MultiLabelBinarizer makes one. Raises JaxclfError.
        """
        if len(getattr(y, "shape", ())) != 2:
            raise DataError("y is not a matrix [texts, labels]; see sklearn's MultiLabelBinarizer")
        named = [*getattr(y, "columns", ())] or self.overrides.get("data.labels", ())
        self.classes_ = np.array(named if len(named) else range(y.shape[1]))
        names = tuple(map(str, self.classes_))
        matrix = y.to_numpy() if hasattr(y, "to_numpy") else y
        overrides = {**self.overrides, "data.labels": names}
        self.classifier_ = fit((X, matrix), self.experiment, verbose=False, **overrides)
        return self

    def predict(self, X: Any) -> Int64[np.ndarray, "texts labels"]:
        """Whether each text has each label: 0 or 1."""
        return decide(self.predict_proba(X), self.classifier_.thresholds).astype(np.int64)

    def predict_proba(self, X: Any) -> Float32[np.ndarray, "texts labels"]:
        """Calibrated probabilities."""
        check_is_fitted(self)
        return self.classifier_.predict_proba(X)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags
