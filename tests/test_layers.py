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
    "system": "errors",
    "schedules": "errors",
    "model.architectures": "",
    "plugins": "errors system schedules model.architectures",
    "config": "errors system schedules model.architectures plugins",
    "distributed": "errors",
    "checkpoints": "errors system distributed",
    "runs": "errors system plugins config",
    "data": "errors system config",
    "data.batches": "data",
    "model.shape": "model.architectures config",
    "model": "errors model.architectures plugins data.batches model.shape",
    "optim": "errors plugins config",
    "planning": "errors system plugins config data model.shape",
    "machine": "errors system config model",
    "training": "errors system schedules plugins config distributed checkpoints runs data"
    " data.batches model.shape model optim planning machine",
    "weights": "errors system model.architectures config checkpoints runs data model.shape model"
    " training",
    "planning.measure": "errors system plugins config distributed checkpoints runs data"
    " data.batches model.shape model planning machine training weights",
    "tasks": "errors system plugins config distributed runs data data.batches model.shape model"
    " planning machine training weights planning.measure",
    "doctor": "errors system model.architectures config checkpoints runs data data.batches"
    " model.shape model optim machine training planning.measure",
    "reports": "errors system schedules model.architectures config runs",
    "reports.terminal": "system runs reports",
    "book": "",
    "book.report": "errors system runs data machine reports book",
    "run": "errors system config runs model training tasks reports",
    "reports.page": "errors system config runs reports",
    "reports.trackers": "errors system plugins config runs reports",
    "weights.convert": "errors system config checkpoints runs data model.shape planning machine"
    " weights tasks reports run",
    "launch": "errors system schedules plugins config distributed runs data planning training"
    " weights tasks reports run reports.page reports.trackers",
    "experiments": "errors system config runs planning machine training planning.measure tasks"
    " reports run reports.page launch",
    "planning.plan": "errors system schedules config runs data model.shape planning machine"
    " training planning.measure reports launch",
    "api": "errors system schedules plugins config distributed runs data reports reports.terminal"
    " run reports.page launch planning.plan",
    "cli": "errors system plugins config distributed runs data model doctor reports"
    " reports.terminal book.report run weights.convert experiments api",
    "__init__": "system schedules runs optim run weights.convert experiments api",
    "__main__": "cli",
}
# Importing any other module does not import torch.
WITH_TORCH = (
    "checkpoints",
    "distributed.world",
    "data.batches",
    "model",
    "optim",
    "machine",
    "training",
    "weights",
    "planning.measure",
    "tasks",
    "doctor.devices",
    "doctor.numbers",
    "doctor.plain",
    "doctor.verify_resume",
    "doctor.verify_run",
    "experiments.prepare_arms",
    "book",
)
DRAWN_WITH_TORCH = (
    *(set(WITH_TORCH) - {"data.batches", "distributed.world"}),
    "book.report",
    "weights.convert",
)
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
    granted = {(layer, name) for layer, names in LAYERS.items() for name in names.split()}
    assert granted <= used, f"take away: {sorted(granted - used)}"


def test_no_two_modules_import_each_other_by_whatever_way() -> None:
    graph = {module: ours(imported(tree)) - {module} for module, tree in MODULES.items()}
    tuple(TopologicalSorter(graph).static_order())


def test_training_and_all_below_it_know_nothing_of_reports() -> None:
    for module, tree in MODULES.items():
        if layer_of(module) in ("training", "tasks", *LAYERS["tasks"].split()):
            assert not {name for name in ours(imported(tree)) if name.startswith("reports")}, module


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


def test_a_package_says_its_purpose_and_has_no_code() -> None:
    """`schedules` and `plugins` export their public names: user code imports them there."""
    for path in PATHS:
        folder = path.parent.relative_to(SOURCE).as_posix()
        if path.name != "__init__.py" or folder in (".", "book"):
            continue
        docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(docstring, ast.Expr), path
        public = folder in ("schedules", "plugins")
        for node in rest:
            assert public and isinstance(node, ast.ImportFrom | ast.Assign), path
            if isinstance(node, ast.ImportFrom):
                assert str(node.module).startswith(f"hairpin.{folder}."), path


def test_hairpins_own_names_are_lazy() -> None:
    assert ours(at_import(MODULES["__init__"])) == {"system.spinning"}  # before torch can be loaded


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


def test_every_module_says_what_it_is_for() -> None:
    for path in PATHS:
        if path.stat().st_size:
            assert ast.get_docstring(MODULES[name_of(path)]), path


def test_the_table_in_the_docs_has_every_layer_in_order_its_purpose_and_its_mark() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w./]+)`( ○)? \| (.+) \|$", page, re.MULTILINE)
    names = [name.strip("/").replace("/", ".") for name, _, _ in rows]
    assert names == [
        name for name in LAYERS if name not in ("data.batches", "__init__", "__main__")
    ]
    for name, (_, mark, purpose) in zip(names, rows, strict=True):
        assert bool(mark) == (name not in DRAWN_WITH_TORCH), name
        if (SOURCE / name.replace(".", "/")).is_dir():
            docstring = ast.get_docstring(MODULES[name])
            assert docstring and docstring.splitlines()[0] == f"{purpose}.", name
