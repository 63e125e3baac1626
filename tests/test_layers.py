import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hairpin"

# Layer → the layers that its files may import from, itself always. A module belongs to the longest
# name here that begins its own.
LAYERS = {
    "errors": "",
    "version": "",
    "files": "",
    "allocator": "",
    "waiting": "",
    "given": "errors",
    "surroundings": "",
    "commands": "",
    "reading": "commands errors",
    "schedules": "errors",
    "extensions": "errors schedules",
    "model.architectures": "",
    "plugins": "errors schedules model.architectures",
    "plugin_files": "given commands errors plugins",
    "config": "given errors reading schedules extensions plugins plugin_files model.architectures",
    "distributed": "errors",
    "checkpoints": "errors files reading distributed",
    "runs": "commands errors files reading config",
    "output": "",
    "watch": "errors runs",
    "data": "given errors files reading config",
    "data.batches": "data",
    "model.shape": "config model.architectures",
    "model": "errors plugins plugin_files data.batches model.architectures model.shape",
    "optim": "errors plugins plugin_files config",
    "planning": "errors files config data model.shape",
    "training": "commands surroundings allocator waiting errors files reading schedules plugins"
    " config distributed checkpoints runs watch data data.batches model.architectures model.shape"
    " model optim planning",
    "finetuning": "errors files config distributed runs watch data data.batches model.shape model"
    " planning training",
    "inference": "given surroundings errors plugins config runs data data.batches model.shape"
    " model planning training finetuning",
    "verifying": "commands errors reading config checkpoints runs data training",
    "doctor": "errors version waiting files config runs data data.batches model.architectures"
    " model.shape model optim"
    " training",
    "analysis": "errors files reading schedules extensions config runs model.architectures",
    "terminal": "commands runs analysis",
    "book": "",
    "book.report": "commands errors files runs data training analysis book",
    "run": "commands errors config runs model training inference analysis",
    "pages": "errors version files schedules extensions config runs analysis run",
    "convert": "surroundings given errors version files config checkpoints runs data model.shape"
    " model planning training finetuning analysis run",
    "starting": "given commands errors reading version schedules extensions plugins plugin_files"
    " config distributed runs data planning training analysis run",
    "tracking": "errors files config runs data run",
    "audience": "output runs watch run pages tracking",
    "driving": "given commands errors plugin_files config distributed data runs watch training"
    " finetuning run audience starting tracking",
    "experiments": "given errors files config runs watch training planning analysis pages run"
    " starting driving",
    "estimating": "given errors waiting schedules config watch data model.shape planning training"
    " analysis starting",
    "following": "errors reading plugin_files distributed runs watch run driving",
    "api": "given errors reading schedules plugin_files config distributed runs watch data"
    " terminal run pages starting driving following estimating",
    "cli": "commands reading errors version output watch plugin_files config distributed data"
    " model verifying analysis terminal book.report run convert experiments api doctor",
    "__init__": "version waiting schedules optim watch run convert experiments api",
    "__main__": "cli",
}
# Importing any other module does not import torch.
WITH_TORCH = (
    "checkpoints",
    "distributed.world",
    "data.batches",
    "surroundings",
    "model",
    "optim",
    "training",
    "finetuning",
    "inference",
    "verifying",
    "doctor.devices",
    "doctor.numbers",
    "doctor.plain",
    "experiments.settling",
    "convert",
    "book",
)
DRAWN_WITH_TORCH = (*(set(WITH_TORCH) - {"data.batches", "distributed.world"}), "book.report")
WITHOUT_TORCH_ALL_THE_SAME = ("model.architectures", "model.shape")

PATHS = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's name without the package: "config.load"; a package's own is "config"."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in PATHS}


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that the nodes below `tree` import, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole way"
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                is_module = longer.removeprefix("hairpin.") in MODULES
                yield longer if is_module else str(node.module)


def at_import(tree: ast.Module) -> Iterator[str]:
    """What is imported as soon as the module is: not in functions, not for type checkers."""
    for node in tree.body:
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not typing and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from imported(node)


def ours(names: Iterator[str]) -> set[str]:
    """The modules of hairpin among them."""
    found = {name.removeprefix("hairpin.") for name in names if name.startswith("hairpin.")}
    assert found <= MODULES.keys(), found - MODULES.keys()
    return found


def layer_of(module: str) -> str:
    """The layer that a module belongs to."""
    fitting = [layer for layer in LAYERS if f"{module}.".startswith(f"{layer}.")]
    assert fitting, f"{module} is in no layer: add it to LAYERS and to docs/architecture.md"
    return max(fitting, key=len)


def has_torch(module: str) -> bool:
    def below(names: tuple[str, ...]) -> bool:
        return any(f"{module}.".startswith(f"{name}.") for name in names)

    return below(WITH_TORCH) and not below(WITHOUT_TORCH_ALL_THE_SAME)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_layer_and_those_above_it(module: str) -> None:
    layer = layer_of(module)
    allowed = {layer, *LAYERS[layer].split()}
    wrong = [
        name for name in sorted(ours(imported(MODULES[module]))) if layer_of(name) not in allowed
    ]
    assert not wrong, f"{layer} may import from {sorted(allowed)}, not {wrong}"


def test_the_layers_are_in_order() -> None:
    names = list(LAYERS)
    for layer, allowed in LAYERS.items():
        assert all(names.index(name) < names.index(layer) for name in allowed.split()), layer


def test_every_permission_is_used() -> None:
    used = {
        (layer_of(module), layer_of(name))
        for module, tree in MODULES.items()
        for name in ours(imported(tree))
    }
    # The record and the settings are analysis's to read; today it takes their plain values.
    spare = {("analysis", name) for name in ("errors", "config", "runs")}
    granted = {(layer, name) for layer, names in LAYERS.items() for name in names.split()}
    assert granted - used <= spare, f"take away: {sorted(granted - used - spare)}"


def test_no_two_modules_import_each_other_by_whatever_way() -> None:
    graph = {module: ours(imported(tree)) - {module} for module, tree in MODULES.items()}
    tuple(TopologicalSorter(graph).static_order())


def test_training_and_all_below_it_know_nothing_of_analysis() -> None:
    for module, tree in MODULES.items():
        if layer_of(module) in ("training", "inference", *LAYERS["training"].split()):
            assert not {name for name in ours(imported(tree)) if name.startswith("analysis")}, (
                module
            )


def test_importing_what_needs_no_torch_imports_none() -> None:
    free = [module for module in MODULES if not has_torch(module) and module != "__main__"]
    reached = set(free)
    todo = list(free)
    while todo:
        tree = MODULES[todo.pop()]
        assert "torch" not in {name.split(".")[0] for name in at_import(tree)}
        todo += ours(at_import(tree)) - reached
        reached |= ours(at_import(tree))
    assert not {module for module in reached if has_torch(module) and MODULES[module].body}
    program = "import importlib, sys\n" + "".join(
        f"importlib.import_module('hairpin.{module}'.removesuffix('.__init__'))\n"
        f"assert 'torch' not in sys.modules, {module!r}\n"
        for module in free
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_imports_click_and_little_else() -> None:
    for module, tree in MODULES.items():
        if module.startswith("cli."):
            outside = {name.split(".")[0] for name in at_import(tree)} - sys.stdlib_module_names
            assert outside <= {"click", "hairpin"}, module


def test_packages_are_folders_and_nothing_more() -> None:
    for path in PATHS:
        if path.name == "__init__.py" and path.parent not in (SOURCE, SOURCE / "book"):
            assert not path.read_bytes(), path


def test_hairpins_own_names_are_lazy() -> None:
    assert ours(at_import(MODULES["__init__"])) == {"waiting"}  # before torch can be loaded


def test_nothing_is_unpickled_and_no_text_is_run() -> None:
    modules = {"pickle", "shelve", "marshal", "dill", "joblib", "cloudpickle", "runpy"}
    calls = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "np.save"}
    for module, tree in MODULES.items():
        assert not {name.split(".")[0] for name in imported(tree)} & modules, module
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in calls, f"{module}: {called}"
                if called in ("np.load", "numpy.load"):
                    assert "allow_pickle=False" in ast.unparse(node), module
            elif isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in calls, f"{module}: {ast.unparse(node)}"


def test_modules_and_functions_fit_on_a_screen_or_a_few() -> None:
    for path in PATHS:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400, path
        for node in ast.walk(MODULES[name_of(path)]):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                docstring = ast.get_docstring(node)
                length -= len(docstring.splitlines()) if docstring else 0
                assert length <= 50, f"{path}:{node.lineno}: {node.name} has {length} lines"


def test_every_module_says_what_it_is_for() -> None:
    for path in PATHS:
        if path.stat().st_size:
            assert ast.get_docstring(MODULES[name_of(path)]), path


def test_the_table_in_the_docs_has_every_layer_in_order_and_marks_those_without_torch() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if re.match(r"\| `", line)]
    rows = rows[: next((n for n, row in enumerate(rows) if "cli" in row), len(rows)) + 1]
    marked = [found for row in rows for found in re.findall(r"`([\w./]+)`( ○)?", row)]
    names = [name.strip("/").replace("/", ".") for name, _ in marked]
    assert set(names) == set(LAYERS) - {"data.batches", "__init__", "__main__"}
    for (_, mark), name in zip(marked, names, strict=True):
        assert bool(mark) == (name not in DRAWN_WITH_TORCH), name
    for layer, allowed in LAYERS.items():
        for name in allowed.split():
            if {layer, name} <= set(names):
                assert names.index(name) < names.index(layer), f"{name} stands below {layer}"
