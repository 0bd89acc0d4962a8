"""The house has no circle, and no room knows one above it."""

import ast
import graphlib
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dots_jax"


def imported(path):
    """Modules of the package that a file imports, anywhere in it."""
    modules = {
        p.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".") for p in PACKAGE.rglob("*.py")
    }
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dots_jax"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("dots_jax"))


def graph():
    """Module -> the modules that it imports."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        found[name] = set(imported(path)) - {name}
    return found


def test_no_circle():
    graphlib.TopologicalSorter(graph()).prepare()
