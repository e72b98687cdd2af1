"""The README's form, and its tables against the parsers and registries they describe."""

import re
from pathlib import Path

import pytest

from jaxclf.cli import COMMANDS, load_parser
from jaxclf.experiment import catalog
from jaxclf.experiment.registries import REGISTRIES, signatures

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "jaxclf" / "training" / "README.md").read_text(encoding="utf-8")
EXPERIMENTS = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {"results", "runs"} & set(path.relative_to(ROOT).parts)
    and not path.relative_to(ROOT).parts[0].startswith(".")
)
SHARED = {"--help", "--debug", "--quiet", "--verbose"}  # options of every command


def test_it_is_one_page():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 100
    assert lines.index("## Results") <= 60


@pytest.mark.parametrize("command", COMMANDS)
def test_its_table_of_commands_is_that_of_the_parsers(command):
    assert f"| `jaxclf {command}` | {COMMANDS[command]} |" in README
    parser = load_parser(command)
    options = [
        action.option_strings[-1]
        for action in parser._actions
        if action.option_strings and action.option_strings[-1] not in SHARED
    ]
    words = (["`key=value`"] if parser.takes_overrides else []) + [f"`{name}`" for name in options]
    assert f"| `{command}` | {' '.join(words)} |" in TRAINING


@pytest.mark.parametrize("key", REGISTRIES)
def test_the_table_of_choices_is_that_of_the_registries(key):
    choices = ", ".join(f"`{signature}`" for signature in signatures(key))
    assert f"| `{key}` | {choices} |" in TRAINING


@pytest.mark.parametrize("name", catalog.names())
def test_every_experiment_is_listed(name):
    assert f"| `{name}` |" in EXPERIMENTS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if target and "://" not in target:
            assert (page.parent / target).exists(), target
