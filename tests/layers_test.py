"""The house keeps its layers: a module imports only from lower ones, never sideways; the map knows every module."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "epigraph"
LAYERS = {
    "errors": 0,
    "config": 1,
    "assets": 1,
    "cost": 1,
    "report": 1,
    "tasks": 2,
    "base": 2,
    "prompts": 2,
    "metrics": 2,
    "engine": 3,
    "methods": 4,
    "library": 4,
    "evaluation": 5,
    "model": 5,
    "tuning": 6,
    "routing": 6,
    "jobs": 7,
    "multitask": 7,
    "continual": 7,
    "correct": 7,
    "serve": 8,
    "compare": 7,
    "explaining": 7,
    "distilling": 7,
    "bench": 9,
    "demo": 9,
    "sklearn": 9,
    "cli": 10,
    "__main__": 11,
}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}


def files() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if not p.name.endswith("_test.py")]


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"epigraph.{a.name}" for a in node.names] if node.module == "epigraph" else [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("epigraph.")}
    return found


@pytest.mark.parametrize("path", [p for p in files() if p.parent != PACKAGE or p.stem != "__init__"], ids=str)
def test_imports_point_down(path: Path) -> None:
    own = part_of(path)
    for part in imported_parts(path) - {own}:
        assert LAYERS[part] < LAYERS[own], f"{path} (layer {LAYERS[own]}) imports {part} (layer {LAYERS[part]})"


def test_every_module_has_a_layer_and_stands_on_the_map() -> None:
    parts = {part_of(p) for p in files()} - {"__init__"}
    assert parts == set(LAYERS)
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in files():
        relative = path.relative_to(PACKAGE)
        name = relative.name if path.name != "__init__.py" else f"{relative.parent}/"
        if relative != Path("__init__.py"):
            assert name in architecture, f"ARCHITECTURE.md does not mention {relative}"


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    assert not {p.stem for p in files()} & FORBIDDEN_NAMES


def test_every_module_says_what_it_is() -> None:
    for path in files():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"


def test_nothing_ever_unpickles_or_trusts_remote_code() -> None:
    for path in files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} | {
            k.arg for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords
        }
        imports = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert not imports & {"pickle", "dill", "cloudpickle", "joblib"}, path
        assert "trust_remote_code" not in names, path
        assert not any(
            isinstance(n, ast.Attribute) and n.attr == "load" and isinstance(n.value, ast.Name) and n.value.id == "torch"
            for n in ast.walk(tree)
        ), path
