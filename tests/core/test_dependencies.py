"""What the code imports is what setup.py declares; see also test_twins.py, whose runs see nothing else."""

import ast
import functools
import importlib.metadata
import json
import os
import pkgutil
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dots_jax.core.files import ROOT

FOLDERS = ("dots_jax", "configs", "benchmarks", "colabs")
OPTIONAL = {
    "torch": "reads the authors' weights where they come as .pt",
    "math_verify": "another grader, beside which benchmarks/grading.py sets ours",
    "wandb": "shows what a run measures, where config.log names it",
    "reasoning_gym": "pools of its tasks, and their scores",
    "tunix": "a sampler, beside which benchmarks/peers.py sets ours",
}

SITE = """
import sys
from importlib.machinery import PathFinder

class Declared(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Declared
"""


def declared():
    """The requirements of setup.py, without its extras."""
    said = {}
    stub = types.SimpleNamespace(setup=said.update, find_packages=lambda **_: [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", stub)
        runpy.run_path(os.path.join(ROOT, "setup.py"))
    return [Requirement(text) for text in said["install_requires"]]


def closure():
    """Names of the distributions that `pip install` of the declared ones brings here."""
    ahead, seen = declared(), set()
    while ahead:
        requirement = ahead.pop()
        for extra in ("", *requirement.extras):
            one = canonicalize_name(requirement.name), extra
            if one in seen:
                continue
            seen.add(one)
            try:
                needs = importlib.metadata.requires(requirement.name) or []
            except importlib.metadata.PackageNotFoundError:
                needs = []
            needs = [Requirement(text) for text in needs]
            ahead += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


@functools.cache
def providers():
    """Distributions by the name under which they are imported."""
    names = importlib.metadata.packages_distributions()
    return {module: {canonicalize_name(name) for name in found} for module, found in names.items()}


def hide_undeclared(directory):
    """An environment in which Python finds no distribution that setup.py does not bring; writes to `directory`."""
    brought = closure() | {"dots-jax"}
    hidden = sorted(module for module, found in providers().items() if not found & brought)
    Path(directory, "sitecustomize.py").write_text(SITE.replace("{hidden}", repr(set(hidden))))
    return {"PYTHONPATH": os.pathsep.join([str(directory), ROOT])}


def imports(text):
    """Names of the modules that a source imports anywhere, but for those beside it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def sources():
    """(file, text) of all modules, and of the code of all notebooks."""
    for folder in FOLDERS:
        for file in sorted(Path(ROOT, folder).rglob("*.py")):
            yield file, file.read_text()
        for file in sorted(Path(ROOT, folder).rglob("*.ipynb")):
            for cell in json.loads(file.read_text())["cells"]:
                if cell["cell_type"] == "code":
                    yield file, "".join(cell["source"])


def test_every_import_is_declared():
    """Lazy ones too."""
    direct, found = {canonicalize_name(need.name) for need in declared()}, providers()
    known = sys.stdlib_module_names | set(FOLDERS) | set(OPTIONAL)
    used = {name.partition(".")[0]: file for file, text in sources() for name in imports(text)}
    assert {"jax", "mpmath", "torch", "matplotlib"} <= set(used)  # lazy ones and the notebook's are seen
    undeclared = {
        name: str(file) for name, file in used.items() if name not in known and not found.get(name, set()) & direct
    }
    assert not undeclared
    assert set(OPTIONAL) <= set(used)


def test_every_module_is_imported_with_the_declared_distributions(tmp_path):
    folders = [os.path.join(ROOT, folder) for folder in FOLDERS]
    modules = [
        module.name
        for folder, path in zip(FOLDERS, folders, strict=True)
        for module in pkgutil.walk_packages([path], f"{folder}.")
    ]
    assert {"dots_jax.train", "dots_jax.reward.worker", "configs.orz", "benchmarks.grading"} <= set(modules)
    code = f"import importlib\nfor name in {[*modules, 'pytest']}: importlib.import_module(name)"
    env = os.environ | hide_undeclared(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stderr.endswith("No module named 'pytest'\n"), done.stderr[-2000:]  # the last, and hidden
