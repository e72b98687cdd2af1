"""Every documented command line is understood, and runs with a small budget."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks.readme_commands import command_lines, documented_lines, try_command
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


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("pip install -e '.[test]'", ""),
        ("pip install -e '.[test,tests]'", "tests"),
        ("pytest tests/page", ""),
        ("pytest tests/pages", "tests/pages"),
        ("python -m experiments.benchmarks.readme_results --retrain", ""),
        ("python -m experiments.benchmarks.readme_results --train", "--train"),
    ],
)
def test_what_does_not_run_is_still_checked(line, fault):
    status, output = try_command(ROOT, line)
    assert status == ("FAILED" if fault else "parsed")
    assert output == fault or not fault


def test_a_line_that_lacks_a_package_is_not_counted_as_run(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = "python -m experiments.benchmarks.ray_cluster --run DIR --data FILE"
    assert try_command(ROOT, line) == ("not run", "not installed: ray")
    assert try_command(ROOT, f"{line} --rwos 3") == ("FAILED", "--rwos")


@pytest.mark.slow
def test_documented_lines_run():
    """The script runs all lines in half an hour; these are the shorter ones, of every command but
    tune and cascade."""
    short = (
        "jaxclf (predict|evaluate|audit|serve)|^curl|compare (?!--ablate)|ensemble --runs"
        "|--print-config|train --exp focal_attention$|--int8 --data data/val_data|--to hf"
    )
    command = [sys.executable, "-m", "experiments.benchmarks.readme_commands", "--only", short]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
