"""The house has no circle, and no room knows one above it."""

import ast
import graphlib
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "dots_jax"


def name_of(path):
    """The module of a file."""
    name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


def imported(path):
    """Modules of the package that a file imports, anywhere in it."""
    modules = {name_of(p) for p in PACKAGE.rglob("*.py")}
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
        name = name_of(path)
        found[name] = set(imported(path)) - {name}
    return found


def test_no_circle():
    graphlib.TopologicalSorter(graph()).prepare()


FLOORS = (  # a room knows those on lower floors, and itself
    ("core",),
    ("policy", "reward"),
    ("rollout", "data"),
    ("difficulty", "learner"),
    ("selection", "evaluation"),
    ("run",),
    ("experiment", "analysis"),
    ("train", "plan"),
    (
        "main",
        "evaluate",
        "report",
        "explore",
        "page",
        "pretrain",
        "probe",
        "simulate",
        "difficulty.fit",
    ),  # programs, which nobody imports
)


def floor(module):
    """The room of a module, and its floor."""
    inside = module.removeprefix("dots_jax.")
    room = inside if inside in FLOORS[-1] else inside.split(".")[0]
    return room, next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_no_room_knows_one_above_it():
    up = [
        (module, other)
        for module, others in graph().items()
        for other in others - {"dots_jax"}
        if module != "dots_jax"
        if floor(module)[0] != floor(other)[0] and floor(module)[1] <= floor(other)[1]
    ]
    assert not up
