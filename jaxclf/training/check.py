"""The check of the data of an experiment."""

import logging

import numpy as np

from jaxclf.experiment.config import Experiment
from jaxclf.model.classifier import family_of
from jaxclf.reports.data_check import Checked
from jaxclf.text.check.findings import Finding, gather
from jaxclf.text.check.run import find_faults, sort_findings
from jaxclf.text.data_splits import read_data
from jaxclf.text.tokenizer.tokenize import describe_cut, is_cut, lengths, tokenize
from jaxclf.training.adapt import adapt
from jaxclf.training.start import open_start

log = logging.getLogger(__name__)


def check_data(experiment: Experiment) -> Checked:
    """Read and divide the data as a training run does, and look for faults. Raises JaxclfError."""
    splits = read_data(experiment.data)
    for name, part in splits.items():
        log.info("%-5s %s", name, part.source)
    start, experiment = open_start(experiment)
    max_positions = family_of(start.hf_config).from_hf(start.hf_config).max_positions
    windows = adapt(experiment, splits["train"], start.tokenizer, max_positions).data.windows
    rows = gather(splits)
    cut = is_cut(start.tokenizer, rows.texts, windows)
    findings = find_faults(rows)
    if sentence := describe_cut(int(cut.sum()), len(cut), windows):
        places = tuple((rows.places[row],) for row in np.flatnonzero(cut))
        findings = sort_findings([*findings, Finding("cut texts", sentence, places)])
    tokens = lengths(tokenize(start.tokenizer, rows.texts, windows))
    return Checked(rows, tokens, cut, findings)
