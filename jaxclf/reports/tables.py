"""Tables of results for the terminal, the report and the model card."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxclf.decisions.label_issues import LabelNoise
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.score_tables import Table, format_interval, format_score, score_tables
from jaxclf.terminal import print_table, print_text


def print_tables(*tables: Table) -> None:
    """Print tables with their notes to stdout."""
    for table in tables:
        print_table(table.columns, table.rows, table.title)
        print_text("\n".join(["", *table.notes, ""]) if table.notes else "")


def print_scores(scores: Mapping[str, Any], split: str) -> None:
    """Print the tables of one split's scores to stdout."""
    print_tables(*score_tables(scores, split))


def ablation_table(record: Mapping[str, Any]) -> Table:
    """A row per reverted choice: what it changes in macro F1, and whether the choice helps."""
    rows = []
    for name, comparison in record.items():
        row = comparison["metrics"]["macro_f1"]
        helps = {"A is better": "yes", "B is better": "no, it harms"}.get(row["verdict"])
        is_certain = helps and row["p_holm"] <= 0.05
        rows.append(
            (name, *_comparison_cells(row, "p_holm"), helps if is_certain else "no evidence")
        )
    columns = ("macro F1 before", "after", "gain", "95 % interval", "p (Holm)", "does it help?")
    return Table("Ablations", ("reverted", *columns), rows)


def _comparison_cells(row: Mapping[str, Any], p: str) -> tuple[str, ...]:
    """Both scores, their difference with its interval, and p under its key."""
    return (
        format_score(row["a"]),
        format_score(row["b"]),
        format_score(row["difference"], signed=True),
        format_interval(row["interval"], signed=True),
        format_p_value(row[p]),
    )


def members_table(ensemble: Mapping[str, Any]) -> Table:
    """The members of an ensemble: what members.json holds."""
    correlation = np.array(ensemble["correlation"], float)
    rows = []
    for index, (name, member) in enumerate(ensemble["members"].items()):
        neighbors = np.delete(correlation[index], index)
        similarity = f"{neighbors.min():.2f} to {neighbors.max():.2f}" if len(neighbors) else "n/a"
        gain = format_score(member["gain"], signed=True)
        rows.append(
            (name, f"{member['weight']:.3f}", f"{member['macro_f1']:.3f}", gain, similarity)
        )
    columns = ("member", "weight", "macro F1", "gain", "error correlation")
    note = (
        f"Scored on {ensemble['split']}. Gain: macro F1 of the ensemble minus that without the "
        "member. Error correlation: lowest and highest with another member."
    )
    return Table("Members of the ensemble", columns, rows, [note])


def stages_table(cascade: Mapping[str, Any]) -> Table:
    """The stages of a cascade: what stages.json holds."""
    rows = [
        (
            stage["name"],
            *(f"{stage['exit_rate'][split]:.1%}" for split in ("val", "test")),
            format_score(stage["macro_f1_alone"]),
        )
        for stage in cascade["stages"]
    ]
    columns = ("stage", "exits on val", "exits on test", "macro F1 alone")
    return Table("Stages of the cascade", columns, rows, _describe_cascade(cascade))


def _describe_cascade(cascade: Mapping[str, Any]) -> list[str]:
    """Sentences about the loss, the cost and the labels of the final stage."""
    config, losses = cascade["config"], cascade["metric_loss"]
    test, rules = losses["test"], cascade["rules"]["test"]
    low, high = test["interval"]
    notes = [
        f"Expected loss of {config['metric']}: {losses['expected']:.4f} (out of fold "
        f"{losses['expected_out_of_fold']:.4f}); at most {config['max_metric_loss']:.4f} with "
        f"{config['confidence']:.0%} confidence.",
        f"Macro F1 on test: {test['macro_f1']:.4f}; final stage alone "
        f"{test['final_stage_macro_f1']:.4f}; difference {test['difference']:+.4f} (95 % interval "
        f"{low:+.4f} to {high:+.4f}).",
        _describe_cost(cascade["cost"]),
    ]
    for name, by_split in cascade["final_stage_labels"].items():
        counts = by_split["test"]
        notes.append(
            f"{name}: the final stage predicts it for {counts['predicted']} test texts; "
            f"{counts['missed']} of them exit early without it (at most "
            f"{counts['max_miss_rate']:.1%} with 95 % confidence)."
        )
    if rules["escalated"] or rules["forced"]:
        notes.append(
            f"Rules send {rules['escalated']:.1%} of the test texts to the final stage and assign "
            f"a label to {rules['forced']:.1%}."
        )
    return notes


def _describe_cost(cost: Mapping[str, Any]) -> str:
    sentence = f"Cost relative to the final stage alone: {cost['tokens']:.2f} in tokens"
    if cost["time"] is None:
        return sentence + "; time was not measured because the test texts are missing."
    speed = cost["texts_per_second"]
    return sentence + (
        f", {cost['time']:.2f} in time ({speed['cascade']:,.0f} texts/s; final stage alone "
        f"{speed['final_stage']:,.0f})."
    )


def comparison_tables(record: Mapping[str, Any], first: str, second: str) -> tuple[Table, Table]:
    """The metrics and the labels' F1 of two systems A and B, as `comparison_record` has them."""
    columns = ("A", "B", "A - B", "95 % interval", "p", "verdict")
    metrics = [
        (METRICS[name].title, *_comparison_cells(row, "p"), row["verdict"])
        for name, row in record["metrics"].items()
    ]
    labels = [
        (name, *_comparison_cells(row, "p"), row["verdict"]) for name, row in record["f1"].items()
    ]
    title = "F1 by label (p adjusted by Holm over the labels)"
    return (
        Table(f"A: {first}\nB: {second}", ("metric", *columns), metrics),
        Table(title, ("label", *columns), labels),
    )


def label_noise_table(noise: Sequence[LabelNoise], names: Sequence[str]) -> Table:
    """A row per label: how many annotations are in doubt, and the share estimated wrong."""
    columns = ("positives", "in doubt", "est. wrong", "negatives", "in doubt", "est. wrong")
    rows = [
        (
            name,
            f"{row.positives:,}",
            f"{row.suspect_positives:,}",
            _percent(row.share_of_positives),
            f"{row.negatives:,}",
            f"{row.suspect_negatives:,}",
            _percent(row.share_of_negatives),
        )
        for name, row in zip(names, noise, strict=True)
    ]
    return Table("Label noise", ("label", *columns), rows)


def format_p_value(p: float | None) -> str:
    """Three decimals, or `<0.001`."""
    return "<0.001" if p is not None and p < 0.001 else format_score(p)


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{100 * share:.1f} %"
