"""An experiment written as Python source reads back equal and passes ruff."""

import subprocess
import sys
from pathlib import Path

from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.search.winner import to_python_source


def test_source_reads_back_equal_and_passes_ruff(tmp_path):
    long = "/" + "a_folder/" * 12 + "train.json"
    changes = {"loss": {"name": "focal", "gamma": 2.125}, "optim.lr": 1.5e-05, "data.train": long}
    changes |= {"optim.freeze": ["encoder/embeddings"], "pool": "mean"}
    experiment = override(catalog.load("baseline"), changes)
    words = f"    jaxclf tune {'a_word=1 ' * 20}"
    text = to_python_source("baseline", experiment, "The baseline, but tuned.", ("It " * 60, words))
    path = tmp_path / "changed.py"
    path.write_text(text)
    assert catalog.load(str(path)) == experiment
    same = to_python_source("baseline", catalog.load("baseline"), "The baseline.", ("As it is.",))
    (tmp_path / "same.py").write_text(same)
    assert catalog.load(str(tmp_path / "same.py")) == catalog.load("baseline")
    for command in ("format --check", "check"):
        config = Path(__file__).parent.parent.parent / "pyproject.toml"
        words = ["-m", "ruff", *command.split(), "--config", config, "--no-cache", tmp_path]
        answer = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout
