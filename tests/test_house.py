"""The rules of the code base: imports point down, no circles, no private names across files, plain
names, and a core that imports without the extras."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxclf"
COMMANDS = (
    "audit cascade check compare curve ensemble evaluate export next predict serve train tune"
).split()

# From the top down. A module may import from its own package and from lower rows, never from a
# package beside it; every command may import cli.
LAYERS = [
    {*COMMANDS, "__main__"},
    {"cli"},
    {"sklearn"},
    {"fitting"},
    {"search"},
    {"training", "service"},
    {"reports", "exporters"},
    {"inference"},
    {"model"},
    {"text", "decisions"},
    {"experiment"},
    {"files"},
    {"terminal"},
    {"signals"},
    {"types", "errors"},
]
NO_JAX = ("text", "decisions", "experiment", "files", "reports")
# Only the named package may import the library.
HOME_OF = {"flax.linen": "model", "optuna": "search", "onnx": "exporters", "fastapi": "service"}
EXTRAS = (
    "pyarrow torch chex beartype onnx onnxruntime flatbuffers fastapi starlette uvicorn "
    "prometheus_client ray wandb mlflow pandas polars datasets"
).split()

# Words that say nothing about the value they name, and names that were replaced.
VAGUE = set("one other found made own told said here there place whole fine odd".split())
REPLACED = set(
    "Handover Ledger Regular Prepared Stored LEAVES Fault Broken Doubt Drawn Together Hard Early "
    "Ruled Mixed Told Walk Slopes Outcome Answers KEPT MOVES SURPLUS FINDINGS parser_of in_words "
    "hold_frozen with_prior first_params as_begun draw_mix load_whole rounded_up opens_whole "
    "save_whole write_whole leaves_of table_of text_of texts_of figure_of say_difference "
    "bound_together just_weigh within_memory telling keep_freed_memory is_first any_of folds_of "
    "adversary radius regular ledger sure miss lift steepness midpoint tolerance pseudocount "
    "shrink meanings overlap_tokens train_rows head_rate layer_decay say heed lest".split()
)


def python_files(*folders: str) -> list[Path]:
    """All Python files of some folders of the checkout, kept results aside."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in paths if "results" not in path.parts)


MODULES = python_files("jaxclf")
FILES = python_files("jaxclf", "experiments", "tests", "data")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    """The dotted name of a module; of an `__init__.py` the package's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_of(path): path for path in MODULES}


def imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every import in a file, wherever it stands; the name is "" for `import x`.
    Imports for type checkers alone count too."""
    pairs = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            pairs += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            pairs += [(node.module or "", alias.name) for alias in node.names]
    return pairs


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    targets = set()
    for module, name in imports(path):
        full = f"{module}.{name}"
        targets |= {target for target in (full, module) if target in NAMES and target != "jaxclf"}
        if module == "jaxclf" and name and full not in NAMES:
            targets.add("jaxclf")
    return targets


def part_of(module: str) -> str:
    """`training` of jaxclf.training.loop, `train` of jaxclf.train."""
    return module.split(".")[1]


def layer(module: str) -> int:
    return next(index for index, parts in enumerate(LAYERS) if part_of(module) in parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    if path == PACKAGE / "__init__.py":  # the front door; it imports lazily from inference
        return
    module = module_of(path)
    for target in imported_modules(path):
        assert target != "jaxclf", f"{module} imports the front door"
        if part_of(target) != part_of(module):
            assert layer(target) > layer(module), f"{module} imports {target}"


def test_there_is_no_circle():
    waiting = {
        module: imported_modules(path) - {module, "jaxclf"}
        for module, path in NAMES.items()
        if module != "jaxclf"
    }
    while waiting:
        free = {module for module, targets in waiting.items() if not targets & waiting.keys()}
        assert free, f"these import each other: {sorted(waiting)}"
        waiting = {module: targets for module, targets in waiting.items() if module not in free}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_private_name_crosses_a_file(path):
    for module, name in imports(path):
        if module.split(".")[0] == "jaxclf":
            assert not name.startswith("_"), f"{module}.{name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libraries_stay_where_they_belong(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = {f"{module}.{name}".rstrip(".") for module, name in imports(path)}
    roots = {name.split(".")[0] for name in names}
    if part in NO_JAX:
        assert not roots & {"jax", "flax", "optax"}
    for library, home in HOME_OF.items():
        if part != home:
            assert not any(f"{name}.".startswith(f"{library}.") for name in names), library
    assert not roots & {"torch", "chex"}


def defined_names(path: Path) -> set[str]:
    """Every identifier that a file defines: variables, arguments, functions, classes, aliases."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias) and node.asname:
            names.add(node.asname)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_are_plain(path):
    banned = VAGUE | REPLACED | ({"given"} if path in MODULES else set())
    assert not {name.lstrip("_") for name in defined_names(path)} & banned


def test_the_core_imports_without_extras():
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {[*EXTRAS, 'matplotlib']!r}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"import jaxclf, {', '.join(f'jaxclf.{name}' for name in COMMANDS)}\n"
        "import jaxclf.reports.html_report; jaxclf.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_file_outgrows_its_idea_and_no_function_a_screen(path):
    text = path.read_text(encoding="utf-8")
    is_command = module_of(path) in {f"jaxclf.{name}" for name in COMMANDS}
    assert len(text.splitlines()) <= (80 if is_command else 300)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 75, node.name
