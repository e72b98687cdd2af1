"""The model card: the README.md of a saved model, with metadata that the Hugging Face Hub reads."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from jaxclf.decisions.score_tables import Table, score_tables
from jaxclf.errors import printable
from jaxclf.experiment.config import Encoder
from jaxclf.model.pretrained import BUILT_IN
from jaxclf.reports.rendering import render

# Metrics in the metadata: name in the report -> (type on the Hub, name, arguments).
HUB_METRICS = {
    "macro_f1": ("f1", "Macro F1", {"average": "macro"}),
    "micro_f1": ("f1", "Micro F1", {"average": "micro"}),
    "macro_auc": ("roc_auc", "Macro AUC", {"average": "macro"}),
}


def make_card(
    name: str,
    encoders: Sequence[Encoder],
    report: Mapping[str, Any],
    rule: str,
    calibration: str,
    sizes: Mapping[str, int],
    label_descriptions: Mapping[str, str],
    structure: str = "",
    details: Sequence[Table] = (),
) -> str:
    """Write a model card as Markdown.

    rule, calibration: names of the threshold rule and the calibrator. sizes: examples of each
    split. label_descriptions: label -> when a text has it, may lack labels; descriptions that name
    a label the model does not have belong to another data set and are left out. structure: how
    several networks work together. details: more tables, each a section of its own.
    """
    labels = list(report["test"]["labels"])
    names = dict.fromkeys(base_model(encoder) or Path(encoder.name).name for encoder in encoders)
    body = render(
        "model_card.md",
        name=name,
        structure=structure and f" of {structure}",
        encoders=["`" + printable(name).replace("`", "'") + "`" for name in names],
        sizes=", ".join(f"{split} {size:,}" for split, size in sizes.items()),
        labels=labels,
        descriptions=label_descriptions if set(label_descriptions) <= set(labels) else {},
        tables=score_tables(report["test"], "test"),
        rule=rule,
        calibration=calibration,
        details=details,
        license=_license_of(encoders),
    )
    metadata = _make_metadata(name, encoders, report["test"])
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body.strip()}\n"))


def base_model(encoder: Encoder) -> str | None:
    """The Hub id of an encoder; None for a local folder."""
    if encoder.name in BUILT_IN:
        return BUILT_IN[encoder.name].hub_id
    return encoder.name if encoder.revision else None


def _license_of(encoders: Sequence[Encoder]) -> str | None:
    """The license that all encoders share; None if one is not built in."""
    built_in = [BUILT_IN.get(encoder.name) for encoder in encoders]
    licenses = {encoder and encoder.license for encoder in built_in}
    return licenses.pop() if len(licenses) == 1 else None


def _make_metadata(
    name: str, encoders: Sequence[Encoder], scores: Mapping[str, Any]
) -> ModelCardData:
    """Metadata without a language, which the experiment does not record. The license is that of the
    encoders, if they are built in."""
    base_models = list(dict.fromkeys(filter(None, map(base_model, encoders))))
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type="custom",
            dataset_name="test split",
            dataset_split="test",
            metric_type=metric_type,
            metric_name=title,
            metric_value=round(scores[metric], 6),
            metric_args=arguments,
        )
        for metric, (metric_type, title, arguments) in HUB_METRICS.items()
        if scores[metric] is not None and not math.isnan(scores[metric])
    ]
    return ModelCardData(
        base_model=base_models if len(base_models) > 1 else next(iter(base_models), None),
        eval_results=results or None,
        library_name="jaxclf",
        license=_license_of(encoders),
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=printable(name),
        pipeline_tag="text-classification",
        tags=["jax", "multi-label-classification"],
    )
