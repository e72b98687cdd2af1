"""Open the folder of a run, a model, an ensemble or a cascade."""

from pathlib import Path

from jaxclf.decisions.calibration import calibration_from_json
from jaxclf.files.untrusted import has_entry
from jaxclf.inference.cascade.folder import CASCADE, load_cascade
from jaxclf.inference.cascade.stages import make_cascade
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.members import load_folder, model_folder
from jaxclf.inference.model_groups import make_groups


def load(path: str | Path, verify: bool = True) -> Classifier:
    """The classifier of a run's, ensemble's or cascade's folder, of its `model/`, or of an exported
    folder.

    verify: whether every file must have the SHA-256 in jaxclf.json. To change a model on purpose,
        for example a threshold, edit its files and load it with verify=False; the classifier's
        digest is then that of the edited files. The commands always verify.
    Raises DataError if the folder is damaged.
    """
    folder = model_folder(Path(path))
    is_cascade = has_entry(folder, CASCADE)
    classifier = (
        make_cascade(*load_cascade(folder, verify), verify)
        if is_cascade
        else _open_models(folder, verify)
    )
    classifier.folder = folder
    return classifier


def _open_models(folder: Path, verify: bool) -> Classifier:
    models = load_folder(folder, verify)
    return Classifier(
        models.labels,
        models.thresholds,
        models.provenance,
        make_groups(models.members, models.tokenizers, range(len(models.members))),
        [calibration_from_json(member.calibration) for member in models.members],
        models.weights,
        models.digest,
    )
