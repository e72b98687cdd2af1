"""report.html: a finished run on one page that needs no network, with its figures in plots/."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.decisions.intervals import LEVEL, RESAMPLES
from jaxclf.decisions.members import MEMBERS
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.errors import DataError
from jaxclf.files.atomic import write_text
from jaxclf.files.json_file import read_json
from jaxclf.inference.cascade.summary import STAGES
from jaxclf.reports.rendering import render
from jaxclf.types import Predictions

MAX_EXAMPLES = 12  # hardest examples on the page
MAX_CHARACTERS = 2000  # of an example's text
SECTIONS = {
    "results": "Results",
    "thresholds": "Thresholds",
    "diagnosis": "Diagnosis",
    "members": "Members",
    "stages": "Stages",
    "labels": "Labels",
    "figures": "Figures",
    "hardest": "Hardest examples",
    "limits": "Intended use and limits",
    "run": "Configuration",
}
