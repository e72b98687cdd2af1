"""Every documented command line is understood, and runs with a small budget."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks.readme_commands import command_lines, documented_lines
from jaxclf.cli import load_parser

ROOT = Path(__file__).parent.parent
LINES = sorted({line for line in documented_lines() if line.startswith("jaxclf ")})


def test_command_lines_are_found_indented_fenced_and_inline():
    text = (
        "Text about `jaxclf train` and `jaxclf train --help`.\n"
        "| a row | `jaxclf train --exp c` and `jaxclf audit --run …` |\n"
        "    jaxclf train --exp a \\\n        x=1  # a comment\n"
        "```bash\npython -m jaxclf.tune --exp b\n```\n"
        "    jaxclf compare DIR DIR …\n"
        "jaxclf in a sentence\n"
    )
    assert list(command_lines(text)) == [
        "jaxclf train --exp c",
        "jaxclf train --exp a x=1",
        "jaxclf tune --exp b",
    ]


@pytest.mark.parametrize("line", LINES)
def test_every_documented_command_line_is_parsed(line):
    _, command, *words = shlex.split(line)
    load_parser(command).parse(words)


@pytest.mark.slow
def test_the_documented_predictions_run():
    """The script runs all lines in a quarter of an hour; these are the ones a reader tries."""
    command = [sys.executable, "-m", "experiments.benchmarks.readme_commands"]
    command += ["--only", "jaxclf predict"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout
