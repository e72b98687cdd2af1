"""The figures of the READMEs, computed again from what experiments/results keeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_printed_figure_comes_out_again():
    # Trained as a user trains: on one device, without the strict flags of the tests.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))
    }
    command = [sys.executable, "-m", "experiments.benchmarks.readme_results", "--retrain"]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
