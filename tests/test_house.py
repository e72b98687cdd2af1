"""Imports only ever point down; text and decisions know no jax; the core imports without the
extras."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxclf"

# From the top down. A module may import from its own layer's folder and from layers below, never
# from a neighbour beside it.
LAYERS = [
    set("train evaluate predict export compare audit ensemble cascade tune serve command".split()),
    {"training", "serving"},
    {"model"},
    {"text", "decisions"},
    {"catalogue", "validation", "recipe"},
    {"config", "space", "trust", "types", "errors"},
]
# The one entry point that others may build on.
BUILT_ON = "train"
NO_JAX = ("text", "decisions")


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(part: str) -> int:
    return next(index for index, parts in enumerate(LAYERS) if part in parts)


MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(path):
        pieces = name.split(".")
        if pieces[0] != "jaxclf" or len(pieces) == 1 or pieces[1] == "__version__":
            continue
        other = pieces[1]
        if (
            other in {"catalogue", "validation", "config", "trust", "types", "errors", "command"}
            and other != part
        ):
            assert layer(other) >= layer(part), name
        elif other != part and not (other == BUILT_ON and layer(part) == 0):
            assert layer(other) > layer(part), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_jax_and_linen_stay_where_they_belong(path):
    part = path.relative_to(PACKAGE).parts[0]
    roots = {name.split(".")[0] for name in imported(path)}
    if part in NO_JAX:
        assert not roots & {"jax", "flax", "optax"}
    if part != "model":
        assert not any(name.startswith("flax.linen") for name in imported(path))
    assert not roots & {"torch", "transformers", "sklearn", "chex"}


def test_the_core_imports_without_extras():
    extras = (
        "pyarrow sentencepiece sklearn optuna torch transformers chex beartype "
        "onnx onnxruntime flatbuffers fastapi starlette uvicorn prometheus_client ray"
    ).split()
    # matplotlib is a dependency, but only writing a report is to wait for it.
    extras.append("matplotlib")
    entries = sorted(LAYERS[0] - {"command"})
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extras!r}))\n"
        f"import jaxclf, {', '.join(f'jaxclf.{name}' for name in entries)}; jaxclf.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_no_jax():
    code = "import jaxclf, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_file_outgrows_its_idea():
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330, path
