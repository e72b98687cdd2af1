"""constraints.txt pins every dependency for each Python, within the ranges of pyproject.toml."""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = [name.split()[-1] for name in PROJECT["classifiers"] if "Python :: 3." in name]
NOT_PINNED = {
    "cuda",
    "ray",
    "wandb",
    "mlflow",
    "parity",
}  # too large for the tests, or not of one version


def read_pins(python: str) -> dict[str, str]:
    """Package -> its exact version for a Python. Every line is a pin, and no package has two."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        (specifier,) = requirement.specifier
        name = canonicalize_name(requirement.name)
        assert specifier.operator == "==", line
        assert name not in pins, line
        pins[name] = specifier.version
    return pins


def direct_requirements() -> list[Requirement]:
    lines = PROJECT["dependencies"] + [
        line for name, lines in EXTRAS.items() if name not in NOT_PINNED for line in lines
    ]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "jaxclf"]


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_are_within_the_ranges(python):
    pins = read_pins(python)
    for requirement in direct_requirements():
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}"


def requirements_of(requirement: Requirement) -> list[Requirement]:
    """What an installed package needs on this machine, of the extras that are asked for."""
    lines = importlib.metadata.requires(requirement.name) or []
    return [
        needed
        for needed in map(Requirement, lines)
        if needed.marker is None
        or any(needed.marker.evaluate({"extra": extra}) for extra in (*requirement.extras, ""))
    ]


def test_what_the_dependencies_bring_is_pinned():
    pins = read_pins(".".join(map(str, sys.version_info[:2])))
    # [page] may be absent where the tests run; the pins of what it brings are in the file.
    extra = {canonicalize_name(Requirement(line).name) for line in EXTRAS["page"]}
    waiting = [need for need in direct_requirements() if need.name not in extra]
    visited = set()
    while waiting:
        requirement = waiting.pop()
        assert canonicalize_name(requirement.name) in pins, requirement
        if str(requirement) not in visited:
            visited.add(str(requirement))
            waiting += requirements_of(requirement)
    assert len(visited) > len(EXTRAS)
